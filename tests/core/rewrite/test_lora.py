import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.attention import MinimalAttention
from core.errors import InputError
from core.layout import Entry
from core.optim import route
from core.rewrite import Evidence, Rewrite, blocks_of, replay, rewrite
from core.rewrite.adapter_norms import norm_diagnostic
from core.rewrite.adapters import LoRALinear, adapter_state, adapters_disabled, load_adapter_state, unmerge
from core.rewrite.lora import LoRAOptions
from core.testing.tolerances import draw

STACK = (
    Entry("mixer", "softmax", {"heads": 2}),
    Entry("feedforward", "mlp", {"hidden": 12}),
)


def linear(inputs: int = 6, outputs: int = 9, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(draw(outputs, inputs))
    return layer


def moved(model: nn.Module) -> nn.Module:
    """As after some steps of training: adapters that add something."""
    with torch.no_grad():
        for seed, value in enumerate(adapter_state(model).values()):
            value.copy_(0.3 * draw(*value.shape, seed=100 + seed))
    return model


# --------------------------------------------------------------------------------------------------------- one map


@pytest.mark.parametrize("thirds", ["", "q", "qv", "kv", "qkv"])
@pytest.mark.parametrize("stabilised", [False, True])
def test_it_is_the_map_and_the_scaled_product(thirds: str, stabilised: bool) -> None:
    base, x = linear(), draw(2, 5, 6)
    layer = LoRALinear(copy.deepcopy(base), rank=3, alpha=5.0, rank_stabilised=stabilised, thirds=thirds)
    assert torch.equal(layer(x), base(x))  # at the start
    moved(layer)
    wanted, scale = base(x), 5.0 / (math.sqrt(3) if stabilised else 3)
    delta = torch.zeros_like(base.weight)
    for at, adapter in zip([("qkv".index(third)) for third in thirds] or [slice(None)], layer.adapters, strict=True):
        rows = torch.arange(9)[at] if isinstance(at, slice) else torch.arange(3 * at, 3 * at + 3)
        delta[rows] += scale * adapter.second.weight.detach() @ adapter.first.weight.detach()
    torch.testing.assert_close(layer(x), wanted + x @ delta.T, rtol=1e-12, atol=1e-12)
    merged = layer.merged()
    assert type(merged) is nn.Linear
    assert {*merged.state_dict()} == {"weight", "bias"}
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-12, atol=1e-12)
    assert int(torch.linalg.matrix_rank(merged.weight - base.weight)) <= 3 * max(1, len(thirds))
    assert torch.equal(layer.base.weight, base.weight)
    per = 3 * (6 + (3 if thirds else 9))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == per * max(1, len(thirds))


def test_start_and_roles() -> None:
    layer = LoRALinear(nn.Linear(50, 40), rank=20)
    a, b = layer.adapters[0].first.weight, layer.adapters[0].second.weight
    assert not bool(b.any())
    assert float(a.detach().abs().max()) <= 1 / math.sqrt(50)
    assert float(a.detach().std()) == pytest.approx(1 / math.sqrt(150), rel=0.1)
    assert [(routed.name.rpartition("adapters.")[2], routed.role) for routed in route(layer).entries] == [
        ("0.first.weight", "matrix"),
        ("0.second.weight", "matrix"),
    ]
    base, before = linear(), torch.random.get_rng_state()
    LoRALinear(base, rank=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_high_enough_rank_gives_any_change_of_low_rank() -> None:
    layer, delta = LoRALinear(linear(), rank=3, alpha=3.0), draw(9, 2, seed=3) @ draw(2, 6, seed=4)
    # Least squares for B with A drawn so that its rows hold the change's.
    with torch.no_grad():
        rows = torch.linalg.svd(delta).Vh[:2]
        layer.adapters[0].first.weight.copy_(torch.cat([rows, draw(1, 6, seed=5)]))
        a = layer.adapters[0].first.weight
        layer.adapters[0].second.weight.copy_(torch.linalg.lstsq(a.T, delta.T).solution.T)
    torch.testing.assert_close(layer.merged().weight - layer.base.weight, delta, rtol=1e-11, atol=1e-11)


def test_dropout_is_of_what_the_adapter_reads_alone() -> None:
    layer, x = moved(LoRALinear(linear(), rank=2, dropout=0.5)), draw(400, 6)
    base = layer.base(x)
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), layer(x))
        change, mean = layer(x) - base, torch.zeros(400, 9).double()
        layer.train()
        for _ in range(300):
            mean += (layer(x) - base) / 300
    assert float((mean - change).norm() / change.norm()) < 0.1
    with adapters_disabled(layer):
        assert torch.equal(layer(x), base)


