"""Programs of rows: what is stored is not measured again, and only under the same conditions."""

import json
from dataclasses import replace

import pytest

from benchmarks.common.rows import Rows, chosen, kept, measure_missing, parser


def rows_of(measured, points=("a", "b", "c"), **conditions):
    def measure(point):
        measured.append(point)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"point": point, "seconds": float(len(measured))}

    return Rows(
        points=points,
        key=lambda point: {"point": point},
        measure=measure,
        told=lambda row: f"{row['point']}: {row['seconds']:g}",
        document=lambda payload: f"{len(payload['rows'])} rows\n",
        what="seconds",
        conditions=conditions,
        facts={"seed": 0},
    )


def test_a_kill_loses_one_row_and_the_next_call_measures_the_rest(tmp_path, capsys):
    measured, out = [], tmp_path / "rows.json"
    rows = rows_of(measured, threads=1)
    with pytest.raises(KeyboardInterrupt):
        measure_missing(rows, out, threads=1)
    assert (tmp_path / "rows.md").read_text() == "2 rows\n"
    measure_missing(rows, out, threads=1)
    assert measured == ["a", "b", "c", "c"]
    stored = json.loads(out.read_text())
    assert [row["point"] for row in stored["rows"]] == ["a", "b", "c"]
    assert (stored["what"], stored["seed"], stored["provenance"]["threads"]) == ("seconds", 0, 1)
    assert capsys.readouterr().out == "a: 1\nb: 2\nc: 4\n"


def test_rows_are_kept_only_under_the_same_conditions(tmp_path):
    out = tmp_path / "rows.json"
    assert kept(out, {"threads": 1}) == []
    measured = []
    rows = rows_of(measured, points=("a",), threads=1)
    measure_missing(rows, out, threads=1)
    assert kept(out, {"threads": 1}) == [{"point": "a", "seconds": 1.0}]
    assert kept(out, {"threads": 2}) == []
    measure_missing(replace(rows, conditions={"threads": 2}), out, threads=2)
    assert measured == ["a", "a"]


def test_points_are_named_and_an_unknown_one_is_refused(tmp_path):
    known = {"small": 1, "large": 2}
    options = parser("benchmarks.none", "none", tmp_path / "n.json", known, seconds=3.0).parse_args([])
    assert chosen(options.points, known) == [1, 2]
    assert (options.out, options.seconds) == (tmp_path / "n.json", 3.0)
    with pytest.raises(SystemExit, match="no point 'huge'"):
        chosen("small,huge", known)
