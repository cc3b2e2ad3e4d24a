import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.attention import MIXERS, HeadedAttention, SoftmaxAttention
from core.errors import InputError
from core.feedforward import MLP
from core.layout import Entry, Stack
from core.rewrite import Evidence, Rewrite, blocks_of, replay, rewrite
from core.rewrite.prune import PruneOptions
from core.testing.tolerances import draw, draw_mask

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
NOTHING: dict[str, Any] = {"sublayers": {}, "heads": {}, "units": {}}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("softmax", {"causal": True, "position": "rotary"}),
    ("softmax", {"position": "alibi", "bias": False}),
    ("topk", {"k": 2, "position": "alibi"}),
    ("stickbreaking", {"remainder": True}),
    ("linformer", {"tokens": 9, "k": 4}),
    ("nala", {"position": "rotary"}),
    ("relative", {}),
    ("relative", {"causal": True}),
]


def attention(name: str, options: dict[str, Any]) -> nn.Module:
    block = MIXERS[name](12, heads=4, **options).double()
    with torch.no_grad():
        for seed, parameter in enumerate(block.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=seed))
    return block.eval()


def silenced(block: nn.Module, heads: list[int]) -> nn.Module:
    """The same block in which some heads are read by nothing."""
    block = copy.deepcopy(block)
    with torch.no_grad():
        block.out.weight.view(12, 4, 3)[:, heads] = 0
    return block


# --------------------------------------------------------------------------------------------------- what goes is gone


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("kept", [[0], [1, 3], [0, 1, 2]])
@pytest.mark.parametrize("recorded", [False, True])
def test_without_heads_it_is_the_one_that_reads_them_not(name, options, kept, recorded: bool) -> None:
    block = attention(name, options)
    small, masked = block.take_heads(kept), silenced(block, [head for head in range(4) if head not in kept])
    inner = 3 * len(kept)
    assert (small.heads, small.qkv.out_features, small.out.in_features) == (len(kept), 3 * inner, inner)
    x = draw(2, 9, 12)
    given = [{}, {"mask": draw_mask(2, 9)}, {"offsets": torch.tensor([0, 4, 9])}]
    if block.capabilities.pairwise:
        given.append({"pair_mask": draw_mask(9, 9, share=0.4)})
    with torch.set_grad_enabled(recorded):
        for context in given:
            rows = x[0] if "offsets" in context else x
            torch.testing.assert_close(small(rows, **context), masked(rows, **context), **CLOSE)


@pytest.mark.parametrize("n", [1, 40, 150])
def test_relative_positions_of_the_heads_left_at_every_length(n: int) -> None:
    block = attention("relative", {})
    small, masked, x = block.take_heads([1, 2]), silenced(block, [0, 3]), draw(2, n, 12)
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            torch.testing.assert_close(small(x), masked(x), **CLOSE)
    assert torch.equal(small.u, block.u[[1, 2]])
    assert torch.equal(small.v, block.v[[1, 2]])


def test_gradients_of_the_heads_left() -> None:
    block = attention("relative", {})
    small, masked, x, weights = block.take_heads([1, 2]), silenced(block, [0, 3]), draw(2, 9, 12), draw(2, 9, 12)
    for each in (small, masked):
        (each(x) * weights).sum().backward()
    rows = masked.qkv.weight.grad.view(3, 4, 3, 12)
    torch.testing.assert_close(small.qkv.weight.grad.view(3, 2, 3, 12), rows[:, 1:3], **CLOSE)
    torch.testing.assert_close(
        small.position.weight.grad.view(2, 3, 12), masked.position.weight.grad.view(4, 3, 12)[1:3]
    )
    torch.testing.assert_close(small.u.grad, masked.u.grad[1:3], **CLOSE)
    torch.testing.assert_close(small.out.weight.grad, masked.out.weight.grad[:, 3:9], **CLOSE)


