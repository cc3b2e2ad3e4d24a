"""Scores of predictions with 95 % intervals, in one place for ``evaluate`` and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.data.table import Table
from core.evaluation.bootstrap import Difference, Estimate, bootstrap, paired
from core.evaluation.calibration import expected_calibration_error, top_label
from core.evaluation.metrics import BINARY, MULTICLASS, REGRESSION, Metric

if TYPE_CHECKING:
    import pandas as pd

METRICS: Mapping[str, Mapping[str, Metric]] = {"binary": BINARY, "multiclass": MULTICLASS, "regression": REGRESSION}
ECE_BINS = 15
PRIMARY = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}
"""The metric that a reader of each task asks for first."""


def scored(table: Table, scores: NDArray[np.float64]) -> dict[str, Estimate]:
    """Every metric of the task; for classes also the calibration error (ECE of 15 equally filled bins).

    Args:
        table: rows with their truth; its groups, where there are any, are resampled whole.
        scores: class probabilities (rows, C), or values (rows,).
    """
    task = table.schema.task
    strata = None if task == "regression" or table.groups is not None else table.target
    given = positive(scores) if task == "binary" else scores
    estimates = {
        name: bootstrap(metric, table.target, given, groups=table.groups, strata=strata)
        for name, metric in METRICS[task].items()
    }
    if task != "regression":
        truth, probability = (table.target, positive(scores)) if task == "binary" else top_label(table.target, scores)
        estimates["ece"] = bootstrap(
            partial(expected_calibration_error, bins=ECE_BINS),
            np.asarray(truth, dtype=np.int64),
            probability,
            groups=table.groups,
            n=200,
        )
    return estimates


def intervals_scored(table: Table, low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, Estimate]:
    """Share of rows whose truth lies in its interval, and the mean width of the intervals in the target's unit."""
    inside = ((low <= table.target) & (table.target <= high)).astype(np.float64)
    return {
        "interval_coverage": bootstrap(np.mean, inside, groups=table.groups),
        "interval_width": bootstrap(np.mean, high - low, groups=table.groups),
    }


def compared(table: Table, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> dict[str, Difference]:
    """Ours minus theirs in every metric of the task, on the same rows."""
    task = table.schema.task
    strata = None if task == "regression" or table.groups is not None else table.target
    if task == "binary":
        ours, theirs = positive(ours), positive(theirs)
    return {
        name: paired(metric, table.target, ours, theirs, groups=table.groups, strata=strata)
        for name, metric in METRICS[task].items()
    }


def positive(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of the second class (rows,), which a binary schema calls positive."""
    return np.ascontiguousarray(probabilities[:, 1])


def speed(predict: Callable[[pd.DataFrame], Any], frame: pd.DataFrame, *, repeats: int = 5) -> dict[str, float]:
    """Rows a second in one call, and milliseconds of a call with one row (medians)."""

    def median(rows: pd.DataFrame) -> float:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            predict(rows)
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds))

    many = frame.head(2000)
    return {"rows_per_second": len(many) / median(many), "milliseconds_one_row": 1000 * median(frame.head(1))}
