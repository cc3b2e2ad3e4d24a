from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from apps.tabular.prediction.check import CheckResult, check, main

RNG = np.random.default_rng(0)


def good(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.standard_normal(rows), "c": rng.choice(list("uvw"), rows)})
    return frame.assign(y=np.where(frame["a"] + rng.standard_normal(rows) > 0, "yes", "no"))


def look(tmp_path: Path, **frames: pd.DataFrame) -> CheckResult:
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "meta.json").write_text('{"target": "y"}')
    return check(tmp_path)


def has(result: CheckResult, severity: str, what: str, **fields: Any) -> bool:
    return any(
        finding.severity == severity
        and what in finding.what
        and all(getattr(finding, name) == value for name, value in fields.items())
        for finding in result.findings
    )


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "wine"])
def test_bundled_tables_have_no_errors_or_warnings(name: str) -> None:
    result = check(f"bundled:{name}")
    assert result.ok
    assert result.count("warning") == 0
    assert has(result, "note", "multiply-adds")


def test_a_good_folder_is_silent(tmp_path: Path) -> None:
    result = look(tmp_path, train=good(), valid=good(50, 1), test=good(50, 2))
    assert [finding.severity for finding in result.findings] == ["note"]


def spoilt(change: str) -> pd.DataFrame:
    frame = good().astype({"a": object})
    n = len(frame)
    if change == "stray":
        frame.loc[7, "a"] = "unknown"
    elif change == "infinite":
        frame.loc[7, "a"] = "inf"
    elif change == "no target":
        frame.loc[[7, 9], "y"] = None
    elif change == "one class":
        frame["y"] = "yes"
    elif change == "rare":
        frame["y"] = ["rare"] + ["yes", "no"] * (n // 2 - 1) + ["no"]
    elif change == "constant":
        frame["c"], frame["k"] = "u", 3
    elif change == "empty":
        frame["e"] = None
    elif change == "identifier":
        frame["id"] = [f"p{i}" for i in range(n)]
        frame["row"] = range(n)
    elif change == "leak":
        frame["copy"] = np.where(frame["y"] == "yes", 7.5, 1.25)
    return frame


@pytest.mark.parametrize(
    ("change", "severity", "what", "fields"),
    [
        ("stray", "warning", "nearly all numbers, but 'unknown' is not", {"column": "a", "row": 8}),
        ("infinite", "error", "'inf' is infinite", {"column": "a", "row": 8}),
        ("no target", "error", "2 rows have no target (the first: row 8)", {}),
        ("one class", "error", "one class only ('yes')", {}),
        ("rare", "warning", "1 rows of class 'rare'", {"column": "y"}),
        ("constant", "warning", "always 'u'", {"column": "c"}),
        ("constant", "warning", "always 3", {"column": "k"}),
        ("empty", "warning", "no value at all", {"column": "e"}),
        ("identifier", "warning", "200 distinct values in 200 rows", {"column": "id"}),
        ("identifier", "warning", "counts the rows", {"column": "row"}),
        ("leak", "warning", "predicts the target by itself (cross-validated AUC 1.0000)", {"column": "copy"}),
    ],
)
def test_faults_of_the_training_rows(
    tmp_path: Path, change: str, severity: str, what: str, fields: dict[str, Any]
) -> None:
    result = look(tmp_path, train=spoilt(change))
    assert has(result, severity, what, **fields), result.findings
    assert result.ok == (severity != "error")


def test_faults_between_splits(tmp_path: Path) -> None:
    train, test = good(), good(50, 1).assign(extra=1)
    test.loc[:4, "c"] = "strange"
    test.loc[9, "a"] = None
    test = pd.concat([test, train.head(6)])
    result = look(tmp_path, train=train, test=test)
    where = str(tmp_path / "test.csv")
    assert has(result, "warning", "6 of 56 rows have the same features as a training row", where=where)
    assert has(result, "warning", "'strange' is not in training (8.9%", where=where, column="c", row=1)
    assert has(result, "note", "1 values are missing, none in training", where=where, column="a")
    assert has(result, "note", "columns that training does not have: extra", where=where)
    assert result.ok


def test_shared_groups(tmp_path: Path) -> None:
    train, test = good().assign(who=RNG.integers(0, 30, 200)), good(50, 1).assign(who=range(25, 75))
    look(tmp_path, train=train, test=test)
    assert has(check(tmp_path, group="who"), "warning", "5 groups are also in training")


def test_every_broken_file_is_named_in_one_go(tmp_path: Path) -> None:
    good().to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "valid.csv").write_text("a,c,y\n1,u\n")
    pd.DataFrame({"a": ["1", "x"], "y": ["yes", "perhaps"]}).to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "meta.json").write_text('{"target": "y"}')
    result = check(tmp_path)
    assert result.count("error") == 4
    assert has(result, "error", "2 fields where the header has 3", where=f"{tmp_path / 'valid.csv'}, line 2")
    assert has(result, "error", "the column is missing", where=str(tmp_path / "test.csv"), column="c")
    assert has(result, "error", "'x' is not a number", where=str(tmp_path / "test.csv"), column="a", row=2)
    assert has(result, "error", "row 2 has the unknown label 'perhaps'")


