"""Our estimators as methods of the benchmark: what a user gets who names nothing but the categorical columns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.tabular.boosted import prediction_of
from benchmarks.tabular.method import Fitted, Job


def estimator(job: Job, settings: Mapping[str, Any]) -> Any:
    """An unfitted estimator for the job's task; ``settings`` are constructor arguments."""
    from apps.tabular.prediction.estimator import ExcelFormerClassifier, ExcelFormerRegressor

    kind = ExcelFormerRegressor if job.table.task == "regression" else ExcelFormerClassifier
    return kind(
        **settings,
        categorical_features=list(job.table.categorical),
        max_minutes=job.minutes,
        random_state=job.seed,
    )


def fit_ours(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """Fit with the validation rows as ``eval_set``."""
    model, started = estimator(job, settings), time.perf_counter()
    model.fit(job.train.X, job.train.y, eval_set=(job.valid.X, job.valid.y))
    details = {
        "epochs": [len(history) for history in model.history_],
        "stopped_by_limit": time.perf_counter() - started >= 60 * job.minutes,
    }
    return Fitted(prediction_of(model, lambda frame: frame, job), details)
