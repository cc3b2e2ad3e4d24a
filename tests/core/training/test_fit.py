from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.optim import OptimConfig, ScheduleConfig, constant
from core.training import Diverged, FitSettings, Loader, Task, TensorBatches, fit
from core.training.randomness import Use, derive, reseed


class Scripted(Task):
    """Its weight counts steps, and its metric is read from a list: one value an evaluation."""

    def __init__(self, metrics):
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.metrics = list(metrics)

    def training_loss(self, batch):
        return {"loss": -self.model.weight.sum()}

    def evaluate(self, batches):
        assert sum(len(batch["x"]) for batch in batches) == 4
        return {"score": self.metrics.pop(0)}


def fit_scripted(metrics, *, valid=True, **fields):
    task = Scripted(metrics)
    rows = TensorBatches({"x": torch.zeros(4, 1)})
    optimizer = torch.optim.SGD(task.model.parameters(), lr=1.0)
    result = fit(
        task,
        train=Loader(rows, 2, shuffle=True),
        valid=Loader(rows, 3, shuffle=False) if valid else None,
        optimizer=optimizer,
        schedule=constant,
        settings=FitSettings(**{"monitor": "score", "max_epochs": 6, **fields}),
        progress="off",
    )
    return task.model.weight.item(), result


def test_the_best_weights_come_back():
    weight, result = fit_scripted([3.0, 1.0, 2.0, 1.0, 5.0, 4.0])
    # Two steps of 1 an epoch; the first of equal values counts.
    assert (weight, result.best, result.best_epoch, result.steps) == (4.0, 1.0, 2, 12)
    assert [record["score"] for record in result.history] == [3.0, 1.0, 2.0, 1.0, 5.0, 4.0]
    assert 0 < result.seconds_to_best <= result.seconds


def test_mode_max_and_patience():
    weight, result = fit_scripted([1.0, 3.0, 3.0, 2.0, 9.0, 9.0], mode="max", patience=2)
    assert (weight, result.best, result.best_epoch) == (4.0, 3.0, 2)
    assert (result.stopped_by, result.steps) == ("patience", 8)


def test_a_metric_that_is_nan_never_wins():
    weight, result = fit_scripted([float("nan"), 2.0, float("nan")], max_epochs=3)
    assert (weight, result.best, result.best_epoch) == (4.0, 2.0, 2)


def test_the_last_weights_are_kept_where_that_is_asked_and_patience_has_no_end():
    scores = [3.0, 1.0, float("nan"), 5.0, 6.0, 4.0]
    weight, result = fit_scripted(scores, keep="last", patience=2)
    assert (weight, result.best, result.best_epoch, result.steps) == (12.0, 4.0, 6, 12)
    with pytest.raises(InputError, match="keep"):
        FitSettings(keep="first")


def test_without_validation_the_last_weights_stay():
    weight, result = fit_scripted([], valid=False)
    assert (weight, result.best, result.best_epoch, len(result.history)) == (12.0, None, None, 6)
    assert set(result.history[0]) == {"epoch", "step", "seconds", "train_loss"}


def test_minutes_end_a_run_after_a_whole_step_and_what_it_came_to_is_evaluated():
    weight, result = fit_scripted([0.25], max_minutes=1e-9)
    assert (weight, result.stopped_by, result.steps) == (1.0, "minutes", 1)
    assert (result.best, result.best_epoch) == (0.25, 1)
    assert [(line["epoch"], line["step"], line["score"]) for line in result.history] == [(1, 1, 0.25)]
    assert result.seconds_to_best <= result.seconds


def stopped_clock(monkeypatch):
    """The room's clock alone: the engine waits by the true one."""
    clock = [0.0]
    for name in ("core.training.fit", "core.training.run"):
        monkeypatch.setattr(sys.modules[name], "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


class Clocked(Scripted):
    """Its minutes are up in the given step."""

    def __init__(self, metrics, clock, last):
        super().__init__(metrics)
        self.clock, self.last = clock, last

    def training_loss(self, batch):
        if self.model.weight.item() == self.last:
            self.clock[0] += 1e6
        return super().training_loss(batch)


@pytest.mark.parametrize(
    ("metrics", "weight", "best", "best_epoch"),
    [
        ([3.0, 1.0], 3.0, 1.0, 2),  # half of the second epoch made it better: the present weights stay
        ([1.0, 3.0], 2.0, 1.0, 1),  # worse: those after the first epoch come back
        ([1.0, float("nan")], 2.0, 1.0, 1),
        ([1.0, 1.0], 2.0, 1.0, 1),
    ],
)
def test_minutes_that_end_in_mid_epoch(monkeypatch, metrics, weight, best, best_epoch):
    clock = stopped_clock(monkeypatch)
    task = Clocked(metrics, clock, last=2.0)
    rows = TensorBatches({"x": torch.zeros(4, 1)})
    result = fit(
        task,
        train=Loader(rows, 2, shuffle=True),
        valid=Loader(rows, 4, shuffle=False),
        optimizer=torch.optim.SGD(task.model.parameters(), lr=1.0),
        schedule=constant,
        settings=FitSettings(monitor="score", max_epochs=6, max_minutes=10.0),
        progress="off",
    )
    assert (task.model.weight.item(), result.best, result.best_epoch) == (weight, best, best_epoch)
    assert (result.steps, result.stopped_by) == (3, "minutes")
    assert [line["step"] for line in result.history] == [2, 3]


def test_minutes_that_end_with_an_epoch_need_no_other_evaluation(monkeypatch):
    clock = stopped_clock(monkeypatch)
    task = Clocked([1.0], clock, last=1.0)
    rows = TensorBatches({"x": torch.zeros(4, 1)})
    result = fit(
        task,
        train=Loader(rows, 2, shuffle=True),
        valid=Loader(rows, 4, shuffle=False),
        optimizer=torch.optim.SGD(task.model.parameters(), lr=1.0),
        schedule=constant,
        settings=FitSettings(monitor="score", max_minutes=10.0),
        progress="off",
    )
    assert (result.steps, result.best, len(result.history), task.metrics) == (2, 1.0, 1, [])


def test_fit_is_the_plain_loop(toy):
    """Bit for bit what the documented functions of (seed, step) give in a loop written by hand."""
    task = toy.Toy()
    optimizer = OptimConfig(lr=0.05).build(task.model)
    schedule = ScheduleConfig(warmup=0.2).build(toy.STEPS)
    loader = Loader(toy.rows(toy.TRAIN, 1), toy.BATCH, seed=11, shuffle=True)
    stream = loader.stream()
    task.model.train()
    for step in range(toy.STEPS):
        batch = next(stream)
        reseed(derive(7, Use.STEP, step, 0))
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * schedule(step)
        loss = task.training_loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(ordered, 0.5)
        optimizer.step()
    other = toy.Toy()
    fit(
        other,
        train=loader,
        optimizer=OptimConfig(lr=0.05).build(other.model),
        schedule=schedule,
        settings=FitSettings(max_epochs=4, seed=7, clip_norm=0.5),
        progress="off",
    )
    weights = other.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in task.model.state_dict().items())


