import torch

from core.feedforward import Activator
from core.layout import Entry, build
from core.testing.tolerances import draw


def test_a_token_reads_no_other_and_their_order_is_kept() -> None:
    block, x = Activator(6, 10).double(), draw(2, 5, 6)
    y = block(x)
    changed = x.clone()
    changed[:, 3] += 1
    others = [0, 1, 2, 4]
    assert torch.equal(block(changed)[:, others], y[:, others])
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(block(x[:, order]), y[:, order], rtol=1e-12, atol=1e-12)


def test_the_size_of_a_block_of_it() -> None:
    d, f = 6, 10
    stack = build((Entry("feedforward", "activator", {"hidden": f}),), d)
    assert stack.parameter_count() == 3 * d * f + 2 * f + d + 2 * f + 2 * d


def test_a_silent_last_map_leaves_the_stream() -> None:
    stack, x = build((Entry("feedforward", "activator", {"hidden": 10}),), 6), draw(2, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        stack.sublayers[0].block.down.weight.zero_()
    assert torch.equal(stack(x), x)


def test_both_branches_have_one_norm() -> None:
    block, x = Activator(6, 10, activation="identity").double(), draw(4, 6)
    with torch.no_grad():
        block.norm.weight.copy_(draw(10, seed=1))
        block.norm.bias.copy_(draw(10, seed=2))
    u, v = block.up(x).chunk(2, dim=-1)
    whole = block.down(block.norm(u) * block.norm(v))
    torch.testing.assert_close(block(x), whole, rtol=1e-12, atol=1e-12)
    block.down(block(x)[..., :1].expand(-1, 10))
    before = block(x)
    with torch.no_grad():
        block.norm.weight[0] *= 2
    bare_u, bare_v = (torch.nn.functional.layer_norm(part, (10,)) for part in (u, v))
    w, b = block.norm.weight, block.norm.bias
    torch.testing.assert_close(block(x), block.down((bare_u * w + b) * (bare_v * w + b)), rtol=1e-10, atol=1e-11)
    assert not torch.equal(block(x), before)
