"""Numeric columns to comparable scales: quantiles to a normal distribution, or z-scores.

Quantiles (ExcelFormer's released program, which follows the rtdl line of work): with Q = clip(rows // 30, 10, 1000)
quantiles of the training values, a value is mapped by linear interpolation to its rank in [0, 1] and by the normal
quantile function to a z in [-5.2, 5.2]. The tables are fitted by ``sklearn.preprocessing.QuantileTransformer`` on a
copy with a little Gaussian noise, which breaks ties; the clean values are what is transformed.

Noise: the released program uses a standard deviation of 1e-3 / max(std, 1e-3), which for a column whose own spread is
below 1e-3 is 1, and drowns it. Ours is 1e-3 * std, the same for every unit of measurement; the released formula is kept
behind ``official``.

Missing values are NaN in, 0 out: the median in normal space, the mean for z-scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.preprocessing import QuantileTransformer

NumericTransform = Literal["quantile", "standard"]

LARGEST, SMALLEST = 1e300, 1e-290
"""Magnitudes beyond are clipped or taken as 0, so that differences and slopes stay finite."""
FURTHEST = 1e4
"""z-scores are clipped here, so that a wild value stays finite in float32."""
_EDGE = 1e-7  # scikit-learn's: ranks closer than this to 0 or 1 are cut
_LIMITS = ndtri(_EDGE - np.spacing(1)), ndtri(1 - (_EDGE - np.spacing(1)))


def n_quantiles(rows: int) -> int:
    """The number of quantiles for a training set of this many rows.

    >>> [n_quantiles(rows) for rows in (20, 3_000, 1_000_000)]
    [10, 100, 1000]
    """
    return max(min(rows // 30, 1000), 10)


def seed_of(name: str, seed: int) -> int:
    """A seed tied to a column's name, so that the order of the columns changes nothing."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=4).digest(), "big")


class NumericScaler:
    """Fitted transform of the numeric columns.

    Args:
        kind: "quantile" or "standard".
        tables: (Q, F) quantiles, or (2, F) means and standard deviations (0 for a constant column), float64.
    """

    def __init__(self, kind: NumericTransform, tables: NDArray[np.float64]) -> None:
        self.kind: NumericTransform = kind
        self.tables = tables
        self._columns = [np.ascontiguousarray(column) for column in tables.T]

    @classmethod
    def fit(
        cls, kind: NumericTransform, values: NDArray[np.float64], names: Sequence[str], *, seed: int, official: bool
    ) -> NumericScaler:
        """Fit on training values (rows, F) with NaN where missing, of the columns ``names``."""
        values = _bounded(values)
        if kind == "standard":
            tables = [np.array(_moments(column)) for column in values.T]
        else:
            tables = [
                _quantiles(column, seed_of(name, seed), official) for column, name in zip(values.T, names, strict=True)
            ]
        empty = np.zeros((2 if kind == "standard" else min(n_quantiles(len(values)), len(values)), 0))
        return cls(kind, np.stack(tables, axis=1) if tables else empty)

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, F) to (rows, F), finite."""
        values = _bounded(values)
        apply = _apply_standard if self.kind == "standard" else _apply_quantiles
        result = np.empty_like(values)
        for index, column in enumerate(self._columns):
            result[:, index] = apply(values[:, index], column)
        return np.nan_to_num(result, nan=0.0)

    def state(self) -> dict[str, Any]:
        """Tensors and words that :meth:`from_state` rebuilds this from, bit for bit."""
        return {"kind": self.kind, "tables": torch.from_numpy(self.tables)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> NumericScaler:
        """The inverse of :meth:`state`."""
        return cls(state["kind"], state["tables"].numpy())


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(values, -LARGEST, LARGEST)
    return np.where(np.abs(clipped) < SMALLEST, 0.0, clipped)


def _moments(column: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the present values; (0, 0) without any. Scaled: squares must not overflow."""
    present = column[~np.isnan(column)]
    largest = float(np.abs(present).max(initial=0.0))
    if largest == 0.0 or present.min() == present.max():
        return (float(present[0]) if len(present) else 0.0), 0.0
    scaled = present / largest
    return float(scaled.mean()) * largest, float(scaled.std()) * largest


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """z-scores (rows,) of finite values; zeros when they are all equal.

    >>> standardised(np.array([1e250, 3e250]))
    array([-1.,  1.])
    """
    values = _bounded(values)
    mean, spread = _moments(values)
    return (values - mean) / spread if spread > 0 else np.zeros_like(values)


def _quantiles(column: NDArray[np.float64], seed: int, official: bool) -> NDArray[np.float64]:
    rows = len(column)
    count = min(n_quantiles(rows), rows)
    if np.isnan(column).all():
        return np.zeros(count)
    spread = _moments(column)[1]
    scale = 1e-3 / max(spread, 1e-3) if official else 1e-3 * spread
    noisy = column + scale * np.random.default_rng(seed).standard_normal(rows)
    transformer = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=None, random_state=0)
    transformer.fit(_bounded(noisy)[:, None])
    return _bounded(transformer.quantiles_[:, 0].astype(np.float64))


def _apply_quantiles(values: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank by interpolation from both sides (so that a run of equal quantiles maps to its middle), then the normal's z.

    scikit-learn also forces values within 1e-7 of the smallest and largest quantile to the ends, in units of the
    column; left out, as interpolation does that by itself in every unit.
    """
    if table[0] == table[-1]:  # a constant column tells nothing, whatever comes later
        return np.where(np.isnan(values), np.nan, 0.0)
    ranks = np.linspace(0.0, 1.0, len(table))
    below = np.interp(values, table, ranks)
    above = np.interp(-values, -table[::-1], -ranks[::-1])
    rank = 0.5 * (below - above)
    with np.errstate(divide="ignore"):
        return np.clip(ndtri(rank), *_LIMITS)


def _apply_standard(values: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    mean, spread = table
    if spread == 0.0:
        return np.where(np.isnan(values), np.nan, 0.0)
    with np.errstate(over="ignore"):
        scaled: NDArray[np.float64] = np.clip((values - mean) / spread, -FURTHEST, FURTHEST)
    return scaled
