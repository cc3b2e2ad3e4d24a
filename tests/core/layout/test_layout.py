import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import InputError
from core.layout import Entry, InputScale, Layout, Repeat, Residual, Stack, build
from core.layout.residual import NORM_COUNTS
from core.norm import LayerNorm, RMSNorm
from core.optim import route
from core.testing.tolerances import draw, draw_mask

WIDTH = 8
MIX = Entry("mixer", "softmax", {"heads": 2})
MLP = Entry("feedforward", "mlp", {"hidden": 12})
SQUEEZE: Layout = (  # post-norm, macaron-like: feed-forward, mixer, feed-forward
    Repeat((dataclasses.replace(MLP, placement="post"), dataclasses.replace(MIX, placement="post")), 2),
    dataclasses.replace(MLP, placement="peri", norm="rmsnorm"),
)


def randomised(stack: Stack) -> Stack:
    with torch.no_grad():
        for index, parameter in enumerate(stack.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=index))
    return stack.double().eval()


def test_placements_by_hand() -> None:
    x = draw(2, 5, WIDTH)
    f, n1, n2 = nn.Linear(WIDTH, WIDTH).double(), LayerNorm(WIDTH).double(), RMSNorm(WIDTH).double()
    with torch.no_grad():
        for parameter in (*n1.parameters(), *n2.parameters()):
            parameter.copy_(draw(WIDTH, seed=5))
    assert torch.equal(Residual(f, "pre", n1)(x), x + f(n1(x)))
    assert torch.equal(Residual(f, "post", n1)(x), n1(x + f(x)))
    assert torch.equal(Residual(f, "peri", n1, n2)(x), x + n2(f(n1(x))))
    assert torch.equal(Residual(f, "none")(x), x + f(x))
    with pytest.raises(TypeError, match="takes 2 norms"):
        Residual(f, "peri", n1)


@pytest.mark.parametrize(("placement", "norms"), [("pre", 1), ("post", 1), ("peri", 2), ("none", 0)])
def test_dropout_is_on_what_is_added(placement: Any, norms: int) -> None:
    residual = Residual(nn.Identity(), placement, *[LayerNorm(4, affine=False) for _ in range(norms)], drop=0.5)
    x = draw(1000, 4, dtype=torch.float32)
    quiet = residual.eval()(x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loud = residual.train()(x)
    if placement == "post":  # the norm follows the sum
        assert not torch.equal(loud, quiet)
        torch.testing.assert_close(loud.mean(-1), torch.zeros(1000), atol=1e-5, rtol=0)
        return
    ratio = (loud - x) / (quiet - x)
    dropped = ratio.abs() < 1e-3
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 2.0), atol=1e-2, rtol=0)
    assert 0.45 < float(dropped.float().mean()) < 0.55


def test_an_input_scale_is_the_blocks_alone() -> None:
    x = draw(2, 5, WIDTH)
    f, scale, norm = nn.Linear(WIDTH, WIDTH).double(), InputScale(WIDTH).double(), LayerNorm(WIDTH).double()
    with torch.no_grad():
        for index, parameter in enumerate((*scale.parameters(), *norm.parameters())):
            parameter.copy_(draw(WIDTH, seed=index))

    def g(z: Tensor) -> Tensor:
        return f(z * scale.gain + scale.bias)

    wanted = {
        "pre": x + g(norm(x)),
        "post": norm(x + g(x)),
        "peri": x + norm(g(norm(x))),
        "none": x + g(x),
    }
    for placement, y in wanted.items():
        norms = [norm] * NORM_COUNTS[placement]
        torch.testing.assert_close(Residual(f, placement, *norms, scale=scale)(x), y)  # type: ignore[arg-type]


def test_an_entrys_scale_starts_as_nothing_and_has_its_roles() -> None:
    plain, scaled = (
        build((MIX, MLP), WIDTH),
        build(tuple(dataclasses.replace(e, scale=True) for e in (MIX, MLP)), WIDTH),
    )
    state = scaled.state_dict()
    assert set(state) - set(plain.state_dict()) == {
        f"sublayers.{i}.scale.{n}" for i in (0, 1) for n in ("gain", "bias")
    }
    plain.load_state_dict({name: value for name, value in state.items() if ".scale." not in name})
    x = draw(2, 5, WIDTH, dtype=torch.float32)
    assert torch.equal(scaled(x), plain(x))
    roles = {entry.name: entry.role for entry in route(scaled).entries if ".scale." in entry.name}
    assert roles == {f"sublayers.{i}.scale.{name}": name for i in (0, 1) for name in ("gain", "bias")}
    assert scaled.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_norms_get_their_options_and_a_batch_norm_the_mask() -> None:
    entry = dataclasses.replace(MLP, placement="post", norm="batchnorm", norm_options={"eps": 1e-3, "momentum": 1.0})
    stack = build((entry, dataclasses.replace(MIX, norm_options={"eps": 0.5}, placement="peri")), WIDTH).double()
    assert [norm.eps for norm in stack.sublayers[1].norms] == [0.5, 0.5]
    first = stack.sublayers[0]
    x, mask = draw(3, 6, WIDTH), draw_mask(3, 6)
    rows = x[mask] + first.block(x[mask])
    packed = build((entry,), WIDTH).double()
    packed.sublayers[0].load_state_dict(first.state_dict())
    stack(x.masked_fill(~mask[..., None], float("nan")), mask=mask)
    packed(x[mask], offsets=torch.tensor([0, *mask.sum(1).tolist()]).cumsum(0))
    for norm in (first.norms[0], packed.sublayers[0].norms[0]):
        torch.testing.assert_close(norm.running_mean, rows.mean(0))
        torch.testing.assert_close(norm.running_var, rows.var(0))


