"""A comparison: what its runs come to, what it keeps, what it refuses, and that nothing ends the queue."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from core.command import only_writer
from core.study.journal import read_events
from core.study.outcome import read_outcome
from core.study.plan import read_plan
from core.study.store import StudyDirectory

pytestmark = pytest.mark.timeout(400)  # many short processes: an idle machine takes seconds, a busy one shall not fail

ASKED = "--vary model.width=3,4 --seeds 2"


def contents(folder):
    """Every file that says what was asked and what runs came to."""
    files = [folder / "study.json", *folder.glob("arms/*"), *folder.glob("runs/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def outcome_of(toy, folder):
    directory = StudyDirectory(folder)
    return read_outcome(directory, read_plan(directory.plan), toy.Config, toy.METRICS)


def results_of(toy, folder):
    """All that two equal studies share: everything but the clock and the memory."""
    return {
        (record.arm, record.seed): (
            record.status,
            record.epochs,
            record.steps,
            record.best,
            dict(record.metrics),
            {name: (one.truth.tolist(), one.prediction.tolist()) for name, one in record.scored.measures.items()},
        )
        for record in outcome_of(toy, folder).records
    }


# ------------------------------------------------------------------------------------------------ what comes of it


def test_a_run_is_what_training_and_scoring_here_would_be(toy, finished):
    """The oracle: the application called directly, in this process and in memory."""
    records = outcome_of(toy, finished).records
    assert [(record.arm, record.seed) for record in records] == [
        (f"model.width={width}", seed) for seed in (0, 1) for width in (3, 4)
    ]
    data = toy.TOY.load(toy.Source(), toy.Config())
    for record in records:
        config = toy.Config(model=toy.Net(width=int(record.arm[-1])), seed=record.seed)
        done = toy.TOY.fit(config, data)
        scored = toy.TOY.score(done.model, data, "test")
        assert record.metrics == {name: one.value for name, one in scored.measures.items()}
        for name, one in scored.measures.items():
            assert np.array_equal(record.scored.measures[name].prediction, one.prediction)
            assert np.array_equal(record.scored.measures[name].truth, one.truth)
        assert (record.best, record.epochs, record.steps) == (done.best, 3, 15)
        assert record.parameters == sum(weights.numel() for weights in done.model.network.parameters())
        assert record.seconds > 0
        assert record.peak_mib > 100


def test_arms_can_learn_from_a_part_of_the_data(toy, tmp_path, ask):
    """Scored on the same rows; the oracle is a training on the part, here."""
    assert ask("--vary data.share=1,0.5 --vary model.width=3,4 --seeds 1 --one-at-a-time --keep-runs")[0] == 0
    data = toy.TOY.load(toy.Source(), toy.Config())
    for record in outcome_of(toy, tmp_path / "study").records:
        share = 0.5 if record.arm == "data.share=0.5" else 1.0
        config = toy.Config(model=toy.Net(width=4 if record.arm == "model.width=4" else 3))
        done = toy.TOY.fit(config, toy.TOY.part(data, share))
        scored = toy.TOY.score(done.model, data, "test")
        assert record.metrics == {name: one.value for name, one in scored.measures.items()}
        assert record.steps == done.results[0].steps == (9 if share == 0.5 else 15)


def test_the_results_file_and_the_page(finished):
    results = json.loads((finished / "results.json").read_text())
    assert len(results["runs"]) == 4
    assert results["missing"] == 0
    assert results["varied"] == {"model.width": [3, 4]}
    assert results["epochs"] == {"model.width=3": 3, "model.width=4": 3}
    assert results["call"]["runs"] == 4
    assert results["overhead_seconds_per_run"] > 0
    assert results["call"]["overhead_seconds_per_run"] > 0
    page = (finished / "report" / "index.html").read_text()
    assert "<title>Does model.width help?" in page
    assert "model.width: 3 or 4. The baseline is " in page


def test_the_same_command_again_does_nothing_more(toy, study, ask):
    before = contents(study)
    status, out, err = ask(ASKED)
    assert (status, err) == (0, "")
    assert "model.width=4" in out
    assert contents(study) == before


def test_more_seeds_and_more_values_keep_what_there_is(toy, study, ask):
    before = contents(study)
    status, _, err = ask("--vary model.width=3,5,4 --seeds 3 --json more.json")
    assert status == 0
    assert err.count("\n") == 5  # width 5 with three seeds, the third seed of the others
    after = contents(study)
    assert {name: after[name] for name in before if name != "study.json"} == {
        name: data for name, data in before.items() if name != "study.json"
    }
    assert len(outcome_of(toy, study).records) == 9
    assert json.loads((study.parent / "more.json").read_text())["seeds"] == [0, 1, 2]


def test_run_directories_go_unless_they_are_to_be_kept(study, ask):
    assert len([*study.glob("work/*")]) == 4
    shutil.rmtree(study)
    assert ask("--vary model.width=3,4 --seeds 1")[0] == 0
    assert [*study.glob("work/*")] == []


def test_two_at_a_time_are_what_they_are_one_by_one(toy, finished, tmp_path, ask):
    assert ask(f"{ASKED} --jobs 2")[0] == 0
    assert results_of(toy, tmp_path / "study") == results_of(toy, finished)


def test_seeds_begin_where_the_config_says(toy, tmp_path, ask):
    assert ask("--vary model.width=3,4 --seeds 1 --seed 1 --one-at-a-time")[0] == 0
    assert {seed for _, seed in results_of(toy, tmp_path / "study")} == {1}


def test_the_page_can_be_had_while_runs_are_missing(study, ask):
    for file in [*study.glob("runs/*")][:2]:
        file.unlink()
    for file in [*study.glob("runs/*-1.*")]:
        file.unlink()
    (study / "report" / "index.html").unlink()
    left = len([*study.glob("runs/*.jsonl")])
    status, out, _ = ask("--report", threads=None)
    assert status == 0
    assert f"{4 - left} runs are missing" in out
    assert (study / "report" / "index.html").exists()


# ------------------------------------------------------------------------------------------------- what can happen


def test_what_fails_is_written_down_and_the_others_go_on(toy, tmp_path, ask):
    status, out, err = ask("--vary behaviour=well,raises,diverges,refuses,crashes --seeds 1")
    assert status == 0
    assert err.count("\n") == 5
    ends = {
        record.arm.split("=")[1]: (record.status, record.reason)
        for record in outcome_of(toy, tmp_path / "study").records
    }
    assert ends["well"] == ("finished", None)
    assert ends["raises"] == ("failed", "ZeroDivisionError: one over none")
    assert ends["diverges"][0] == "diverged"
    assert ends["diverges"][1].startswith("the loss became inf at step 0")
    assert ends["refuses"] == ("failed", "here: no")
    assert ends["crashes"] == ("failed", "its process was ended by SIGKILL; was there not enough memory?")
    assert "failed: behaviour=raises, seed 0: ZeroDivisionError: one over none" in out
    (log,) = (tmp_path / "study" / "runs").glob("raises-*")
    assert "misbehave" in read_events(log)[-1]["traceback"]


def test_failed_runs_are_tried_again_when_asked(toy, tmp_path, ask):
    line = "--vary behaviour=well,once --seeds 1"
    assert ask(line)[0] == 0
    (tmp_path / "mended").touch()
    before = contents(tmp_path / "study")
    assert ask(line)[0] == 0
    assert contents(tmp_path / "study") == before
    assert ask(f"{line} --retry-failed")[0] == 0
    assert {record.status for record in outcome_of(toy, tmp_path / "study").records} == {"finished"}


def test_where_nothing_finished_there_is_nothing_to_say(ask):
    status, out, err = ask("--vary behaviour=refuses,raises --seeds 1")
    assert (status, out) == (2, "")
    assert err.endswith("error: study: no run has finished; the first one failed: here: no\n")


def test_a_budget_decides_the_epochs_of_each_arm_once(toy, tmp_path, ask):
    line = "--vary model.width=2,4 --minutes-per-run 2 --fit.clip-norm 1"
    assert ask(f"{line} --seeds 1")[0] == 0
    assert ask(f"{line} --seeds 2")[0] == 0
    assert (tmp_path / "decisions").read_text().split() == ["2", "4"]
    epochs = {(record.arm[-1], record.seed): record.epochs for record in outcome_of(toy, tmp_path / "study").records}
    assert epochs == {("2", 0): 4, ("2", 1): 4, ("4", 0): 8, ("4", 1): 8}
    for file in (tmp_path / "study" / "arms").iterdir():
        fit = json.loads(file.read_text())["config"]["fit"]
        assert (fit["patience"], fit["max_minutes"]) == (None, None)


def test_an_arm_whose_epochs_cannot_be_measured_fails_with_all_its_runs(toy, tmp_path, ask):
    status, _, _ = ask("--vary behaviour=well,raises,crashes --seeds 2 --minutes-per-run 1")
    assert status == 0
    ends = [(record.arm.split("=")[1], record.status) for record in outcome_of(toy, tmp_path / "study").records]
    assert sorted(ends) == [*[("crashes", "failed")] * 2, *[("raises", "failed")] * 2, *[("well", "finished")] * 2]
    reasons = {record.reason for record in outcome_of(toy, tmp_path / "study").records if record.reason}
    assert all(reason.startswith("while its epochs were measured: ") for reason in reasons)


def test_a_torn_line_costs_a_run_and_no_more(toy, study, finished, ask):
    (log,) = study.glob("runs/3-*-1.jsonl")
    log.write_bytes(log.read_bytes()[:-5])
    shutil.rmtree(study / "work")
    status, _, err = ask(ASKED)
    assert status == 0
    assert err.count("\n") == 1
    assert results_of(toy, study) == results_of(toy, finished)


def test_killed_between_training_and_scoring(toy, study, finished, ask):
    """The run directory is complete: it is scored, and nothing is trained again."""
    (log,) = study.glob("runs/4-*-0.jsonl")
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    log.with_suffix(".npz").unlink()
    (last,) = study.glob("work/4-*-0/checkpoints/last")
    before = {file.name: file.stat().st_mtime_ns for file in last.rglob("*.json*")}
    assert ask(f"{ASKED} --keep-runs")[0] == 0
    assert {file.name: file.stat().st_mtime_ns for file in last.rglob("*.json*")} == before
    assert results_of(toy, study) == results_of(toy, finished)


def test_damaged_scores_are_named(study, ask):
    file = next(study.glob("runs/*.npz"))
    file.write_bytes(b"")
    status, _, err = ask(ASKED)
    assert status == 2
    assert f"error: study/runs/{file.name}: is not what the run wrote" in err


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{ASKED} --split valid", "split was test and is valid"),
        (f"{ASKED} --metric mae", "metric was rmse and is mae"),
        (f"{ASKED} --data other", "the data of the split train"),
        (f"{ASKED} --model.dropout 0.5 --optim.lr 1", "(model.dropout; optim.lr)"),
        (f"{ASKED} --preset wide --optim.lr 1", "(optim.lr)"),
        (f"{ASKED} --minutes-per-run 1", "minutes_per_run was none and is 1"),
        (f"{ASKED} --one-at-a-time", "one_at_a_time was false and is true"),
        (f"{ASKED} --vary model.act=tanh,relu", "the fields that vary: model.width before"),
        ("--vary model.dropout=0.1,0.2 --seeds 2", "the fields that vary: model.width before"),
        ("--vary model.width=3,4 --seeds 1", "this study has the seeds 1 too"),
        (f"{ASKED} --seed 1", "this study has the seeds 0 too"),
        ("--vary model.width=3,5 --seeds 2", "this study has model.width=4 too"),
        ("--vary model.width=4,3 --seeds 2", "the baseline of this study is model.width=3"),
    ],
)
def test_another_question_is_refused_and_nothing_changes(study, ask, line, words):
    before = contents(study)
    status, out, err = ask(line)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert contents(study) == before


def test_other_threads_are_refused_and_the_same_taken(study, ask):
    assert "threads was 1 and is 2" in ask(ASKED, threads=2)[2]
    assert ask(ASKED, threads=None)[0] == 0


def test_a_preset_that_differs_in_what_varies_only_is_the_same_question(study, ask):
    assert ask(f"{ASKED} --preset wide")[0] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--vary model.width=3,13", "the arm model.width=13: model.width: 13 units bring bad luck; take 12"),
        ("--vary model.width=3,4 --model.width 3", "is also set by --model.width"),
        ("--vary model.width=3,4 --split tset", "there is no split 'tset'; did you mean 'test'?"),
        ("--vary model.width=3,4 --metric ame", "--metric: there is no metric 'ame'; did you mean 'mae'?"),
        ("--vary model.width=3,4 --report --metric mae", "does not go with --report"),
        ("--vary model.width=3,4 --seeds 0", "--seeds: must be at least 1"),
        ("--vary model.width=3,4 --minutes-per-run 0", "0 minutes leave no time"),
        ("--vary model.width=3,4 --minutes-per-run 1 --fit.max-epochs 3", "is decided by --minutes-per-run"),
        ("--vary model.width=3,4 --fit.max-minutes 3", "must not depend on the clock"),
        ("--vary seed=3,4", "the seeds are no settings"),
        ("--vary data.share=1,2", "data.share: must lie above 0 and be at most 1, got 2.0"),
        ("--vary fit.max_epochs=3,4 --minutes-per-run 1", "is decided by --minutes-per-run"),
        ("--vary model.width=3", "one value only"),
        ("", "nothing varies"),
        ("--vary model.width=3,4 --report", "--vary: does not go with --report"),
        ("--report", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, ask, line, words):
    status, out, err = ask(line, threads=None)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, ask):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("precious")
    assert "holds other files than a study" in ask(ASKED)[2]
    assert [*(tmp_path / "study").iterdir()] == [tmp_path / "study" / "thesis.tex"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"version": 2}, "is of version 2, this program reads 1"), ({"format": "x"}, "not written by manyformer compare")],
)
def test_a_study_of_another_version_is_refused(study, ask, change, words):
    facts = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**facts, **change}))
    before = contents(study)
    assert words in ask(ASKED)[2]
    assert contents(study) == before


def test_one_queue_at_a_time(study, ask):
    with only_writer(study):
        assert "another process is writing" in ask(ASKED)[2]
        assert ask("--report", threads=None)[0] == 0


def test_arms_that_load_another_test_split_are_not_compared(toy, tmp_path, ask, monkeypatch):
    """As an option of reading could make them."""
    monkeypatch.setattr(toy, "ROWS", {**toy.ROWS, "test": 29})  # in this process, not in those of the runs
    status, _, err = ask("--vary model.width=3,4 --seeds 1")
    assert status == 2
    assert "the split 'test' is another one in this run" in err


def test_the_plan_is_read_back_as_it_was(study, tmp_path):
    from core.study.plan import write_plan

    plan = read_plan(study / "study.json")
    write_plan(tmp_path / "again.json", replace(plan, minutes_per_run=0.1 + 0.2), {})
    assert read_plan(tmp_path / "again.json") == replace(plan, minutes_per_run=0.1 + 0.2)
