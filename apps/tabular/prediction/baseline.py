"""The plain model beside every score: scikit-learn's gradient-boosted trees with default settings.

It is what a practitioner would try first. It is fitted on the training rows alone, with categories as categories (the
254 most frequent levels of a column; the rest, like a level never seen, is a missing value).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from apps.tabular.prediction.data.table import Table, arrays

if TYPE_CHECKING:
    import pandas as pd

NAME = "gradient-boosted trees (scikit-learn defaults)"
_LEVELS = 254  # scikit-learn bins a column into 255, one of them for missing values


class BoostedTrees:
    """Fitted trees that take the same frames as a :class:`TabularPredictor`.

    Args:
        train: rows to fit.
        seed: of the fit.
    """

    def __init__(self, train: Table, seed: int = 0) -> None:
        self._schema = train.schema
        self._levels = {name: _frequent(train.frame[name]) for name in train.schema.of_kind("categorical")}
        kind = HistGradientBoostingRegressor if train.schema.task == "regression" else HistGradientBoostingClassifier
        categorical = [column.kind == "categorical" for column in train.schema.columns]
        x = self._matrix(train.frame)
        # Without a value a column cannot be binned, and says nothing.
        self._known = ~np.isnan(x).all(axis=0)
        self._model: Any = kind(categorical_features=np.array(categorical)[self._known], random_state=seed)
        self._model.fit(self._padded(x), train.target)

    def scores(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Class probabilities (rows, C), or values (rows,)."""
        x = self._padded(self._matrix(frame))
        if self._schema.task == "regression":
            return np.asarray(self._model.predict(x), dtype=np.float64)
        probabilities = np.zeros((len(x), self._schema.n_classes))
        if len(self._model.classes_) == 1:  # scikit-learn then gives two columns all the same
            probabilities[:, self._model.classes_] = 1.0
        else:
            probabilities[:, self._model.classes_] = self._model.predict_proba(x)
        return probabilities

    def _padded(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The columns that have values; one of zeros where none has."""
        return x[:, self._known] if self._known.any() else np.zeros((len(x), 1))

    def _matrix(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        columns = arrays(frame, self._schema)
        return np.stack([self._column(name, values) for name, values in columns.items()], axis=1)

    def _column(self, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
        levels = self._levels.get(name)
        if levels is None:
            return values.astype(np.float64)
        return np.array([levels.get(value, np.nan) for value in values], dtype=np.float64)


def _frequent(column: pd.Series[Any]) -> dict[str, float]:
    counts = column.dropna().value_counts()
    return {str(level): float(code) for code, level in enumerate(counts.index[:_LEVELS])}
