"""The effect of a switch: two arms, trained with several seeds each, scored on the same units.

    effect = mean over seeds of  metric(truth, a[s]) - metric(truth, b[s])

Another test set and other seeds of training would both change it: `core.evaluation.spread` says how the interval counts
both. The p-value is that of the same distribution: p < 0.05 exactly if the 95 % interval leaves out zero.

With one seed the interval is that of the units alone, about these two trained models and not about the switch, and
``note`` says so. Seeds that failed in either arm drop out of the pairs and are counted, and ``note`` says so: the
effect is then one of trainings that end well, and the failures are a result of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from core.errors import InputError
from core.evaluation.bootstrap import Estimate, decimals
from core.evaluation.replicates import Replicates, replicate
from core.evaluation.resampling import Statistic
from core.evaluation.spread import POWER, TIE, Spread, spread

Verdict = Literal["better", "worse", "no effect seen", "not comparable"]
_FEW_UNITS = 30


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The difference of two arms, the mean over seeds of ``metric(a) - metric(b)``.

    Attributes:
        value: the estimate; nan if no seed ended in both arms.
        low, high: the interval's ends; nan if it cannot be had.
        confidence: its nominal coverage.
        error: standard error, of units and seeds together.
        p: two-sided p-value of no difference.
        smallest_effect: the smallest true difference that such a comparison had an 80 % chance to call an effect at
            level ``1 - confidence``.
        a, b: mean over these seeds of the metric of either arm.
        differences: of every seed that ended in both.
        failed_a, failed_b: seeds without a prediction of either arm, and so in no pair.
        units: rows or groups that were resampled.
        spread: what the error is made of.
        n, n_valid: resamples drawn, and those on which the metric was defined.
    """

    value: float
    low: float
    high: float
    confidence: float
    error: float
    p: float
    smallest_effect: float
    a: float
    b: float
    differences: tuple[float, ...]
    failed_a: int
    failed_b: int
    units: int
    spread: Spread
    n: int
    n_valid: int

    @property
    def seeds(self) -> int:
        """How many pairs there are."""
        return len(self.differences)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval of another coverage, such as ``1 - 0.05 / m`` for m of them that are to hold together."""
        half = self.spread.half(confidence)
        return self.value - half, self.value + half

    def smallest(self, confidence: float) -> float:
        """The smallest true difference that a test at level ``1 - confidence`` had an 80 % chance to call an effect."""
        return self.spread.smallest(confidence)

    @property
    def note(self) -> str:
        """What a reader must know about this interval; empty if nothing."""
        notes = []
        for failed, arm in ((self.failed_a, "the arm"), (self.failed_b, "the baseline")):
            if failed:
                notes.append(f"{failed} of the seeds have no score of {arm}: this is about the trainings that ended")
        if self.seeds == 1:
            notes.append("one seed: the chance of training is not in the interval")
        if self.n_valid < self.n:
            notes.append(f"undefined in {self.n - self.n_valid} of {self.n} resamples")
        if self.units < _FEW_UNITS:
            notes.append(f"only {self.units} independent units: the interval takes them for normally distributed")
        if self.error == 0.0:
            notes.append("no unit and no seed differed: the interval says nothing")
        return "; ".join(notes)

    def __str__(self) -> str:
        show = decimals(self.low, self.high, "+,")
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}], p = {self.p:.2g}"


def effect(
    metric: Statistic,
    truth: Shaped[np.ndarray, "N ..."],
    a: Sequence[Shaped[np.ndarray, "N ..."] | None],
    b: Sequence[Shaped[np.ndarray, "N ..."] | None],
    *,
    groups: Shaped[np.ndarray, "N"] | None = None,
    strata: Shaped[np.ndarray, "N"] | None = None,
    confidence: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Effect:
    """What arm a does against arm b.

    Args:
        metric, truth, groups, strata, n, seed: as in `replicate`.
        a, b: predictions for the same units, one a training seed, paired: a[s] and b[s] were trained with one seed.
            None where that training failed.
        confidence: of the interval.

    Raises:
        InputError: for arrays of different length, other numbers of seeds, or no prediction at all.

    >>> from core.evaluation.metrics import REGRESSION
    >>> rng = np.random.default_rng(0)
    >>> truth, hard = rng.normal(size=(2, 400))
    >>> a = [truth + hard + 0.3 * rng.normal(size=400) for _ in range(5)]
    >>> b = [truth + 1.2 * hard + 0.3 * rng.normal(size=400) for _ in range(5)]
    >>> found = effect(REGRESSION["mae"], truth, a, b)
    >>> found.high < 0, found.p < 0.01, found.smallest_effect < -found.value
    (True, True, True)
    """
    if len(a) != len(b):
        raise InputError(f"{len(a)} seeds of one arm and {len(b)} of the other", mend="give None where a seed failed")
    runs = replicate(metric, truth, [*a, *b], groups=groups, strata=strata, n=n, seed=seed)
    return contrast(runs.some(slice(len(a))), runs.some(slice(len(a), None)), confidence)


def contrast(a: Replicates, b: Replicates, confidence: float = 0.95) -> Effect:
    """What arm a does against arm b, of runs that were resampled together."""
    pairs = a.ran & b.ran
    of_a, of_b = (float(x.values[pairs].mean()) if pairs.any() else np.nan for x in (a, b))
    runs = (a - b).some(pairs)
    scale = max(abs(of_a), abs(of_b))
    found = spread(runs, scale)
    value = of_a - of_b
    value = 0.0 if abs(value) <= TIE * scale else value
    half, units = found.half(confidence), int(runs.sizes.sum())
    return Effect(
        value=value,
        low=value - half,
        high=value + half,
        confidence=confidence,
        error=found.error,
        # where nothing varies, all units side with one arm: no test of signs could say more
        p=found.p(abs(value)) if found.error else (2.0 ** (1 - units) if value else 1.0),
        smallest_effect=half + found.half(2 * POWER - 1),
        a=of_a,
        b=of_b,
        differences=tuple(runs.values.tolist()),
        failed_a=int(np.sum(~a.ran)),
        failed_b=int(np.sum(~b.ran)),
        units=units,
        spread=found,
        n=runs.drawn.shape[1],
        n_valid=int(np.isfinite(runs.drawn).all(axis=0).sum()),
    )


def level(runs: Replicates, confidence: float = 0.95) -> Estimate:
    """The mean over the seeds of one arm, with an interval for another test set and other seeds."""
    there = runs.some(runs.ran)
    value = float(there.values.mean()) if len(there.values) else float("nan")
    found = spread(there, abs(value))
    half, n = found.half(confidence), there.drawn.shape[1]
    valid = int(np.isfinite(there.drawn).all(axis=0).sum())
    return Estimate(value, value - half, value + half, confidence, found.error, n, valid, int(runs.sizes.sum()))


def verdict(value: float, p: float, *, greater_is_better: bool, alpha: float = 0.05) -> Verdict:
    """What a p-value, adjusted for all comparisons that were made, lets one say of an effect.

    >>> verdict(-0.3, 0.01, greater_is_better=False), verdict(-0.3, 0.2, greater_is_better=False)
    ('better', 'no effect seen')
    """
    if not np.isfinite(p):
        return "not comparable"
    if p > alpha:
        return "no effect seen"
    return "better" if (value > 0) == greater_is_better else "worse"
