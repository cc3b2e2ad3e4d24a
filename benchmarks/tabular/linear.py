"""What a practitioner tries first: one-hot categories, standardised numbers, logistic or ridge regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.tabular.boosted import prediction_of
from benchmarks.tabular.method import Fitted, Job


def fit_linear(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """Fit at the library's defaults. Nothing is chosen, so no validation rows are used; unseen levels are zeros."""
    columns = ColumnTransformer(
        [
            ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(job.table.numeric)),
            ("categorical", OneHotEncoder(handle_unknown="ignore"), list(job.table.categorical)),
        ]
    )
    regression = job.table.task == "regression"
    model = Ridge() if regression else LogisticRegression(max_iter=settings["iterations"], random_state=job.seed)
    pipeline = make_pipeline(columns, model)
    pipeline.fit(job.train.X, job.train.y)
    return Fitted(prediction_of(pipeline, lambda frame: frame, job))