def test_gradients_are_those_of_the_structured_form() -> None:
    """dL/dW = C1^T (p1 - p2) C2, p1 = f q, p2 = f rowsum(f q) (arXiv 2406.03136), then A and B by the chain rule."""
    mixer, x, target = MinimalAttention(6, vo="none").double(), draw(7, 6), draw(7, 6, seed=1)
    assert mixer.query is not None
    layer = moved(LoRALinear(mixer.query, rank=2, alpha=4.0))
    mixer.query = layer
    y = mixer(x[None])[0]
    (0.5 * (y - target).square().sum()).backward()
    c2 = x / math.sqrt(6)
    f = (x @ layer.merged().weight.T @ c2.T).softmax(-1)
    q = (f @ x - target) @ x.T
    p1, p2 = f * q, f * (f * q).sum(-1, keepdim=True)
    by_weight = (x.T @ (p1 - p2) @ c2).T
    a, b = layer.adapters[0].first.weight, layer.adapters[0].second.weight
    torch.testing.assert_close(b.grad, 2.0 * by_weight @ a.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a.grad, 2.0 * b.T @ by_weight, rtol=1e-10, atol=1e-10)
    assert layer.base.weight.grad is None


# ----------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("host", ["tables", "speech"])
@pytest.mark.parametrize("slices", ["", "qv"])
def test_attach_train_merge_and_take_apart(hosts, host: str, slices: str) -> None:
    made = getattr(hosts, host)()
    model = made.make()
    done = rewrite(model, "lora", LoRAOptions(rank=2, slices=slices, dropout=0.1), made.evidence())
    assert done.status == "exact"
    # Every map is the frozen one to the bit; torch multiplies weights that need no gradient in another order elsewhere.
    assert done.change64 < 1e-15
    assert done.change32 < 1e-6
    fresh = made.replays(done)
    layers = blocks_of(fresh, LoRALinear)
    assert len(layers) == {"tables": 6, "speech": 24}[host]
    # Adapters alone get gradients, and the optimiser: as matrices.
    trained = {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert trained == {*adapter_state(fresh)}
    assert {(each.name, each.role) for each in route(fresh).entries} == {(name, "matrix") for name in trained}
    counts = 0
    for path, layer in layers.items():
        n, m = layer.base.in_features, layer.base.out_features
        fused = slices and path.endswith("qkv")
        counts += 2 * 2 * (n + m // 3) if fused else 2 * (n + m)
    assert sum(p.numel() for p in fresh.parameters() if p.requires_grad) == counts
    # Nothing but the adapters moves, in any mode.
    base = {name: value.clone() for name, value in fresh.state_dict().items()}
    optimizer = torch.optim.SGD([each.parameter for each in route(fresh).entries], lr=0.1)
    made.run(fresh).square().mean().backward()
    optimizer.step()
    fresh.train().eval()
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, base[name])}
    assert changed
    assert changed <= trained
    moved(fresh)
    with adapters_disabled(fresh):
        torch.testing.assert_close(made.run(fresh), made.run(model.eval()), rtol=1e-14, atol=1e-14)
    merged = rewrite(fresh, "merge", None, made.evidence())
    assert merged.status == "exact"
    assert merged.change64 < 1e-12
    assert {*merged.model.state_dict()} == {*model.state_dict()}
    assert all(p.requires_grad for p in merged.model.parameters())
    plain = replay(made.make(), [done.rewrite, merged.rewrite])
    plain.load_state_dict(merged.model.state_dict())
    assert torch.equal(made.run(plain.eval()), made.run(merged.model))
    back = unmerge(merged.model, fresh)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_loses_nothing_in_narrow_numbers(hosts, dtype: torch.dtype) -> None:
    model = hosts.stack(*STACK).make().to(dtype)
    adapted = moved(rewrite(model, "lora", LoRAOptions(rank=3)).model)
    once = rewrite(adapted, "merge").model
    layer, x = adapted.sublayers[1].block.up, draw(5, 8, dtype=dtype)
    if dtype == torch.float32:
        y = layer(x)
        torch.testing.assert_close(once.sublayers[1].block.up(x), y, rtol=0, atol=2e-6 * float(y.detach().abs().max()))
    back = unmerge(once, adapted)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())


