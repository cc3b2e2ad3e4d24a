"""Columns, schemas and tables, and the one door by which rows reach an encoder: :func:`arrays`, :func:`conform`.

A category is known by its canonical text, so that the same value is the same category whether it comes from a text
file, a Parquet file or a frame: blanks around it are stripped, ``1``, ``1.0`` and ``"1.0"`` are all ``"1"``, ``True``
is ``"True"``, the empty text is a missing value. A number is a finite float64; a missing one is NaN.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.data.files import check_distinct, pandas, read_table
from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Column", "Kind", "Schema", "Table", "TargetTask", "arrays", "canonical", "conform", "extra_columns", "numbers",
    "read_table", "short",
]  # fmt: skip

Kind = Literal["numeric", "categorical"]
TargetTask = Literal["binary", "multiclass", "regression"]

_INTEGRAL = re.compile(r"([+-]?\d+)\.0+")
_LEAF = (str, bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, np.generic)


@dataclass(frozen=True)
class Column:
    """One feature column."""

    name: str
    kind: Kind

    def __post_init__(self) -> None:
        if self.kind not in ("numeric", "categorical"):
            raise InputError(
                f"unknown kind {self.kind!r}", where=f"column {self.name!r}", mend="numeric or categorical"
            )


@dataclass(frozen=True)
class Schema:
    """What a table holds: feature columns in their order, and the target.

    ``classes`` are the labels in the order of the class ids (for a binary task the second is the positive one); empty
    for regression.

    >>> schema = Schema((Column("age", "numeric"), Column("city", "categorical")), "sick", "binary", ("no", "yes"))
    >>> Schema.from_dict(schema.to_dict()) == schema
    True
    """

    columns: tuple[Column, ...]
    target: str
    task: TargetTask
    classes: tuple[str | int | float | bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise InputError("no feature columns", where="schema", mend="give at least one column beside the target")
        check_distinct([*self.names, self.target], "schema")
        expected = {"binary": self.n_classes == 2, "multiclass": self.n_classes >= 2, "regression": not self.classes}
        if not expected.get(self.task, False):
            raise InputError(f"task {self.task!r} does not go with {len(self.classes)} classes", where="schema")

    @property
    def names(self) -> tuple[str, ...]:
        """Feature column names."""
        return tuple(column.name for column in self.columns)

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Names of the columns of one kind, in order."""
        return tuple(column.name for column in self.columns if column.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON and artefacts."""
        return {
            "columns": [{"name": column.name, "kind": column.kind} for column in self.columns],
            "target": self.target,
            "task": self.task,
            "classes": list(self.classes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: a field is missing or wrong.
        """
        try:
            columns = tuple(Column(str(column["name"]), column["kind"]) for column in data["columns"])
            return cls(columns, str(data["target"]), data["task"], tuple(data["classes"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"not a schema ({error!r})", where="schema") from error


@dataclass(frozen=True)
class Table:
    """Rows ready for an encoder.

    ``frame`` holds the feature columns in the schema's order, conformed (see :func:`conform`); ``target`` (rows,) class
    ids int64 or values float64; ``groups`` (rows,) text, or None.
    """

    frame: pd.DataFrame
    target: NDArray[Any]
    schema: Schema
    groups: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.frame), len(self.target), len(self.frame) if self.groups is None else len(self.groups)}
        if len(lengths) != 1:
            raise InputError(f"frame, target and groups differ in length: {sorted(lengths)}", where="table")

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Table:
        """The table of these row positions, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        groups = None if self.groups is None else self.groups[index]
        return Table(self.frame.iloc[index].reset_index(drop=True), self.target[index], self.schema, groups)


def arrays(
    frame: pd.DataFrame, schema: Schema, *, where: str | None = None, trained: bool = False
) -> dict[str, NDArray[Any]]:
    """The schema's columns by name: float64 (rows,) for numbers, canonical text or None (rows,) for categories.

    Args:
        frame: holds at least the schema's columns, in any order; the target is not needed, other columns are ignored.
        schema: what the columns are.
        where: what the frame is called in errors, a file name for example.
        trained: a model has learned the schema: errors then say what can be done about the rows alone.

    Raises:
        InputError: columns missing (all named) or repeated; text or infinity in a numeric column (with column, row
            counted from 1, and value); lists and the like in a categorical one.
    """
    positions = _positions(frame, schema, where)
    out: dict[str, NDArray[Any]] = {}
    for column in schema.columns:
        series = frame.iloc[:, positions[column.name]]
        place = (f"{where}, " if where else "") + f"column {column.name!r}"
        out[column.name] = _numeric(series, place, trained) if column.kind == "numeric" else canonical(series, place)
    return out


def conform(frame: pd.DataFrame, schema: Schema, *, where: str | None = None, trained: bool = False) -> pd.DataFrame:
    """A frame of exactly the schema's columns, in its order, as :func:`arrays` gives them. Idempotent.

    >>> import pandas
    >>> schema = Schema((Column("age", "numeric"), Column("city", "categorical")), "y", "regression")
    >>> conform(pandas.DataFrame({"extra": [0], "city": [" Oslo"], "age": ["41"]}), schema).to_dict("list")
    {'age': [41.0], 'city': ['Oslo']}
    """
    build: type[pd.DataFrame] = pandas().DataFrame
    column: type[pd.Series[Any]] = pandas().Series
    columns = {
        # Object columns keep None and text as they are; pandas would choose a text type of its own.
        name: column(values, dtype=object if values.dtype == object else None)
        for name, values in arrays(frame, schema, where=where, trained=trained).items()
    }
    return build(columns, columns=list(schema.names))


def extra_columns(frame: pd.DataFrame, schema: Schema) -> tuple[str, ...]:
    """Columns of the frame that :func:`conform` ignores, without the target."""
    known = {*schema.names, schema.target}
    return tuple(name for name in map(str, frame.columns) if name not in known)


def _positions(frame: pd.DataFrame, schema: Schema, where: str | None) -> dict[str, int]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        check_distinct(names, where)
    positions = {name: index for index, name in enumerate(names)}
    missing = [name for name in schema.names if name not in positions]
    if missing:
        listed = ", ".join(repr(name) for name in missing)
        kind = "column is" if len(missing) == 1 else "columns are"
        mend = "name the columns as they were when the model was trained"
        raise InputError(f"{kind} missing: {listed}", where=where, mend=mend)
    return positions


def _numeric(series: pd.Series[Any], place: str, trained: bool) -> NDArray[np.float64]:
    values, stray = numbers(series)
    if stray.any():
        row = int(np.flatnonzero(stray)[0])
        mend = "correct it, leave it empty, or declare the column categorical"
        if trained:
            mend = "the model was trained on numbers in this column: correct it, or leave it empty"
        raise InputError(f"row {row + 1} holds {short(series.iloc[row])}, not a number", where=place, mend=mend)
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise InputError(f"row {row + 1} is infinite", where=place, mend="correct it, or leave it empty")
    return values


def numbers(series: pd.Series[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as float64 (NaN where missing or not a number), and a mask of the cells that hold something else.

    Integers beyond 2^53 are rounded to float64.

    >>> import pandas
    >>> numbers(pandas.Series(["1", " 2.5 ", None, "x"]))
    (array([1. , 2.5, nan, nan]), array([False, False, False,  True]))
    """
    pd = pandas()
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        return series.to_numpy(dtype=np.float64), np.zeros(len(series), dtype=bool)
    if pd.api.types.is_bool_dtype(dtype) or (pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c"):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(series), dtype=bool)
    values = series.astype(object).to_numpy()
    present = ~_absent(values)
    result, stray = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    try:
        if not any("_" in value for value in values[present] if isinstance(value, str)):
            result[present] = values[present].astype(np.float64)
            return result, stray
    except (ValueError, TypeError, OverflowError):
        pass  # some cell is no number: go through the distinct values one by one
    codes, levels = _levels(values[present])
    parsed = [_number(level) for level in levels]
    result[present] = np.array([np.nan if number is None else number for number in parsed], dtype=np.float64)[codes]
    stray[present] = np.array([number is None for number in parsed], dtype=bool)[codes]
    return result, stray


def _number(value: Any) -> float | None:
    """The value as a float, or None. Decimal notation only: no underscores, no hexadecimal; ``nan`` is missing."""
    if isinstance(value, str) and not value.strip():
        return math.nan
    if (isinstance(value, str) and "_" in value) or isinstance(value, np.complexfloating):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number beyond float64
        return math.inf if value > 0 else -math.inf
    except (ValueError, TypeError):
        return None


def canonical(series: pd.Series[Any], place: str | None = None) -> NDArray[np.object_]:
    """Categories as canonical text, None where missing.

    >>> import pandas
    >>> canonical(pandas.Series([1.0, None, 2.5])).tolist()
    ['1', None, '2.5']

    Raises:
        InputError: the column holds values that are no categories (lists, bytes), naming ``place`` and the row.
    """
    values = series.astype(object).to_numpy()
    present = ~_absent(values)
    codes, levels = _levels(values[present])
    pd = pandas()
    for index, level in enumerate(levels):
        if not isinstance(level, (*_LEAF, pd.Period, pd.Interval)):
            row = int(np.flatnonzero(present)[np.flatnonzero(codes == index)[0]])
            mend = "give numbers or text"
            raise InputError(f"row {row + 1} holds {short(level)}, not a category", where=place, mend=mend)
    texts = np.empty(len(levels), dtype=object)
    texts[:] = [_text(level) or None for level in levels]
    result = np.full(len(values), None, dtype=object)
    result[present] = texts[codes]
    return result


def _absent(values: NDArray[np.object_]) -> NDArray[np.bool_]:
    isna = pandas().isna
    try:
        return cast("NDArray[np.bool_]", isna(values))
    except decimal.InvalidOperation:  # a signalling decimal NaN cannot even be compared
        silent = [isinstance(value, decimal.Decimal) and value.is_nan() for value in values]
        absent = np.array(silent, dtype=bool)
        absent[~absent] = isna(values[~absent])
        return absent


def _levels(values: NDArray[np.object_]) -> tuple[NDArray[np.int64], list[Any]]:
    """Codes (rows,) and the distinct values they point at; ``True`` and ``1`` stay apart."""
    pd = pandas()
    if len(values) > 8 and pd.api.types.infer_dtype(values, skipna=False) in (
        "string",
        "integer",
        "floating",
        "boolean",
    ):
        codes, levels = pd.factorize(values)
        return codes.astype(np.int64), list(levels)
    known: dict[tuple[type, Any], int] = {}
    levels = []
    codes = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        key = (type(value), value if isinstance(value, _LEAF) else id(value))
        if key not in known:
            known[key] = len(levels)
            levels.append(value)
        codes[row] = known[key]
    return codes, levels


def _text(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = str(value).strip()
    match = _INTEGRAL.fullmatch(text)
    return match.group(1) if match else text


def short(value: Any) -> str:
    """A value as errors show it: its repr, of numpy's numbers that of Python's, at most 40 characters."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:37] + "..."
