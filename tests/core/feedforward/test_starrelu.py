import torch

from core.feedforward import GLU, MLP, StarReLU
from core.optim import route
from core.testing.tolerances import draw


def test_with_its_analytic_scale_and_bias_a_normal_number_keeps_its_moments() -> None:
    star = StarReLU(1.25**-0.5, -0.5 * 1.25**-0.5).double()
    y = star(draw(1_000_000)).detach()
    assert abs(float(y.mean())) < 3e-3
    assert abs(float(y.var()) - 1) < 1e-2
    assert round(float(star.scale.detach()), 4) == 0.8944
    assert round(float(star.bias.detach()), 4) == -0.4472


def test_it_starts_as_a_squared_relu() -> None:
    x = draw(50)
    torch.testing.assert_close(StarReLU().double()(x), x.clamp(min=0) ** 2, rtol=1e-12, atol=0)


def test_each_block_learns_its_own_and_the_optimiser_does_not_decay_it() -> None:
    for block in (MLP(4, 6, activation="starrelu"), GLU(4, 6, activation="starrelu")):
        roles = {entry.name: entry.role for entry in route(block).entries}
        assert roles["activate.scale"] == "gain"
        assert roles["activate.bias"] == "bias"
        block(torch.ones(3, 4)).sum().backward()
        assert block.activate.scale.grad is not None
        part = block.slice(3)
        assert part.activate.scale is not block.activate.scale


def test_low_precision_stays() -> None:
    assert MLP(4, 6, activation="starrelu").bfloat16()(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
