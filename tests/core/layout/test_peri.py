"""Norms on both sides of a block bound what it adds."""

from dataclasses import replace
from typing import Any

import torch

from core.layout import Entry, Repeat, Stack, build
from core.testing.tolerances import draw, draw_mask

WIDTH = 8
TINY = {"norm_options": {"eps": 1e-20}}
MIX = Entry("mixer", "softmax", {"heads": 2}, norm="rmsnorm", placement="peri", **TINY)
MLP = Entry("feedforward", "mlp", {"hidden": 12, "bias": False}, norm="rmsnorm", placement="peri", **TINY)


def randomised(*layout: Any) -> Stack:
    stack = build(layout, WIDTH)
    with torch.no_grad():
        for index, parameter in enumerate(stack.parameters()):
            if parameter.ndim > 1:
                parameter.copy_(draw(*parameter.shape, seed=index))
    return stack.double().eval()


def test_a_branch_has_one_length_whatever_the_scale_of_its_block() -> None:
    stack, x = randomised(MLP), draw(5, WIDTH)
    wanted = stack(x)
    torch.testing.assert_close((wanted - x).norm(dim=-1), torch.full((5,), WIDTH**0.5, dtype=torch.float64))
    plain = randomised(replace(MLP, placement="pre"))
    before = plain(x)
    for scale in (0.01, 7.0):
        for one in (stack, plain):
            with torch.no_grad():
                one.sublayers[0].block.down.weight.mul_(scale)
        torch.testing.assert_close(stack(x), wanted, rtol=1e-10, atol=1e-11)
        assert not torch.allclose(plain(x), before)


def test_the_stream_grows_no_faster_than_its_depth() -> None:
    layers, x = 6, draw(2, 5, WIDTH)
    stack = randomised(Repeat((MIX, MLP), layers))

    def rms(z: torch.Tensor) -> torch.Tensor:
        return z.square().mean(-1).sqrt()

    assert bool((rms(stack(x)) <= rms(x) + 2 * layers + 1e-12).all())
    grown = randomised(Repeat(tuple(replace(entry, placement="pre") for entry in (MIX, MLP)), layers))
    assert float(rms(grown(x)).max().detach()) > 2 * layers + float(rms(x).max())


def test_a_silent_outer_norm_leaves_the_stream_and_none_is_a_pre_norm() -> None:
    stack, x, mask = randomised(MIX, MLP), draw(2, 5, WIDTH), draw_mask(2, 5)
    pre = build(tuple(replace(entry, placement="pre") for entry in (MIX, MLP)), WIDTH).double().eval()
    with torch.no_grad():
        for one, other in zip(pre.sublayers, stack.sublayers, strict=True):
            one.block.load_state_dict(other.block.state_dict())
            one.norms[0].load_state_dict(other.norms[0].state_dict())
    outer = [sublayer.norms[1] for sublayer in stack.sublayers]
    with torch.no_grad():
        for norm in outer:
            norm.weight.zero_()
    assert torch.equal(stack(x, mask=mask), x * mask[..., None])
    for sublayer in stack.sublayers:
        sublayer.norms[1] = torch.nn.Identity()
        sublayer.norms[1].forward = lambda y, mask=None: y
    torch.testing.assert_close(stack(x, mask=mask), pre(x, mask=mask), rtol=1e-12, atol=1e-12)
