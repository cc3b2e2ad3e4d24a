from __future__ import annotations

import math
from itertools import pairwise

import pytest

from core.errors import InputError
from core.optim import ScheduleConfig, constant, hold_anneal, warmup_cosine, warmup_times_linear
from core.optim.schedule import SCHEDULES


def test_warmup_cosine_values():
    factors = [warmup_cosine(step, warmup=4, total=12, floor=0.2) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    for step in range(4, 12):
        assert factors[step] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * (step - 4) / 8)))
    assert factors[8] == pytest.approx(0.6)
    assert factors[12:] == [0.2, 0.2]


def test_edges():
    assert warmup_cosine(0, warmup=0, total=10) == 1.0
    assert warmup_cosine(10, warmup=0, total=10) == 0.0
    assert [warmup_cosine(step, warmup=3, total=3) for step in range(4)] == [1 / 3, 2 / 3, 1.0, 0.0]
    assert warmup_cosine(0, warmup=0, total=0, floor=0.5) == 0.5


def test_against_torch():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17)
    for step in range(17):
        assert warmup_cosine(step, warmup=0, total=17) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (2_500, 5e-4),
        (5_000, 1e-3),
        (20_000, 1e-3),
        (45_000, 1e-3),
        (50_000, 5e-4),
        (85_000, 1e-3 / 9),
        (539_000, 1e-3 * 5 / 499),
        (540_000, 1e-5),
        (10**7, 1e-5),
    ],
)
def test_hold_anneal_values(step, rate):
    factor = hold_anneal(step, warmup=5_000, hold=40_000, floor=0.01)
    assert 1e-3 * factor == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_hold_anneal_is_continuous_and_monotone_after_its_peak(power):
    factors = [hold_anneal(step, warmup=1000, hold=500, power=power, floor=0.2) for step in range(20_000)]
    # no steeper than the warm-up or than the power law where it begins
    assert max(abs(a - b) for a, b in pairwise(factors)) <= max(1, power) / 1000 + 1e-12
    assert factors[1500:] == sorted(factors[1500:], reverse=True)
    assert factors[-1] == pytest.approx(max(0.2, (1000 / 19_499) ** power))


def test_hold_anneal_without_a_peak_is_the_schedule_of_the_first_transformer():
    for step in (1, 2, 7, 100, 12345):
        expected = min(step / 100, (100 / step) ** 0.5)
        assert hold_anneal(step, warmup=100, hold=0, power=0.5) == pytest.approx(expected)


def test_hold_anneal_by_shares():
    schedule = ScheduleConfig(name="hold_anneal", warmup=0.1, hold=0.3, floor=0.05).build(100)
    assert [schedule(step) for step in (0, 4, 9, 39)] == [0.1, 0.5, 1.0, 1.0]
    assert schedule(49) == pytest.approx(10 / 20)
    assert schedule(99) == pytest.approx(10 / 70)
    assert schedule(10**6) == 0.05
    assert ScheduleConfig(name="hold_anneal").build(3)(0) == 1.0


def test_config_counts_in_shares():
    schedule = ScheduleConfig(warmup=0.1, floor=0.5).build(50)
    assert [schedule(step) for step in (0, 4, 5, 50)] == [0.2, 1.0, 1.0, 0.5]
    assert ScheduleConfig(name="constant").build(50) is constant


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_restart_is_the_schedule_of_what_is_left_of_the_run(name):
    once = ScheduleConfig(name=name, warmup=0.2, floor=0.1)
    twice = ScheduleConfig(name=name, warmup=0.2, floor=0.1, restart=0.75, restart_factor=0.5).build(40)
    before, after = once.build(30), once.build(10)
    assert [twice(step) for step in range(30)] == [before(step) for step in range(30)]
    assert [twice(step) for step in range(30, 50)] == [0.5 * after(step - 30) for step in range(30, 50)]


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_a_restart_of_a_run_of_a_few_steps_has_a_factor_at_each(total):
    schedule = ScheduleConfig(name="warmup_times_linear", restart=0.9).build(total)
    assert all(0 < schedule(step) <= 1 for step in range(total))


@pytest.mark.parametrize(
    "fields",
    [
        {"restart": 1.0},
        {"restart": -0.1},
        {"restart_factor": 0.0},
        pytest.param({"name": "cosine"}, marks=pytest.mark.untyped),
        {"warmup": 1.5},
        {"floor": -0.1},
        {"hold": 2.0},
        {"power": 0.0},
        {"power": math.nan},
        {"warmup": 0.0, "name": "hold_anneal"},
        {"hold": 0.6, "warmup": 0.5, "name": "hold_anneal"},
    ],
)
def test_nonsense_is_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ScheduleConfig(**fields)


def test_warmup_times_linear_as_logged_by_daformer():
    # "lr" in the authors' training log (lhoyer/DAFormer, issues 7 and 11): line n is step n - 1, base rate 6e-5.
    schedule = ScheduleConfig(name="warmup_times_linear", warmup=1500 / 40000).build(40000)
    logged = {50: 1.958e-6, 100: 3.950e-6, 200: 7.920e-6, 250: 9.898e-6, 3950: 5.408e-5, 4000: 5.400e-5}
    for line, rate in logged.items():
        assert 6e-5 * schedule(line - 1) == pytest.approx(rate, rel=3e-4)
    assert schedule(0) == pytest.approx(1e-6)
    assert warmup_times_linear(10, warmup=0, total=10, floor=0.25) == 0.25
