from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from core.command import (
    RunDirectory,
    TrainArguments,
    claim_data,
    data_facts,
    discarded_if_refused,
    from_preset,
    is_complete,
    parse_arguments,
    read_history,
    write_outcome,
)
from core.errors import InputError

FACTS = {"data": "songs", "digest": {"train": "aa", "valid": "bb"}, "speakers": 3}


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 8


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", Config(), task="test")


def test_data_are_claimed_once_and_others_are_refused(run):
    claim_data(run, FACTS)
    claim_data(run, {**FACTS, "data": "elsewhere/songs"})  # the same data in another place
    assert data_facts(run) == FACTS
    for digest, split in (
        ({"train": "aa", "valid": "cc"}, "valid"),
        ({"train": "aa"}, "valid"),
        ({"train": "aa", "valid": "bb", "test": "dd"}, "test"),
    ):
        with pytest.raises(InputError, match=f"its {split} split differs"):
            claim_data(run, {**FACTS, "digest": digest})


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": 3, "digest": {}}', '{"data": "a", "digest": []}', "{"])
def test_damaged_facts_are_named(run, text):
    run.data.write_text(text)
    with pytest.raises(InputError, match=r"data\.json.*damaged"):
        data_facts(run)


def test_a_run_is_complete_only_when_its_outcome_says_so(run):
    assert not is_complete(run)
    write_outcome(run, {"steps": 3}, [{"epoch": 1, "loss": 2.0}], complete=False)
    assert not is_complete(run)
    write_outcome(run, {"steps": 5}, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}], complete=True)
    assert is_complete(run)
    assert json.loads(run.outcome.read_text()) == {"complete": True, "steps": 5}
    assert read_history(run.metrics) == [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}]


def test_a_number_that_does_not_exist_is_null_in_the_history(run):
    write_outcome(run, {}, [{"epoch": 1, "loss": float("nan")}], complete=True)
    assert run.metrics.read_text() == '{"epoch": 1, "loss": null}\n'
    assert read_history(run.metrics) == [{"epoch": 1, "loss": None}]


def test_history_may_be_missing_but_not_damaged(run):
    assert read_history(run.metrics) == []
    for text in ("{", "3\n", '{"loss": 1.0}\n', '{"epoch": null}\n'):
        run.metrics.write_text(text)
        with pytest.raises(InputError, match="is no history of a run"):
            read_history(run.metrics)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("end", [InputError("no"), KeyboardInterrupt()])
def test_what_is_refused_at_birth_is_taken_back(run, saved, end):
    claim_data(run, FACTS)
    if saved:
        run.last.mkdir(parents=True)
    with pytest.raises(type(end)), discarded_if_refused(run):
        raise end
    assert run.config_file.exists() == run.data.exists() == saved


def test_a_mistake_of_ours_leaves_the_run(run):
    with pytest.raises(ZeroDivisionError), discarded_if_refused(run):
        _ = 1 / 0
    assert run.config_file.exists()


def test_a_run_without_a_model_is_not_trained(run):
    with pytest.raises(InputError, match="no model yet"):
        RunDirectory.trained(run.path, task="test")
    run.best.mkdir(parents=True)
    assert RunDirectory.trained(run.path, task="test").best == run.best


@pytest.mark.parametrize("minutes", [0, -1.0, math.nan])
def test_no_time_is_refused(minutes):
    with pytest.raises(InputError, match="leave no time"):
        parse_arguments(TrainArguments, ["--out", "x", "--max-minutes", str(minutes)], prog="train")


def test_unknown_presets_offer_the_nearest():
    assert from_preset({"small": Config}, "small") == Config()
    with pytest.raises(InputError, match="did you mean 'small'"):
        from_preset({"small": Config}, "smal")
