"""How far the mean over several trainings, scored on finitely many units, may be from what it estimates.

Another draw of the test set and another draw of the training seeds would both change it. For unit i and seed s, let
what is measured be ``mean + u_i + v_s + w_is``: what the units do in every training, what a training does to all units,
and the rest. Of U units and S seeds:

    A   variance of the seed mean over bootstrap resamples of the units, the same for all seeds
        (estimates  σu²/U + σw²/SU)
    B   sample variance of the S values, over S                             (estimates  σv²/S + σw²/SU)
    W   (mean over seeds of the variance of a single one's resamples, less A) / (S - 1)    (estimates  σw²/SU)

A + B counts w twice. That is safe and wasteful: two networks of equal worth differ unit by unit mostly in w, where the
sum is twice the variance. So w is taken out of A: A - W and B are what is added.

The sum of a variance with many degrees of freedom and one with S - 1 has no exact t. Welch and Satterthwaite's
approximate degrees of freedom fail for few seeds: seeds that agree by chance make the variance small and its degrees of
freedom many at once (where training varies more than the test set, 12 % false alarms at the 5 % level with two seeds,
8 % with three). The interval here is ``mean ± q``, q the quantile of ``|sqrt(A - W) T + sqrt(B) T'|`` with T and T'
independent, of Student's t with the units' and S - 1 degrees of freedom: the Behrens-Fisher distribution, which errs on
the wide side only (Robinson, Properties of Student's t and of the Behrens-Fisher solution to the two means problem,
Annals of Statistics 1976). And it is never narrower than that of the units alone, of ``sqrt(A) T``.

Skewed units move the ends of an interval by ``a (1 + 2 q²)`` standard errors, a being the acceleration of the BCa
interval, in one direction; here both ends move away by as much, so that the interval stays symmetric and its p-value
one number.

The units' degrees of freedom say how well A is known: of each stratum ``2 / (2 / (n - 1) + k / n)``, k the excess
kurtosis of the jackknife influences, combined by Satterthwaite's rule. Three rows of two thousand on which two arms
disagree are so few degrees of freedom, and a few positives under an AUC likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammaln, stdtr

from core.evaluation.metrics import Array
from core.evaluation.replicates import Replicates

TIE = 1e-12
"""Differences that rounding alone makes, relative to what is compared."""
POWER = 0.8
"""Chance with which the smallest visible effect would have been called one."""


@dataclass(frozen=True)
class Spread:
    """How far an estimate may be from what it estimates.

    Attributes:
        units: standard error from the units alone, those of the mean over these very seeds.
        common: its part that all seeds share.
        seeds: standard error from the seeds alone; 0 of a single one.
        units_df, seeds_df: degrees of freedom with which these are known.
        skew: of the units, the acceleration of `core.evaluation.bootstrap`.
    """

    units: float
    common: float
    seeds: float
    units_df: float
    seeds_df: float
    skew: float

    @property
    def error(self) -> float:
        """The standard error from both."""
        return float(max(self.units, np.hypot(self.common, self.seeds)))

    def p(self, distance: float) -> float:
        """Probability of being at least so far off, two-sided."""
        if not self.error > 0.0:
            return float(distance == 0.0) if self.error == 0.0 else float("nan")
        of_units = _unskewed(distance, self.units, self.skew)
        # the third cumulant of a sum is the sum of third cumulants, and the seeds are taken for normally distributed
        of_both = _unskewed(distance, self.error, self.skew * (self.common / self.error) ** 3)
        return max(_tail(of_units, self.units, self.units_df), self._both(of_both))

    def half(self, confidence: float) -> float:
        """Half the width of the interval of that coverage."""
        if not self.error > 0.0:
            return self.error  # 0, or nan
        high = self.error
        while self.p(high) > 1 - confidence:
            high *= 2
        return float(brentq(lambda distance: self.p(distance) - (1 - confidence), 0.0, high, rtol=1e-7))

    def smallest(self, confidence: float) -> float:
        """The smallest true difference that a test at level ``1 - confidence`` had an 80 % chance to call an effect."""
        return self.half(confidence) + self.half(2 * POWER - 1)

    def _both(self, distance: float) -> float:
        # the narrower of the two is integrated over, the tail of the wider one is smooth there
        parts = sorted([(self.common, self.units_df), (self.seeds, self.seeds_df)])
        (narrow, its_df), (wide, df) = parts
        if narrow <= 1e-9 * wide:
            return _tail(distance, wide, df)
        weights = _WEIGHTS * _density(its_df)
        return float(2 * np.sum(weights * stdtr(df, (narrow * _NODES - distance) / wide)))


# tanh-sinh rule of the whole line: its nodes reach 1e12, as Student's t with one degree of freedom asks for
_X = np.linspace(-3.6, 3.6, 289)
_NODES = np.sinh(np.pi / 2 * np.sinh(_X))
_WEIGHTS = np.pi / 2 * np.cosh(_X) * np.cosh(np.pi / 2 * np.sinh(_X)) * (_X[1] - _X[0])


def _density(df: float) -> Float[np.ndarray, "_"]:
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    density: Array = np.exp(constant - (df + 1) / 2 * np.log1p(_NODES**2 / df))
    return density


def _tail(distance: float, scale: float, df: float) -> float:
    return float(2 * stdtr(df, -distance / scale)) if scale > 0 else float(distance == 0)


def _unskewed(distance: float, scale: float, skew: float) -> float:
    """As improbable a distance without skew: ``q`` of ``distance = q + |skew| (1 + 2 q²)``, in units of the scale."""
    if not scale > 0:
        return distance
    a = abs(skew)
    rest = max(distance / scale - a, 0.0)
    return float(scale * 2 * rest / (1 + np.sqrt(1 + 8 * a * rest)))


def spread(runs: Replicates, scale: float) -> Spread:
    """Of the mean over the runs that are there, as seeds of one thing; nan where it cannot be had.

    Args:
        runs: their statistic.
        scale: of the metric; what is smaller by twelve digits is rounding.
    """
    there = runs.some(runs.ran)
    seeds, resamples = there.drawn.shape
    drawn = there.drawn[:, np.isfinite(there.drawn).all(axis=0)]
    if not seeds or drawn.shape[1] < resamples / 2 or not len(there.sizes) or not np.isfinite(there.values).all():
        return Spread(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan)
    correction, df, skew = _units_of(there)
    a = correction * float(drawn.mean(axis=0).var())
    w = (correction * float(drawn.var(axis=1).mean()) - a) / (seeds - 1) if seeds > 1 else 0.0
    b = float(there.values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    units, common, of_seeds = (float(np.sqrt(v)) if v > (TIE * scale) ** 2 else 0.0 for v in (a, max(a - w, 0.0), b))
    return Spread(units, common, of_seeds, df, float(max(seeds - 1, 1)), skew)


def _units_of(runs: Replicates) -> tuple[float, float, float]:
    """What makes the bootstrap's variance unbiased (n / (n - 1) in each stratum), its degrees of freedom, the skew."""
    mean = runs.left_out.mean(axis=0)
    variances, biased, unsure, cubes, squared = [], [], [], 0.0, 0.0
    for index, size in enumerate(runs.sizes.tolist()):
        left = mean[(runs.stratum == index) & np.isfinite(mean)]
        influence = left.mean() - left if len(left) else np.zeros(1)
        squares = influence**2
        total = float(squares.sum())
        cubes, squared = cubes + float((influence**3).sum()), squared + total
        excess = max(len(left) * float((squares**2).sum()) / total**2 - 3.0, 0.0) if total > 0 else 0.0
        variances.append(total * (1 - 1 / max(len(left), 2)))
        biased.append(variances[-1] * (size - 1) / size)
        # blocks of units have a smaller excess, and by as much there are fewer of them
        unsure.append(variances[-1] ** 2 * (2 / (size - 1) + excess / max(len(left), 1)))
    if not sum(unsure) > 0:
        return 1.0, float(runs.sizes.sum() - len(runs.sizes)), 0.0
    df = max(2 * sum(variances) ** 2 / sum(unsure), 1.0)
    return sum(variances) / sum(biased), df, cubes / (6 * squared**1.5)
