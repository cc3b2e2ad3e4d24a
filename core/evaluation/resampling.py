"""Resampling: which rows are drawn together, how often each occurs in a resample, and a metric under such weights.

A resample is a row of integer weights, so that metrics with a ``weighted`` form take many at once; any other function
of the arrays is computed resample by resample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from core.errors import InputError
from core.evaluation.metrics import Array, Metric

_CELLS = 1 << 20  # weights held at a time (8 MiB)
_BLOCKS = 200

Statistic = Metric | Callable[..., float]
"""A `Metric`, or any function of the arrays that gives a number (nan where undefined)."""


@dataclass(frozen=True)
class Plan:
    """Which unit a row belongs to, and the units of each stratum."""

    unit: Int[np.ndarray, "N"]
    members: list[Int[np.ndarray, "_"]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.unit)

    @property
    def units(self) -> int:
        """How many rows or groups are drawn."""
        return sum(len(members) for members in self.members)

    def resamples(self, n: int, rng: np.random.Generator) -> Iterator[Float[np.ndarray, "R N"]]:
        """How often each row occurs in each of n resamples, some resamples at a time."""
        step = max(1, _CELLS // self.rows)
        for start in range(0, n, step):
            count = min(step, n - start)
            weights = np.empty((count, self.units))
            for members in self.members:
                size = len(members)
                cells = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
                weights[:, members] = np.bincount(cells.ravel(), minlength=count * size).reshape(count, size)
            yield weights[:, self.unit]

    def blocks(self, rng: np.random.Generator) -> Iterator[Iterator[Float[np.ndarray, "R N"]]]:
        """For every stratum of two units or more, the weightings that leave out one block of its units each."""
        for members in self.members:
            count = min(len(members), max(2, round(_BLOCKS * len(members) / self.units)))
            if count > 1:
                block = np.full(self.units, -1)
                block[rng.permutation(members)] = np.arange(len(members)) % count
                yield self._without(block[self.unit], count)

    def _without(self, block: Int[np.ndarray, "N"], count: int) -> Iterator[Float[np.ndarray, "R N"]]:
        step = max(1, _CELLS // self.rows)
        for start in range(0, count, step):
            yield (block != np.arange(start, min(start + step, count))[:, None]).astype(np.float64)


def make_plan(arrays: Sequence[Array], groups: Array | None, strata: Array | None, n: int, confidence: float) -> Plan:
    """What is drawn from such arrays.

    Args:
        arrays: equally long.
        groups: one label a row; rows of one label are drawn together.
        strata: one label a row (constant in a group); every stratum keeps its number of units.
        n, confidence: of the bootstrap to come; checked only.

    Raises:
        InputError: for arrays of different length, a group that spans strata, or numbers out of range.
    """
    labels = [x for x in (groups, strata) if x is not None]
    lengths = {len(x) for x in (*arrays, *labels)}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"arrays, groups and strata must be equally long and not empty, got {sorted(lengths)} rows")
    if n < 1 or not 0 < confidence < 1:
        raise InputError(f"a bootstrap wants n >= 1 and 0 < confidence < 1, got {n} and {confidence}")
    rows = lengths.pop()
    unit = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    if strata is None:
        return Plan(unit, [np.arange(unit.max() + 1)])
    code = np.unique(strata, return_inverse=True)[1]
    of_unit = np.empty(unit.max() + 1, dtype=np.int64)
    of_unit[unit] = code
    if (of_unit[unit] != code).any():
        raise InputError(
            "a group has rows in more than one stratum", mend="stratify by a label that is constant in a group"
        )
    return Plan(unit, [np.flatnonzero(of_unit == c) for c in range(code.max() + 1)])


def evaluate(metric: Statistic, arrays: Sequence[Array], weights: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    """The metric of the arrays under each row of weights; nan where undefined."""
    if isinstance(metric, Metric) and metric.weighted is not None:
        return metric.weighted(*arrays, weights)  # type: ignore[call-arg]
    counts = weights.astype(np.int64)
    return np.array([float(metric(*(np.repeat(x, c, axis=0) for x in arrays))) for c in counts])