def test_the_adapters_alone_go_to_another_base(hosts) -> None:
    made = hosts.stack(*STACK)
    adapted = moved(rewrite(made.make(), "lora", LoRAOptions(rank=2)).model)
    state = copy.deepcopy(adapter_state(adapted))
    assert all(".adapters." in name for name in state)
    other = rewrite(made.make(), "lora", LoRAOptions(rank=2, seed=9)).model
    load_adapter_state(other, state)
    assert torch.equal(made.run(other), made.run(adapted))
    first, *rest = state
    wrong = {name: state[name] for name in rest} | {"head.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=rf"missing: {first}; unexpected: head.weight"):
        load_adapter_state(other, wrong)
    with pytest.raises(InputError, match=r"has shape \(1,\), not \(2, 8\)"):
        load_adapter_state(other, {**state, first: torch.zeros(1)})
    assert torch.equal(made.run(other), made.run(adapted))


@torch.no_grad()
def test_disabled_for_a_while_also_through_an_error(hosts) -> None:
    made = hosts.stack(*STACK)
    adapted = moved(rewrite(made.make(), "lora", LoRAOptions(rank=2)).model)
    on = made.run(adapted)
    next(iter(blocks_of(adapted, LoRALinear).values())).enabled = False
    partly = made.run(adapted)
    assert not torch.equal(on, partly)
    with adapters_disabled(adapted):
        assert torch.equal(made.run(adapted), made.run(made.make().eval()))
    assert torch.equal(made.run(adapted), partly)
    with pytest.raises(RuntimeError, match="shape"), adapters_disabled(adapted):
        adapted.sublayers[0].block.qkv(draw(3, 3))
    assert torch.equal(made.run(adapted), partly)


def test_norms_of_adapted_queries(hosts) -> None:
    x, mask = draw(2, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    made = hosts.stack(*STACK)
    made.run = lambda model: model(x.to(next(model.parameters()).dtype), mask=mask)
    adapted = moved(rewrite(made.make(), "lora", LoRAOptions(rank=2, slices="qv")).model)
    (row,) = norm_diagnostic(adapted, made.evidence(), c=2.0)
    sublayer = adapted.sublayers[0]
    rows = sublayer.norms[0](x[mask])
    layer = sublayer.block.qkv
    merged = layer.merged()
    queries, keys, _ = merged(rows).chunk(3, -1)
    delta = (merged.weight - layer.base.weight)[:8]
    wanted = {"keys": keys, "queries": queries, "adapter": rows @ delta.T}
    for name, value in wanted.items():
        assert row[name] == pytest.approx(float(value.detach().abs().max()), rel=1e-9)
    assert row["block"] == "sublayers.0.block"
    assert row["bound"] == pytest.approx(2 * math.sqrt(math.log(5)))
    assert row["within"] is bool(max(row["keys"], row["queries"], row["adapter"]) <= row["bound"])
    done = rewrite(adapted, "merge", None, made.evidence())
    assert [each["queries"] for each in done.rewrite.decision["norms"]] == [row["queries"]]
    packed = hosts.stack(*STACK)
    assert norm_diagnostic(adapted, packed.evidence())[0]["tokens"] == 5
    without = rewrite(made.make(), "lora", LoRAOptions(rank=2, slices="v")).model
    assert norm_diagnostic(without, made.evidence()) == []


def test_maps_by_name(hosts) -> None:
    model = hosts.speech().make()
    done = rewrite(model, "lora", LoRAOptions(rank=2, maps=("qkv", "after.*.up"))).model
    names = [path.rpartition(".")[2] for path in blocks_of(done, LoRALinear)]
    assert sorted(names) == ["qkv"] * 3 + ["up"] * 2
    for maps, said in ((("gkv",), "no plain linear map is called 'gkv'; there are down, "), (("up", "head"), "'head'")):
        with pytest.raises(InputError, match=said):
            rewrite(model, "lora", LoRAOptions(rank=2, maps=maps))


def test_refusals(hosts) -> None:
    model = hosts.stack(*STACK).make()
    adapted = rewrite(model, "lora", LoRAOptions(rank=2)).model
    with pytest.raises(InputError, match="no block of the model has a plain linear map"):
        rewrite(adapted, "lora", LoRAOptions(rank=2))
    with pytest.raises(InputError, match=r"number from 1 to 8"):
        rewrite(model, "lora", LoRAOptions(rank=9))
    with pytest.raises(InputError, match="'x' are no thirds of 24 rows"):
        rewrite(model, "lora", LoRAOptions(rank=2, slices="x"))
    with pytest.raises(InputError, match="none of the maps has the thirds 'q'"):
        rewrite(model, "lora", LoRAOptions(rank=2, slices="q", maps=("up",)))
    with pytest.raises(InputError, match=r"dropout 1.0 is outside"):
        rewrite(model, "lora", LoRAOptions(rank=2, dropout=1.0))
    with pytest.raises(InputError, match="no adapters; the pass lora"):
        rewrite(model, "merge")
    merged = rewrite(moved(copy.deepcopy(adapted)), "merge").model
    with pytest.raises(InputError, match=r"sublayers.0.block.qkv: is not what these adapters"):
        unmerge(merged, adapted)
    with pytest.raises(InputError, match=r"evidence\.run"):
        norm_diagnostic(adapted, Evidence())


@pytest.mark.untyped
@pytest.mark.parametrize(
    "change",
    [
        {"maps": ["sublayers.0.block.qkv"]},
        {"maps": {"sublayers.0.block": ""}},
        {"maps": {"sublayers.9.block.qkv": ""}},
        {"maps": {"sublayers.0.block.qkv": 3}},
        {"maps": {"sublayers.0.block.qkv": "qq"}},
        {"rank": 10**12},
        {"rank": 0},
        {"rank": "2"},
        {"alpha": None},
        {"alpha": float("nan")},
        {"alpha": 10**400},
        {"dropout": 2},
        {"dropout": "much"},
        {"rank_stabilised": 1},
        {"seed": -1},
        {"seed": 2**70},
    ],
)
def test_wrong_decisions(hosts, change: dict[str, object]) -> None:
    model = hosts.stack(*STACK).make()
    decision = rewrite(model, "lora", LoRAOptions(rank=2, maps=("qkv",))).rewrite.decision
    replay(model, [Rewrite("lora", decision)])
    with pytest.raises(InputError):
        replay(model, [Rewrite("lora", {**decision, **change})])
    with pytest.raises(InputError):
        replay(model, [Rewrite("lora", {name: value for name, value in decision.items() if name not in change})])
    with pytest.raises(InputError):
        replay(model, [Rewrite("merge", {"maps": ["sublayers.0.block.qkv"]})])


def test_a_merged_step_is_a_plain_step() -> None:
    """A step of the adapters moves W by s (dB A + B dA + dB dA), and so the merged map's result."""
    base, x = linear(), draw(5, 6)
    layer = moved(LoRALinear(base, rank=2, alpha=2.0))
    adapter = layer.adapters[0]
    a, b = (each.weight.detach().clone() for each in (adapter.first, adapter.second))
    layer(x).square().sum().backward()
    da, db = -0.01 * adapter.first.weight.grad, -0.01 * adapter.second.weight.grad
    torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.01).step()
    torch.testing.assert_close(
        layer(x), F.linear(x, base.weight + (b @ a + db @ a + b @ da + db @ da), base.bias), rtol=1e-11, atol=1e-11
    )
