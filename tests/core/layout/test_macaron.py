"""Half steps of feed-forward around a mixer, as data, against the identities of the macaron block."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core.layout import Entry, Repeat, Residual, Stack, build
from core.testing.tolerances import draw, draw_mask

WIDTH, HIDDEN = 6, 8
EXACT = {"rtol": 1e-12, "atol": 1e-12}
MIX = Entry("mixer", "softmax", {"heads": 2})
HALF = Entry("feedforward", "mlp", {"hidden": HIDDEN // 2, "bias": False}, factor=0.5)
WHOLE = replace(HALF, options={"hidden": HIDDEN, "bias": False}, factor=1.0)
MACARON = (HALF, MIX, HALF)


def randomised(stack: Stack) -> Stack:
    with torch.no_grad():
        for index, parameter in enumerate(stack.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=index))
    return stack.double()


def silence(sublayer: Residual) -> None:
    """Let a block give zeros."""
    last = sublayer.block.out if hasattr(sublayer.block, "out") else sublayer.block.down
    with torch.no_grad():
        last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()


def test_without_the_first_step_and_with_the_second_doubled_it_is_the_standard_block() -> None:
    macaron = randomised(build((HALF, MIX, replace(WHOLE, factor=0.5)), WIDTH))
    standard = build((MIX, WHOLE), WIDTH).double()
    for mine, theirs in zip(standard.sublayers, macaron.sublayers[1:], strict=True):
        mine.load_state_dict(theirs.state_dict())
    silence(macaron.sublayers[0])
    with torch.no_grad():
        macaron.sublayers[2].block.down.weight.mul_(2)
    x, mask = draw(2, 5, WIDTH), draw_mask(2, 5)
    assert torch.equal(macaron(x, mask=mask), standard(x, mask=mask))


def test_halved_feed_forwards_hold_what_a_whole_one_does_and_one_norm_more() -> None:
    macaron, standard = build((Repeat(MACARON, 3),), WIDTH), build((Repeat((MIX, WHOLE), 3),), WIDTH)
    assert macaron.parameter_count() - standard.parameter_count() == 3 * 2 * WIDTH


def test_linear_half_steps_are_a_square() -> None:
    half = replace(HALF, options={"hidden": WIDTH, "bias": False, "activation": "identity"}, norm="identity")
    stack = randomised(build((half, MIX, replace(half)), WIDTH))
    silence(stack.sublayers[1])
    stack.sublayers[2].load_state_dict(stack.sublayers[0].state_dict())
    block = stack.sublayers[0].block
    step = torch.eye(WIDTH, dtype=torch.float64) + (block.down.weight @ block.up.weight).T / 2
    x = draw(2, 5, WIDTH)
    torch.testing.assert_close(stack(x), x @ step @ step, **EXACT)


@pytest.mark.parametrize("placement", ["pre", "none"])
def test_the_half_is_of_both_feed_forwards_and_of_nothing_else(placement: str) -> None:
    ones = replace(HALF, options={"hidden": 4}, placement=placement)
    stack = randomised(build((ones, replace(MIX, placement=placement), ones), WIDTH))
    for index in (0, 2):
        silence(stack.sublayers[index])
        nn.init.ones_(stack.sublayers[index].block.down.bias)
    x = draw(2, 5, WIDTH)
    mixed = stack.sublayers[1](x + 0.5)
    torch.testing.assert_close(stack(x), mixed + 0.5, **EXACT)
    silence(stack.sublayers[1])
    torch.testing.assert_close(stack(x), x + 1, **EXACT)


def test_a_factor_is_of_the_branch_in_every_placement() -> None:
    x, f = draw(3, WIDTH), nn.Linear(WIDTH, WIDTH).double()
    norms = [sublayer.norms[0] for sublayer in randomised(build((HALF, HALF), WIDTH)).sublayers]
    one, two = norms
    wanted = {
        "pre": x + 0.25 * f(one(x)),
        "post": one(x + 0.25 * f(x)),
        "peri": x + 0.25 * two(f(one(x))),
        "none": x + 0.25 * f(x),
    }
    for placement, y in wanted.items():
        count = {"pre": 1, "post": 1, "peri": 2, "none": 0}[placement]
        got = Residual(f, placement, *norms[:count], factor=0.25)(x)  # type: ignore[arg-type]
        torch.testing.assert_close(got, y, **EXACT)
