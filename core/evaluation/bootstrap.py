"""Bootstrap intervals, a paired test for two models on the same rows, and Holm's correction.

Resampling draws units with replacement: rows, or whole groups when rows of one patient, user or sequence resemble one
another (rows would then feign more evidence than there is). With ``strata`` the units of every stratum are drawn apart,
so that a rare class keeps its count in every resample.

`bootstrap` gives the bias-corrected and accelerated interval (BCa; Efron, Better bootstrap confidence intervals, JASA
1987):

    low, high = quantiles of the resampled values at  Φ(z0 + (z0 + z) / (1 - a (z0 + z))),   z = Φ⁻¹(α/2), Φ⁻¹(1 - α/2)
    z0 = Φ⁻¹(share of resampled values below the value),   a = Σ d³ / (6 (Σ d²)^1.5)

with d the jackknife influences. It is preferred to plain percentiles because the metrics here are skewed (an AUC near
one, a root mean square under heavy tails) and it respects monotone transformations: the interval of the RMSE is the
root of that of the MSE. The jackknife deletes blocks (at most about 200), whose ``a`` has the same expectation as that
of single rows, so that its cost does not grow with N.

`paired` draws the same resamples for both models. Its interval is ``d ± s q``, q the quantile of ``|d* - d|``, and its
p-value the share of ``s |d* - d|`` that reaches ``|d|``: the bootstrap centred on the null (Hall and Wilson, Two
guidelines for bootstrap hypothesis testing, Biometrics 1991), two-sided, so that p < 0.05 exactly if the 95 % interval
leaves out zero. A sign-flip test would be exact only if the two models' outputs were exchangeable row by row, which
two scores on different scales are not even when their AUC is equal. ``s = sqrt(U / (U - 1))`` for U units makes the
variance unbiased.

With few units (below about 30) every bootstrap interval is too narrow: ``note`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import ndtr, ndtri

from core.evaluation.metrics import Array
from core.evaluation.resampling import Plan, Statistic, evaluate, make_plan

_FEW_UNITS = 30
_POWER = 0.8


@dataclass(frozen=True)
class _Interval:
    """What an estimate and a difference have in common."""

    value: float
    low: float
    high: float
    confidence: float
    error: float
    n: int
    n_valid: int
    units: int

    @property
    def note(self) -> str:
        """What a reader must know about this interval; empty if nothing."""
        return _note(self.n, self.n_valid, self.units, self.error)


@dataclass(frozen=True)
class Estimate(_Interval):
    """A value with its interval.

    Attributes:
        value: the metric on all rows; nan if undefined there.
        low, high: the interval's ends; nan if it cannot be had.
        confidence: its nominal coverage.
        error: standard error, the spread of the resampled values.
        n, n_valid: resamples drawn, and those on which the metric was defined.
        units: how many rows or groups were resampled.
    """

    def __str__(self) -> str:
        show = decimals(self.low, self.high, ",")
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"


@dataclass(frozen=True)
class Difference(_Interval):
    """The difference of two models on the same rows, ``metric(a) - metric(b)``.

    Attributes:
        value, low, high, confidence, error, n, n_valid, units: as in `Estimate`.
        p: two-sided p-value of no difference.
        smallest_effect: the smallest true difference that the test had an 80 % chance to call significant at level
            ``1 - confidence``: ``(z(1 - α/2) + z(0.8))`` standard errors.
        a, b: the metric of either model.
    """

    p: float
    smallest_effect: float
    a: float
    b: float

    def __str__(self) -> str:
        show = decimals(self.low, self.high, "+,")
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}], p = {self.p:.2g}"


def bootstrap(
    metric: Statistic,
    *arrays: Shaped[np.ndarray, "N ..."],
    groups: Shaped[np.ndarray, "N"] | None = None,
    strata: Shaped[np.ndarray, "N"] | None = None,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """``metric(*arrays)`` with its BCa interval.

    Args:
        metric: a `Metric`, or any function of the arrays that gives a number (nan where undefined).
        arrays: equally long arrays whose rows belong together, such as truth and prediction.
        groups: one label a row; rows of one label are drawn together.
        strata: one label a row (constant in a group), such as the class; every stratum keeps its number of units.
        n: resamples.
        confidence: nominal coverage of the interval.
        seed: equal seeds give equal intervals, and the same resamples for every metric.

    Raises:
        InputError: for arrays of different length, or a group that spans strata.

    >>> estimate = bootstrap(lambda x: x.mean(), np.arange(1000.0))
    >>> estimate.value, 475 < estimate.low < 490, 510 < estimate.high < 525
    (499.5, True, True)
    """
    plan = make_plan(arrays, groups, strata, n, confidence)
    rng = np.random.default_rng(seed)
    value = evaluate(metric, arrays, np.ones((1, plan.rows)))[0]
    drawn = np.concatenate([evaluate(metric, arrays, weights) for weights in plan.resamples(n, rng)])
    valid = drawn[np.isfinite(drawn)]
    low = high = error = float("nan")
    if np.isfinite(value) and plan.units > 1 and len(valid) >= n / 2:
        low, high = _bca(value, valid, _acceleration(metric, arrays, plan, rng), confidence)
        error = float(valid.std())
    return Estimate(float(value), low, high, confidence, error, n, len(valid), plan.units)


def paired(
    metric: Statistic,
    truth: Shaped[np.ndarray, "N ..."],
    a: Shaped[np.ndarray, "N ..."],
    b: Shaped[np.ndarray, "N ..."],
    *,
    groups: Shaped[np.ndarray, "N"] | None = None,
    strata: Shaped[np.ndarray, "N"] | None = None,
    n: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """``metric(truth, a) - metric(truth, b)`` with interval, p-value and the smallest effect the test could have seen.

    Arguments and errors as in `bootstrap`; ``a`` and ``b`` are the predictions of two models on the same rows. The
    p-value is never below ``1 / (n + 1)``.

    >>> from core.evaluation.metrics import REGRESSION
    >>> truth = np.arange(200.0)
    >>> result = paired(REGRESSION["mae"], truth, truth + 1.0, truth + np.where(truth % 2, 2.0, 4.0))
    >>> result.value, result.p < 0.01
    (-2.0, True)
    """
    arrays = (truth, a, b)
    plan = make_plan(arrays, groups, strata, n, confidence)
    rng = np.random.default_rng(seed)
    whole = np.ones((1, plan.rows))
    of_a, of_b = (float(evaluate(metric, (truth, x), whole)[0]) for x in (a, b))
    drawn = np.concatenate(
        [evaluate(metric, (truth, a), w) - evaluate(metric, (truth, b), w) for w in plan.resamples(n, rng)]
    )
    valid = drawn[np.isfinite(drawn)]
    value, half, error, p = of_a - of_b, float("nan"), float("nan"), float("nan")
    if np.isfinite(value) and plan.units > 1 and len(valid) >= n / 2:
        scale = float(np.sqrt(plan.units / (plan.units - 1)))
        deviation = scale * np.abs(valid - value)
        half = float(np.quantile(deviation, confidence, method="higher"))
        error = scale * float(valid.std())
        # equal but for rounding counts as reached, or two models that tie would differ "significantly"
        p = float((1 + np.sum(deviation >= abs(value) - 1e-12 * max(abs(of_a), abs(of_b)))) / (1 + len(valid)))
    smallest = float(ndtri((1 + confidence) / 2) + ndtri(_POWER)) * error
    ends = (value - half, value + half)
    return Difference(value, *ends, confidence, error, n, len(valid), plan.units, p, smallest, of_a, of_b)


def holm(p: Sequence[float] | Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
    """P-values corrected for M comparisons, family-wise (Holm, Scandinavian Journal of Statistics 1979).

    Compare the result with the level itself. Nan (a test that could not be made) stays nan and does not count.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    corrected = np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1))
    result = np.full(raw.shape, np.nan)
    result[order] = np.minimum(corrected, 1.0)
    return result