def test_a_convolution_stands_in_a_layout_like_any_mixer() -> None:
    options = {"kernel": 3, "norm_options": {"momentum": 0.015}}
    layout = (MIX, Entry("mixer", "convolution", options, placement="post", drop=0.1, scale=True))
    stack = randomised(build(layout, WIDTH))
    x = draw(2, 7, WIDTH)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    y = stack(x, mask=mask)
    torch.testing.assert_close(y[1:, :4], stack(x[1:, :4]), rtol=1e-10, atol=1e-11)
    assert not bool(y[1, 4:].any())
    assert str(stack.describe()[1]) == "mixer convolution, post layernorm, 408 parameters"
    with pytest.raises(InputError, match=r"no option 'kernl'; did you mean 'kernel'\?"):
        build((Entry("mixer", "convolution", {"kernl": 3}),), WIDTH)


def test_an_entry_passes_its_dropout_on() -> None:
    stack = build((dataclasses.replace(MLP, drop=0.25), MLP), WIDTH)
    assert [sublayer.drop.p for sublayer in stack.sublayers] == [0.25, 0.0]


def test_a_stack_is_its_sublayers_in_order() -> None:
    stack = randomised(build((MIX, MLP, MIX), WIDTH))
    x, mask, pairs = draw(2, 5, WIDTH), draw_mask(2, 5), draw_mask(5, 5)
    first, second, third = stack.sublayers
    wanted = x * mask[:, :, None]
    wanted = wanted + first.block(first.norms[0](wanted), mask=mask, pair_mask=pairs)
    wanted = wanted + second.block(second.norms[0](wanted))
    wanted = wanted + third.block(third.norms[0](wanted), mask=mask, pair_mask=pairs)
    torch.testing.assert_close(stack(x, mask=mask, pair_mask=pairs), wanted * mask[:, :, None])


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_never_matters(garbage: float) -> None:
    stack = randomised(build(SQUEEZE, WIDTH))
    x = draw(3, 6, WIDTH)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6, [0] * 6]).bool()
    dirty = x.masked_fill(~mask[..., None], garbage).requires_grad_()
    y = stack(dirty, mask=mask)
    assert not bool(y[~mask].any())
    torch.testing.assert_close(y[:1, :3], stack(x[:1, :3]), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(y[1:2], stack(x[1:2]), rtol=1e-10, atol=1e-11)
    for grad in torch.autograd.grad(y.square().sum(), [dirty, *stack.parameters()]):
        assert bool(grad.isfinite().all())


def test_packed_rows_equal_each_sequence_alone() -> None:
    stack = randomised(build(SQUEEZE, WIDTH))
    rows, lengths = draw(9, WIDTH), [4, 0, 5]
    y = stack(rows, offsets=torch.tensor([0, 4, 4, 9]))
    wanted = torch.cat([stack(piece[None])[0] for piece in rows.split(lengths)])
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-11)
    with pytest.raises(InputError, match="offsets"):
        stack(rows, offsets=torch.tensor([0, 4]))


def test_repeats_have_their_own_weights_and_shared_entries_do_not() -> None:
    looped = tuple(dataclasses.replace(entry, share=entry.name) for entry in (MIX, MLP))
    one, three, loop = (build(layout, WIDTH) for layout in ((MIX, MLP), (Repeat((MIX, MLP), 3),), (Repeat(looped, 3),)))
    assert three.parameter_count() == 3 * one.parameter_count()
    assert loop.parameter_count() == one.parameter_count()
    assert len(loop.order) == len(three.order) == 6
    assert set(loop.state_dict()) == set(one.state_dict()), "shared weights are written twice"
    one.load_state_dict(loop.state_dict())
    x = draw(2, 5, WIDTH, dtype=torch.float32)
    assert torch.equal(loop(x), one(one(one(x))))


