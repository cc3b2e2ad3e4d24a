"""Calibration: does a probability mean what it says, and how wide must an interval be.

Reliability. Rows are binned by predicted probability; in each bin the mean prediction is set against the observed
frequency ``k / m``, with Wilson's binomial interval. Equal-mass bins hold equally many rows (equal probabilities stay
together), equal-width bins cut [0, 1] evenly. The expected calibration error is ``Σ (m / N) |frequency - mean
prediction|`` (Naeini, Cooper and Hauskrecht, AAAI 2015); it is biased upwards on small samples, so compare it at equal
N and bins only.

Temperature (Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017): logits are divided
by one positive number T, chosen to minimise the log loss on validation rows. The order of the classes never changes.

Split-conformal intervals (Vovk, Gammerman and Shafer 2005; Lei et al., Distribution-free predictive inference for
regression, JASA 2018): with residuals ``r_i = |y_i - f(x_i)| / s_i`` of n calibration rows that training did not see,
the interval ``f(x) ± q s(x)`` with q the ``ceil((n + 1)(1 - α))``-th smallest residual covers a new exchangeable row
with probability at least ``1 - α``, for any model and any n. The promise is on average over rows, not for each kind of
row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import expit, log_softmax, ndtri, softmax

from core.errors import InputError

Bins = Literal["mass", "width"]
_COLDEST, _HOTTEST = 0.02, 50.0


@dataclass(frozen=True)
class Reliability:
    """A reliability curve over its K non-empty bins.

    Attributes:
        predicted: mean predicted probability ``(K,)``.
        observed: observed frequency of class 1 ``(K,)``.
        low, high: Wilson interval of ``observed`` ``(K,)``.
        count: rows in the bin ``(K,)``.
    """

    predicted: Float[np.ndarray, "K"]
    observed: Float[np.ndarray, "K"]
    low: Float[np.ndarray, "K"]
    high: Float[np.ndarray, "K"]
    count: Int[np.ndarray, "K"]

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.count))


def reliability(
    truth: Shaped[np.ndarray, "N"],
    probability: Float[np.ndarray, "N"],
    *,
    bins: int = 10,
    strategy: Bins = "mass",
    confidence: float = 0.95,
) -> Reliability:
    """Predicted against observed, bin by bin.

    Args:
        truth: 0 or 1 (or False and True).
        probability: of class 1, between 0 and 1.
        bins: at most so many bins; ties and empty bins make them fewer.
        strategy: ``mass`` for equally filled bins, ``width`` for equally wide ones.
        confidence: of the binomial intervals.

    >>> curve = reliability(np.array([0, 1, 1, 1]), np.array([0.2, 0.2, 0.9, 0.9]), bins=2)
    >>> curve.observed.tolist(), curve.count.tolist(), round(curve.error, 3)
    ([0.5, 1.0], [2, 2], 0.2)
    """
    truth, probability = _binary(truth, probability)
    code = np.unique(_bin(probability, bins, strategy), return_inverse=True)[1]
    count = np.bincount(code)
    observed = np.bincount(code, weights=truth) / count
    low, high = wilson(observed, count, confidence)
    return Reliability(np.bincount(code, weights=probability) / count, observed, low, high, count)


def expected_calibration_error(
    truth: Shaped[np.ndarray, "N"], probability: Float[np.ndarray, "N"], *, bins: int = 15, strategy: Bins = "mass"
) -> float:
    """The expected calibration error of `reliability`'s bins; a plain function, so that `bootstrap` can take it.

    >>> expected_calibration_error(np.array([0, 1]), np.array([0.25, 0.75]))
    0.25
    """
    return reliability(truth, probability, bins=bins, strategy=strategy).error


def top_label(
    truth: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"]
) -> tuple[Bool[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Whether the most probable class is right, and its probability: what `reliability` takes for C classes.

    >>> top_label(np.array([1]), np.array([[0.2, 0.7, 0.1]]))
    (array([ True]), array([0.7]))
    """
    top = probabilities.argmax(axis=1)
    return top == truth, probabilities.max(axis=1)