def test_regression_leak_and_constant_target(tmp_path: Path) -> None:
    frame = good()
    result = look(tmp_path, train=frame.assign(y=frame["a"] * 3 + 1e-4))
    assert has(result, "warning", "rank correlation 1.0000", column="a")
    constant = look(tmp_path, train=frame.assign(y=2.5))
    assert not constant.ok
    assert has(constant, "error", "always 2.5", column="y")


def test_few_rows_and_rarity(tmp_path: Path) -> None:
    assert has(look(tmp_path, train=good(60)), "warning", "60 rows")
    frame = good(3000)
    rare = look(tmp_path, train=frame.assign(y=["yes"] * 15 + ["no"] * 2985))
    assert has(rare, "warning", "the rarest class is 0.50% of the rows")


def test_too_many_columns_are_an_error_with_a_mend(tmp_path: Path) -> None:
    frame = pd.DataFrame(RNG.integers(0, 9, (30, 1100))).add_prefix("c").assign(y=["a", "b"] * 15)
    result = look(tmp_path, train=frame)
    assert has(result, "error", "1100 encoded features, more than 1000")
    assert not result.ok


def test_statuses_and_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "0 errors, 0 warnings, 1 note" in capsys.readouterr().out
    spoilt("infinite").to_csv(tmp_path / "t.csv", index=False)
    command = ["--data", str(tmp_path / "t.csv"), "--target", "y"]
    assert main(command) == 2
    line = f"error: {tmp_path / 't.csv'}, column 'a', row 8: 'inf' is infinite"
    assert line in capsys.readouterr().out
    assert main([*command, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["errors"], report["rows"]) == (False, 1, {"train": 200})
    assert report["findings"][0]["row"] == 8
    assert main(["--data", str(tmp_path / "none.csv"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["findings"][0]["what"] == "no such file"
    assert main(["--datta", "x"]) == 2
    assert "--data" in capsys.readouterr().err


def test_many_findings_of_a_kind_are_condensed_unless_all_are_asked_for(tmp_path, capsys) -> None:
    good().assign(**{f"k{i}": 3 for i in range(9)}).to_csv(tmp_path / "t.csv", index=False)
    command = ["--data", str(tmp_path / "t.csv"), "--target", "y"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("always 3") == 3
    assert "6 more like it in train (constant)" in out
    assert "9 warnings" in out
    assert main([*command, "--all"]) == 0
    assert capsys.readouterr().out.count("always 3") == 9
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [one["column"] for one in found if one["kind"] == "constant"] == [f"k{i}" for i in range(9)]
    assert found[0]["where"] == f"{tmp_path / 't.csv'}, column 'k0'"


@pytest.mark.parametrize("name", ["german_credit", "car_prices"])
def test_real_tables_have_no_errors(real_data: Path, name: str) -> None:
    if not (real_data / "tabular" / name).is_dir():
        pytest.skip("not here")
    assert check(real_data / "tabular" / name).ok
