from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from core.command import CheckArguments, CheckResult, Finding, condense, from_error, tell
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CellFinding(Finding):
    row: int | None = None

    @property
    def place(self) -> str | None:
        return f"{self.where}, row {self.row}" if self.row else super().place


@dataclass(frozen=True)
class TableCheck(CheckResult):
    rows: int

    def facts(self) -> Mapping[str, Any]:
        return {"rows": self.rows}

    def summary(self) -> str:
        return f"{self.rows} rows"


STRAY = CellFinding(severity="error", kind="stray", what="'x' is no number", where="a.csv", row=7, mend="empty it")
FEW = Finding(severity="warning", kind="few", what="9 rows", split="train")


def test_a_finding_reads_as_the_error_it_stands_for():
    assert str(STRAY) == "error: a.csv, row 7: 'x' is no number; empty it"
    assert str(FEW) == "warning: train: 9 rows"
    assert str(STRAY.error()) == "a.csv, row 7: 'x' is no number; empty it"
    again = from_error(InputError("no such file", where="b.csv", mend="look"), "missing", split="test")
    expected = Finding(severity="error", kind="missing", what="no such file", where="b.csv", mend="look", split="test")
    assert again == expected


def test_lines_end_with_the_counts_and_the_status_of_errors(capsys):
    assert tell(TableCheck((FEW, STRAY), 9), "a.csv", CheckArguments()) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(STRAY), str(FEW), "9 rows", "1 error, 1 warning, 0 notes"]
    assert tell(CheckResult((FEW,)), "a.csv", CheckArguments()) == 0
    assert capsys.readouterr().out.splitlines() == [str(FEW), "0 errors, 1 warning, 0 notes"]


def test_json_holds_every_finding_with_its_place_and_own_fields(capsys):
    assert tell(TableCheck((FEW,) * 9 + (STRAY,), 9), "a.csv", CheckArguments(json=True)) == 2
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["data", "ok", "errors", "warnings", "rows", "findings"]
    assert (found["data"], found["ok"], found["errors"], found["warnings"]) == ("a.csv", False, 1, 9)
    assert len(found["findings"]) == 10
    last = found["findings"][-1]
    assert (last["kind"], last["where"], last["row"], last["mend"]) == ("stray", "a.csv, row 7", 7, "empty it")


@pytest.mark.parametrize(("everything", "expected"), [(False, 3), (True, 6)])
def test_all_shows_all(everything, expected, capsys):
    tell(CheckResult((STRAY,) * 6), "a.csv", CheckArguments(all=everything))
    assert capsys.readouterr().out.count("is no number") == expected


def test_condensed_findings_hide_no_kind_and_count_the_rest():
    def many(severity, kind, count, split=None):
        return [Finding(severity=severity, kind=kind, what=kind, where=str(n), split=split) for n in range(count)]

    findings = many("note", "channels", 9, "train") + many("error", "silent", 5, "train")
    findings += many("error", "silent", 5, "test") + many("warning", "quiet", 4)
    short = list(condense(findings))
    assert Counter(f.severity for f in short) == {"error": 8, "warning": 4, "note": 2}
    assert [str(f) for f in short if "more" in f.what] == [
        "error: 2 more like it in train (silent)",
        "error: 2 more like it in test (silent)",
        "note: 8 more like it in train (channels)",
    ]
    assert short[0].severity == "error"