def wilson(
    share: Float[np.ndarray, "K"], count: Int[np.ndarray, "K"], confidence: float = 0.95
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Wilson's score interval of a binomial share (Wilson, JASA 1927): never outside [0, 1], sound for few rows.

    >>> low, high = wilson(np.array([0.0]), np.array([10]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0], [0.278])
    """
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def fit_temperature(logits: Float[np.ndarray, "N *C"], truth: Shaped[np.ndarray, "N"]) -> float:
    """The temperature in [0.02, 50] with the least log loss.

    Args:
        logits: ``(N,)`` of class 1 for two classes, or ``(N, C)``; log-probabilities do as well.
        truth: 0 or 1, or class codes.

    The loss is convex in ``1 / T`` (logits scaled by a number), so that the bounded search cannot end in a false
    minimum.

    >>> logits = np.array([4.0, 4.0, 4.0, -4.0])  # claims 98 %, is right in three of four
    >>> temperature = fit_temperature(logits, np.array([1, 1, 0, 0]))
    >>> apply_temperature(logits, temperature).round(2).tolist()
    [0.75, 0.75, 0.75, 0.25]
    """
    from scipy.optimize import minimize_scalar

    logits, codes = np.asarray(logits, dtype=np.float64), np.asarray(truth).astype(np.int64)
    if logits.ndim not in (1, 2) or len(logits) != len(codes) or not len(codes) or not np.isfinite(logits).all():
        raise InputError(f"temperature wants finite logits (N,) or (N, C) and truth (N,), got {logits.shape}")
    if (codes < 0).any() or (codes >= (2 if logits.ndim == 1 else logits.shape[1])).any():
        raise InputError("a class code of the truth has no logit")

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        if scaled.ndim == 1:
            return float(np.mean(np.logaddexp(0.0, np.where(codes == 1, -scaled, scaled))))
        return -float(np.mean(np.take_along_axis(log_softmax(scaled, axis=1), codes[:, None], axis=1)))

    bounds = (math.log(_COLDEST), math.log(_HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def apply_temperature(logits: Float[np.ndarray, "N *C"], temperature: float) -> Float[np.ndarray, "N *C"]:
    """Probabilities of logits divided by ``temperature``: of class 1 for ``(N,)``, of every class for ``(N, C)``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.asarray(expit(scaled) if scaled.ndim == 1 else softmax(scaled, axis=1))


@dataclass(frozen=True)
class ConformalInterval:
    """A fitted split-conformal interval: three plain numbers and a flag.

    Attributes:
        quantile: half width in units of the scale; ``inf`` when n is too small for the coverage asked for.
        coverage: ``1 - α``.
        n: calibration rows.
        scaled: whether residuals were divided by a scale a row.

    >>> interval = ConformalInterval.fit(np.arange(19.0), np.zeros(19), coverage=0.9)
    >>> interval.quantile, ConformalInterval.fit(np.arange(8.0), np.zeros(8), coverage=0.9).quantile
    (17.0, inf)
    >>> low, high = interval.apply(np.array([100.0]))
    >>> low.tolist(), high.tolist()
    ([83.0], [117.0])
    """

    quantile: float
    coverage: float
    n: int
    scaled: bool = False

    @classmethod
    def fit(
        cls,
        truth: Shaped[np.ndarray, "N"],
        predicted: Shaped[np.ndarray, "N"],
        scale: Shaped[np.ndarray, "N"] | None = None,
        *,
        coverage: float = 0.9,
    ) -> ConformalInterval:
        """From calibration rows that the model was not trained on; ``scale`` (positive) makes a row's width.

        Raises `InputError` for a scale that is not positive, and for values that are not finite.
        """
        if not 0 < coverage < 1:
            raise InputError(f"coverage must lie between 0 and 1, got {coverage}")
        if len(truth) != len(predicted):
            raise InputError(f"{len(truth)} true values but {len(predicted)} predictions")
        residual = np.sort(np.abs(np.asarray(truth, dtype=np.float64) - predicted) / _positive(scale))
        if not np.isfinite(residual).all():
            raise InputError("truth and predictions must be finite numbers")
        n = len(residual)
        # the product can exceed the whole number it stands for by rounding: 10 * (1 - 0.3) is 7 and must stay 7
        rank = math.ceil((n + 1) * coverage - 1e-9)
        return cls(float(residual[rank - 1]) if rank <= n else math.inf, coverage, n, scale is not None)

    def apply(
        self, predicted: Shaped[np.ndarray, "N"], scale: Shaped[np.ndarray, "N"] | None = None
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Lower and upper ends for new rows; needs ``scale`` exactly if the interval was fitted with one."""
        if self.scaled != (scale is not None):
            raise InputError(f"this interval was fitted {'with' if self.scaled else 'without'} a scale a row")
        centre, half = np.asarray(predicted, dtype=np.float64), self.quantile * _positive(scale)
        return centre - half, centre + half

    @property
    def note(self) -> str:
        """What a reader must know; empty if nothing."""
        if math.isfinite(self.quantile):
            return ""
        needed = math.ceil(self.coverage / (1 - self.coverage) - 1e-9)
        return f"{self.n} calibration rows cannot bound a {self.coverage:.0%} interval: it takes {needed}"


def _binary(
    truth: Shaped[np.ndarray, "N"], probability: Float[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise InputError(f"reliability wants truth (N,) and probability (N,), got {y.shape} and {p.shape}")
    if not np.isin(y, (0, 1)).all() or not ((p >= 0) & (p <= 1)).all():
        raise InputError("reliability wants truth of 0 and 1, and probabilities between 0 and 1")
    return y, p


def _bin(probability: Float[np.ndarray, "N"], bins: int, strategy: Bins) -> Int[np.ndarray, "N"]:
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    if strategy == "width":
        return np.minimum((probability * bins).astype(np.int64), bins - 1)
    # by rank, so that bins are equally filled; equal probabilities take the bin of the first of them
    rank = np.searchsorted(np.sort(probability), probability, side="left")
    return rank * bins // len(probability)


def _positive(scale: Shaped[np.ndarray, "N"] | None) -> Float[np.ndarray, "*N"]:
    if scale is None:
        return np.ones(())
    scale = np.asarray(scale, dtype=np.float64)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError("the scale of an interval must be positive and finite in every row")
    return scale
