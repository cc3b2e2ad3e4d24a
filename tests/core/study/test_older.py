"""Studies and searches of a program whose config had fewer fields: read with the defaults, which one line says."""

from __future__ import annotations

import json

import pytest

from core.command import run
from core.study import tune

ASKED = "--vary model.width=3,4 --seeds 2"


@pytest.fixture
def older(study):
    """A study whose files lack two fields of the config, as if these were added since."""
    for file in (study / "study.json", *study.glob("arms/*.json")):
        facts = json.loads(file.read_text())
        config = facts["base" if file.name == "study.json" else "config"]
        assert (config["model"].pop("kernel"), config.pop("behaviour")) == (None, "well")
        file.write_text(json.dumps(facts, indent=2) + "\n")
    return study


def lines(err):
    return [line for line in err.splitlines() if "written before" in line]


SAID = "study/study.json: was written before there was model.kernel, behaviour; read with the default"


def test_the_page_of_an_older_study_is_the_same(older, ask):
    before = (older / "results.json").read_text()
    page = (older / "report" / "index.html").read_text()
    status, _, err = ask("--report", threads=None)
    assert (status, err) == (0, SAID + "\n")
    assert {**json.loads(before), "call": None} == json.loads((older / "results.json").read_text())
    assert (older / "report" / "index.html").read_text() == page


def test_an_older_study_can_be_asked_for_more_where_the_new_fields_have_their_defaults(older, ask):
    before = {file: file.read_bytes() for file in (*older.glob("arms/*"), *older.glob("runs/*"))}
    assert ask(ASKED)[::2] == (0, SAID + "\n")
    status, _, err = ask("--vary model.width=3,4 --seeds 3")
    assert status == 0
    assert lines(err) == [SAID]
    assert err.count("\n") == 3, "and a line for each of the two runs"
    assert {file: file.read_bytes() for file in before} == before
    assert len(json.loads((older / "results.json").read_text())["runs"]) == 6
    # What was asked more is written by this program.
    assert lines(ask("--report", threads=None)[2]) == []


@pytest.mark.parametrize(
    ("line", "field"), [("--model.kernel 3", "model.kernel"), ("--behaviour slow", "behaviour")], ids=str
)
def test_with_another_value_of_a_new_field_it_is_another_question(older, ask, line, field):
    before = {file: file.read_bytes() for file in older.rglob("*.json")}
    status, out, err = ask(f"{ASKED} {line}")
    assert (status, out) == (2, "")
    said, refused = err.splitlines()
    assert said == SAID
    assert f"this study asks something else ({field})" in refused
    assert {file: file.read_bytes() for file in before} == before


def test_a_field_that_is_gone_is_still_refused(study, ask):
    facts = json.loads((study / "study.json").read_text())
    facts["base"]["model"]["depth"] = 2
    (study / "study.json").write_text(json.dumps(facts))
    for line, threads in ((ASKED, 1), ("--report", None)):
        status, out, err = ask(line, threads=threads)
        assert (status, out) == (2, "")
        assert "study.json: model: 'depth' is not a field" in err


def test_an_older_search_goes_on(toy, tmp_path, capsys):
    pytest.importorskip("optuna")
    words = ["--search", "model.width=2..4", "--trials", "1", "--out", str(tmp_path / "out")]
    assert run(lambda argv: tune(toy.TOY, argv), words) == 0
    file = tmp_path / "out" / "search.json"
    facts = json.loads(file.read_text())
    del facts["base"]["model"]["kernel"]
    file.write_text(json.dumps(facts))
    capsys.readouterr()
    assert run(lambda argv: tune(toy.TOY, argv), words) == 0
    assert capsys.readouterr().err == f"{file}: was written before there was model.kernel; read with the default\n"
    assert run(lambda argv: tune(toy.TOY, argv), [*words, "--model.kernel", "3"]) == 2
    assert "it differs in base.model.kernel" in capsys.readouterr().err
