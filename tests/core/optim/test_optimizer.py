from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.optim import Optimizer


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5,), (), (3, 2, 3)]
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_gradients(values, step, skip=()):
    generator = torch.Generator().manual_seed(step)
    for index, value in enumerate(values):
        gradient = torch.randn(value.shape, generator=generator).to(value.dtype)
        value.grad = None if index in skip else gradient


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_torchs_bit_for_bit(decay):
    ours, theirs = parameters(), parameters()
    hyper = {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": decay}
    optimizer = Optimizer([{"params": ours, "kind": "adamw", **hyper}])
    reference = torch.optim.AdamW(theirs, fused=True, **hyper)
    for step in range(25):
        skip = (1,) if step % 3 == 0 else ()  # a parameter that is not always reached keeps a count of its own
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] = 0.02 / (1 + step)
        set_gradients(ours, step, skip)
        set_gradients(theirs, step, skip)
        optimizer.step()
        reference.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_adamw_follows_its_equation():
    """Two steps written out in float64."""
    (value,) = parameters()[:1]
    p, m, v = value.detach().double(), 0.0, 0.0
    optimizer = Optimizer([{"params": [value], "kind": "adamw", "lr": 0.1, "weight_decay": 0.5, "betas": (0.9, 0.99)}])
    for t in (1, 2):
        set_gradients([value], t)
        g = value.grad.double()
        optimizer.step()
        p = p * (1 - 0.1 * 0.5)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        p = p - 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)
    torch.testing.assert_close(value.detach().double(), p, rtol=0, atol=1e-6)


def test_bf16_parameters_keep_float32_state():
    """300 steps: a bf16 counter would stop at 256; and the step is that of float32, rounded once."""
    narrow = parameters(torch.bfloat16)
    optimizer = Optimizer([{"params": narrow, "kind": "adamw", "lr": 1e-3}])
    for step in range(300):
        before = [value.detach().float() for value in narrow]
        set_gradients(narrow, step)
        if step == 299:
            wide = [nn.Parameter(value.clone()) for value in before]
            reference = Optimizer([{"params": wide, "kind": "adamw", "lr": 1e-3}])
            reference.load_state_dict(optimizer.state_dict())
            for value, other in zip(wide, narrow, strict=True):
                value.grad = other.grad.float()
            reference.step()
        optimizer.step()
    for value, other in zip(narrow, wide, strict=True):
        assert optimizer.state[value]["step"].item() == 300
        assert {state.dtype for state in optimizer.state[value].values()} == {torch.float32}
        assert torch.equal(value, other.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_continues_bit_for_bit(dtype):
    straight, stopped = parameters(dtype), parameters(dtype)
    one = Optimizer([{"params": straight, "kind": "adamw"}])
    other = Optimizer([{"params": stopped, "kind": "adamw"}])
    for step in range(6):
        if step == 3:
            fresh = Optimizer([{"params": stopped, "kind": "adamw", "lr": 9.0}])
            fresh.load_state_dict(other.state_dict())
            other = fresh
        set_gradients(straight, step)
        set_gradients(stopped, step)
        one.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))


def test_all_state_exists_from_the_start():
    values = parameters()
    optimizer = Optimizer([{"params": values, "kind": "adamw"}])
    before = {index: set(state) for index, state in optimizer.state_dict()["state"].items()}
    assert before == {index: {"step", "exp_avg", "exp_avg_sq"} for index in range(4)}
    set_gradients(values, 0, skip=(2,))
    kept = values[2].item()
    optimizer.step()
    assert values[2].item() == kept
    assert {index: set(state) for index, state in optimizer.state_dict()["state"].items()} == before


def test_a_closure_gives_its_loss():
    value = nn.Parameter(torch.tensor(3.0))
    optimizer = Optimizer([{"params": [value], "kind": "adamw", "lr": 0.5, "weight_decay": 0.0}])

    def closure():
        optimizer.zero_grad()
        loss = value**2
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0
    assert value.item() == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"kind": "adam"}, "no optimiser kind 'adam'; did you mean 'adamw'"),
        ({}, "no optimiser kind None"),
        ({"kind": "adamw", "wieght_decay": 0.1}, "no hyper-parameter 'wieght_decay'; did you mean 'weight_decay'"),
        ({"kind": "adamw", "lr": -1.0}, "lr = -1.0 is out of range"),
        ({"kind": "adamw", "betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_wrong_groups_are_refused(group, words):
    with pytest.raises(InputError, match=words):
        Optimizer([{"params": parameters(), **group}])


def test_a_foreign_state_is_refused():
    saved = Optimizer([{"params": parameters(), "kind": "adamw"}]).state_dict()
    with pytest.raises(InputError, match="groups"):
        Optimizer([{"params": parameters()[:2], "kind": "adamw"}]).load_state_dict(saved)
    turned = [nn.Parameter(torch.zeros(5, 7)), *parameters()[1:]]
    with pytest.raises(InputError, match="shapes"):
        Optimizer([{"params": turned, "kind": "adamw"}]).load_state_dict(saved)
