"""Seeded splits: stratified by class, and never tearing apart rows that belong together.

Rows belong together when they share a group (one patient, one customer) or, without groups, when all their features are
equal: a copy of a training row in the test split would be remembered, not predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.data.files import pandas
from apps.tabular.prediction.data.table import Table
from core.errors import InputError

SHARES = {"train": 0.70, "valid": 0.15, "test": 0.15}
"""How a table without splits of its own is divided."""


def split(table: Table, shares: dict[str, float] | None = None, *, seed: int = 0) -> dict[str, Table]:
    """Divide a table into parts named by ``shares`` (default :data:`SHARES`), which add up to 1.

    Raises:
        InputError: fewer units (groups, or distinct rows) than parts.
    """
    shares = SHARES if shares is None else shares
    strata = np.zeros(len(table), dtype=np.int64) if table.schema.task == "regression" else table.target
    parts = split_rows(units_of(table), strata, list(shares.values()), seed=seed)
    return {name: table.take(rows) for name, rows in zip(shares, parts, strict=True)}


def holdout(table: Table, fraction: float, *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row positions to learn from and to hold out, about ``fraction`` of the rows; neither is empty.

    Raises:
        InputError: fewer than two units (groups, or distinct rows).
    """
    strata = np.zeros(len(table), dtype=np.int64) if table.schema.task == "regression" else table.target
    learn, held = split_rows(units_of(table), strata, [1.0 - fraction, fraction], seed=seed)
    return learn, held


def units_of(table: Table) -> NDArray[np.int64]:
    """The unit of each row (rows,): its group, or without groups its set of rows with equal features."""
    pd = pandas()
    if table.groups is not None:
        return np.asarray(pd.factorize(table.groups)[0], dtype=np.int64)
    return np.asarray(pd.factorize(row_hashes(table))[0], dtype=np.int64)


def row_hashes(table: Table) -> NDArray[np.uint64]:
    """A hash of the features of each row (rows,): equal for equal rows, whatever the order of the columns."""
    frame = table.frame[sorted(table.frame.columns)]
    return np.asarray(pandas().util.hash_pandas_object(frame, index=False), dtype=np.uint64)


def split_rows(
    units: NDArray[np.int64], strata: NDArray[Any], shares: Sequence[float], *, seed: int
) -> list[NDArray[np.int64]]:
    """Row positions of each part, sorted; whole units, each stratum in proportion.

    In each stratum the units are shuffled and laid end to end on [0, 1] by their number of rows; a unit goes to the
    part that its middle falls in. A unit's stratum is that of its first row.

    >>> [part.tolist() for part in split_rows(np.array([0, 1, 1, 2]), np.zeros(4, int), [0.5, 0.5], seed=0)]
    [[0, 3], [1, 2]]
    """
    _, first, inverse, sizes = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    if len(sizes) < len(shares):
        what = f"too few rows for {len(shares)} parts: rows of one group, or with equal features, stay together, and "
        raise InputError(f"{what}{len(sizes)} differ", mend="give more rows, or files already split")
    edges = np.cumsum(shares)[:-1] / np.sum(shares)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    part_of = np.empty(len(sizes), dtype=np.int64)
    for stratum in np.unique(strata[first]):
        members = shuffled[strata[first][shuffled] == stratum]
        end = np.cumsum(sizes[members])
        part_of[members] = np.searchsorted(edges, (end - sizes[members] / 2) / end[-1], side="right")
    _fill_empty(part_of, len(shares), shuffled)
    return [np.flatnonzero(part_of[inverse] == part) for part in range(len(shares))]


def _fill_empty(part_of: NDArray[np.int64], parts: int, shuffled: NDArray[np.int64]) -> None:
    """Few units may leave a part empty: it gets one of the part that has most."""
    for part in range(parts):
        if not (part_of == part).any():
            largest = np.bincount(part_of, minlength=parts).argmax()
            part_of[shuffled[part_of[shuffled] == largest][-1]] = part
