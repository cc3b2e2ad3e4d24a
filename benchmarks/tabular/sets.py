"""The data of a benchmark: folders ``<set>/{train,valid,test}.csv.gz`` with a ``meta.json``, listed in ``index.csv``.

``meta.json`` names the task, the target, the numeric and the categorical columns and the classes in order. Nothing is
imputed, encoded or scaled here: every method gets the same raw frames and does that itself, inside its measured time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import InputError, nearest

Task = Literal["binary", "multiclass", "regression"]
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, kw_only=True)
class TableSet:
    """What is known of a set before its rows are read. ``rows`` counts every split, also the ones not used here."""

    name: str
    task: Task
    target: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    classes: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Rows:
    """Features as read (text categories, NaN where a cell is empty) and the target: class index int64, or float64."""

    X: pd.DataFrame
    y: NDArray[Any]


def set_names(data: Path, wanted: str | None = None) -> list[str]:
    """Names in ``index.csv``, or those of the comma-separated ``wanted``, checked against it."""
    index = data / "index.csv"
    if not index.is_file():
        raise InputError("no such file", where=str(index), mend="name the folder that holds the sets with --data")
    known = [str(name) for name in pd.read_csv(index)["name"]]
    if wanted is None:
        return known
    for name in (names := wanted.split(",")):
        if name not in known:
            raise InputError(f"no set {name!r}", where=str(index), mend=nearest(name, known))
    return names


def describe(data: Path, name: str) -> TableSet:
    """Read ``meta.json`` and the set's row of ``index.csv``."""
    meta = json.loads((data / name / "meta.json").read_text())
    index = pd.read_csv(data / "index.csv", index_col="name")
    return TableSet(
        name=name,
        task=meta["task"],
        target=meta["target"],
        numeric=tuple(meta["numeric"]),
        categorical=tuple(meta["categorical"]),
        classes=tuple(meta["classes"] or ()),
        rows=int(index["rows"].to_dict()[name]),
    )


def read_rows(data: Path, table: TableSet, split: Split) -> Rows:
    """Read one split. Only an empty cell is missing: a category called "None" or "NA" stays a category."""
    path = data / table.name / f"{split}.csv.gz"
    kinds: dict[str, Any] = dict.fromkeys(table.categorical, "str") | dict.fromkeys(table.numeric, "float64")
    if table.classes:
        kinds[table.target] = "str"
    frame = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
    target = frame.pop(table.target)
    features = frame[[*table.numeric, *table.categorical]]
    if not table.classes:
        return Rows(features, target.to_numpy(np.float64))
    codes = target.map({name: code for code, name in enumerate(table.classes)})
    if codes.isna().any():
        raise InputError("a class that meta.json does not list", where=str(path))
    return Rows(features, codes.to_numpy(np.int64))
