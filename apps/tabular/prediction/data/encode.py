"""Rows of a table to the numbers the model reads: ``x (B, N)`` in the order of information, ``codes (B, N)``.

Numeric columns go through :mod:`.quantile`, categorical ones through :mod:`.category`; a numeric column that has
missing values in training also gets a feature that says so. The features are then sorted by mutual information with the
training target (:mod:`.importance`), most informative first, which is the order that ExcelFormer's semi-permeable
attention takes its mask from (Chen et al., KDD 2024; released program ``WhatAShot/ExcelFormer``).

Everything fitted belongs to the saved model: :meth:`TableEncoder.state` gives it as tensors and plain data.

Profiles: "default" repairs what the released program gets wrong (label leak of categorical statistics, class ids taken
as numbers, quantile noise that drowns small units, refusal of missing values) and standardises every feature;
"official" does as it does, with encoded categoricals before the numeric columns and not rescaled.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from apps.tabular.prediction.data.category import (
    CategoryCodes,
    CategoryStatistics,
    folds_of,
    one_vs_rest,
    target_columns,
)
from apps.tabular.prediction.data.importance import Order, mutual_information, order_of
from apps.tabular.prediction.data.quantile import NumericScaler, NumericTransform, standardised
from apps.tabular.prediction.data.table import Schema, arrays
from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_LARGEST = 1e30  # well inside float32; only unscaled statistics of a huge target come near


@dataclass(frozen=True, kw_only=True)
class EncodingConfig:
    """How a table becomes numbers."""

    profile: Literal["default", "official"] = "default"
    """"official": the released program's encoding, its label leak included."""
    numeric: NumericTransform = "quantile"
    """"quantile": to a normal distribution by rank; "standard": z-scores."""
    missing: Literal["auto", "indicator", "impute", "refuse"] = "auto"
    """Missing numbers: the middle value and a feature that says so, the middle value only, or an error. "auto":
    "indicator", or "refuse" in the official profile. A missing category is always a category of its own."""
    smooth: float = 10.0
    """Rows' worth of prior in the statistics of a category (default profile; the official one has 1)."""
    folds: int = 5
    """Folds of the cross-fitting of categorical statistics."""
    class_columns: int = 10
    """Multiclass: a categorical column becomes one feature per class, for at most this many most frequent classes."""
    order: Order = "importance"
    """Order of the features; others than "importance" are for measuring what the order is worth."""
    importance_rows: int = 5000
    """Training rows, drawn at random, that the mutual information is measured on."""
    max_features: int = 1000
    """More encoded features than this are refused: attention costs their square."""

    def __post_init__(self) -> None:
        if not self.smooth > 0:
            raise InputError(f"must be positive, got {self.smooth}", where="encoding.smooth")
        for name, least in (("folds", 2), ("class_columns", 1), ("importance_rows", 1), ("max_features", 1)):
            if getattr(self, name) < least:
                raise InputError(f"must be at least {least}, got {getattr(self, name)}", where=f"encoding.{name}")

    @property
    def missing_policy(self) -> Literal["indicator", "impute", "refuse"]:
        """``missing`` with "auto" resolved."""
        if self.missing == "auto":
            return "refuse" if self.profile == "official" else "indicator"
        return self.missing