def test_a_shared_weight_gathers_its_gradients() -> None:
    entry = dataclasses.replace(MLP, share="a", norm="identity")
    loop, apart = build((entry, entry), WIDTH), build((dataclasses.replace(entry, share=None),) * 2, WIDTH)
    for index in range(2):
        apart.sublayers[index].load_state_dict(loop.sublayers[0].state_dict())
    x = draw(2, 5, WIDTH, dtype=torch.float32)
    loop(x).square().sum().backward()
    apart(x).square().sum().backward()
    twins = zip(apart.sublayers[0].parameters(), apart.sublayers[1].parameters(), strict=True)
    for parameter, (a, b) in zip(loop.parameters(), twins, strict=True):
        torch.testing.assert_close(parameter.grad, a.grad + b.grad)


def test_description_and_counts() -> None:
    layout = (dataclasses.replace(MIX, norm="identity"), MLP, dataclasses.replace(MLP, placement="none"))
    stack = build((*layout, dataclasses.replace(MIX, share="s"), dataclasses.replace(MIX, share="s")), WIDTH)
    lines = [str(line) for line in stack.describe()]
    assert lines == [
        "mixer softmax, pre identity, 288 parameters",
        "feedforward mlp, pre layernorm, 228 parameters",
        "feedforward mlp, no norm, 212 parameters",
        "mixer softmax, pre layernorm, 304 parameters",
        "mixer softmax, pre layernorm, shared",
    ]
    assert sum(line.parameters for line in stack.describe()) == stack.parameter_count() == 1032


def test_the_size_of_excelformer() -> None:
    """Three layers of width 256: 1,195,787 in all for 8 features and one output, of which 3,850 outside the stack."""
    attention = {"heads": 32, "causal": True, "init_scale": 0.01}
    gate = {"hidden": 256, "activation": "tanh", "project": False, "init_scale": 0.01}
    first = (Entry("mixer", "softmax", attention, norm="identity"), Entry("feedforward", "glu", gate))
    rest = (Entry("mixer", "softmax", attention), Entry("feedforward", "glu", gate))
    tokenizer, head = 4 * 8 * 256, (8 + 1) + 2 * 256 + 1 + (256 + 1)
    assert build((*first, Repeat(rest, 2)), 256).parameter_count() + tokenizer + head == 1_195_787


def test_layouts_are_plain_data() -> None:
    plain = json.loads(json.dumps([dataclasses.asdict(item) for item in SQUEEZE]))
    assert plain[1] == {
        "kind": "feedforward",
        "name": "mlp",
        "options": {"hidden": 12},
        "norm": "rmsnorm",
        "placement": "peri",
        "drop": 0.0,
        "share": None,
        "norm_options": {},
        "scale": False,
        "factor": 1.0,
        "share_norms": True,
        "drop_path": 0.0,
    }
    assert [entry["name"] for entry in plain[0]["entries"]] == ["mlp", "softmax"]


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "mixers"}, r"no kind 'mixers'; did you mean 'mixer'\?"),
        ({"name": "sofmax"}, r"no mixer 'sofmax'; did you mean 'softmax'\?"),
        ({"norm_options": {"esp": 1e-3}}, r"norm 'layernorm': no option 'esp'; did you mean 'eps'\?"),
        ({"norm": "layrnorm"}, r"mixer 'softmax': no norm 'layrnorm'; did you mean 'layernorm'\?"),
        ({"placement": "prenorm"}, r"no placement 'prenorm'"),
        ({"options": {"heads": 2, "head": 1}}, r"mixer 'softmax': no option 'head'; did you mean 'heads'\?"),
        ({"options": {"heads": 2, "width": 8}}, r"no option 'width'"),
        ({"options": {}}, r"mixer 'softmax': needs the option 'heads'"),
        ({"options": {"heads": 3}}, "3 heads do not divide the width 8"),
        ({"options": {"heads": "two"}}, "mixer 'softmax'"),
        ({"drop": 1.0}, r"drop 1\.0 is outside"),
    ],
)
def test_mistakes_are_said_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        build((dataclasses.replace(MIX, **change),), WIDTH)
    assert "\n" not in str(error.value)


def test_more_mistakes() -> None:
    shared = dataclasses.replace(MIX, share="a")
    with pytest.raises(InputError, match="share the key 'a' differ"):
        build((shared, dataclasses.replace(shared, norm="rmsnorm")), WIDTH)
    with pytest.raises(InputError, match="-1 times"):
        build((Repeat((MIX,), -1),), WIDTH)


def test_building_follows_the_seed_and_an_empty_layout_does_nothing() -> None:
    states = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            states.append(build((MIX, MLP), WIDTH).state_dict()["sublayers.0.block.qkv.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    x = draw(2, 3, WIDTH)
    assert torch.equal(build((), WIDTH)(x), x)


def test_packed_rows_reach_a_norm_of_sequences_as_sequences() -> None:
    stack = randomised(build((dataclasses.replace(MIX, norm="groupnorm"), MLP), WIDTH))
    rows, lengths = draw(9, WIDTH), [4, 0, 5]
    y = stack(rows, offsets=torch.tensor([0, 4, 4, 9]))
    wanted = torch.cat([stack(piece[None])[0] for piece in rows.split(lengths)])
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-11)
