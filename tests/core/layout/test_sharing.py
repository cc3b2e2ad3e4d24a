"""One block at every depth, with norms of its own: the sharing of WideNet."""

from dataclasses import replace

import pytest
import torch

from core.auxiliary import collected
from core.errors import InputError
from core.layout import Entry, Repeat, Stack, build
from core.testing.tolerances import draw

WIDTH = 6
MIX = Entry("mixer", "softmax", {"heads": 2}, share="attention", share_norms=False)
EXPERTS = Entry("feedforward", "experts", {"hidden": 5, "experts": 4, "active": 2}, share="experts", share_norms=False)
WIDENET = (MIX, EXPERTS)


def wide(depth: int, block: tuple[Entry, ...] = WIDENET) -> Stack:
    stack = build((Repeat(block, depth),), WIDTH)
    with torch.no_grad():
        for index, parameter in enumerate(stack.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=index))
    return stack.double().eval()


def test_depth_costs_two_norms_a_block() -> None:
    one, five = wide(1), wide(5)
    assert five.parameter_count() == one.parameter_count() + 4 * (4 * WIDTH)
    blocks = {id(sublayer.block) for sublayer in five.sublayers}
    assert len(blocks) == 2
    assert len({id(sublayer.norms[0]) for sublayer in five.sublayers}) == 10
    described = five.describe()
    assert sum(line.parameters for line in described) == five.parameter_count()
    assert str(described[1]).startswith("feedforward experts, pre layernorm, ")
    assert str(described[3]) == "feedforward experts, pre layernorm, block shared, 12 parameters"


def test_a_shared_weight_gathers_the_gradients_of_every_depth() -> None:
    shared = wide(3)
    apart = build((Repeat(tuple(replace(entry, share=None, share_norms=True) for entry in WIDENET), 3),), WIDTH)
    apart = apart.double().eval()
    apart.load_state_dict(shared.state_dict())
    x = draw(2, 5, WIDTH)
    torch.testing.assert_close(shared(x), apart(x), rtol=1e-12, atol=1e-12)
    shared(x).square().sum().backward()
    apart(x).square().sum().backward()
    for kind in (0, 1):
        for name, parameter in shared.sublayers[kind].block.named_parameters():
            depths = [apart.sublayers[2 * depth + kind].block.get_parameter(name).grad for depth in range(3)]
            total = sum(torch.zeros_like(parameter) if grad is None else grad for grad in depths)
            torch.testing.assert_close(parameter.grad, total, rtol=1e-10, atol=1e-11)
    for mine, theirs in zip(shared.sublayers, apart.sublayers, strict=True):
        torch.testing.assert_close(mine.norms[0].weight.grad, theirs.norms[0].weight.grad, rtol=1e-10, atol=1e-11)


def test_with_equal_norms_it_is_a_loop_and_one_expert_is_a_plain_block() -> None:
    plain = replace(EXPERTS, options={"hidden": 5, "experts": 1, "active": 1})
    stack = wide(3, (MIX, plain))
    for index, sublayer in enumerate(stack.sublayers):
        sublayer.norms[0].load_state_dict(stack.sublayers[index % 2].norms[0].state_dict())
    dense = Entry("feedforward", "mlp", {"hidden": 5}, share="mlp")
    loop = build((Repeat((replace(MIX, share_norms=True), dense), 3),), WIDTH).double().eval()
    loop.sublayers[0].load_state_dict(stack.sublayers[0].state_dict())
    loop.sublayers[1].norms[0].load_state_dict(stack.sublayers[1].norms[0].state_dict())
    loop.sublayers[1].block.load_state_dict(stack.sublayers[1].block.experts[0].state_dict())
    x = draw(2, 5, WIDTH)
    torch.testing.assert_close(stack(x), loop(x), rtol=1e-12, atol=1e-12)


def test_norms_of_their_own_route_a_token_differently_at_each_depth() -> None:
    stack, x = wide(2), draw(30, WIDTH)
    block = stack.sublayers[1].block
    first, second = (block.gates(stack.sublayers[index].norms[0](x)) != 0 for index in (1, 3))
    assert not torch.equal(first, second)
    stack.sublayers[3].norms[0].load_state_dict(stack.sublayers[1].norms[0].state_dict())
    assert torch.equal(block.gates(stack.sublayers[3].norms[0](x)) != 0, first)


def test_every_depth_contributes_to_the_balance() -> None:
    stack = wide(3).train()
    with collected() as extra:
        stack(draw(2, 5, WIDTH))
    assert len(extra.losses) == 3


def test_what_is_shared_must_agree() -> None:
    assert len(build((MIX, replace(MIX, norm="rmsnorm", placement="post", factor=0.5)), WIDTH).sublayers) == 2
    for other in (replace(MIX, options={"heads": 1}), replace(MIX, share_norms=True), replace(MIX, name="relative")):
        with pytest.raises(InputError, match="share the key 'attention' differ"):
            build((MIX, other), WIDTH)
    with pytest.raises(InputError, match="shared without its norms takes no input scale"):
        build((replace(MIX, scale=True),), WIDTH)
