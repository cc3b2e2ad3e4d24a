from __future__ import annotations

import math

import pytest

from core.errors import InputError
from core.optim import ScheduleConfig, constant, warmup_cosine


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


def test_config_counts_in_shares():
    schedule = ScheduleConfig(warmup=0.1, floor=0.5).build(50)
    assert [schedule(step) for step in (0, 4, 5, 50)] == [0.2, 1.0, 1.0, 0.5]
    assert ScheduleConfig(name="constant").build(50) is constant


@pytest.mark.parametrize(
    "fields", [pytest.param({"name": "cosine"}, marks=pytest.mark.untyped), {"warmup": 1.5}, {"floor": -0.1}]
)
def test_nonsense_is_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ScheduleConfig(**fields)
