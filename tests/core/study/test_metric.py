"""The metric that decides a comparison: chosen with the question, and not afterwards."""

from __future__ import annotations

import json

from core.study.analysis import analyse
from core.study.outcome import read_outcome
from core.study.plan import read_plan
from core.study.store import StudyDirectory

ASKED = "--vary model.width=3,4 --seeds 2"


def test_the_metric_that_decides_is_part_of_the_question(toy, tmp_path, ask):
    """The same runs under another metric; the oracle is the analysis with that metric alone."""
    status, out, err = ask(f"{ASKED} --metric mae")
    assert status == 0
    assert (err.count(": mae "), err.count("rmse")) == (4, 0)
    study = tmp_path / "study"
    told = json.loads((study / "results.json").read_text())["analysis"]
    plan = read_plan(study / "study.json")
    records = read_outcome(StudyDirectory(study), plan, toy.Config, toy.METRICS).records
    alone = analyse(plan.arms, records, {"mae": toy.METRICS["mae"]})
    assert (plan.metric, told["primary"], [*told["greater_is_better"]]) == ("mae", "mae", ["mae", "rmse"])
    expected = alone.to_dict()
    for name in ("verdict", "sentence", "p_adjusted", "low", "high", "smallest"):
        assert told["comparisons"][0][name] == expected["comparisons"][0][name]
    assert told["fronts"] == expected["fronts"]
    assert alone.sentences()[0] in out
    assert "Only mae decides" in (study / "report" / "index.html").read_text()
    assert "metric was mae and is rmse" in ask(ASKED)[2]
    assert ask("--report", threads=None)[1] == ask(f"{ASKED} --metric mae")[1] == out


def test_a_study_from_before_there_was_a_choice_has_the_first_metric(study, ask):
    facts = json.loads((study / "study.json").read_text())
    assert facts.pop("metric") == "rmse"
    (study / "study.json").write_text(json.dumps(facts))
    before = {file: file.read_bytes() for file in (study / "study.json", *study.glob("runs/*"))}
    assert "metric was rmse and is mae" in ask(f"{ASKED} --metric mae")[2]
    for line, threads in ((ASKED, 1), (f"{ASKED} --metric rmse", 1), ("--report", None)):
        assert ask(line, threads=threads)[0] == 0
    assert {file: file.read_bytes() for file in before} == before
    assert json.loads((study / "results.json").read_text())["analysis"]["primary"] == "rmse"
