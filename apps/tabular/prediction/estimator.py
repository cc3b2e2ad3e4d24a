"""ExcelFormer as scikit-learn estimators: in a pipeline, a grid search or a notebook, like any other model.

>>> from sklearn.datasets import load_breast_cancer
>>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
>>> model = ExcelFormerClassifier(preset="tiny", random_state=0).fit(X, y)
>>> model.predict_proba(X.head(2)).shape
(2, 2)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.data.infer import LARGEST_TARGET, infer_kind
from apps.tabular.prediction.data.table import Column, Schema, Table, conform
from apps.tabular.prediction.fitting import fit_predictor
from apps.tabular.prediction.predictor import TabularPredictor
from apps.tabular.prediction.presets import PRESETS
from core.command import config_from_dict
from core.errors import InputError, nearest
from core.training.progress import ProgressName


class _ExcelFormer(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share: settings, columns, save."""

    predictor_: TabularPredictor
    n_features_in_: int

    def __init__(
        self,
        *,
        preset: str = "default",
        members: int | None = None,
        max_epochs: int | None = None,
        max_minutes: float | None = None,
        categorical_features: Literal["auto"] | Sequence[str] | Sequence[int] = "auto",
        overrides: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: ProgressName = "off",
    ) -> None:
        self.preset = preset
        self.members = members
        self.max_epochs = max_epochs
        self.max_minutes = max_minutes
        self.categorical_features = categorical_features
        self.overrides = overrides
        self.random_state = random_state
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the fitted model into ``directory`` (JSON and safetensors, no pickle): ``predict`` of the command line
        and :meth:`load` read it."""
        check_is_fitted(self)
        self.predictor_.save(directory)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """An estimator that predicts with a saved model: what :meth:`save` wrote, or a run's ``checkpoints/best``.

        Raises:
            InputError: there is no model, it is damaged, or it is of the other kind (classes or values).
        """
        predictor = TabularPredictor.load(directory)
        estimator = cls()
        estimator._adopt(predictor, str(directory))
        estimator.n_features_in_ = len(predictor.schema.names)
        estimator.feature_names_in_ = np.array(predictor.schema.names, dtype=object)
        return estimator

    def _adopt(self, predictor: TabularPredictor, where: str | None = None) -> None:
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------- settings

    def _config(self) -> TabularConfig:
        """The preset with this estimator's own settings on top."""
        if self.preset not in PRESETS:
            raise InputError(f"{self.preset!r} is not a preset", where="preset", mend=nearest(self.preset, [*PRESETS]))
        named = {"members": self.members, "fit.max_epochs": self.max_epochs, "fit.max_minutes": self.max_minutes}
        changes = {path: value for path, value in named.items() if value is not None}
        changes |= self.overrides or {}
        # A grid or a distribution to search gives numpy's numbers.
        changes = {path: value.item() if isinstance(value, np.generic) else value for path, value in changes.items()}
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        base = PRESETS[self.preset]()
        return config_from_dict(TabularConfig, _nested({"seed": seed, **changes}), where="overrides", base=base)

    # ---------------------------------------------------------------------------------------------- columns

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """``X`` as a frame with text column names. Frames keep their types; all else passes scikit-learn's checks."""
        if hasattr(X, "to_pandas"):
            X = X.to_pandas()
        if not isinstance(X, pd.DataFrame):
            array = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
            return pd.DataFrame(array, columns=_positions(array.shape[1])).infer_objects()
        for size, what in zip(X.shape, ("sample", "feature"), strict=True):
            if size == 0:
                raise ValueError(f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required.")
        _check_feature_names(self, X, reset=reset)
        _check_n_features(self, X, reset=reset)
        # As scikit-learn has it, only text names columns; others are known by position.
        named = all(isinstance(name, str) for name in X.columns)
        return X if named else X.set_axis(_positions(X.shape[1]), axis=1)

    def _columns(self, frame: pd.DataFrame) -> tuple[Column, ...]:
        chosen = self._chosen(frame)
        return tuple(Column(name, "categorical" if name in chosen else "numeric") for name in map(str, frame.columns))

    def _chosen(self, frame: pd.DataFrame) -> set[str]:
        """Names of the categorical columns."""
        wanted = self.categorical_features
        if isinstance(wanted, str):
            if wanted != "auto":
                raise InputError(f"{wanted!r} is neither 'auto' nor a list of columns", where="categorical_features")
            return {name for name in frame.columns if infer_kind(frame[name]) == "categorical"}
        names = frame.columns.tolist()
        chosen: set[str] = set()
        for column in wanted:
            if isinstance(column, bool | np.bool_):
                mend = "give names or positions of columns"
                raise InputError(f"{column} is no column", where="categorical_features", mend=mend)
            if isinstance(column, int | np.integer) and -len(names) <= column < len(names):
                chosen.add(names[column])
            elif column in names:
                chosen.add(str(column))
            else:
                raise InputError(f"there is no column {_text(column)}", where="categorical_features")
        return chosen

    # -------------------------------------------------------------------------------------------------- fit

    def _train(
        self, frame: pd.DataFrame, target: NDArray[Any], schema: Schema, weight: Any, valid: Table | None
    ) -> None:
        if weight is not None:
            weight = _check_sample_weight(weight, frame, dtype=np.float64, ensure_non_negative=True)
        if valid is None and len(frame) < 2:
            raise InputError("1 sample cannot be split into rows to learn from and rows to stop on")
        table = Table(conform(frame, schema), target, schema)
        fitted = fit_predictor(self._config(), table, valid, weight=weight, progress=self.progress)
        self._adopt(fitted.predictor)
        self.history_ = [result.history for result in fitted.results]

    def _ask(self, X: Any) -> pd.DataFrame:
        check_is_fitted(self)
        frame = self._frame(X, reset=False)
        return frame.set_axis(list(self.predictor_.schema.names), axis=1)


class ExcelFormerClassifier(ClassifierMixin, _ExcelFormer):  # type: ignore[misc]
    """Classification with an ensemble of ExcelFormers.

    Args:
        preset: settings to begin with: "default", "tiny" or "official".
        members: networks to average; the preset's number where None.
        max_epochs: the longest training of a member, in passes over the rows.
        max_minutes: the longest fit, in wall minutes; the model is then what was learned so far.
        categorical_features: names or positions of the categorical columns; "auto": text, category and boolean ones.
        overrides: any other setting by its path, ``{"model.width": 32, "optim.lr": 3e-3}``.
        random_state: a number makes fits repeatable, bit for bit on one machine.
        progress: "off", "plain", "bar" or "auto".

    Attributes:
        classes_: labels in sorted order.
        predictor_: the fitted model, free of scikit-learn.
        history_: for each member, one record an epoch.

    Missing values and categories never seen in training are welcome in every column. Columns are known by name.
    """

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: tuple[Any, Any] | None = None) -> Self:
        """Train.

        Args:
            X: (rows, columns) frame or array; strings, categories, missing values as they are.
            y: (rows,) labels.
            sample_weight: (rows,) at least 0.
            eval_set: ``(X, y)`` to stop and calibrate on; a part of the rows is set aside where None.

        Raises:
            InputError: one class alone, infinite numbers, labels in ``eval_set`` that ``y`` lacks.
        """
        frame = self._frame(X, reset=True)
        labels = self._labels(y, frame)
        self.classes_, target = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"the target holds one class only ({_text(self.classes_[0])})", mend="give rows of at least two classes"
            )
        task: Literal["binary", "multiclass"] = "binary" if len(self.classes_) == 2 else "multiclass"
        schema = Schema(self._columns(frame), _target_name(frame), task, tuple(self.classes_.tolist()))
        self._train(frame, target.astype(np.int64), schema, sample_weight, self._held(eval_set, schema))
        return self

    def _labels(self, y: Any, frame: pd.DataFrame) -> NDArray[Any]:
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None")
        labels: NDArray[Any] = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        check_consistent_length(frame, labels)
        return labels

    def _held(self, eval_set: tuple[Any, Any] | None, schema: Schema) -> Table | None:
        if eval_set is None:
            return None
        frame = self._frame(eval_set[0], reset=False)
        labels = self._labels(eval_set[1], frame)
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise InputError(f"the label {_text(unknown[0])} does not occur in the training rows", where="eval_set")
        return Table(conform(frame, schema), np.searchsorted(self.classes_, labels).astype(np.int64), schema)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Calibrated probabilities (rows, classes), columns in the order of ``classes_``."""
        frame = self._ask(X)
        return self.predictor_.predict_proba(frame)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of every row."""
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def _adopt(self, predictor: TabularPredictor, where: str | None = None) -> None:
        if predictor.schema.task == "regression":
            raise InputError("holds a regression model", where=where, mend="load it with ExcelFormerRegressor")
        self.predictor_ = predictor
        if where is not None:
            self.classes_ = np.array(predictor.schema.classes)