@dataclass(frozen=True)
class Encoded:
    """Rows as the model reads them."""

    x: Float32[np.ndarray, "B N"]
    """Feature values, finite."""
    codes: Int64[np.ndarray, "B N"]
    """Category of each feature: 0 unseen, 1 missing, then levels; always 0 for numeric features."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class _Feature:
    name: str
    column: str
    cardinality: int


class TableEncoder:
    """Fits on training rows, then encodes any rows.

    Attributes (after ``fit_transform``), all in the order of the features of ``x``:
        feature_names: N names. ``age``, ``is_missing(age)``, ``city``; multiclass: ``city[class]``.
        importance: (N,) mutual information with the training target in nats, descending when ``order="importance"``.
        weights: (N,) importance over its sum; 1 / N each when the sum is 0.
        cardinalities: (N,) number of codes of a categorical feature, 0 for a numeric one.

    >>> import pandas
    >>> from apps.tabular.prediction.data.table import Column
    >>> frame = pandas.DataFrame({"age": [20.0, 30, 40, 50] * 10, "city": ["Oslo", "Rome"] * 20})
    >>> schema = Schema((Column("age", "numeric"), Column("city", "categorical")), "sick", "binary", ("no", "yes"))
    >>> encoder = TableEncoder(EncodingConfig(), schema)
    >>> encoded = encoder.fit_transform(frame, np.array([0, 1] * 20))
    >>> encoder.feature_names, encoder.cardinalities.tolist(), encoded.x.shape
    (('age', 'city'), [0, 4], (40, 2))
    """

    feature_names: tuple[str, ...]
    importance: NDArray[np.float64]
    cardinalities: NDArray[np.int64]

    def __init__(self, config: EncodingConfig, schema: Schema, seed: int = 0) -> None:
        self.config, self.schema, self.seed = config, schema, seed

    @property
    def weights(self) -> NDArray[np.float64]:
        """Importance over its sum (N,); 1 / N each when the sum is 0."""
        total = self.importance.sum()
        if total > 0:
            weights: NDArray[np.float64] = self.importance / total
            return weights
        return np.full(len(self.importance), 1.0 / len(self.importance))

    def fit_transform(self, frame: pd.DataFrame, y: NDArray[Any]) -> Encoded:
        """Fit on training rows and encode them; categorical statistics of a row leave out its own fold.

        Args:
            frame: (B rows) with the schema's columns.
            y: (B,) class ids 0 .. C-1 (int), or finite values (float).

        Raises:
            InputError: the frame does not fit the schema, the target is not usable, or the features are too many.
        """
        y = self._checked_target(y, len(frame))
        columns = arrays(frame, self.schema)
        numeric = self._stack(columns)
        self._indicated = self._missing_rates(numeric)
        self._classes = []
        if self._default and self.schema.task == "multiclass":
            self._classes = one_vs_rest(y, self.schema.n_classes, self.config.class_columns)
        self._codes = {name: CategoryCodes.fit(columns[name]) for name in self.schema.of_kind("categorical")}
        self._unsorted = self._features()
        self._scaler = NumericScaler.fit(
            self.config.numeric, numeric, self.schema.of_kind("numeric"), seed=self.seed, official=not self._default
        )
        codes = {name: fitted.encode(columns[name]) for name, fitted in self._codes.items()}
        x = self._assemble(numeric, self._fit_statistics(codes, y))
        self._sort(x, y)
        return self._sorted(x, codes)

    def transform(self, frame: pd.DataFrame) -> Encoded:
        """Encode rows with what was fitted; a row's result does not depend on the rows beside it.

        Raises:
            InputError: the frame does not fit the schema, or holds missing numbers and the policy is to refuse them.
        """
        if not hasattr(self, "_order"):
            raise InputError("the encoder is not fitted", mend="call fit_transform first")
        columns = arrays(frame, self.schema, trained=True)
        codes = {name: fitted.encode(columns[name]) for name, fitted in self._codes.items()}
        statistics = {name: fitted.transform(codes[name]) for name, fitted in self._statistics.items()}
        return self._sorted(self._assemble(self._stack(columns), statistics), codes)

    def state(self) -> dict[str, Any]:
        """The fitted encoder as a tree of tensors and plain data, for ``core.artefact``; see :meth:`from_state`."""
        return {
            "config": asdict(self.config),
            "schema": self.schema.to_dict(),
            "seed": self.seed,
            "indicated": [[name, rate] for name, rate in self._indicated.items()],
            "classes": list(self._classes),
            "scaler": self._scaler.state(),
            "levels": [fitted.levels for fitted in self._codes.values()],
            "statistics": [torch.from_numpy(fitted.table) for fitted in self._statistics.values()],
            "order": torch.from_numpy(self._order),
            "importance": torch.from_numpy(self.importance),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableEncoder:
        """The inverse of :meth:`state`: the same encoder, bit for bit."""
        encoder = cls(EncodingConfig(**state["config"]), Schema.from_dict(state["schema"]), state["seed"])
        names = encoder.schema.of_kind("categorical")
        encoder._indicated = dict(state["indicated"])
        encoder._classes = list(state["classes"])
        encoder._scaler = NumericScaler.from_state(state["scaler"])
        encoder._codes = {name: CategoryCodes(levels) for name, levels in zip(names, state["levels"], strict=True)}
        encoder._statistics = {
            name: CategoryStatistics(table.numpy()) for name, table in zip(names, state["statistics"], strict=True)
        }
        encoder._unsorted = encoder._features()
        encoder._settle(state["order"].numpy(), state["importance"].numpy())
        return encoder

    @property
    def _default(self) -> bool:
        return self.config.profile == "default"

    def _checked_target(self, y: NDArray[Any], rows: int) -> NDArray[Any]:
        y, where = np.asarray(y), f"target {self.schema.target!r}"
        if y.shape != (rows,) or rows == 0:
            raise InputError(f"shape {y.shape} for {rows} rows", where=where)
        if self.schema.task == "regression":
            values = y.astype(np.float64)
            if not np.isfinite(values).all():
                raise InputError("holds missing or infinite values", where=where, mend="drop those rows")
            return values
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= self.schema.n_classes:
            raise InputError(f"class ids must be whole numbers from 0 to {self.schema.n_classes - 1}", where=where)
        return y.astype(np.int64)

    def _stack(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """(B, F) of the numeric columns; missing values are refused here where the policy says so."""
        names = self.schema.of_kind("numeric")
        rows = len(next(iter(columns.values())))
        numeric = np.stack([columns[name] for name in names], axis=1) if names else np.empty((rows, 0))
        if self.config.missing_policy == "refuse" and np.isnan(numeric).any():
            row, index = (int(i) for i in np.argwhere(np.isnan(numeric))[0])
            mend = 'fill it, or set encoding.missing to "indicator"'
            raise InputError(f"row {row + 1} is missing", where=f"column {names[index]!r}", mend=mend)
        return numeric

    def _missing_rates(self, numeric: NDArray[np.float64]) -> dict[str, float]:
        """The columns that get a missing-indicator, with their training share of missing values."""
        if self.config.missing_policy != "indicator":
            return {}
        rates = np.isnan(numeric).mean(axis=0)
        return {n: float(r) for n, r in zip(self.schema.of_kind("numeric"), rates, strict=True) if 0 < r < 1}

    def _features(self) -> list[_Feature]:
        """The features before they are sorted: columns in their order (official: categorical ones first)."""
        columns = self.schema.columns
        if not self._default:
            columns = tuple(sorted(columns, key=lambda column: column.kind != "categorical"))
        features = []
        for column in columns:
            if column.kind == "numeric":
                features.append(_Feature(column.name, column.name, 0))
                if column.name in self._indicated:
                    features.append(_Feature(f"is_missing({column.name})", column.name, 0))
            else:
                labels = [f"{column.name}[{self.schema.classes[index]}]" for index in self._classes] or [column.name]
                cardinality = self._codes[column.name].cardinality
                features += [_Feature(label, column.name, cardinality) for label in labels]
        if len(features) > self.config.max_features:
            raise InputError(
                f"{len(features)} encoded features, more than {self.config.max_features}",
                mend="keep fewer columns, or raise encoding.max_features (time and memory grow with its square)",
            )
        return features

    def _fit_statistics(
        self, codes: Mapping[str, NDArray[np.int64]], y: NDArray[Any]
    ) -> dict[str, NDArray[np.float64]]:
        """Fit the categorical statistics; returns the training rows' own values (B, K) by column."""
        regression = self.schema.task == "regression"
        # At scale 1 no sum of target values can overflow, and the result is standardised anyway.
        targets = target_columns(standardised(y) if regression and self._default else y, self._classes)
        folds = folds_of(y, folds=self.config.folds, stratify=not regression, seed=self.seed)
        self._statistics, rows = {}, {}
        for name, column in codes.items():
            cardinality = self._codes[name].cardinality
            if self._default:
                self._statistics[name], rows[name] = CategoryStatistics.fit(
                    column, cardinality, targets, folds=folds, smooth=self.config.smooth
                )
            else:
                self._statistics[name], rows[name] = CategoryStatistics.fit_official(column, cardinality, targets)
        return rows

    def _assemble(
        self, numeric: NDArray[np.float64], statistics: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """(B, N) features before they are sorted."""
        scaled, missing = self._scaler.transform(numeric), np.isnan(numeric)
        position = {name: index for index, name in enumerate(self.schema.of_kind("numeric"))}
        x = np.empty((len(numeric), len(self._unsorted)))
        start = 0
        for name, group in itertools.groupby(self._unsorted, key=lambda feature: feature.column):
            stop = start + len(list(group))
            if name in statistics:
                x[:, start:stop] = statistics[name]
            else:
                x[:, start] = scaled[:, position[name]]
            if name in self._indicated:
                rate = self._indicated[name]
                x[:, start + 1] = (missing[:, position[name]] - rate) / np.sqrt(rate * (1 - rate))
            start = stop
        return np.clip(x, -_LARGEST, _LARGEST).astype(np.float32)

    def _sort(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        names = [feature.name for feature in self._unsorted]
        classes = self.schema.task != "regression"
        information = mutual_information(
            x,
            y if classes else standardised(y),
            names,
            classes=classes,
            rows=self.config.importance_rows,
            seed=self.seed,
        )
        order = order_of(information, names, self.config.order, self.seed)
        self._settle(order, information[order])

    def _settle(self, order: NDArray[np.int64], importance: NDArray[np.float64]) -> None:
        self._order, self.importance = order, importance
        self.feature_names = tuple(self._unsorted[index].name for index in order)
        self.cardinalities = np.array([self._unsorted[index].cardinality for index in order], dtype=np.int64)

    def _sorted(self, x: NDArray[np.float32], codes: Mapping[str, NDArray[np.int64]]) -> Encoded:
        placed = np.zeros(x.shape, dtype=np.int64)
        for position, index in enumerate(self._order):
            column = self._unsorted[index].column
            if column in codes:
                placed[:, position] = codes[column]
        return Encoded(np.ascontiguousarray(x[:, self._order]), placed)
