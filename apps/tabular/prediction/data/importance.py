"""How much each encoded feature tells about the target: mutual information, and the order it gives.

I(f; y) by nearest neighbours (Kraskov et al. 2004 for regression, Ross 2014 for classes) with 3 neighbours, through
``sklearn.feature_selection``, on the encoded training values, every feature taken as continuous (as the released
ExcelFormer program does). Deviations: the tiny tie-breaking noise has a seed tied to the feature's name (the released
program sets none), and at most ``rows`` training rows, drawn at random, are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from apps.tabular.prediction.data.quantile import seed_of

Order = Literal["importance", "given", "random", "reversed"]
NEIGHBOURS = 3


def mutual_information(
    x: Float32[np.ndarray, "B N"], y: NDArray[Any], names: Sequence[str], *, classes: bool, rows: int, seed: int
) -> NDArray[np.float64]:
    """Mutual information (N,) in nats of each column of ``x`` with ``y`` (B,), 0 for a constant column.

    Each column is measured by itself, so the result of one does not depend on its neighbours.
    """
    if len(y) > rows:
        chosen = np.sort(np.random.default_rng(seed_of("rows", seed)).choice(len(y), size=rows, replace=False))
        x, y = x[chosen], y[chosen]
    information = np.zeros(x.shape[1])
    if not _measurable(y, classes):
        return information
    measure = mutual_info_classif if classes else mutual_info_regression
    for index, name in enumerate(names):
        column = x[:, index].astype(np.float64)
        if column.min() < column.max():
            information[index] = measure(
                column[:, None], y, discrete_features=False, n_neighbors=NEIGHBOURS, random_state=seed_of(name, seed)
            )[0]
    return information


def _measurable(y: NDArray[Any], classes: bool) -> bool:
    """Enough rows for neighbours: two of some class, or more than the neighbours."""
    if classes:
        return bool(np.bincount(y).max() > 1)
    return len(y) > NEIGHBOURS and bool(y.min() < y.max())


def order_of(information: NDArray[np.float64], names: Sequence[str], order: Order, seed: int) -> NDArray[np.int64]:
    """The permutation (N,) that sorts features, most informative first; ties by name.

    "given" keeps the order of the columns, "random" is one order tied to the names, "reversed" puts the least
    informative first: for measuring what the order is worth.

    >>> order_of(np.array([0.1, 0.5, 0.1]), ["b", "c", "a"], "importance", 0)
    array([1, 2, 0])
    """
    indices = range(len(names))
    if order == "given":
        return np.arange(len(names))
    if order == "random":
        chosen = sorted(indices, key=lambda i: (seed_of(names[i], seed), names[i]))
    else:
        sign = -1.0 if order == "importance" else 1.0
        chosen = sorted(indices, key=lambda i: (sign * information[i], names[i]))
    return np.array(chosen, dtype=np.int64)