class ExcelFormerRegressor(RegressorMixin, _ExcelFormer):  # type: ignore[misc]
    """Regression with an ensemble of ExcelFormers, with prediction intervals.

    The settings, and what is said of columns, are those of :class:`ExcelFormerClassifier`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: tuple[Any, Any] | None = None) -> Self:
        """Train.

        Args:
            X: (rows, columns) frame or array.
            y: (rows,) finite values.
            sample_weight: (rows,) at least 0.
            eval_set: ``(X, y)`` to stop and calibrate on; a part of the rows is set aside where None.
        """
        frame = self._frame(X, reset=True)
        schema = Schema(self._columns(frame), _target_name(frame), "regression")
        valid = None
        if eval_set is not None:
            held = self._frame(eval_set[0], reset=False)
            valid = Table(conform(held, schema), self._values(eval_set[1], held), schema)
        self._train(frame, self._values(y, frame), schema, sample_weight, valid)
        return self

    def _values(self, y: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None")
        values = column_or_1d(y, warn=True)
        if values.dtype.kind not in "fiub":
            values = values.astype(np.float64)
        assert_all_finite(values, input_name="y")
        check_consistent_length(frame, values)
        values = np.asarray(values, dtype=np.float64)
        if np.abs(values).max() > LARGEST_TARGET:
            raise InputError(f"values beyond {LARGEST_TARGET:g} cannot be learned", where="y", mend="rescale them")
        return values

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The value of every row (rows,)."""
        frame = self._ask(X)
        return self.predictor_.predict(frame)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """Lower and upper ends (rows, 2) between which the truth of a ``coverage`` share of rows should lie."""
        frame = self._ask(X)
        return np.stack(self.predictor_.predict_interval(frame, coverage)[1:], axis=1)

    def _adopt(self, predictor: TabularPredictor, where: str | None = None) -> None:
        if predictor.schema.task != "regression":
            raise InputError("holds a classification model", where=where, mend="load it with ExcelFormerClassifier")
        self.predictor_ = predictor


def _target_name(frame: pd.DataFrame) -> str:
    """What the saved model calls the target, which comes without a name: "target", unless a column is called so.

    >>> _target_name(pd.DataFrame({"target": [1]}))
    'target_'
    """
    name = "target"
    while name in frame.columns:
        name += "_"
    return name


def _positions(count: int) -> list[str]:
    return [f"x{index}" for index in range(count)]


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested groups.

    >>> _nested({"model.width": 32, "seed": 1})
    {'model': {'width': 32}, 'seed': 1}
    """
    tree: dict[str, Any] = {}
    for path, value in changes.items():
        *groups, name = path.split(".")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
            if not isinstance(group, dict):
                raise InputError(f"{key!r} is given as a whole and in part", where="overrides", mend="give one of them")
        group[name] = value
    return tree


def _text(label: Any) -> str:
    return repr(label.item() if hasattr(label, "item") else label)
