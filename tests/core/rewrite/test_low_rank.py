import pytest
import torch
from torch import nn

from core.errors import InputError
from core.layout import Entry, Stack, build
from core.layout.residual import Residual
from core.optim import route
from core.rewrite import Evidence, Rewrite, replay, rewrite
from core.rewrite.fold import reads
from core.rewrite.low_rank import LowRankLinear, LowRankOptions, break_even_rank
from core.rewrite.maps import block_maps
from core.testing.tolerances import draw


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(draw(outputs, inputs))
    return layer


def stack(scale: bool = False) -> Stack:
    entries = (Entry("mixer", "softmax", {"heads": 2}, scale=scale), Entry("feedforward", "mlp", {"hidden": 20}))
    return build(entries, width=8).double()


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_full_rank_is_the_map_itself(inputs: int, outputs: int, bias: bool) -> None:
    full, x = linear(inputs, outputs, bias), draw(2, 3, inputs)
    for rank in (min(inputs, outputs), 12):
        for moment in (None, _moment(draw(30, inputs))):
            torch.testing.assert_close(LowRankLinear.of(full, rank, moment)(x), full(x), rtol=1e-10, atol=1e-11)


def _moment(rows: torch.Tensor) -> torch.Tensor:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_that_of_the_values_left_out(rank: int) -> None:
    full = linear(9, 7)
    low = LowRankLinear.of(full, rank)
    product = low.second.weight @ low.first.weight
    values = torch.linalg.svdvals(full.weight)
    error = float((product - full.weight).detach().norm())
    assert error == pytest.approx(float(values[rank:].detach().norm()), rel=1e-10)
    assert int(torch.linalg.matrix_rank(product)) == rank


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_aware_of_its_inputs_it_is_the_best_for_them(rank: int) -> None:
    """The error on the inputs is that of the singular values of W X left out, and never above the plain one's."""
    full = linear(9, 7, bias=False)
    rows = draw(40, 9) * torch.logspace(0, -3, 9, dtype=torch.float64)
    errors = []
    for moment in (None, _moment(rows)):
        low = LowRankLinear.of(full, rank, moment)
        errors.append(float((low(rows) - full(rows)).detach().norm()))
    best = float(torch.linalg.svdvals(full.weight.detach() @ rows.T)[rank:].norm())
    assert errors[1] == pytest.approx(best, rel=1e-3)  # the ridge keeps it from the last digits
    assert errors[1] < errors[0]


def test_parameters_break_even_and_roles() -> None:
    low = LowRankLinear(256, 1024, 16)
    assert sum(p.numel() for p in low.parameters()) == 16 * (256 + 1024) + 1024
    assert break_even_rank(256, 1024) * (256 + 1024) <= 256 * 1024 < (break_even_rank(256, 1024) + 1) * (256 + 1024)
    assert [routed.role for routed in route(low).entries] == ["matrix", "matrix", "bias"]


@pytest.mark.parametrize("rank", [3.0, 0.4])
@pytest.mark.parametrize("aware", [False, True])
def test_a_stack_of_low_rank(rank: float, aware: bool) -> None:
    model, x, offsets = stack(), draw(9, 8), torch.tensor([0, 4, 9])
    evidence = Evidence(run=lambda network: network(x.to(next(network.parameters()).dtype), offsets=offsets))
    done = rewrite(model, "low_rank", LowRankOptions(rank=rank, aware=aware), evidence)
    low = done.model
    changed = [name for name, module in low.named_modules() if isinstance(module, LowRankLinear)]
    assert len(changed) == 4
    assert low.parameter_count() < model.parameter_count()
    assert done.status == "approximate"
    y = low(x, offsets=offsets)
    change = (y - model.eval()(x, offsets=offsets)).abs().max() / model(x, offsets=offsets).abs().max().clamp(min=1.0)
    assert done.change64 == pytest.approx(float(change.detach()), rel=1e-9)
    y.square().sum().backward()
    assert all(p.grad is not None for p in low.parameters())
    # Nothing is left to factorise, and the decision alone gives a new model the same shape.
    with pytest.raises(InputError, match="no map would be smaller"):
        rewrite(low, "low_rank", LowRankOptions(rank=rank))
    again = replay(stack(), [Rewrite("low_rank", done.rewrite.decision)])
    again.load_state_dict(low.state_dict())
    assert torch.equal(again.eval()(x, offsets=offsets), y)


@pytest.mark.untyped  # a block's maps are then no `nn.Linear`
def test_an_input_scale_stays_where_the_map_has_a_low_rank() -> None:
    low = rewrite(stack(scale=True), "low_rank", LowRankOptions(rank=2.0, maps=("qkv",))).model
    scaled = low.sublayers[0]
    assert isinstance(scaled, Residual)
    assert not reads(scaled.block)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (LowRankOptions(rank=0.0), "positive"),
        (LowRankOptions(rank=8.0), "no map would be smaller"),
        (LowRankOptions(rank=2.0, maps=("gkv",)), "called 'gkv'; there are down, out, qkv, up"),
        (LowRankOptions(rank=2.0, aware=True), "evidence"),
    ],
)
def test_refusals(options: LowRankOptions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rewrite(stack(), "low_rank", options)
    with pytest.raises(InputError, match="at least 1"):
        LowRankLinear(3, 3, 0)
    with pytest.raises(InputError, match="did you mean 'low_rank'"):
        rewrite(stack(), "lowrank")


@pytest.mark.parametrize(
    ("options", "left"),
    [({"router": "average"}, {"down"}), ({"router": "softmax"}, {"up", "down"}), ({"expert": "glu"}, {"up", "down"})],
)
def test_maps_that_are_read_by_their_weight_are_left_alone(options: dict[str, str], left: set[str]) -> None:
    model = build((Entry("feedforward", "experts", {"hidden": 20, **options}),), width=8)
    assert {path.rpartition(".")[2] for path in block_maps(model)} <= left
    x = draw(2, 5, 8).float()
    rewrite(model, "low_rank", LowRankOptions(rank=1.0), Evidence(run=lambda network: network(x.to(_dtype(network)))))
    nested = build((Entry("feedforward", "mlp", {"hidden": 20, "nested": (0.5, 1.0)}),), width=8)
    assert not block_maps(nested)


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"ranks": {"sublayers.0.block.qkv": 2}},
        {"ranks": [2], "aware": False},
        {"ranks": {"sublayers.0.block": 2}, "aware": False},
        {"ranks": {"sublayers.0.block.qkv": 10**12}, "aware": False},
        {"ranks": {"sublayers.0.block.qkv": 0}, "aware": False},
        {"ranks": {"sublayers.0.block.qkv": 2.5}, "aware": False},
    ],
)
def test_wrong_decisions(decision: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replay(stack(), [Rewrite("low_rank", decision)])
