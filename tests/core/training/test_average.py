from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings, Loader, fit
from core.training.average import Average
from core.training.randomness import Use, derive, preserved, reseed


def test_fit_evaluates_and_keeps_the_average_of_a_plain_loop(toy):
    """The oracle: the same steps by hand, each state averaged in float64 by the documented weights."""
    task, settings = toy.Toy(), FitSettings(max_epochs=2, seed=7, ema=0.5, monitor="worst")
    optimizer = OptimConfig(lr=0.05).build(task.model)
    schedule = ScheduleConfig(warmup=0.2).build(10)
    train = Loader(toy.rows(toy.TRAIN, 1), toy.BATCH, seed=11, shuffle=True)
    valid = Loader(toy.rows(toy.VALID, 2), 10, shuffle=False)
    average = {name: value.double().clone() for name, value in task.model.state_dict().items()}
    worst, twin, stream = [], toy.Toy(), train.stream()
    with preserved():
        for step in range(10):
            batch = next(stream)
            task.model.train()
            reseed(derive(7, Use.STEP, step, 0))
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * schedule(step)
            optimizer.zero_grad()
            task.training_loss(batch)["loss"].backward()
            optimizer.step()
            decay = min(0.5, (1 + step) / (10 + step))
            for name, value in task.model.state_dict().items():
                average[name] = decay * average[name] + (1 - decay) * value.double()
            if step in (4, 9):
                twin.model.load_state_dict({name: value.float() for name, value in average.items()})
                twin.model.eval()
                reseed(derive(7, Use.EVALUATION, step // 5, 0))
                with torch.no_grad():
                    worst.append(twin.evaluate(iter(valid))["worst"])
    other = toy.Toy()
    result = fit(
        other,
        train=train,
        valid=valid,
        optimizer=OptimConfig(lr=0.05).build(other.model),
        schedule=schedule,
        settings=settings,
        progress="off",
    )
    assert [record["worst"] for record in result.history] == pytest.approx(worst, rel=1e-5)
    last = fit(
        again := toy.Toy(),
        train=train,
        optimizer=OptimConfig(lr=0.05).build(again.model),
        schedule=schedule,
        settings=settings,
        progress="off",
    )
    assert last.best is None
    state = again.model.state_dict()
    assert state["1.num_batches_tracked"].item() == 10
    for name, value in average.items():
        if value.numel() and not name.endswith("tracked"):
            assert torch.allclose(state[name].double(), value, rtol=1e-5, atol=1e-7), name
    assert not torch.allclose(state["1.running_var"], task.model.state_dict()["1.running_var"], rtol=1e-3)


def test_the_training_weights_do_not_know_of_the_average(toy):
    """With and without: the same losses of training, bit for bit."""
    losses = [[record["train_loss"] for record in toy.train(ema=ema, monitor="mse")[1].history] for ema in (None, 0.99)]
    assert losses[0] == losses[1]


class Odd(nn.Module):
    """Tied weights, a mask of infinities, whole numbers, and a buffer that is no part of the state."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)
        self.b = nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("table", torch.ones(2), persistent=False)


def test_tied_weights_infinities_and_integers():
    model = Odd()
    average = Average(model, 0.9)
    assert set(average.values) == {"a.weight", "mean"}
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.a.weight += 1
    model.mean = model.mean + 10  # a buffer replaced, as moving to a device does
    model.count += 3
    live = copy.deepcopy(model.state_dict())
    average.update(step=0)
    with average.in_place():
        assert torch.allclose(model.b.weight, before["a.weight"] + 0.9)
        assert torch.allclose(model.mean, torch.full((2,), 9.0))
        assert (model.count.item(), model.mask.tolist()) == (3, [0.0, float("-inf")])
    assert all(torch.equal(value, live[name]) for name, value in model.state_dict().items())
    average.settle()
    assert torch.allclose(model.a.weight, before["a.weight"] + 0.9)
