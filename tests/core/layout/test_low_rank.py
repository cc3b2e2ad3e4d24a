import pytest
import torch
from torch import nn

from core.errors import InputError
from core.layout import Entry, LowRankLinear, break_even_rank, build, can_fold, factorise
from core.optim import route
from core.testing.tolerances import draw


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(draw(outputs, inputs))
    return layer


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_full_rank_is_the_map_itself(inputs: int, outputs: int, bias: bool) -> None:
    full, x = linear(inputs, outputs, bias), draw(2, 3, inputs)
    for rank in (min(inputs, outputs), 12):
        torch.testing.assert_close(LowRankLinear.of(full, rank)(x), full(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_that_of_the_values_left_out(rank: int) -> None:
    full = linear(9, 7)
    low = LowRankLinear.of(full, rank)
    product = low.second.weight @ low.first.weight
    values = torch.linalg.svdvals(full.weight)
    error = float((product - full.weight).detach().norm())
    assert error == pytest.approx(float(values[rank:].detach().norm()), rel=1e-10)
    assert int(torch.linalg.matrix_rank(product)) == rank


def test_parameters_break_even_and_roles() -> None:
    low = LowRankLinear(256, 1024, 16)
    assert sum(p.numel() for p in low.parameters()) == 16 * (256 + 1024) + 1024
    assert break_even_rank(256, 1024) * (256 + 1024) <= 256 * 1024 < (break_even_rank(256, 1024) + 1) * (256 + 1024)
    assert [routed.role for routed in route(low).entries] == ["matrix", "matrix", "bias"]


@pytest.mark.parametrize("rank", [3, 0.4])
def test_a_stack_of_low_rank(rank: float) -> None:
    entries = (Entry("mixer", "softmax", {"heads": 2}, scale=True), Entry("feedforward", "mlp", {"hidden": 20}))
    stack = build(entries, width=8).double()
    names = ["*.qkv", "*.out", "*.up", "*.down"]
    low = factorise(stack, rank, names)
    changed = [name for name, module in low.named_modules() if isinstance(module, LowRankLinear)]
    assert len(changed) == 4
    assert low.parameter_count() < stack.parameter_count()
    x, offsets = draw(9, 8), torch.tensor([0, 4, 9])
    y = low(x, offsets=offsets)
    y.square().sum().backward()
    assert all(p.grad is not None for p in low.parameters())
    again = factorise(low, rank, names)
    assert torch.equal(again(x, offsets=offsets), y)
    # Where it would not be smaller, nothing is replaced.
    whole = factorise(stack, 8, names)
    assert whole.parameter_count() == stack.parameter_count()
    assert torch.equal(whole(x, offsets=offsets), stack(x, offsets=offsets))


@pytest.mark.untyped  # a block's `input_maps` then gives what is no `nn.Linear`
def test_an_input_scale_stays_where_the_map_has_a_low_rank() -> None:
    stack = build((Entry("mixer", "softmax", {"heads": 2}, scale=True),), width=8)
    low = factorise(stack, 2, ["*.qkv"])
    assert can_fold(stack.sublayers[0])  # type: ignore[arg-type]
    assert not can_fold(low.sublayers[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("rank", "name", "said"), [(0, "*.qkv", "positive"), (2, "*.gkv", r"called '\*.gkv'")])
def test_refusals(rank: float, name: str, said: str) -> None:
    stack = build((Entry("mixer", "softmax", {"heads": 2}),), width=8)
    with pytest.raises(InputError, match=said):
        factorise(stack, rank, [name])
    with pytest.raises(InputError, match="at least 1"):
        LowRankLinear(3, 3, 0)
