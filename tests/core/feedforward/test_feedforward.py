from collections.abc import Callable

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.feedforward import ACTIVATIONS, FEEDFORWARDS, GLU, MLP
from core.testing.cases import FeedForwardCase, feedforward_cases
from core.testing.feedforwards import FEEDFORWARD_CHECKS
from core.testing.oracles import ACTIVATION_ORACLES
from core.testing.positionwise import FEEDFORWARD_ORACLES
from core.testing.tolerances import draw


@pytest.mark.parametrize("check", FEEDFORWARD_CHECKS.values(), ids=list(FEEDFORWARD_CHECKS))
@pytest.mark.parametrize("case", feedforward_cases(), ids=str)
def test_contract(case: FeedForwardCase, check: Callable[[FeedForwardCase], None]) -> None:
    check(case)


def test_everything_has_an_oracle() -> None:
    assert set(FEEDFORWARD_ORACLES) == set(FEEDFORWARDS)
    assert set(ACTIVATION_ORACLES) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), ACTIVATION_ORACLES[name](x), rtol=1e-12, atol=1e-12)


def assert_uniform(linear: nn.Linear, scale: float) -> None:
    """U(-b, b) with b = scale/sqrt(fan_in): range, mean and variance; zero bias."""
    weight, bound = linear.weight.detach(), scale / linear.in_features**0.5
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    spread = bound / 3**0.5
    assert abs(float(weight.mean())) < 5 * spread / weight.numel() ** 0.5
    assert float(weight.square().mean()) == pytest.approx(spread**2, rel=0.02)
    assert not bool(linear.bias.any())


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_initial_moments(scale: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mlp, glu = MLP(128, 200), GLU(128, 200, init_scale=scale)
    assert_uniform(mlp.up, 1.0)
    assert_uniform(mlp.down, 1.0)
    assert_uniform(glu.up, scale)
    assert isinstance(glu.down, nn.Linear)
    assert_uniform(glu.down, 1.0)


def test_the_gate_is_the_second_half() -> None:
    glu = GLU(1, 1, activation="sigmoid", project=False)
    with torch.no_grad():
        glu.up.weight.copy_(torch.tensor([[1.0], [0.0]]))  # value = x, gate = 0
    assert glu(torch.tensor([[3.0]])).item() == 1.5


def test_an_unprojected_glu_has_one_linear_and_needs_equal_sizes() -> None:
    assert sum(p.numel() for p in GLU(64, 64, project=False).parameters()) == 2 * 64 * 64 + 2 * 64
    with pytest.raises(InputError, match=r"hidden == width.*set hidden to the width"):
        GLU(64, 32, project=False)
    with pytest.raises(InputError, match="units that are not projected cannot be chosen"):
        GLU(8, 8, project=False).slice(4)


def test_a_gate_of_a_third_less_holds_as_many_weights() -> None:
    plain, gated = MLP(96, 4 * 96, bias=False), GLU(96, 8 * 96 // 3, bias=False)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in gated.parameters()) == 8 * 96 * 96


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu", "sigmoid", "identity"])
def test_the_halves_of_a_gate_swap_and_separate_maps_are_one(activation: str) -> None:
    glu = GLU(6, 5, activation=activation, bias=False).double()
    value, gate = draw(5, 6, seed=1), draw(5, 6, seed=2)
    with torch.no_grad():
        glu.up.weight.copy_(torch.cat([value, gate]))
    x = draw(7, 6)
    wanted = glu.down((x @ value.T) * ACTIVATIONS[activation](x @ gate.T))
    torch.testing.assert_close(glu(x), wanted, rtol=1e-12, atol=1e-12)
    theirs = torch.cat([gate, value])  # a program that gates with the first half
    assert torch.equal(torch.cat(theirs.chunk(2)[::-1]), glu.up.weight)
    assert torch.equal(torch.cat(torch.cat(theirs.chunk(2)[::-1]).chunk(2)[::-1]), theirs)
    if activation == "identity":
        torch.testing.assert_close(glu(3 * x), 9 * glu(x), rtol=1e-12, atol=1e-12)
