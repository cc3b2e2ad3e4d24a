"""Gradient-boosted trees, each library as it comes: its defaults, its own handling of categories and missing cells.

The one thing set for all alike: up to 2,000 rounds, ended when the loss on the validation rows has not improved for 50,
and prediction with the best number of rounds. scikit-learn can predict only with all the rounds it grew, so it is
fitted a second time with the best number, which grows the same trees; both fits are in its measured time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.tabular.method import Fitted, Job, Predict

#: More levels than this are refused as a category by scikit-learn's boosting (its number of bins).
HGB_LEVELS = 255


class CategoryColumns:
    """Frames with pandas categories learned from the training rows; an unseen level becomes missing.

    Columns get plain names, since LightGBM refuses punctuation in them. With ``most_levels``, a column that has more is
    given as its level's number in alphabetic order, which is what is left to a user of a library that refuses it.
    """

    def __init__(self, job: Job, most_levels: int | None = None) -> None:
        self.numeric = list(job.table.numeric)
        self.levels = {name: sorted(job.train.X[name].dropna().unique()) for name in job.table.categorical}
        self.most_levels = most_levels

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Encode features: the columns of the training frame, named c0, c1, …"""
        columns: list[Any] = [frame[name] for name in self.numeric]
        for name, levels in self.levels.items():
            seen = frame[name].where(frame[name].isin(levels))
            column = pd.Series(pd.Categorical(seen, categories=levels), index=frame.index)
            too_many = self.most_levels is not None and len(levels) > self.most_levels
            columns.append(column.cat.codes.astype("float64").replace(-1, np.nan) if too_many else column)
        encoded: pd.DataFrame = pd.concat(columns, axis=1, keys=[f"c{i}" for i in range(len(columns))])
        return encoded


def prediction_of(model: Any, encode: Callable[[pd.DataFrame], pd.DataFrame], job: Job) -> Predict:
    """A prediction function of a fitted scikit-learn style model behind an encoder."""
    if job.table.task == "regression":
        return lambda frame: np.asarray(model.predict(encode(frame)), np.float64)

    def probabilities(frame: pd.DataFrame) -> NDArray[Any]:
        values = np.asarray(model.predict_proba(encode(frame)), np.float64)
        return values[:, 1] if job.table.task == "binary" else values

    return probabilities


def fit_hgb(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """scikit-learn's HistGradientBoosting, early stopping on the given validation rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if job.table.task == "regression" else HistGradientBoostingClassifier
    encode = CategoryColumns(job, most_levels=HGB_LEVELS)
    rows = encode(job.train.X)
    search = kind(
        max_iter=settings["rounds"], n_iter_no_change=settings["patience"], early_stopping=True, random_state=job.seed
    )
    search.fit(rows, job.train.y, X_val=encode(job.valid.X), y_val=job.valid.y)
    best = max(1, int(np.argmax(search.validation_score_)))  # the first score is that of no round at all
    model = kind(max_iter=best, early_stopping=False, random_state=job.seed).fit(rows, job.train.y)
    return Fitted(prediction_of(model, encode, job), {"rounds": best})


def fit_xgboost(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """XGBoost with native categories."""
    import xgboost

    kind = xgboost.XGBRegressor if job.table.task == "regression" else xgboost.XGBClassifier
    encode = CategoryColumns(job)
    model = kind(
        n_estimators=settings["rounds"],
        early_stopping_rounds=settings["patience"],
        enable_categorical=True,
        random_state=job.seed,
        n_jobs=job.threads,
    )
    model.fit(encode(job.train.X), job.train.y, eval_set=[(encode(job.valid.X), job.valid.y)], verbose=False)
    return Fitted(prediction_of(model, encode, job), {"rounds": int(model.best_iteration) + 1})


def fit_lightgbm(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """LightGBM with native categories."""
    import lightgbm

    kind = lightgbm.LGBMRegressor if job.table.task == "regression" else lightgbm.LGBMClassifier
    encode = CategoryColumns(job)
    model = kind(n_estimators=settings["rounds"], random_state=job.seed, n_jobs=job.threads, verbosity=-1)
    stop = lightgbm.early_stopping(settings["patience"], verbose=False)
    model.fit(encode(job.train.X), job.train.y, eval_set=[(encode(job.valid.X), job.valid.y)], callbacks=[stop])
    return Fitted(prediction_of(model, encode, job), {"rounds": int(model.best_iteration_)})


class TextColumns:
    """Frames for CatBoost: categories as text, a missing one as the level "missing"."""

    def __init__(self, job: Job) -> None:
        self.categorical = list(job.table.categorical)

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Encode features."""
        return frame.assign(**{name: frame[name].astype(object).fillna("missing") for name in self.categorical})


def fit_catboost(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """CatBoost with native categories; nothing written to disk."""
    import catboost

    kind = catboost.CatBoostRegressor if job.table.task == "regression" else catboost.CatBoostClassifier
    encode = TextColumns(job)
    model = kind(
        iterations=settings["rounds"],
        early_stopping_rounds=settings["patience"],
        cat_features=encode.categorical,
        random_seed=job.seed,
        thread_count=job.threads,
        allow_writing_files=False,
        verbose=False,
    )
    model.fit(encode(job.train.X), job.train.y, eval_set=(encode(job.valid.X), job.valid.y))
    return Fitted(prediction_of(model, encode, job), {"rounds": int(model.tree_count_)})
