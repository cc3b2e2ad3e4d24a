from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apps.tabular.prediction.data.sources import BUNDLED, load_splits, open_source
from apps.tabular.prediction.data.split import holdout, row_hashes, split, split_rows
from apps.tabular.prediction.data.table import Column, Schema, Table
from core.errors import InputError


def table(rows: int, *, distinct: int, groups: int | None = None) -> Table:
    rng = np.random.default_rng(0)
    x = rng.integers(0, distinct, rows)
    frame = pd.DataFrame({"x": x * 1.0, "c": pd.Series([str(v % 3) for v in x], dtype=object)})
    schema = Schema((Column("x", "numeric"), Column("c", "categorical")), "y", "binary", ("n", "p"))
    named = None if groups is None else np.array([f"g{v}" for v in rng.integers(0, groups, rows)], dtype=object)
    return Table(frame, (rng.random(rows) < 0.1).astype(np.int64), schema, named)


@pytest.mark.parametrize("name", list(BUNDLED))
def test_bundled(name: str) -> None:
    tables = load_splits(f"bundled:{name}")
    rows = sum(map(len, tables.values()))
    assert tables["train"].schema.task == BUNDLED[name]
    for part, share in (("train", 0.7), ("valid", 0.15), ("test", 0.15)):
        assert abs(len(tables[part]) / rows - share) < 0.02
    if BUNDLED[name] != "regression":
        shares = np.array([np.bincount(t.target) / len(t) for t in tables.values()])
        assert np.ptp(shares, axis=0).max() < 0.05


def test_split_is_seeded_whole_and_stratified() -> None:
    whole = table(1000, distinct=10**9)
    parts, same, other = split(whole), split(whole), split(whole, seed=1)
    assert sorted(np.concatenate([p.frame["x"] for p in parts.values()])) == sorted(whole.frame["x"])
    assert parts["test"].frame["x"].tolist() == same["test"].frame["x"].tolist()
    assert parts["test"].frame["x"].tolist() != other["test"].frame["x"].tolist()
    positives = [int(p.target.sum()) for p in parts.values()]
    expected = whole.target.sum() * np.array([0.7, 0.15, 0.15])
    np.testing.assert_allclose(positives, expected, atol=1)


def test_equal_rows_and_groups_stay_together() -> None:
    parts = list(split(table(1000, distinct=300)).values())
    for i, one in enumerate(parts):
        for two in parts[:i]:
            assert not np.isin(row_hashes(one), row_hashes(two)).any()
    grouped = list(split(table(1000, distinct=10**9, groups=40)).values())
    names = [set(part.groups) for part in grouped if part.groups is not None]
    assert sum(map(len, names)) == len(set.union(*names)) == 40
    assert all(len(part) > 60 for part in grouped)


def test_no_part_is_empty_and_too_few_units_are_refused() -> None:
    for rows in (2, 3, 7):
        learn, held = holdout(table(rows, distinct=10**9), 0.1)
        assert min(len(learn), len(held)) > 0
        assert sorted([*learn, *held]) == list(range(rows))
    assert all(map(len, split_rows(np.arange(3), np.arange(3), [0.7, 0.15, 0.15], seed=0)))
    with pytest.raises(InputError, match=r"too few rows for 2 parts: .* 1 differ"):
        holdout(table(50, distinct=1), 0.2)


def folder(tmp_path: Path, meta: object = None, **frames: pd.DataFrame) -> Path:
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    if meta is not None:
        (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def rows(start: int, stop: int) -> pd.DataFrame:
    n = np.arange(start, stop)
    return pd.DataFrame({"n": n * 1.5, "k": n % 4, "who": [f"w{i // 5}" for i in n], "y": np.where(n % 2, "a", "b")})


def test_folder_with_declarations(tmp_path: Path) -> None:
    meta = {"target": "y", "task": "binary", "categorical": ["k"], "numeric": ["n"], "classes": ["b", "a"], "note": 3}
    tables = load_splits(folder(tmp_path, meta, train=rows(0, 40), test=rows(40, 60)))
    assert {name: len(t) for name, t in tables.items()} == {"train": 34, "valid": 6, "test": 20}
    schema = tables["train"].schema
    assert schema.columns == (Column("n", "numeric"), Column("k", "categorical"))
    assert schema.classes == ("b", "a")
    assert tables["test"].target.tolist() == [0, 1] * 10
    assert load_splits(tmp_path, schema=schema)["test"].frame.equals(tables["test"].frame)


def test_one_file_with_groups(tmp_path: Path) -> None:
    path = folder(tmp_path, train=rows(0, 100)) / "train.csv"
    tables = load_splits(path, target="y", group="who")
    assert "who" not in tables["train"].schema.names
    assert sum(len(set(t.groups)) for t in tables.values() if t.groups is not None) == 20
    with pytest.raises(InputError, match="did you mean 'who'"):
        load_splits(path, target="y", group="whom")
    with pytest.raises(InputError, match="no target column is named"):
        load_splits(path)


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        ([], "not a JSON object"),
        ({"target": 3}, "must be the name"),
        ({"target": "y", "task": "rank"}, "unknown task 'rank'"),
        ({"target": "y", "categorical": "k"}, "must be a list"),
        ({"target": "z"}, "no column 'z'"),
        ({"target": "y", "numeric": ["q"]}, "no column 'q'"),
        ({"target": "y", "numeric": ["who"]}, "column 'who': row 1 holds 'w0', not a number"),
        ({"target": "y", "classes": ["a", "c"]}, "label 'b' is not among"),
    ],
)
def test_wrong_declarations(tmp_path: Path, meta: object, what: str) -> None:
    with pytest.raises(InputError, match=what):
        load_splits(folder(tmp_path, meta, train=rows(0, 30)))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no train file"):
        load_splits(tmp_path)
    (tmp_path / "meta.json").write_text("{")
    folder(tmp_path, train=rows(0, 30))
    with pytest.raises(InputError, match="not JSON"):
        load_splits(tmp_path)
    rows(0, 9).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"both train\.csv and train\.parquet"):
        load_splits(tmp_path)
    with pytest.raises(InputError, match="did you mean 'iris'"):
        load_splits("bundled:irs")


@pytest.mark.parametrize("name", ["adult", "hpc_jobs", "concrete"])
def test_real_tables(real_data: Path, name: str) -> None:
    source = real_data / "tabular" / name
    if not source.is_dir():
        pytest.skip("not here")
    tables = load_splits(source)
    meta = json.loads((source / "meta.json").read_text())
    assert {part: len(t) for part, t in tables.items()} == {p: meta["n_rows"][p] for p in ("train", "valid", "test")}
    assert list(tables["train"].schema.classes) == (meta["classes"] or [])
    bare = open_source(source / "train.csv.gz").schema(target=meta["target"])
    kinds = {column.name: column.kind for column in bare.columns}
    assert kinds == {column.name: column.kind for column in tables["train"].schema.columns}