def test_heads_that_cannot_be_taken() -> None:
    block = attention("softmax", {})
    for kept in ([], [4], [-1, 0], [1, 0], [1, 1]):
        with pytest.raises(InputError, match="none of its heads, 0 to 3"):
            block.take_heads(kept)
    with pytest.raises(InputError, match="its heads are its result"):
        SoftmaxAttention(4, 2, project=False).take_heads([0])
    again = block.take_heads([0, 2, 3]).take_heads([1])
    assert torch.equal(again.qkv.weight, block.take_heads([2]).qkv.weight)


def gone(model: nn.Module, decision: dict[str, Any]) -> nn.Module:
    """A model of the same sizes in which the parts of a decision are silenced."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for path, heads in decision["heads"].items():
            block = model.get_submodule(path)
            block.out.weight.view(block.width, block.heads, -1)[:, heads] = 0
        for path, units in decision["units"].items():
            model.get_submodule(path).down.weight[:, units] = 0
    for path, positions in decision["sublayers"].items():
        stack = model.get_submodule(path)
        for position in positions:
            stack.sublayers[stack.order[position]].forward = lambda x, **_: x
    return model


@pytest.mark.parametrize(
    ("host", "options", "decision"),
    [
        ("tables", {"feedforward": "mlp"}, {"sublayers": {"stack": [1]}, "heads": {"stack.sublayers.2.block": [0]}}),
        ("tables", {"feedforward": "mlp"}, {"units": {"stack.sublayers.3.block": [0, 5, 15]}}),
        (
            "speech",
            {},
            {
                "sublayers": {"before": [2], "after": [0, 3]},
                "heads": {"reduced.sublayers.0.block": [1]},
                "units": {"before.sublayers.1.block": [*range(0, 48, 2)], "after.sublayers.1.block": [7]},
            },
        ),
        ("speech", {"mixer": "softmax", "position": "alibi"}, {"heads": {"before.sublayers.0.block": [0]}}),
        ("speech", {"block": "macaron"}, {"sublayers": {"reduced": [0, 1, 2, 3]}}),
        ("speech", {"placement": "pre", "feedforward": "glu"}, {"units": {"before.sublayers.1.block": [3, 4]}}),
    ],
)
def test_made_smaller_it_is_the_silenced_one(hosts, host, options, decision) -> None:
    made = getattr(hosts, host)(**options)
    decision = {**NOTHING, **decision}
    model = made.make().eval()
    small = replay(made.make(), [Rewrite("prune", decision)]).eval()
    torch.testing.assert_close(made.run(small), made.run(gone(model, decision)), **CLOSE)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    made.run(small).square().sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_a_shared_sublayer_goes_at_one_place(hosts) -> None:
    entries = (
        Entry("mixer", "softmax", {"heads": 2}, share="loop"),
        Entry("feedforward", "mlp", {"hidden": 8}),
        Entry("mixer", "softmax", {"heads": 2}, share="loop"),
        Entry("feedforward", "glu", {"hidden": 8}, share="block", share_norms=False),
        Entry("feedforward", "glu", {"hidden": 8}, share="block", share_norms=False),
    )
    made = hosts.stack(*entries)
    small = replay(made.make(), [Rewrite("prune", {**NOTHING, "sublayers": {"": [0, 3]}})])
    assert isinstance(small, Stack)
    assert [line.name for line in small.describe()] == ["mlp", "softmax", "glu"]
    assert len(small.sublayers) == 3
    full = made.make()
    x = draw(9, 8)
    y = x
    for position in (1, 2, 4):
        sublayer = full.sublayers[full.order[position]]
        context = {"offsets": torch.tensor([0, 4, 9])} if position == 2 else {}
        y = sublayer(y, **context)
    torch.testing.assert_close(made.run(small.eval()), y, **CLOSE)
    # Both places gone, so are the weights; and what is within.
    less = replay(made.make(), [Rewrite("prune", {**NOTHING, "sublayers": {"": [0, 2]}})])
    assert not blocks_of(less, HeadedAttention)


# ------------------------------------------------------------------------------------------------------- the search


def idle(model: nn.Module) -> nn.Module:
    """A network of which a sublayer, two heads and some units add nothing."""
    with torch.no_grad():
        first, second, _, last = (each.block for each in model.stack.sublayers)
        first.out.weight.view(16, 4, 4)[:, [1, 3]] = 0
        for parameter in second.projection().parameters():
            parameter.zero_()
        last.projection().weight[:, [0, 3, 8, 9]] = 0
    return model


def near(run, wanted: Tensor):
    """A cost without rounding errors: how far the outputs are from some."""
    return lambda model: round(float((run(model) - wanted).detach().abs().max()), 9)


def test_what_adds_nothing_is_found(hosts) -> None:
    made = hosts.tables(heads=4, feedforward="mlp")
    model = idle(made.make()).eval()
    made.make = lambda make=made.make: idle(make())
    evidence = made.evidence(near(made.run, made.run(model)))
    done = rewrite(model, "prune", PruneOptions(share=0.25), evidence)
    decision = done.rewrite.decision
    assert decision["sublayers"] == {"stack": [1]}
    assert decision["heads"] == {"stack.sublayers.0.block": [1, 3]}
    assert decision["units"] == {"stack.sublayers.3.block": [0, 3, 8, 9]}
    assert done.status == "approximate"
    assert done.change64 < 1e-10
    made.replays(done)
    assert [step["element"] for step in decision["steps"]] == ["sublayers", "heads", "heads", "units"]
    assert (decision["start"], decision["end"]) == (0.0, 0.0)
    assert rewrite(done.model, "prune", PruneOptions(share=0.25), evidence).rewrite.decision["steps"] == []


@pytest.mark.parametrize("tol", [0.0, 0.05])
@pytest.mark.parametrize("host", ["tables", "speech"])
def test_the_cost_never_rises_and_the_result_is_final(hosts, host: str, tol: float) -> None:
    made = hosts.tables(feedforward="mlp", heads=4) if host == "tables" else hosts.speech()
    elements = ("sublayers", "heads", "units") if host == "tables" else ("sublayers", "heads")
    options = PruneOptions(elements=elements, share=0.5, tol=tol)
    model = made.make().eval()
    target = draw(*made.run(model).shape, seed=3)

    def cost(network: nn.Module) -> float:
        return float((made.run(network).detach() - target).square().mean())

    evidence = made.evidence(cost)
    done = rewrite(model, "prune", options, evidence)
    decision = done.rewrite.decision
    assert decision["steps"]
    assert cost(made.replays(done)) == pytest.approx(decision["end"], rel=1e-12)
    before = lowest = cost(model)
    for step in decision["steps"]:
        assert step["before"] == before
        assert step["after"] <= lowest + tol
        before, lowest = step["after"], min(lowest, step["after"])
    assert decision["end"] <= decision["start"] + tol
    if tol == 0.0:
        again = rewrite(done.model, "prune", options, evidence)
        assert again.rewrite.decision["steps"] == []
        assert {name: again.rewrite.decision[name] for name in NOTHING} == NOTHING
    assert rewrite(model, "prune", options, evidence).rewrite.decision == decision


def test_trials_are_bounded_and_elements_chosen(hosts) -> None:
    made = hosts.tables(feedforward="mlp")
    calls: list[float] = []

    def cost(network: nn.Module) -> float:
        calls.append(sum(p.numel() for p in network.parameters()))
        return calls[-1]  # the smaller the better: all goes that can

    done = rewrite(made.make(), "prune", PruneOptions(most=3), made.evidence(cost))
    assert (len(calls), done.rewrite.decision["trials"], len(done.rewrite.decision["steps"])) == (4, 3, 3)
    assert rewrite(made.make(), "prune", PruneOptions(most=0), made.evidence(cost)).rewrite.decision["steps"] == []
    heads = rewrite(made.make(), "prune", PruneOptions(elements=("heads",)), made.evidence(cost)).model
    assert [block.heads for block in blocks_of(heads, SoftmaxAttention).values()] == [1, 1]
    units = rewrite(made.make(), "prune", PruneOptions(elements=("units",)), made.evidence(cost)).model
    assert [block.hidden for block in blocks_of(units, MLP).values()] == [1, 1]
    none = rewrite(made.make(), "prune", None, made.evidence(cost))
    assert len(none.model.stack.order) == 0
    assert none.rewrite.decision["heads"] == none.rewrite.decision["units"] == {}
    made.replays(none)


def test_costs_that_are_no_numbers(hosts) -> None:
    made = hosts.tables(feedforward="mlp")
    costs = iter([1.0] + [float("nan")] * 1000)
    done = rewrite(made.make(), "prune", None, made.evidence(lambda _: next(costs)))
    assert done.rewrite.decision["steps"] == []
    with pytest.raises(InputError, match="the cost of the model is nan"):
        rewrite(made.make(), "prune", None, made.evidence(lambda _: float("nan")))


def test_what_cannot_go(hosts) -> None:
    cost = Evidence(cost=lambda _: 0.0)
    tables = hosts.tables(heads=1).make()  # its heads are not projected, nor are its units
    with pytest.raises(InputError, match="the model has no heads or units that could go"):
        rewrite(tables, "prune", PruneOptions(elements=("heads", "units")), cost)
    with pytest.raises(InputError, match=r"evidence\.cost"):
        rewrite(tables, "prune")
    for options, said in (
        (PruneOptions(elements=("head",)), "did you mean 'heads'"),
        (PruneOptions(elements=()), "nothing may go"),
        (PruneOptions(share=0.0), "not 0"),
        (PruneOptions(tol=-1.0), "not -1"),
        (PruneOptions(tol=float("nan")), "not nan"),
        (PruneOptions(most=-1), "not -1"),
    ):
        with pytest.raises(InputError, match=said):
            rewrite(tables, "prune", options, cost)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": None},
        {"heads": {"stack.sublayers.0.block": [0, 1]}},
        {"heads": {"stack.sublayers.0.block": [2]}},
        {"heads": {"stack.sublayers.0.block": 1}},
        {"heads": {"stack.sublayers.1.block": [0]}},
        {"heads": {"head": [0]}},
        {"units": {"stack.sublayers.1.block": [16]}},
        {"units": {"stack.sublayers.1.block": [*range(16)]}},
        {"units": {"stack.sublayers.1.block": [-1]}},
        {"units": {"stack.sublayers.0.block": [0]}},
        {"sublayers": {"stack": [4]}},
        {"sublayers": {"stack": [True]}},
        {"sublayers": {"head": [0]}},
        {"sublayers": [0]},
    ],
)
def test_wrong_decisions(hosts, change: dict[str, Any]) -> None:
    model = hosts.tables(feedforward="mlp").make()
    replay(model, [Rewrite("prune", NOTHING)])
    with pytest.raises(InputError):
        replay(model, [Rewrite("prune", {**NOTHING, **change})])
    with pytest.raises(InputError):
        replay(model, [Rewrite("prune", {name: {} for name in NOTHING if name not in change})])


def test_speech_says_what_is_left(hosts) -> None:
    decision = {**NOTHING, "sublayers": {"before": [2, 3], "reduced": [0, 1, 2, 3]}}
    lines = replay(hosts.speech().make(), [Rewrite("prune", decision)]).describe()
    assert [line.partition(",")[0] for line in lines[1:4]] == [
        "2 sublayers at 40 ms",
        "  mixer relative",
        "  feedforward mlp",
    ]
    assert any(line.startswith("0 blocks at 80 ms, 0 parameters") for line in lines)
    assert any(line.startswith("1 block at 40 ms") for line in lines)
