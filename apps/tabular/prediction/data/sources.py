"""Where tables come from: a folder of splits, one file, or the real tables bundled with scikit-learn.

Folder::

    train.csv | .csv.gz | .tsv | .tsv.gz | .parquet       needed
    valid.*, test.*                                       optional
    meta.json                                             optional: {"target": "price", "task": "regression",
                                                          "categorical": [...], "numeric": [...], "classes": [...]}

When ``meta.json`` names both kinds of columns, columns it does not name are left out. A folder with ``train`` alone,
and one plain file, are split 70/15/15; a folder with ``train`` and ``test`` gives 15 % of ``train`` to ``valid``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.tabular.prediction.data.files import SUFFIXES, pandas, read_table, table_suffix
from apps.tabular.prediction.data.infer import encode_target, infer_schema
from apps.tabular.prediction.data.split import split
from apps.tabular.prediction.data.table import Schema, Table, TargetTask, canonical, conform
from core.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

BUNDLED = {
    "breast_cancer": "binary",
    "wine": "multiclass",
    "iris": "multiclass",
    "digits": "multiclass",
    "diabetes": "regression",
}
"""Names of the bundled tables, and their tasks."""

DEFAULT_DATA = "bundled:breast_cancer"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Source:
    """Raw frames by split (``train`` alone when nothing is split yet), what each is called, and what is declared."""

    frames: Mapping[str, pd.DataFrame]
    labels: Mapping[str, str]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def schema(self, *, target: str | None = None, task: TargetTask | None = None, group: str | None = None) -> Schema:
        """The schema of the ``train`` frame: arguments first, then what is declared, then inference.

        Raises:
            InputError: no target is named, or it cannot be learned.
        """
        frame, where = self.frames["train"], self.labels["train"]
        target = target or self.meta.get("target")
        if target is None:
            columns = ", ".join(str(name) for name in frame.columns[-5:])
            raise InputError("no target column is named", where=where, mend=f"name one with --target (last: {columns})")
        if group == target:
            raise InputError(f"{group!r} is the target and cannot be the group too", where=where, mend="name another")
        declared = target == self.meta.get("target")
        return infer_schema(
            frame,
            target,
            task=task or (self.meta.get("task") if declared else None),
            categorical=[name for name in self.meta.get("categorical", ()) if name not in (target, group)],
            numeric=[name for name in self.meta.get("numeric", ()) if name not in (target, group)],
            classes=self.meta.get("classes", ()) if declared and (task or "") != "regression" else (),
            ignore=() if group is None else (group,),
            where=where,
        )


def load_splits(
    data: str | Path,
    *,
    target: str | None = None,
    task: TargetTask | None = None,
    group: str | None = None,
    schema: Schema | None = None,
    seed: int = 0,
    max_features: int | None = None,
) -> dict[str, Table]:
    """The tables of a source by split: ``train``, and ``valid`` and ``test`` where they are given or can be split off.

    Args:
        data: a folder, a file, or ``bundled:NAME``.
        target: name of the target column; ``meta.json`` or the bundled table may say it.
        task: overrides the inferred one.
        group: column whose equal values stay in one split; it is no feature.
        schema: that of a trained model, used in place of all the above but ``group``.
        seed: of the split, where we make it. The same seed gives the same split.
        max_features: feature columns above which a file is refused by its header, which is quick.

    Raises:
        InputError: anything wrong with the data, naming file, column and row.

    >>> {name: len(table) for name, table in load_splits("bundled:iris").items()}
    {'train': 105, 'valid': 21, 'test': 24}
    """
    beside = 1 if group is None else 2  # the target is no feature, nor is the group
    source = open_source(data, max_columns=None if max_features is None else max_features + beside)
    known, schema = schema, schema or source.schema(target=target, task=task, group=group)
    tables = {
        name: to_table(frame, schema, group=group, where=source.labels[name], trained=known is not None)
        for name, frame in source.frames.items()
    }
    if known is None:
        _refuse_constant(tables["train"], source.labels["train"])
    if set(tables) == {"train"}:
        return split(tables["train"], seed=seed)
    if "valid" not in tables:
        return {**split(tables["train"], {"train": 0.85, "valid": 0.15}, seed=seed), "test": tables["test"]}
    return tables


def _refuse_constant(train: Table, where: str) -> None:
    """A value that never changes: as little to learn as one class alone, which no schema takes."""
    if train.schema.task == "regression" and train.target.min() == train.target.max():
        place = f"{where}, target {train.schema.target!r}"
        raise InputError(f"always {train.target[0]:g}", where=place, mend="choose another target")


def to_table(
    frame: pd.DataFrame,
    schema: Schema,
    *,
    group: str | None = None,
    where: str | None = None,
    trained: bool = False,
) -> Table:
    """A frame with its target as a table of the schema, which is that of a model if ``trained``.

    Raises:
        InputError: the frame does not fit the schema, or the target is missing or wrong.
    """
    names = [str(name) for name in frame.columns]
    for name in (schema.target, *(() if group is None else (group,))):
        if name not in names:
            raise InputError(f"no column {name!r}", where=where, mend=nearest(name, names[:200]))
    target = encode_target(frame.iloc[:, names.index(schema.target)], schema, where=where)
    groups = None if group is None else canonical(frame.iloc[:, names.index(group)], f"{where}, column {group!r}")
    if groups is not None:  # a row without a group is a group of its own
        groups = np.array([f"row {row}" if g is None else f"group {g}" for row, g in enumerate(groups)], dtype=object)
    return Table(conform(frame, schema, where=where, trained=trained), target, schema, groups)


def open_source(data: str | Path, *, max_columns: int | None = None) -> Source:
    """The raw frames of a source, before any schema.

    Files of more than ``max_columns`` are refused, unless ``meta.json`` says which columns count.

    Raises:
        InputError: nothing there, or nothing that can be read.
    """
    name = str(data)
    if name.startswith("bundled:"):
        return _bundled(name.removeprefix("bundled:"))
    path = Path(data)
    if path.is_dir():
        files, meta = split_files(path), read_meta(path)
        if meta.get("categorical") and meta.get("numeric"):
            max_columns = None  # those it does not name are left out
        frames = {part: read_table(file, max_columns=max_columns) for part, file in files.items()}
        return Source(frames, {part: str(file) for part, file in files.items()}, meta)
    return Source({"train": read_table(path, max_columns=max_columns)}, {"train": str(path)})


def split_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by split.

    Raises:
        InputError: no ``train`` file, or two files for one split.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = table_suffix(path)
        part = path.name[: -len(suffix)].lower() if suffix else ""
        if part not in SPLITS:
            continue
        if part in found:
            raise InputError(f"both {found[part].name} and {path.name}", where=str(folder), mend="keep one of them")
        found[part] = path
    if "train" not in found:
        mend = f"name the file train with one of {', '.join(SUFFIXES)}, or give the file itself"
        raise InputError("no train file in this folder", where=str(folder), mend=mend)
    return {part: found[part] for part in SPLITS if part in found}


def read_meta(folder: Path) -> dict[str, Any]:
    """The declarations of ``meta.json``; empty without one. Keys we do not know are left alone.

    Raises:
        InputError: not JSON, or a field of the wrong type.
    """
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", where=str(path)) from error
    if not isinstance(raw, dict):
        raise InputError("not a JSON object", where=str(path), mend='write {"target": "...", "task": "..."}')
    meta = {
        key: raw[key] for key in ("target", "task", "categorical", "numeric", "classes") if raw.get(key) is not None
    }
    if not isinstance(meta.get("target", ""), str):
        raise InputError("'target' must be the name of a column", where=str(path))
    if meta.get("task", "binary") not in ("binary", "multiclass", "regression"):
        raise InputError(f"unknown task {meta['task']!r}", where=str(path), mend="use binary, multiclass or regression")
    for key, kinds in (("categorical", str), ("numeric", str), ("classes", str | int | float | bool)):
        value = meta.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, kinds) for item in value):
            raise InputError(f"{key!r} must be a list of names", where=str(path))
    return meta


def _bundled(name: str) -> Source:
    if name not in BUNDLED:
        raise InputError(f"no bundled table {name!r}", mend=nearest(name, list(BUNDLED)))
    import sklearn.datasets

    raw = getattr(sklearn.datasets, f"load_{name}")()
    frame = pandas().DataFrame(raw.data, columns=[str(feature) for feature in raw.feature_names])
    classes = [str(label) for label in getattr(raw, "target_names", ())]
    frame["target"] = [classes[index] for index in raw.target] if classes else raw.target
    return Source({"train": frame}, {"train": f"bundled:{name}"}, {"target": "target", "task": BUNDLED[name]})