def test_the_seed_matters(toy, unbroken):
    assert toy.outcome(*toy.train(seed=1)) != unbroken


def test_bf16_runs_the_forward_pass_in_bfloat16(toy):
    task, seen = toy.Toy(), []
    task.model[0].register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    _, result = toy.train(task=task, precision="bf16")
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert {parameter.dtype for parameter in task.model.parameters()} == {torch.float32}
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_the_caller_is_left_as_it_was(toy):
    def world():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")],
            warnings.filters[:],
            torch.is_grad_enabled(),
        )

    toy.train()  # imports what fit imports
    before = world()
    toy.train()
    assert world() == before


def test_the_optimizer_keeps_its_rates(toy):
    task = toy.Toy()
    optimizer = OptimConfig(lr=0.05).build(task.model)
    fit(
        task,
        train=Loader(toy.rows(20, 1), 10, shuffle=True),
        optimizer=optimizer,
        schedule=lambda step: 0.5,
        settings=FitSettings(max_epochs=1),
        progress="off",
    )
    assert [group["lr"] for group in optimizer.param_groups] == [0.05] * len(optimizer.param_groups)
    assert not task.model.training


def test_nothing_is_printed(toy, capfd, recwarn, tmp_path):
    toy.train(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_thread_can_train(toy, unbroken):
    seen = []
    before = signal.getsignal(signal.SIGINT)
    task = toy.Toy(lambda step: seen.append(signal.getsignal(signal.SIGINT) is before))
    results = []
    thread = threading.Thread(target=lambda: results.append(toy.outcome(*toy.train(task=task))))
    thread.start()
    thread.join()
    assert results == [unbroken]
    assert all(seen)


def test_without_a_directory_a_signal_takes_its_course_after_the_step(toy):
    task = toy.Toy(lambda step: signal.raise_signal(signal.SIGINT) if step == 3 else None)
    with pytest.raises(KeyboardInterrupt):
        toy.train(task=task)
    assert task.steps == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_is_immediate(toy):
    task = toy.Toy(lambda step: [signal.raise_signal(signal.SIGINT) for _ in range(2)] if step == 3 else None)
    with pytest.raises(KeyboardInterrupt):
        toy.train(task=task)
    assert task.steps == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_sigterm_goes_to_the_former_handler(toy):
    class Former(Exception):
        pass

    def former(number, frame):
        raise Former

    previous = signal.signal(signal.SIGTERM, former)
    try:
        task = toy.Toy(lambda step: [signal.raise_signal(signal.SIGTERM) for _ in range(2)] if step == 3 else None)
        with pytest.raises(Former):
            toy.train(task=task)
        assert signal.getsignal(signal.SIGTERM) is former
    finally:
        signal.signal(signal.SIGTERM, previous)


class Exploding(Scripted):
    """A finite loss whose gradient is not."""

    def training_loss(self, batch):
        return {"loss": (self.model.weight * 0).sum().sqrt()}


@pytest.mark.parametrize(("clip", "words"), [(None, "largest weight became nan at step 1"), (1.0, "gradient norm")])
def test_a_gradient_that_is_not_finite_is_an_error(clip, words):
    task = Exploding([1.0])
    with pytest.raises(Diverged, match=words):
        fit(
            task,
            train=Loader(TensorBatches({"x": torch.zeros(4, 1)}), 4, shuffle=True),
            optimizer=torch.optim.SGD(task.model.parameters(), lr=1.0),
            schedule=constant,
            settings=FitSettings(clip_norm=clip),
            progress="off",
        )


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="patience: early stopping needs validation"):
        fit_scripted([], valid=False, patience=2)
    with pytest.raises(InputError, match="monitor: the task reports no 'scor'; did you mean 'score'"):
        fit_scripted([1.0], monitor="scor")
    for field, value in {
        "max_epochs": 0,
        "patience": 0,
        "max_minutes": 0.0,
        "clip_norm": -1.0,
        "mode": "less",
        "ema": 1.0,
    }.items():
        with pytest.raises(InputError, match=field):
            FitSettings(**{field: value})


def test_the_room_is_light_to_import():
    code = (
        "import sys, core.optim; assert 'lightning' not in sys.modules\n"
        "import core.training; assert not {'lightning', 'rich', 'torchmetrics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