# --- the interval -----------------------------------------------------------------------------------------------------


def _acceleration(metric: Statistic, arrays: Sequence[Array], plan: Plan, rng: np.random.Generator) -> float:
    influence: list[Any] = []
    for stratum in plan.blocks(rng):
        left_out = np.concatenate([evaluate(metric, arrays, weights) for weights in stratum])
        left_out = left_out[np.isfinite(left_out)]
        influence.extend(left_out.mean() - left_out if len(left_out) else [])
    d = np.asarray(influence, dtype=np.float64)
    spread = float(np.sum(d**2))
    # rounding noise is no influence
    return float(np.sum(d**3)) / (6 * spread**1.5) if spread > 1e-30 else 0.0


def _bca(value: float, drawn: Float[np.ndarray, "R"], a: float, confidence: float) -> tuple[float, float]:
    if np.ptp(drawn) == 0:
        return float(drawn[0]), float(drawn[0])
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = ndtri(np.clip(below, 1 / (len(drawn) + 1), 1 - 1 / (len(drawn) + 1)))
    shifted = bias + ndtri(np.array([1 - confidence, 1 + confidence]) / 2)
    stretch = np.maximum(1 - a * shifted, 1e-3)  # an outlier of a row can turn the sign at extreme levels
    low, high = np.quantile(drawn, ndtr(bias + shifted / stretch), method="weibull")
    return float(low), float(high)


def decimals(low: float, high: float, style: str) -> Callable[[float], str]:
    """Writes values of an interval from ``low`` to ``high``, ``style`` being the sign and separator of a format."""
    # as many decimals as the interval's width has two digits of: more would be noise
    if not (np.isfinite(low) and high > low):
        return lambda value: format(value, style + (".0f" if abs(value) >= 1000 else ".4g"))
    places = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 9))
    return lambda value: format(value, f"{style}.{places}f")


def _note(n: int, n_valid: int, units: int, error: float) -> str:
    notes = []
    if n_valid < n:
        notes.append(f"undefined in {n - n_valid} of {n} resamples")
    if units < _FEW_UNITS:
        notes.append(f"only {units} independent units: the interval is too narrow")
    if error == 0.0:
        notes.append("no resample differed: the interval says nothing")
    return "; ".join(notes)
