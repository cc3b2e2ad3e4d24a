"""What the model looks at: permutation importance and partial dependence, on columns as the user knows them.

Importance of a column (Breiman, Machine Learning 2001): how much worse the loss of the rows becomes when the column's
values are shuffled among them. The loss is the negative log-likelihood (classes) or the squared error over the variance
of the target (values). Columns that repeat one another share their importance: shuffling one leaves the other.

Partial dependence (Friedman, Annals of Statistics 2001): the mean prediction when the column is set to one value in
every row. It can average over rows that do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from apps.tabular.prediction.data.table import Table
from core.evaluation.bootstrap import bootstrap
from core.evaluation.plots import Dependence

if TYPE_CHECKING:
    import pandas as pd

Scores = Callable[["pd.DataFrame"], NDArray[np.float64]]
"""A frame to class probabilities (rows, C) or values (rows,)."""

_GRID = 15
_LEVELS = 12


@dataclass(frozen=True)
class Importance:
    """Increase of the loss by column, with a 95 % interval over rows; the largest first."""

    names: tuple[str, ...]
    values: Float[NDArray[np.float64], " F"]
    low: Float[NDArray[np.float64], " F"]
    high: Float[NDArray[np.float64], " F"]


def permutation_importance(scores: Scores, table: Table, *, repeats: int = 3, seed: int = 0) -> Importance:
    """The importance of every column of ``table``, its values shuffled ``repeats`` times."""
    rng = np.random.default_rng(seed)
    base = row_losses(scores(table.frame), table)
    estimates = []
    for name in table.schema.names:
        shuffled = []
        for _ in range(repeats):
            frame = table.frame.copy(deep=False)
            frame[name] = table.frame[name].to_numpy()[rng.permutation(len(table))]
            shuffled.append(row_losses(scores(frame), table))
        increase = np.mean(shuffled, axis=0) - base
        estimates.append(bootstrap(np.mean, increase, groups=table.groups, n=200, seed=seed))
    order = np.argsort([-estimate.value for estimate in estimates], kind="stable")
    chosen = [estimates[index] for index in order]
    return Importance(
        tuple(table.schema.names[index] for index in order),
        np.array([estimate.value for estimate in chosen]),
        np.array([estimate.low for estimate in chosen]),
        np.array([estimate.high for estimate in chosen]),
    )


def row_losses(scores: NDArray[np.float64], table: Table) -> Float[NDArray[np.float64], " R"]:
    """Negative log-likelihood of every row in nats, or its squared error over the variance of the target."""
    if table.schema.task == "regression":
        variance = float(np.var(table.target)) or 1.0
        squared: NDArray[np.float64] = (scores - table.target) ** 2 / variance
        return squared
    losses: NDArray[np.float64] = -np.log(np.maximum(scores[np.arange(len(table)), table.target], 1e-15))
    return losses


def dependence(scores: Scores, table: Table, name: str, *, output: int | None = None, rows: int = 200) -> Dependence:
    """The partial dependence on one column.

    Args:
        scores: the model.
        table: rows to average over; the first ``rows`` of them are used.
        name: the column.
        output: the class whose probability is drawn; None for regression.
        rows: bounds the cost, which is rows times grid points.
    """
    frame = table.frame.head(rows)
    column = table.frame[name]
    numeric = name in table.schema.of_kind("numeric")
    grid: NDArray[Any] = _numbers(column) if numeric else _levels(column)
    means, errors = [], []
    for value in grid:
        changed = frame.copy(deep=False)
        changed[name] = np.full(len(frame), value, dtype=np.float64 if numeric else object)
        predicted = scores(changed)
        predicted = predicted if output is None else predicted[:, output]
        means.append(predicted.mean())
        errors.append(1.96 * predicted.std() / np.sqrt(len(predicted)))
    mean, error = np.array(means), np.array(errors)
    sample = column.dropna().to_numpy(dtype=np.float64) if numeric else None
    return Dependence(name, grid, mean, mean - error, mean + error, sample)


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Quantiles from 2 % to 98 %, each once."""
    known = column.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return np.zeros(1)
    grid: NDArray[np.float64] = np.unique(np.quantile(known, np.linspace(0.02, 0.98, _GRID)))
    return grid


def _levels(column: pd.Series[Any]) -> NDArray[np.object_]:
    levels: NDArray[np.object_] = column.dropna().value_counts().index[:_LEVELS].to_numpy(dtype=object)
    return levels
