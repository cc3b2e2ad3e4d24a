"""Several methods on several data sets: average ranks, and which of them differ.

Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006). On each of D data sets the M
methods are ranked, 1 for the best, ties by their mean rank; ``R`` is a method's mean rank.

- Friedman: do the methods differ at all? The chi-square statistic (corrected for ties), and Iman and Davenport's less
  conservative ``F = (D - 1) χ² / (D (M - 1) - χ²)``, whose p-value is given.
- Nemenyi: two methods differ if their mean ranks are at least ``CD = q sqrt(M (M + 1) / (6 D))`` apart, q the
  studentised range over √2.
- Wilcoxon's signed ranks for every pair, corrected by Holm: more powerful, and a pair's verdict does not depend on
  which other methods took part. Zero differences are split evenly.

Every test counts data sets as the sample: with fewer than about ten of them it sees large differences only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from core.errors import InputError
from core.evaluation.bootstrap import holm


@dataclass(frozen=True)
class Friedman:
    """Friedman's test: the chi-square statistic, Iman and Davenport's F, and the p-value of F."""

    chi2: float
    f: float
    p: float


def ranks(scores: Shaped[np.ndarray, "D M"], *, greater_is_better: bool = True) -> Float[np.ndarray, "D M"]:
    """Rank of each method on each data set, 1 for the best, ties shared.

    >>> ranks(np.array([[0.9, 0.8, 0.8]])).tolist()
    [[1.0, 2.5, 2.5]]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise InputError("ranks want a full table of finite scores, data sets x methods", mend="drop incomplete rows")
    return np.asarray(stats.rankdata(-scores if greater_is_better else scores, axis=1), dtype=np.float64)


def average_ranks(scores: Shaped[np.ndarray, "D M"], *, greater_is_better: bool = True) -> Float[np.ndarray, "M"]:
    """Mean rank of each method over the data sets.

    >>> average_ranks(np.array([[1.0, 2.0], [3.0, 9.0], [5.0, 4.0]]), greater_is_better=False).round(2).tolist()
    [1.33, 1.67]
    """
    mean: Float[np.ndarray, "M"] = ranks(scores, greater_is_better=greater_is_better).mean(axis=0)
    return mean


def friedman(scores: Shaped[np.ndarray, "D M"]) -> Friedman:
    """Do three methods or more differ? The direction of the scores does not matter.

    >>> friedman(np.array([[1.0, 2.0, 3.0]] * 5 + [[2.0, 1.0, 3.0]] * 3)).p < 0.01
    True
    """
    table = ranks(scores)
    sets, methods = table.shape
    if methods < 3 or sets < 2:
        raise InputError(f"Friedman's test wants three methods on two data sets at least, got {methods} on {sets}")
    if np.ptp(table) == 0:
        return Friedman(0.0, 0.0, 1.0)
    chi2 = float(stats.friedmanchisquare(*table.T).statistic)
    rest = sets * (methods - 1) - chi2
    f = (sets - 1) * chi2 / rest if rest > 1e-9 else float("inf")
    return Friedman(chi2, f, float(stats.f.sf(f, methods - 1, (methods - 1) * (sets - 1))))


def critical_difference(methods: int, datasets: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks.

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    if methods < 2 or datasets < 1:
        raise InputError(f"a critical difference wants two methods and a data set, got {methods} and {datasets}")
    q = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def pairwise_wilcoxon(scores: Shaped[np.ndarray, "D M"]) -> Float[np.ndarray, "M M"]:
    """P-value of each pair of methods, corrected by Holm over all pairs; one on the diagonal and for equal columns.

    >>> pairwise_wilcoxon(np.array([[1.0, 2.0 + i / 10] for i in range(8)])).round(4).tolist()
    [[1.0, 0.0078], [0.0078, 1.0]]
    """
    scores = np.asarray(scores, dtype=np.float64)
    methods = ranks(scores).shape[1]
    first, second = np.triu_indices(methods, k=1)
    raw = []
    for i, j in zip(first, second, strict=True):
        difference = scores[:, i] - scores[:, j]
        raw.append(float(stats.wilcoxon(difference, zero_method="zsplit").pvalue) if difference.any() else 1.0)
    table = np.ones((methods, methods))
    table[first, second] = table[second, first] = holm(raw)
    return table


def cliques(mean_ranks: Float[np.ndarray, "M"], difference: float) -> list[tuple[int, int]]:
    """Longest runs of methods in the order of mean rank whose ends lie less than ``difference`` apart: (first, last).

    >>> cliques(np.array([1.0, 1.5, 3.0, 3.2, 3.9]), 1.0)
    [(0, 1), (2, 4)]
    """
    ordered = np.sort(mean_ranks)
    last = np.searchsorted(ordered, ordered + difference, side="left") - 1
    found: list[tuple[int, int]] = []
    for start, end in enumerate(last.tolist()):
        if end > start and (not found or end > found[-1][1]):
            found.append((start, end))
    return found
