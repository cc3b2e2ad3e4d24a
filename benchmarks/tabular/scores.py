"""Which metrics a task is measured by; the primary one decides ranks, comparisons and choices made on validation rows.

Binary: ROC AUC of P(class 1). Multiclass: accuracy first, with log loss beside it. Regression: root mean squared error
in the target's own unit. A binary prediction is ``(n,)``, a multiclass one ``(n, C)``, a regression one ``(n,)``.
"""

from __future__ import annotations

from benchmarks.tabular.sets import Task
from core.evaluation.metrics import BINARY, MULTICLASS, REGRESSION, Metric

#: The first metric of a task is its primary one.
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": (BINARY["auc"], BINARY["log_loss"]),
    "multiclass": (MULTICLASS["accuracy"], MULTICLASS["log_loss"]),
    "regression": (REGRESSION["rmse"],),
}


def primary(task: Task) -> Metric:
    """The metric that decides on a set of this task."""
    return METRICS[task][0]


def error(metric: Metric, value: float) -> float:
    """What is missing to a perfect score: ``1 - value`` of an AUC or an accuracy, the value itself of an RMSE."""
    return 1.0 - value if metric.greater_is_better else value
