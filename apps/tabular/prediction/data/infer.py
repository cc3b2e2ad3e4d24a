"""What a frame holds, when nobody says: kinds of columns, the task, the classes.

Columns. Numbers, and text that reads as numbers throughout, are numeric, whole numbers with few distinct values
too; truth values, pandas categories, and everything else are categorical. A column without any value is numeric.

Task. Text and truth values: classification. Numbers: "binary" when exactly two are distinct; "multiclass" when all are
whole, at most 20 are distinct, and each stands for ten rows or more on average; "regression" otherwise. Classification
is "binary" with two distinct labels, else "multiclass".

Classes are ordered as numbers where all labels are numbers, else as text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.data.files import check_distinct, pandas
from apps.tabular.prediction.data.table import Column, Kind, Schema, TargetTask, canonical, numbers, short
from core.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

MAX_INFERRED_CLASSES = 20
ROWS_PER_CLASS = 10
LARGEST_TARGET = 1e100


def infer_kind(series: pd.Series[Any]) -> Kind:
    """Numeric or categorical, by the rule above.

    >>> import pandas
    >>> [infer_kind(pandas.Series(values)) for values in (["1", "2.5", None], ["1", "x"], [True, False])]
    ['numeric', 'categorical', 'categorical']
    """
    if _truth_or_category(series) or numbers(series)[1].any():
        return "categorical"
    return "numeric"


def infer_task(target: pd.Series[Any]) -> TargetTask:
    """The task that a target column asks for, by the rule above.

    >>> import pandas
    >>> infer_task(pandas.Series(["no", "yes", "no"])), infer_task(pandas.Series([0.5, 1.25, 3.0]))
    ('binary', 'regression')
    """
    if infer_kind(target) == "categorical":
        return "binary" if len(_labels(target)) == 2 else "multiclass"
    values = numbers(target)[0]
    distinct = np.unique(values[~np.isnan(values)])
    if len(distinct) == 2:
        return "binary"
    whole = bool(np.isfinite(distinct).all() and (distinct == np.round(distinct)).all())
    few = 2 < len(distinct) <= min(MAX_INFERRED_CLASSES, len(target) / ROWS_PER_CLASS)
    return "multiclass" if whole and few else "regression"


def infer_schema(
    frame: pd.DataFrame,
    target: str,
    *,
    task: TargetTask | None = None,
    categorical: Collection[str] = (),
    numeric: Collection[str] = (),
    classes: Sequence[str | int | float | bool] = (),
    ignore: Collection[str] = (),
    where: str | None = None,
) -> Schema:
    """The schema of a frame; what is given is kept, the rest is inferred by the rules above.

    Args:
        frame: features and target.
        target: name of the target column.
        task: of the target.
        categorical: columns that are so. When both kinds are given, they are all the columns there are.
        numeric: columns that are so.
        classes: labels in the order of the class ids.
        ignore: columns that are no features (a group, for example).
        where: what the frame is called in errors.

    Raises:
        InputError: no such target or columns, a target with one class, with text for a regression, or with nearly
            as many classes as rows.
    """
    names = [str(name) for name in frame.columns]
    check_distinct(names, where)
    for name in (target, *categorical, *numeric, *ignore):
        if name not in names:
            raise InputError(f"no column {name!r}", where=where, mend=nearest(name, names[:200]))
    features = [name for name in names if name != target and name not in ignore]
    if categorical and numeric:
        features = [name for name in features if name in categorical or name in numeric]
    series = {name: frame.iloc[:, index] for index, name in enumerate(names)}
    columns = tuple(Column(name, _kind(name, series[name], categorical, numeric)) for name in features)
    task = task or infer_task(series[target])
    found = () if task == "regression" else _classes(series[target], classes, task, f"{where or 'table'}, {target!r}")
    return Schema(columns, target, task, found)


def _kind(name: str, series: pd.Series[Any], categorical: Collection[str], numeric: Collection[str]) -> Kind:
    if name in categorical:
        return "categorical"
    return "numeric" if name in numeric else infer_kind(series)


def _truth_or_category(series: pd.Series[Any]) -> bool:
    pd = pandas()
    if isinstance(series.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(series.dtype):
        return True
    return bool(series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) == "boolean")


def _labels(target: pd.Series[Any]) -> list[str]:
    """Distinct labels in canonical text, ordered as numbers where all are numbers, else as text."""
    labels = cast("set[str]", {label for label in canonical(target).tolist() if label is not None})
    values, stray = numbers(pandas().Series(sorted(labels), dtype=object))
    if not stray.any() and not np.isnan(values).any():
        return [label for _, label in sorted(zip(values.tolist(), sorted(labels), strict=True))]
    return sorted(labels)


def _classes(
    target: pd.Series[Any], given: Sequence[str | int | float | bool], task: TargetTask, where: str
) -> tuple[str, ...]:
    labels = _labels(target)
    if given:
        listed = [str(label) for label in canonical(pandas().Series(list(given), dtype=object))]
        unknown = sorted({*labels} - {*listed})
        if unknown:
            raise InputError(f"the label {unknown[0]!r} is not among the classes given", where=where)
        labels = listed
    if len(labels) < 2:
        what = f"one class only ({labels[0]!r})" if labels else "no labels"
        raise InputError(what, where=where, mend="the target needs two classes or more")
    if len(labels) > max(2, len(target) / 2):
        mend = "choose another target, or task regression"
        raise InputError(f"{len(labels)} classes in {len(target)} rows", where=where, mend=mend)
    if task == "binary" and len(labels) != 2:
        raise InputError(f"{len(labels)} classes for a binary task", where=where, mend="use task multiclass")
    return tuple(labels)


def encode_target(target: pd.Series[Any], schema: Schema, *, where: str | None = None) -> NDArray[Any]:
    """Class ids int64, or values float64 (rows,).

    Raises:
        InputError: missing targets (with their number), unknown labels, text or infinity in a regression target.
    """
    place = (f"{where}, " if where else "") + f"target {schema.target!r}"
    if schema.task == "regression":
        values, stray = numbers(target)
        # Beyond that, a square overflows.
        bad = stray | (np.abs(values) > LARGEST_TARGET)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            what = f"row {row + 1} holds {short(target.iloc[row])}, not a finite number below {LARGEST_TARGET:g}"
            raise InputError(what, where=place)
        _refuse_missing(np.isnan(values), place)
        return values
    labels = canonical(target, place)
    _refuse_missing(np.array([label is None for label in labels], dtype=bool), place)
    known = {str(label): index for index, label in enumerate(schema.classes)}
    ids = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
    if (ids < 0).any():
        row = int(np.flatnonzero(ids < 0)[0])
        mend = f"known: {', '.join(list(known)[:10])}"
        raise InputError(f"row {row + 1} has the unknown label {labels[row]!r}", where=place, mend=mend)
    return ids


def _refuse_missing(missing: NDArray[np.bool_], place: str) -> None:
    if missing.any():
        first = int(np.flatnonzero(missing)[0]) + 1
        count = int(missing.sum())
        what = f"{count} rows have no target (the first: row {first})" if count > 1 else f"row {first} has no target"
        raise InputError(what, where=place, mend="fill them in or leave those rows out")
