import copy
import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from core.clock import advance
from core.errors import InputError
from core.feedforward import GLU, MLP, HiddenUnits, choose, extract
from core.layout import Entry, Repeat, build
from core.testing.tolerances import draw

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def blocks() -> list[HiddenUnits]:
    made: list[HiddenUnits] = [
        MLP(6, 16, nested=SHARES),
        GLU(6, 16, nested=SHARES),
        GLU(6, 16, nested=SHARES, bias=False, activation="gelu"),
        MLP(6, 16, nested=SHARES, activation="starrelu"),
    ]
    for block in made:
        with torch.no_grad():
            for index, parameter in enumerate(block.parameters()):
                parameter.copy_(draw(*parameter.shape, seed=index))
    return [block.double() for block in made]


def model(**options: object) -> nn.Module:
    entries = (
        Entry("mixer", "softmax", {"heads": 2}),
        Entry("feedforward", "mlp", {"hidden": 16, "nested": SHARES, **options}),
        Entry("feedforward", "glu", {"hidden": 8, "nested": SHARES, **options}),
    )
    return build((Repeat(entries, 2),), 6).double()


@pytest.mark.parametrize("block", blocks(), ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_a_size_is_the_sliced_block_and_the_whole_with_the_rest_silenced(block: HiddenUnits, share: float) -> None:
    block, x = copy.deepcopy(block).eval(), draw(9, 6)
    plain = block(x)
    choose(block, share)
    count = round(16 * share)
    assert block.active() == count
    y = block(x)
    torch.testing.assert_close(y, block.slice(count)(x), **EXACT)
    torch.testing.assert_close(block(x), y, rtol=0, atol=0, msg="a forward pass took the choice back")
    choose(block, None)
    assert torch.equal(block(x), plain)
    with torch.no_grad():
        block.projection().weight[:, count:] = 0
    torch.testing.assert_close(block(x), y, **EXACT)


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_units_beyond_a_steps_size_have_no_gradient(block: HiddenUnits) -> None:
    block = copy.deepcopy(block).train()
    seen = set()
    for step in range(12):
        advance(block, step, 12)
        count = block.active()
        seen.add(count)
        block.zero_grad()
        block(draw(5, 6)).square().sum().backward()
        for name, parameter in block.up.named_parameters():
            rows = parameter.grad.unflatten(0, (block.gates, -1))
            assert not bool(rows[:, count:].any()), name
            assert bool(rows[:, :count].any())
        assert not bool(block.projection().weight.grad[:, count:].any())
    assert len(seen) > 2


def test_a_step_draws_one_share_for_all_blocks_evenly_and_the_same_again() -> None:
    stack = model().train()
    drawn = []
    for step in range(2000):
        advance(stack, step, 2000)
        found = {block.active() / block.hidden for block in stack.modules() if isinstance(block, HiddenUnits)}
        assert len(found) == 1
        drawn.append(found.pop())
    assert all(abs(count / 2000 - 0.25) < 0.04 for count in Counter(drawn).values())
    assert set(drawn) == set(SHARES)
    pairs = Counter(itertools.pairwise(drawn))
    assert len(pairs) == 16, "neighbouring steps are tied to each other"
    advance(stack, 77, 2000)
    assert all(
        block.active() / block.hidden == drawn[77] for block in stack.modules() if isinstance(block, HiddenUnits)
    )
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        advance(stack, 78, 2000)
        assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


def test_outside_training_all_units_count_and_in_training_a_step_is_needed() -> None:
    block, x = blocks()[0], draw(3, 6)
    with pytest.raises(InputError, match="a nested feed-forward: does not know how far its training has come"):
        block(x)
    assert block.eval().active() == 16
    choose(block.train(), 0.5)
    assert block.active() == 8
    block(x)


def run(stack: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = stack.eval()(x)
    return y


def test_sizes_mix_from_layer_to_layer() -> None:
    stack, x = model(), draw(2, 5, 6)
    choose(stack, [1 / 8, 1 / 8, 1 / 2, 1 / 2])
    mixed = run(stack, x)
    for block, share in zip([b for b in stack.modules() if isinstance(b, HiddenUnits)], (1, 1, 4, 4), strict=True):
        assert block.active() == block.hidden * share // 8
    choose(stack, [1 / 4] * 4)
    uniform = run(stack, x)
    choose(stack, 1 / 4)
    assert torch.equal(run(stack, x), uniform)
    assert not torch.equal(mixed, uniform)
    choose(stack, 1.0)
    whole = run(stack, x)
    choose(stack, None)
    assert torch.equal(run(stack, x), whole)


def test_what_is_extracted_loads_in_a_plain_model_of_that_size() -> None:
    stack, x = model(), draw(2, 5, 6)
    before = sum(parameter.numel() for parameter in stack.parameters())
    choose(stack, 1 / 4)
    small = extract(stack)
    torch.testing.assert_close(run(small, x), run(stack, x), **EXACT)
    entries = (
        Entry("mixer", "softmax", {"heads": 2}),
        Entry("feedforward", "mlp", {"hidden": 4}),
        Entry("feedforward", "glu", {"hidden": 2}),
    )
    plain = build((Repeat(entries, 2),), 6).double()
    plain.load_state_dict(small.state_dict())
    assert torch.equal(run(plain, x), run(small, x))
    # of the mlp 12 units of 6 + 6 + 1 numbers are gone, of the gate 6 units of 12 + 6 + 2
    assert before - sum(parameter.numel() for parameter in small.parameters()) == 2 * (12 * 13 + 6 * 20)


def test_a_shared_block_is_extracted_once() -> None:
    entry = Entry("feedforward", "mlp", {"hidden": 16, "nested": SHARES}, share="a")
    stack = build((entry, entry), 6).double()
    choose(stack, 0.5)
    small = extract(stack)
    assert len({id(block) for block in small.modules() if isinstance(block, HiddenUnits)}) == 1
    torch.testing.assert_close(run(small, draw(3, 6)), run(stack, draw(3, 6)), **EXACT)


def test_refusals() -> None:
    with pytest.raises(InputError, match="no feed-forward of the model is nested"):
        choose(MLP(4, 8), 0.5)
    with pytest.raises(InputError, match="3 shares for 4 nested"):
        choose(model(), [0.5] * 3)
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match=r"\(0, 1\]"):
            choose(model(), share)
        with pytest.raises(InputError, match=r"\(0, 1\]"):
            MLP(4, 8, nested=(share,))
    with pytest.raises(InputError, match="nested shares need the projection"):
        GLU(4, 4, project=False, nested=SHARES)
