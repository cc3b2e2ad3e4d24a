"""Categorical columns to numbers: integer codes, and statistics of the target for each category.

Statistic of category c with n(c) training rows and their target values y, where the prior p is the mean target of all
training rows:

    t(c) = (sum_y(c) + m p) / (n(c) + m)

Training rows must not see their own label, so by default they get t computed on the other folds (cross-fitting;
scikit-learn's ``TargetEncoder`` does the same, with the prior of the other folds where ours is that of all rows: a
constant shared by every row tells nothing about a row, while a prior that differs between folds would tell a little).
Other rows get t over all training rows. A category never seen gets p; a missing value is a category of its own.

Binary and regression targets give one column. A multiclass target gives one column per class (one-vs-rest), for the
``class_columns`` most frequent classes only, so that many classes times many columns stay bounded.

The released ExcelFormer program (``official``) has m = 1, averages the integer class id of a multiclass target, and
gives training rows the statistics over all rows, their own label included: a leak. On random binary labels of 5,000
rows and 1,000 categories such a column has a training AUC of about 0.75.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.data.quantile import seed_of

UNSEEN, MISSING_CODE, FIRST_LEVEL = 0, 1, 2
FURTHEST = 10.0  # a rare category may stand out, not explode
_NEGLIGIBLE = 1e-9  # a spread below this share of the largest target is rounding


class CategoryCodes:
    """Integer codes of one column: 0 a category not seen in training, 1 missing, then the levels in sorted order.

    >>> codes = CategoryCodes(["a", "b"])
    >>> codes.encode(np.array(["b", None, "z", "a"], dtype=object))
    array([3, 1, 0, 2])
    """

    def __init__(self, levels: Sequence[str]) -> None:
        self.levels = list(levels)
        self._codes: dict[str | None, int] = {level: code for code, level in enumerate(self.levels, FIRST_LEVEL)}
        self._codes[None] = MISSING_CODE

    @classmethod
    def fit(cls, values: NDArray[np.object_]) -> CategoryCodes:
        """The levels of a training column of text, None where missing."""
        return cls(sorted({value for value in values.tolist() if value is not None}))

    @property
    def cardinality(self) -> int:
        """Number of codes: levels, and the two for unseen and missing."""
        return len(self.levels) + FIRST_LEVEL

    def encode(self, values: NDArray[np.object_]) -> NDArray[np.int64]:
        """(rows,) text or None to (rows,) codes."""
        codes = self._codes
        return np.array([codes.get(value, UNSEEN) for value in values.tolist()], dtype=np.int64)


def one_vs_rest(y: NDArray[np.int64], n_classes: int, class_columns: int) -> list[int]:
    """The classes that get a statistic of their own: the most frequent ones, in order.

    >>> one_vs_rest(np.array([0, 1, 1, 2, 2, 2]), 3, 2)
    [1, 2]
    """
    counts = np.bincount(y, minlength=n_classes)
    return sorted(int(index) for index in np.argsort(-counts, kind="stable")[:class_columns])


def target_columns(y: NDArray[Any], classes: Sequence[int]) -> NDArray[np.float64]:
    """The numbers to average (rows, K): membership of each of ``classes``, or the target itself without any."""
    if not classes:
        return y.astype(np.float64)[:, None]
    members: NDArray[np.float64] = (y[:, None] == np.array(classes)[None, :]).astype(np.float64)
    return members


def folds_of(y: NDArray[Any], *, folds: int, stratify: bool, seed: int) -> NDArray[np.int64]:
    """A fold for each row (rows,), at random, each class spread evenly when ``stratify``. Any class size will do."""
    count = max(2, min(folds, len(y)))
    shuffled = np.random.default_rng(seed_of("folds", seed)).permutation(len(y))
    order = shuffled[np.argsort(y[shuffled], kind="stable")] if stratify else shuffled
    result = np.empty(len(y), dtype=np.int64)
    result[order] = np.arange(len(y)) % count
    return result


def statistics(
    codes: NDArray[np.int64], cardinality: int, targets: NDArray[np.float64], prior: NDArray[np.float64], smooth: float
) -> NDArray[np.float64]:
    """The table t (cardinality, K) of one column from rows with ``codes`` (rows,) and ``targets`` (rows, K).

    >>> statistics(np.array([2, 2, 3]), 4, np.array([[1.0], [0.0], [1.0]]), np.array([0.5]), 1.0).round(
    ...     2
    ... ).ravel().tolist()
    [0.5, 0.5, 0.5, 0.75]
    """
    counts = np.bincount(codes, minlength=cardinality).astype(np.float64)[:, None]
    sums = np.stack([np.bincount(codes, weights=column, minlength=cardinality) for column in targets.T], axis=1)
    # Written as a deviation from the prior: a category without rows gets the prior exactly.
    return prior + (sums - counts * prior) / (counts + smooth)


class CategoryStatistics:
    """Fitted target statistics of one categorical column: ``table`` (cardinality, K), what each code becomes."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        self.table = table

    @classmethod
    def fit(
        cls,
        codes: NDArray[np.int64],
        cardinality: int,
        targets: NDArray[np.float64],
        *,
        folds: NDArray[np.int64],
        smooth: float,
    ) -> tuple[CategoryStatistics, NDArray[np.float64]]:
        """Fit, and give the training rows their own cross-fitted values (rows, K).

        Both are standardised with the mean and standard deviation of the training rows' values and clipped at 10; a
        column whose values do not differ (every row a category of its own) becomes 0.
        """
        prior = targets.mean(axis=0)
        rows = np.empty_like(targets)
        for fold in range(int(folds.max()) + 1):
            inside = folds == fold
            rows[inside] = statistics(codes[~inside], cardinality, targets[~inside], prior, smooth)[codes[inside]]
        centre, spread = rows.mean(axis=0), rows.std(axis=0)
        known = spread > _NEGLIGIBLE * np.abs(targets).max(axis=0)
        scale = np.where(known, 1.0 / np.where(known, spread, 1.0), 0.0)
        table = statistics(codes, cardinality, targets, prior, smooth)

        def standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
            scaled: NDArray[np.float64] = np.clip((values - centre) * scale, -FURTHEST, FURTHEST)
            return scaled

        return cls(standard(table)), standard(rows)

    @classmethod
    def fit_official(
        cls, codes: NDArray[np.int64], cardinality: int, targets: NDArray[np.float64]
    ) -> tuple[CategoryStatistics, NDArray[np.float64]]:
        """The released program's: m = 1, not standardised, training rows see their own label."""
        fitted = cls(statistics(codes, cardinality, targets, targets.mean(axis=0), 1.0))
        return fitted, fitted.transform(codes)

    def transform(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """(rows,) codes to (rows, K)."""
        return self.table[codes]
