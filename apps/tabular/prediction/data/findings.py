"""What is wrong with a table, column by column and split by split: one :class:`TableFinding` each, none raised.

``row`` counts the data rows from 1 (in a text file without line breaks inside fields, line = row + 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from apps.tabular.prediction.data.encode import EncodingConfig, TableEncoder
from apps.tabular.prediction.data.split import row_hashes
from apps.tabular.prediction.data.table import Column, Schema, Table, canonical, numbers, short
from core.command import Finding, Severity
from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True, kw_only=True)
class TableFinding(Finding):
    """One thing found in a table; ``where`` is its file.

    >>> print(TableFinding(severity="error", kind="infinite", what="inf", where="a.csv", column="age", row=8))
    error: a.csv, column 'age', row 8: inf
    """

    column: str | None = None
    row: int | None = None

    @property
    def place(self) -> str | None:
        """File, column and row."""
        parts = [super().place, self.column and f"column {self.column!r}", self.row and f"row {self.row}"]
        return ", ".join(part for part in parts if part) or None


def found(
    severity: Severity,
    kind: str,
    what: str,
    where: str,
    column: str | None = None,
    row: int | None = None,
    mend: str | None = None,
) -> TableFinding:
    """A finding in the table ``where``, its parts in the order of reading."""
    return TableFinding(severity=severity, kind=kind, what=what, where=where, column=column, row=row, mend=mend)


def column_findings(frame: pd.DataFrame, columns: Sequence[Column], where: str) -> Iterator[TableFinding]:
    """Of the training rows: stray tokens, infinities, constant, empty and identifier-like columns."""
    positions = {str(name): index for index, name in enumerate(frame.columns)}
    for column in columns:
        series = frame.iloc[:, positions[column.name]]
        if column.kind == "numeric":
            yield from value_findings(series, column.name, where)
            yield from _number_findings(numbers(series)[0], column.name, where)
        else:
            yield from _category_findings(series, column.name, where)


def value_findings(series: pd.Series[Any], column: str, where: str) -> Iterator[TableFinding]:
    """Of a numeric column in any split: cells that are not finite numbers."""
    values, stray = numbers(series)
    for bad, kind, what in ((stray, "stray", "not a number"), (np.isinf(values), "infinite", "infinite")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
            mend = "correct it, leave it empty, or declare the column categorical"
            yield found("error", kind, f"{short(series.iloc[row])} is {what}{more}", where, column, row + 1, mend)


def _number_findings(values: NDArray[np.float64], column: str, where: str) -> Iterator[TableFinding]:
    present = values[np.isfinite(values)]
    if not len(present):
        yield found("warning", "empty", "no value at all", where, column, mend="leave the column out")
    elif present.min() == present.max():
        yield found("warning", "constant", f"always {present[0]:g}", where, column, mend="leave the column out")
    elif len(present) >= FEW_ROWS and (np.diff(values) == 1).all():
        what = "counts the rows: an identifier"
        yield found("warning", "identifier", what, where, column, mend="leave the column out")


def _category_findings(series: pd.Series[Any], column: str, where: str) -> Iterator[TableFinding]:
    try:
        levels = canonical(series)
    except InputError as error:
        yield found("error", "column", error.what, where, column, mend=error.mend)
        return
    present = np.array([level is not None for level in levels], dtype=bool)
    distinct = len(set(levels[present]))
    if distinct < 2:
        kind = "empty" if distinct == 0 else "constant"
        what = "no value at all" if distinct == 0 else f"always {levels[present][0]!r}"
        yield found("warning", kind, what, where, column, mend="leave the column out")
        return
    if present.sum() >= FEW_ROWS and distinct > ID_SHARE * present.sum():
        what = f"{distinct} distinct values in {int(present.sum())} rows: an identifier, a date or free text"
        yield found("warning", "identifier", what, where, column, mend="leave the column out, or turn it into numbers")
    stray = numbers(series)[1]
    if 0 < stray.sum() <= (1 - MOSTLY_NUMBERS) * present.sum():
        row = int(np.flatnonzero(stray)[0])
        what = f"nearly all numbers, but {short(series.iloc[row])} is not ({int(stray.sum())} such rows)"
        mend = "correct or empty those cells, or declare the column categorical in meta.json"
        yield found("warning", "stray", what, where, column, row + 1, mend)


def target_findings(table: Table, where: str) -> Iterator[TableFinding]:
    """Of the training rows: how many, and how the classes are spread."""
    if len(table) < FEW_ROWS:
        what = f"{len(table)} rows: scores will have wide intervals"
        yield found("warning", "few", what, where, mend="use cross-validation, or gather more rows")
    schema = table.schema
    if schema.task == "regression":
        if table.target.min() == table.target.max():
            mend = "choose another target"
            yield found("error", "constant", f"always {table.target[0]:g}", where, schema.target, mend=mend)
        return
    counts = np.bincount(table.target, minlength=schema.n_classes)
    for label, count in zip(schema.classes, counts, strict=True):
        if count < FEW_OF_CLASS:
            mend = "merge it with another class, or gather more rows"
            yield found("warning", "rare-class", f"{count} rows of class {label!r}", where, schema.target, mend=mend)
    if counts.min() < RARE_SHARE * len(table):
        what = f"the rarest class is {counts.min() / len(table):.2%} of the rows"
        mend = "judge by AUC or log loss, not by accuracy"
        yield found("warning", "unbalanced", what, where, schema.target, mend=mend)


def split_findings(tables: Mapping[str, Table], labels: Mapping[str, str]) -> Iterator[TableFinding]:
    """Between training and the other splits: shared rows, shared groups, unseen categories, newly missing numbers."""
    train = tables["train"]
    for name in (name for name in tables if name != "train"):
        for one in (*_shared(train, tables[name], labels[name]), *_unlike_training(train, tables[name], labels[name])):
            yield replace(one, split=name)


def _shared(train: Table, table: Table, where: str) -> Iterator[TableFinding]:
    shared = int(np.isin(row_hashes(table), row_hashes(train)).sum())
    if shared:
        what = f"{shared} of {len(table)} rows have the same features as a training row"
        yield found("warning", "shared-rows", what, where, mend="keep equal rows in one split")
    if table.groups is not None and train.groups is not None:
        common = len(set(table.groups) & set(train.groups))
        if common:
            what = f"{common} groups are also in training"
            yield found("warning", "shared-groups", what, where, mend="split by group")


def _unlike_training(train: Table, table: Table, where: str) -> Iterator[TableFinding]:
    for column in train.schema.columns:
        old, new = train.frame[column.name], table.frame[column.name]
        if column.kind == "numeric":
            if new.isna().any() and not old.isna().any():
                what = f"{int(new.isna().sum())} values are missing, none in training"
                mend = "predictions will take the middle value"
                yield found("note", "newly-missing", what, where, column.name, mend=mend)
            continue
        unseen = new.notna() & ~new.isin(old.dropna().unique())
        if unseen.any():
            severity: Severity = "warning" if unseen.mean() >= UNSEEN_SHARE else "note"
            row = int(np.flatnonzero(unseen)[0])
            what = f"{short(new.iloc[row])} is not in training ({unseen.mean():.1%} of the rows have such a category)"
            mend = "unseen categories are read as the average one"
            yield found(severity, "unseen", what, where, column.name, row + 1, mend)


def feature_findings(table: Table, where: str, *, width: int = 256, layers: int = 3) -> Iterator[TableFinding]:
    """Of the encoded training rows: their cost at the published model size, and columns that give the target away."""
    encoder = TableEncoder(EncodingConfig(), table.schema)
    try:
        x = encoder.fit_transform(table.frame, table.target).x
    except InputError as error:
        yield found("error", "encoding", error.what, where, mend=error.mend)
        return
    n = x.shape[1]
    macs = layers * n * (6 * width**2 + 2 * n * width)
    what = f"{n} features: {macs / 1e6:,.0f} million multiply-adds a row and pass at width {width}, {layers} layers"
    dear = n > MANY_FEATURES
    mend = "a smaller preset costs less" if dear else None
    yield found("warning" if dear else "note", "cost", what, where, mend=mend)
    rows = np.random.default_rng(0).permutation(len(table))[:SUSPECT_ROWS]
    for index in range(min(n, SUSPECTS)):
        score = _predicts(x[rows, index], table.target[rows], table.schema)
        if score > SUSPICIOUS:
            score_name = "rank correlation" if table.schema.task == "regression" else "cross-validated AUC"
            what = f"predicts the target by itself ({score_name} {score:.4f}): is it known before the target is?"
            mend = "leave it out unless it is"
            yield found("warning", "leak", what, where, encoder.feature_names[index], mend=mend)


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
