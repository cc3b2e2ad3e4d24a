"""A run that is stopped, killed or starved anywhere and resumed is the unbroken run, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import torch

import core.training.run
from core.artefact import load
from core.errors import InputError
from core.training import Interrupted


def stopped_once(toy, directory, step, number=signal.SIGTERM, **fields):
    """Train until a signal arrives in the given step."""
    task = toy.Toy(lambda now: signal.raise_signal(number) if now == step else None)
    with pytest.raises(Interrupted) as caught:
        toy.train(directory, task=task, **fields)
    assert caught.value.directory == directory
    assert task.steps == step + 1


def test_the_toy_is_worth_resuming(unbroken):
    """The best epoch is not the last one, so that both the best and the last weights matter."""
    history, best, best_epoch, steps, stopped_by, _ = unbroken
    assert best_epoch < len(history) == 4
    assert best == min(record["worst"] for record in history)
    assert (steps, stopped_by) == (20, "epochs")


# First step; within an epoch; last step of an epoch (the signal meets the evaluation); first of one; the very last.
@pytest.mark.parametrize("step", [0, 2, 4, 5, 9, 13, 19])
def test_stop_and_resume_is_the_unbroken_run(toy, unbroken, tmp_path, step):
    stopped_once(toy, tmp_path, step)
    assert toy.outcome(*toy.train(tmp_path)) == unbroken


def test_many_stops(toy, unbroken, tmp_path):
    for steps in (1, 3, 4, 0, 6):
        stopped_once(toy, tmp_path, steps, signal.SIGINT)
    assert toy.outcome(*toy.train(tmp_path)) == unbroken


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 0)])
def test_a_ragged_run_with_averaged_weights_resumes_anywhere(toy, tmp_path, first, then):
    """Every epoch has 8 batches of at most 40 in total length; stopped in the first, the second and the last."""
    fields = {"budget": 40.0, "ema": 0.9, "total": 32}
    straight = toy.outcome(*toy.train(**fields))
    assert straight[3] == 32
    stopped_once(toy, tmp_path, 3, workers=first, **fields)
    stopped_once(toy, tmp_path, 9, workers=then, **fields)
    stopped_once(toy, tmp_path, 15, **fields)
    assert toy.outcome(*toy.train(tmp_path, **fields)) == straight


def test_resume_in_bf16(toy, tmp_path):
    stopped_once(toy, tmp_path, 7, precision="bf16")
    resumed = toy.outcome(*toy.train(tmp_path, precision="bf16"))
    assert resumed == toy.outcome(*toy.train(precision="bf16"))


def test_a_finished_directory_returns_without_training(toy, unbroken, tmp_path):
    first = toy.train(tmp_path)[1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    task, result = toy.train(tmp_path)
    assert task.steps == 0
    assert toy.outcome(task, result) == unbroken
    assert result == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_more_epochs_go_on(toy, unbroken, tmp_path):
    toy.train(tmp_path, max_epochs=2)
    task, result = toy.train(tmp_path)
    assert task.steps == 10
    assert toy.outcome(task, result) == unbroken


def test_more_patience_goes_on(toy, tmp_path):
    _, first = toy.train(tmp_path, patience=1, lr=0.2)
    assert first.stopped_by == "patience"
    assert toy.outcome(*toy.train(tmp_path, lr=0.2)) == toy.outcome(*toy.train(lr=0.2))


def test_every_call_has_minutes_of_its_own_and_at_least_a_step(toy, unbroken, tmp_path):
    for steps in (1, 2, 3):
        again, result = toy.train(tmp_path, max_minutes=1e-9)
        assert (again.steps, result.stopped_by, result.steps) == (1, "minutes", steps)
    assert toy.outcome(*toy.train(tmp_path, max_minutes=60.0)) == unbroken


@pytest.mark.parametrize("ema", [None, 0.9])
def test_minutes_that_end_in_mid_epoch_leave_the_model_and_no_trace_in_the_run(toy, tmp_path, ema):
    unbroken = toy.outcome(*toy.train(ema=ema))
    for _ in range(7):  # a step each: the last one is the second of the second epoch
        task, result = toy.train(tmp_path, max_minutes=1e-9, ema=ema)
    assert [record["step"] for record in result.history] == [5, 7]
    assert result.best == min(record["worst"] for record in result.history)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    best = load(tmp_path / "best", kind="training-best", version=1)
    assert (best["value"], best["epoch"]) == (result.best, result.best_epoch)
    assert all(torch.equal(value, best["model"][name]) for name, value in task.model.state_dict().items())
    state = load(tmp_path / "last", kind="training-state", version=1)["state"]
    assert (state["step"], len(state["history"])) == (7, 1)
    assert toy.outcome(*toy.train(tmp_path, ema=ema)) == unbroken
    best = load(tmp_path / "best", kind="training-best", version=1)
    assert (best["value"], best["epoch"]) == unbroken[1:3]


def test_a_signal_in_the_evaluation_of_a_part_leaves_it_and_saves(toy, unbroken, tmp_path):
    task = toy.Toy()
    evaluate = task.evaluate

    def interrupted(batches):
        signal.raise_signal(signal.SIGTERM)
        return evaluate(batches)

    task.evaluate = interrupted
    with pytest.raises(Interrupted):
        toy.train(tmp_path, task=task, max_minutes=1e-9)
    assert load(tmp_path / "last", kind="training-state", version=1)["state"]["step"] == 1
    assert not (tmp_path / "best").exists()
    assert toy.outcome(*toy.train(tmp_path)) == unbroken


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_fails_before_its_first_save_leaves_nothing(toy, tmp_path, there):
    directory = tmp_path / "a" / "b"
    if there:
        directory.mkdir(parents=True)
    task = toy.Toy()

    def poison(step):
        if step == 7:  # after an epoch, whose best weights have been written
            assert (directory / "best" / "artefact.json").exists()
            task.model[0].weight.data[0, 0] = float("nan")

    task.on_step = poison
    with pytest.raises(InputError, match="loss became nan"):
        toy.train(directory, task=task)
    assert directory.exists() == there
    assert list(tmp_path.rglob("*")) == ([directory.parent, directory] if there else [])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"ema": 0.9}, "ema was None when this run began and is 0.9"),
        ({"budget": 40.0}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 9}, "batch_size"),
        ({"count": 38}, "training examples"),
        ({"lr": 0.04}, "lr of matrix"),
        ({"clip_norm": 1.0}, "clip_norm"),
        ({"precision": "bf16"}, "precision"),
        ({"monitor": "mse"}, "monitor"),
        ({"total": 21}, "schedule"),
    ],
)
def test_other_settings_are_refused_by_name(toy, tmp_path, change, name):
    toy.train(tmp_path, max_epochs=1)
    with pytest.raises(InputError, match=name):
        toy.train(tmp_path, **change)


def test_another_model_is_refused(toy, tmp_path):
    toy.train(tmp_path, max_epochs=1)
    with pytest.raises(InputError, match="parameters was 55 when this run began and is 64"):
        toy.train(tmp_path, task=toy.Toy(width=7))


def test_metrics_file_repeats_the_history(toy, tmp_path):
    stopped_once(toy, tmp_path, 12)
    # What a run that was killed after its last save leaves behind.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3}\n{"epo')
    _, result = toy.train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history


def test_best_on_disk_is_the_best(toy, tmp_path):
    stopped_once(toy, tmp_path, 17)
    task, result = toy.train(tmp_path)
    tree = load(tmp_path / "best", kind="training-best", version=1)
    assert (tree["metric"], tree["value"], tree["epoch"]) == ("worst", result.best, result.best_epoch)
    assert all(torch.equal(value, tree["model"][name]) for name, value in task.model.state_dict().items())


def test_weights_that_are_not_finite_are_never_saved(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(core.training.run, "SHARE_FOR_SAVING", 1e9)
    task = toy.Toy()

    def poison(step):
        if step == 8:
            task.model[0].weight.data[0, 0] = float("nan")

    task.on_step = poison
    with pytest.raises(InputError, match=r"loss became nan at step 8 \(epoch 2\)"):
        toy.train(tmp_path, task=task, checkpoint_every_minutes=1e-9)
    tree = load(tmp_path / "last", kind="training-state", version=1)
    assert tree["state"]["step"] == 8
    assert all(bool(torch.isfinite(value).all()) for value in tree["model"].values())


@pytest.fixture(scope="module")
def children(toy, tmp_path_factory):
    """Runs in processes of their own that were killed, signalled and starved: folder, exit statuses, standard error."""
    directory = tmp_path_factory.mktemp("children")
    command = [sys.executable, str(toy.path), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    return directory, json.loads(done.stdout), done.stderr


def test_kill_at_random_moments(toy, unbroken, children):
    directory, statuses, _ = children
    assert statuses["kill"][-1] == 0
    assert statuses["kill"].count(-9) >= 2, statuses
    assert toy.outcome(*toy.train(directory / "kill")) == unbroken


def test_signals_end_a_process_with_its_state_saved(toy, unbroken, children):
    directory, statuses, errors = children
    assert statuses["signal"][-1] == 0, errors
    assert statuses["signal"][0] == 130
    assert toy.outcome(*toy.train(directory / "signal")) == unbroken


def test_full_disk_is_one_line_and_leaves_the_former_state(toy, unbroken, children):
    """A real limit on file size, set after seven steps that were saved."""
    directory, statuses, errors = children
    assert statuses["full"] == [2]
    assert len(errors.splitlines()) == 2  # of this run, and of the one below
    assert str(directory / "full" / "last") in errors
    assert load(directory / "full" / "last", kind="training-state", version=1)["state"]["step"] == 7
    assert toy.outcome(*toy.train(directory / "full")) == unbroken


def test_a_disk_that_is_full_at_the_first_save_leaves_nothing(children):
    directory, statuses, errors = children
    assert statuses["never"] == [2]
    assert "cannot be written (File too large)" in errors
    assert not (directory / "never").exists()


def told(toy):
    """A toy with a module that writes down the steps that it is told."""

    class Told(torch.nn.Identity):
        def __init__(self):
            super().__init__()
            self.heard = []

        def at_step(self, step, of):
            self.heard.append((step, of))

    task = toy.Toy()
    task.model.append(Told())
    return task


def test_what_follows_the_step_is_told_each_one_also_after_resuming(toy, tmp_path):
    first = told(toy)
    first.on_step = lambda now: signal.raise_signal(signal.SIGTERM) if now == 7 else None
    with pytest.raises(Interrupted):
        toy.train(tmp_path, task=first)
    again = told(toy)
    toy.train(tmp_path, task=again)
    assert [*first.model[-1].heard, *again.model[-1].heard] == [(step, 20) for step in range(20)]
    with pytest.raises(InputError, match="steps in all"):
        toy.train(tmp_path, task=told(toy), max_epochs=9)
