"""What is wrong with a table, column by column and split by split: one :class:`Finding` each, none raised.

``row`` counts the data rows from 1 (in a text file without line breaks inside fields, line = row + 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from apps.tabular.prediction.data.encode import EncodingConfig, TableEncoder
from apps.tabular.prediction.data.split import row_hashes
from apps.tabular.prediction.data.table import Column, Schema, Table, canonical, numbers, short
from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "note"]

MOSTLY_NUMBERS = 0.8
"""A text column with at least this share of numbers is probably a numeric one with stray tokens."""
ID_SHARE = 0.9
"""A categorical column with more distinct values than this share of its rows is probably an identifier."""
FEW_ROWS, FEW_OF_CLASS, RARE_SHARE = 100, 10, 0.01
UNSEEN_SHARE = 0.05
SUSPICIOUS = 0.995
"""A single column with an AUC (rank correlation, for regression) above this is probably a copy of the target."""
SUSPECTS, SUSPECT_ROWS = 20, 5000
MANY_FEATURES = 200


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    severity: Severity
    what: str
    where: str | None = None
    column: str | None = None
    row: int | None = None
    mend: str | None = None

    def __str__(self) -> str:
        place = [self.where, self.column and f"column {self.column!r}", self.row and f"row {self.row}"]
        said = InputError(self.what, where=", ".join(p for p in place if p) or None, mend=self.mend)
        return f"{self.severity}: {said}"


def from_error(error: InputError) -> Finding:
    """An error that reading raised, as a finding."""
    return Finding("error", error.what, error.where, mend=error.mend)


def column_findings(frame: pd.DataFrame, columns: Sequence[Column], where: str) -> Iterator[Finding]:
    """Of the training rows: stray tokens, infinities, constant, empty and identifier-like columns."""
    positions = {str(name): index for index, name in enumerate(frame.columns)}
    for column in columns:
        series = frame.iloc[:, positions[column.name]]
        if column.kind == "numeric":
            yield from value_findings(series, column.name, where)
            yield from _number_findings(numbers(series)[0], column.name, where)
        else:
            yield from _category_findings(series, column.name, where)


def value_findings(series: pd.Series[Any], column: str, where: str) -> Iterator[Finding]:
    """Of a numeric column in any split: cells that are not finite numbers."""
    values, stray = numbers(series)
    for bad, what in ((stray, "not a number"), (np.isinf(values), "infinite")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
            mend = "correct it, leave it empty, or declare the column categorical"
            yield Finding("error", f"{short(series.iloc[row])} is {what}{more}", where, column, row + 1, mend)


def _number_findings(values: NDArray[np.float64], column: str, where: str) -> Iterator[Finding]:
    present = values[np.isfinite(values)]
    if not len(present):
        yield Finding("warning", "no value at all", where, column, mend="leave the column out")
    elif present.min() == present.max():
        yield Finding("warning", f"always {present[0]:g}", where, column, mend="leave the column out")
    elif len(present) >= FEW_ROWS and (np.diff(values) == 1).all():
        yield Finding("warning", "counts the rows: an identifier", where, column, mend="leave the column out")


def _category_findings(series: pd.Series[Any], column: str, where: str) -> Iterator[Finding]:
    try:
        levels = canonical(series)
    except InputError as error:
        yield Finding("error", error.what, where, column, mend=error.mend)
        return
    present = np.array([level is not None for level in levels], dtype=bool)
    distinct = len(set(levels[present]))
    if distinct < 2:
        what = "no value at all" if distinct == 0 else f"always {levels[present][0]!r}"
        yield Finding("warning", what, where, column, mend="leave the column out")
        return
    if present.sum() >= FEW_ROWS and distinct > ID_SHARE * present.sum():
        what = f"{distinct} distinct values in {int(present.sum())} rows: an identifier, a date or free text"
        yield Finding("warning", what, where, column, mend="leave the column out, or turn it into numbers")
    stray = numbers(series)[1]
    if 0 < stray.sum() <= (1 - MOSTLY_NUMBERS) * present.sum():
        row = int(np.flatnonzero(stray)[0])
        what = f"nearly all numbers, but {short(series.iloc[row])} is not ({int(stray.sum())} such rows)"
        mend = "correct or empty those cells, or declare the column categorical in meta.json"
        yield Finding("warning", what, where, column, row + 1, mend)


def target_findings(table: Table, where: str) -> Iterator[Finding]:
    """Of the training rows: how many, and how the classes are spread."""
    if len(table) < FEW_ROWS:
        what = f"{len(table)} rows: scores will have wide intervals"
        yield Finding("warning", what, where, mend="use cross-validation, or gather more rows")
    schema = table.schema
    if schema.task == "regression":
        if table.target.min() == table.target.max():
            yield Finding("error", f"always {table.target[0]:g}", where, schema.target, mend="choose another target")
        return
    counts = np.bincount(table.target, minlength=schema.n_classes)
    for label, count in zip(schema.classes, counts, strict=True):
        if count < FEW_OF_CLASS:
            mend = "merge it with another class, or gather more rows"
            yield Finding("warning", f"{count} rows of class {label!r}", where, schema.target, mend=mend)
    if counts.min() < RARE_SHARE * len(table):
        what = f"the rarest class is {counts.min() / len(table):.2%} of the rows"
        yield Finding("warning", what, where, schema.target, mend="judge by AUC or log loss, not by accuracy")


def split_findings(tables: Mapping[str, Table], labels: Mapping[str, str]) -> Iterator[Finding]:
    """Between training and the other splits: shared rows, shared groups, unseen categories, newly missing numbers."""
    train = tables["train"]
    for name in (name for name in tables if name != "train"):
        table, where = tables[name], labels[name]
        shared = int(np.isin(row_hashes(table), row_hashes(train)).sum())
        if shared:
            what = f"{shared} of {len(table)} rows have the same features as a training row"
            yield Finding("warning", what, where, mend="keep equal rows in one split")
        if table.groups is not None and train.groups is not None:
            common = len(set(table.groups) & set(train.groups))
            if common:
                yield Finding("warning", f"{common} groups are also in training", where, mend="split by group")
        yield from _unlike_training(train, table, where)


def _unlike_training(train: Table, table: Table, where: str) -> Iterator[Finding]:
    for column in train.schema.columns:
        old, new = train.frame[column.name], table.frame[column.name]
        if column.kind == "numeric":
            if new.isna().any() and not old.isna().any():
                what = f"{int(new.isna().sum())} values are missing, none in training"
                yield Finding("note", what, where, column.name, mend="predictions will take the middle value")
            continue
        unseen = new.notna() & ~new.isin(old.dropna().unique())
        if unseen.any():
            severity: Severity = "warning" if unseen.mean() >= UNSEEN_SHARE else "note"
            row = int(np.flatnonzero(unseen)[0])
            what = f"{short(new.iloc[row])} is not in training ({unseen.mean():.1%} of the rows have such a category)"
            mend = "unseen categories are read as the average one"
            yield Finding(severity, what, where, column.name, row + 1, mend)


def feature_findings(table: Table, where: str, *, width: int = 256, layers: int = 3) -> Iterator[Finding]:
    """Of the encoded training rows: their cost at the published model size, and columns that give the target away."""
    encoder = TableEncoder(EncodingConfig(), table.schema)
    try:
        x = encoder.fit_transform(table.frame, table.target).x
    except InputError as error:
        yield from_error(InputError(error.what, where=where, mend=error.mend))
        return
    n = x.shape[1]
    macs = layers * n * (6 * width**2 + 2 * n * width)
    what = f"{n} features: {macs / 1e6:,.0f} million multiply-adds a row and pass at width {width}, {layers} layers"
    dear = n > MANY_FEATURES
    yield Finding("warning" if dear else "note", what, where, mend="a smaller preset costs less" if dear else None)
    rows = np.random.default_rng(0).permutation(len(table))[:SUSPECT_ROWS]
    for index in range(min(n, SUSPECTS)):
        score = _predicts(x[rows, index], table.target[rows], table.schema)
        if score > SUSPICIOUS:
            kind = "rank correlation" if table.schema.task == "regression" else "cross-validated AUC"
            what = f"predicts the target by itself ({kind} {score:.4f}): is it known before the target is?"
            yield Finding("warning", what, where, encoder.feature_names[index], mend="leave it out unless it is")


def _predicts(x: NDArray[np.float32], y: NDArray[Any], schema: Schema) -> float:
    """How well one feature tells the target: cross-validated AUC of a small tree, or absolute rank correlation."""
    if x.min() == x.max() or y.min() == y.max():
        return 0.0
    if schema.task == "regression":
        return abs(float(spearmanr(x, y).statistic))
    if np.bincount(y)[np.unique(y)].min() < 3:  # each of the three folds needs one of every class
        return 0.0
    ids = np.unique(y, return_inverse=True)[1]
    tree = DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=2, random_state=0)
    shares = cross_val_predict(tree, x[:, None], ids, cv=3, method="predict_proba")
    scores = shares[:, 1] if shares.shape[1] == 2 else shares
    return float(roc_auc_score(ids, scores, multi_class="ovr"))
