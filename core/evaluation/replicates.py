"""One metric of several runs on resamples that they share: a difference or a mean of runs then has its resamples too.

All comparisons of a study are made of these: a run is resampled once, however many comparisons it is part of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from core.errors import InputError
from core.evaluation.metrics import Array
from core.evaluation.resampling import Statistic, evaluate, make_plan


@dataclass(frozen=True)
class Replicates:
    """One metric of S runs on the same units: its values, and those on resamples that all runs share.

    Attributes:
        values: (S,) on all units; nan of a run that failed.
        drawn: (S, R) on R resamples.
        left_out: (S, K) without one block of units each.
        stratum: (K,) of each block.
        sizes: (H,) units in each stratum.
        ran: (S,) False of a run that failed.
    """

    values: Float[np.ndarray, "S"]
    drawn: Float[np.ndarray, "S R"]
    left_out: Float[np.ndarray, "S K"]
    stratum: Int[np.ndarray, "K"]
    sizes: Int[np.ndarray, "H"]
    ran: Bool[np.ndarray, "S"]

    def some(self, which: slice | Bool[np.ndarray, "S"]) -> Replicates:
        """Those of some of the runs."""
        parts = (self.values[which], self.drawn[which], self.left_out[which])
        return Replicates(*parts, self.stratum, self.sizes, self.ran[which])

    def __sub__(self, other: Replicates) -> Replicates:
        """The differences, run by run; a run is there where it is in both."""
        return _combined([self, other], np.array([1.0, -1.0]))

    @classmethod
    def mean(cls, parts: Sequence[Replicates]) -> Replicates:
        """The means over parts of equally many runs, run by run; a run is there where it is in all."""
        return _combined(parts, np.full(len(parts), 1.0 / len(parts)))


def _combined(parts: Sequence[Replicates], weights: Float[np.ndarray, "P"]) -> Replicates:
    def total(name: str) -> Array:
        combined: Array = np.einsum("p...,p->...", np.stack([getattr(part, name) for part in parts]), weights)
        return combined

    first, ran = parts[0], np.logical_and.reduce([part.ran for part in parts])
    return Replicates(total("values"), total("drawn"), total("left_out"), first.stratum, first.sizes, ran)


def replicate(
    metric: Statistic,
    truth: Shaped[np.ndarray, "N ..."],
    predictions: Sequence[Shaped[np.ndarray, "N ..."] | None],
    *,
    groups: Shaped[np.ndarray, "N"] | None = None,
    strata: Shaped[np.ndarray, "N"] | None = None,
    n: int = 2000,
    seed: int = 0,
) -> Replicates:
    """The metric of every run, on all units and on resamples of them that the runs share.

    Args:
        metric: as in `core.evaluation.bootstrap.bootstrap`, and so are the other arguments.
        truth: of the N rows.
        predictions: one a run; None of a run that failed.
        groups, strata: of the rows.
        n: resamples.
        seed: equal seeds give the same resamples.

    Raises:
        InputError: for arrays of different length, a group that spans strata, or no prediction at all.
    """
    there = [prediction for prediction in predictions if prediction is not None]
    if not there:
        raise InputError("no run has a prediction", mend="at least one must have ended")
    plan = make_plan((truth, *there), groups, strata, n, 0.95)
    rng = np.random.default_rng(seed)

    def of_all(weights: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "S R"]:
        return np.stack([evaluate(metric, (truth, prediction), weights) for prediction in there])

    whole = of_all(np.ones((1, plan.rows)))
    drawn = np.concatenate([of_all(weights) for weights in plan.resamples(n, rng)], axis=1)
    strata_left = [np.concatenate([of_all(w) for w in stratum], axis=1) for stratum in plan.blocks(rng)]
    left_out = np.concatenate(strata_left, axis=1) if strata_left else np.empty((len(there), 0))
    ran = np.array([prediction is not None for prediction in predictions])
    number = np.repeat(np.arange(len(strata_left)), [part.shape[1] for part in strata_left])
    sizes = np.array([len(members) for members in plan.members if len(members) > 1], dtype=np.int64)

    def spread_out(rows: Array) -> Array:
        full = np.full((len(predictions), rows.shape[1]), np.nan)
        full[ran] = rows
        return full

    return Replicates(spread_out(whole)[:, 0], spread_out(drawn), spread_out(left_out), number, sizes, ran)
