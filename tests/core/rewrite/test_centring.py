"""A pre-norm model with layer norms, with RMS norms, and with one channel less are one function."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from apps.asr.config import ModelConfig as Speech
from apps.asr.model import Squeezeformer
from apps.tabular.prediction.config import ModelConfig as Table
from apps.tabular.prediction.model import ExcelFormer
from core.attention import MIXERS
from core.convolution import CONVOLUTIONS
from core.errors import InputError
from core.feedforward import FEEDFORWARDS
from core.layout import Centre, Compress, Entry, Layout, Repeat, Residual, Restore, Stack, build
from core.norm import CRMSNorm, LayerNorm, RMSNorm
from core.rewrite import Evidence, Rewritten, pass_named, replay, rewrite
from core.testing.tolerances import draw, draw_mask

WIDTH = 8
EPS = 0.1
EXACT = {"rtol": 1e-12, "atol": 1e-12}
PASSES = ("rmsnorm", "crmsnorm")
TOKENS = torch.tensor([[3, 0, 7, 10, 2], [1, 1, 9, 4, 5]])


def entry(kind: Any, name: str, options: Mapping[str, Any], **more: Any) -> Entry:
    return Entry(kind, name, options, norm_options={"eps": EPS}, **more)


MIX = entry("mixer", "softmax", {"heads": 2})
MLP = entry("feedforward", "mlp", {"hidden": 12})
BLOCKS = (MIX, dataclasses.replace(MLP, scale=True, factor=0.5), entry("mixer", "convolution", {"kernel": 3}))


class Host(nn.Module):
    """Embeddings of tokens and positions, a stack, a norm and a head."""

    def __init__(self, layout: Layout, reader: str | None = None) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, WIDTH), nn.Embedding(6, WIDTH)
        self.stack = build(layout, WIDTH)
        self.norm, self.head = LayerNorm(WIDTH, eps=EPS), nn.Linear(WIDTH, 4)
        self.reader = reader

    def embed(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return x

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(x) if x.dtype == torch.int64 else x
        y: Tensor = self.head(self.norm(self.stack(x, mask=mask)))
        return y

    def streams(self) -> Mapping[str, str | None]:
        return {"stack": self.reader}


def randomised(model: nn.Module) -> Any:
    with torch.no_grad():
        for index, (name, value) in enumerate([*model.named_parameters(), *model.named_buffers()]):
            if value.is_floating_point():
                drawn = 0.6 * draw(*value.shape, seed=index)
                value.copy_(drawn.abs() + 0.5 if "running_var" in name else drawn)
    return model.double().eval()


def host(*layout: Any, **more: Any) -> Any:
    return randomised(Host(layout or (Repeat(BLOCKS, 3),), **more))


def streams(model: Any, tokens: Tensor) -> Iterator[Tensor]:
    """The residual stream as it goes into each sublayer and out of the last."""
    seen: list[Tensor] = []
    hooks = [each.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for each in model.stack.sublayers]
    hooks.append(model.stack.sublayers[-1].register_forward_hook(lambda _, __, y: seen.append(y)))
    model(tokens)
    for hook in hooks:
        hook.remove()
    return iter(seen)


def slope(model: Any, tokens: Tensor) -> Tensor:
    """The gradient of some function of the outputs by what goes into the stack."""
    x = model.embed(tokens).detach().requires_grad_()
    (model(x) * draw(*model(x).shape, seed=3)).sum().backward()
    assert x.grad is not None
    return x.grad


def test_layer_norm_rms_norm_and_one_channel_less_are_one_model() -> None:
    plain = host()
    evidence = Evidence(run=lambda network: network(TOKENS))
    rms, crms = (rewrite(plain, name, evidence=evidence) for name in PASSES)
    again = rewrite(rms.model, "crmsnorm", evidence=evidence)
    wanted, gradient = plain(TOKENS), slope(plain, TOKENS)
    for done in (rms, crms, again):
        assert done.status == "exact"
        assert done.change64 is not None
        assert done.change64 < 1e-12
        torch.testing.assert_close(done.model(TOKENS), wanted, **EXACT)
        torch.testing.assert_close(slope(done.model, TOKENS), gradient, **EXACT)
        low = done.model.float()(TOKENS)
        torch.testing.assert_close(low, wanted.float(), rtol=1e-5, atol=1e-5)
    assert [*map(type, rms.model.stack.recodings.values())] == [Centre]
    assert [*map(type, again.model.stack.recodings.values())] == [Compress, Restore]


def test_the_stream_is_centred_and_its_last_channel_minus_the_others() -> None:
    plain = host()
    rms, crms = (rewrite(plain, name).model for name in PASSES)
    whole, small = list(streams(rms, TOKENS)), list(streams(crms, TOKENS))
    assert len(whole) == len(small) == 10
    for raw, stream, less in zip(streams(plain, TOKENS), whole, small, strict=True):
        assert float(raw.detach().mean(-1).abs().max()) > 1e-2
        assert float(stream.detach().mean(-1).abs().max()) < 1e-13, "the stream is not centred"
        torch.testing.assert_close(stream, raw - raw.mean(-1, keepdim=True), **EXACT)
        torch.testing.assert_close(stream[..., :-1], less, **EXACT)
        torch.testing.assert_close(stream[..., -1], -less.sum(-1), **EXACT)


def test_without_the_step_that_centres_it_is_another_model() -> None:
    model = host()
    other = rewrite(model, "rmsnorm").model
    del other.stack.recodings["0"]
    assert float((other(TOKENS) - model(TOKENS)).detach().abs().max()) > 1e-3


def test_norms_keep_their_eps_and_lose_their_parameters_and_entries_say_so() -> None:
    model = host((dataclasses.replace(MLP, norm_options={"eps": 0.5})), MLP)
    for name, kind, width in (("rmsnorm", RMSNorm, WIDTH), ("crmsnorm", CRMSNorm, WIDTH - 1)):
        stack = rewrite(model, name).model.stack
        norms = [sublayer.norms[0] for sublayer in stack.sublayers]
        assert [(type(norm), norm.width, norm.eps) for norm in norms] == [(kind, width, 0.5), (kind, width, EPS)]
        assert not any(True for norm in norms for _ in norm.parameters())
        assert [(each.norm, each.norm_options) for each in stack.entries] == [
            (name, {"eps": 0.5, "affine": False}),
            (name, {"eps": EPS, "affine": False}),
        ]
        assert str(stack.describe()[0]).startswith(f"feedforward mlp, pre {name}, ")


OPTIONS: dict[str, dict[str, Any]] = {
    "minimal": {"qk": "full", "vo": "full"},
    "experts": {"hidden": 6, "active": 1, "expert": "glu"},
    "glu": {"hidden": 6, "bias": False},
    "mlp": {"hidden": 12, "nested": (0.5, 1.0)},
    "activator": {"hidden": 6},
    "convolution": {"kernel": 3, "activation": "glu"},
    "separable": {"kernel": 3},
}
TABLES: dict[Any, Mapping[str, type[nn.Module]]] = {"mixer": {**MIXERS, **CONVOLUTIONS}, "feedforward": FEEDFORWARDS}


def options_of(kind: Any, name: str) -> dict[str, Any]:
    """Given options, or heads and tokens where the constructor wants them."""
    taken = inspect.signature(TABLES[kind][name]).parameters
    standard = {"heads": 2, "tokens": 5, "hidden": 6}
    return OPTIONS.get(name, {key: value for key, value in standard.items() if key in taken})


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_every_block_that_names_its_maps_can_be_converted(kind: Any, name: str) -> None:
    try:
        model = host(MIX, entry(kind, name, options_of(kind, name), scale=True), MLP)
        model(TOKENS)
    except InputError:
        pytest.skip("needs options of its own, or a grid")
    block = model.stack.sublayers[1].block
    fits = bool(block.input_maps()) and bool(block.output_maps())
    for each in PASSES:
        done = rewrite(model, each)
        assert done.rewrite.decision["stacks"] == {"stack": 0 if fits else 2}
        torch.testing.assert_close(done.model(TOKENS), model(TOKENS), rtol=1e-10, atol=1e-10)


def test_padding_and_packed_rows() -> None:
    model = host()
    x, mask, offsets = draw(3, 6, WIDTH), draw_mask(3, 6), torch.tensor([0, 4, 9])
    rows = draw(9, WIDTH)
    for name in PASSES:
        stack = rewrite(model, name).model.stack
        y, wanted = stack(x, mask=mask), model.stack(x, mask=mask)
        torch.testing.assert_close(y, _centred(wanted), **EXACT)
        packed = stack(rows, offsets=offsets)
        torch.testing.assert_close(packed, _centred(model.stack(rows, offsets=offsets)), **EXACT)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def test_dropout_of_single_channels_is_exact_in_evaluation_only() -> None:
    model = host(dataclasses.replace(MLP, drop=0.5), MIX)
    for name in PASSES:
        assert rewrite(model, name).status == "exact in evaluation"
        assert rewrite(host(MLP), name).status == "exact"


def test_leading_sublayers_that_read_the_stream_itself_stay() -> None:
    first = dataclasses.replace(MIX, norm="identity", norm_options={})
    model = host(first, dataclasses.replace(MLP, placement="post"), MLP, MIX)
    for name in PASSES:
        done = rewrite(model, name)
        assert done.rewrite.decision["stacks"] == {"stack": 2}
        assert done.rewrite.decision["left"] == {}
        torch.testing.assert_close(done.model(TOKENS), model(TOKENS), **EXACT)


def test_a_loop_is_converted_once_and_a_loop_around_the_raw_stream_is_not() -> None:
    loop = (dataclasses.replace(MLP, share="a"), dataclasses.replace(MIX, share="b"))
    model = host(Repeat(loop, 3))
    for name in PASSES:
        torch.testing.assert_close(rewrite(model, name).model(TOKENS), model(TOKENS), **EXACT)
    raw = dataclasses.replace(MIX, norm="identity", norm_options={})
    assert rewrite(host(loop[0], raw, loop[1]), "rmsnorm").rewrite.decision["stacks"] == {"stack": 2}
    with pytest.raises(InputError, match=r"sublayer 0 \(feedforward mlp\) is applied to what is not centred, too"):
        rewrite(host(loop[0], raw, loop[0]), "rmsnorm")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ((dataclasses.replace(MLP, placement="post"),), "'post'; use the placement 'pre'"),
        ((dataclasses.replace(MLP, placement="peri"),), "has the placement 'peri'"),
        ((MLP, dataclasses.replace(MIX, norm="rmsnorm")), r"sublayer 1 \(mixer softmax\) has a RMSNorm, and reads"),
        ((dataclasses.replace(MIX, norm="identity"),), "has no norm, and reads the mean"),
        ((entry("feedforward", "glu", {"hidden": 8, "project": False}),), "GLU ends in none; use a feedforward .*mlp"),
        ((entry("mixer", "softmax", {"heads": 1, "project": False}),), "SoftmaxAttention ends in none; use a mixer"),
        ((entry("mixer", "minimal", {}),), "reads its input by more than linear maps: MinimalAttention"),
        ((Repeat((dataclasses.replace(MLP, share="a", share_norms=False),), 2),), "serves another sublayer, too"),
        ((), "stack: it has no sublayer"),
    ],
)
def test_what_cannot_be_converted_is_named(layout: Layout, said: str) -> None:
    model = randomised(Host(layout))
    for name in PASSES:
        with pytest.raises(InputError, match=said) as caught:
            rewrite(model, name)
        assert "\n" not in str(caught.value)


def test_who_reads_the_stream_must_be_known() -> None:
    with pytest.raises(InputError, match=r"Stack does not say what reads its streams; give it a method streams\(\)"):
        rewrite(build((MLP,), WIDTH), "rmsnorm")
    with pytest.raises(InputError, match="stack: a pooling reads its stream"):
        rewrite(host(MLP, reader="a pooling"), "rmsnorm")


def test_once_is_enough() -> None:
    rms, crms = (rewrite(host(), name).model for name in PASSES)
    for model, name in ((rms, "rmsnorm"), (crms, "rmsnorm"), (crms, "crmsnorm")):
        with pytest.raises(InputError, match="stack: is converted already"):
            rewrite(model, name)


def test_what_was_trained_on_after_rms_norms_is_no_longer_centred() -> None:
    model = rewrite(host(), "rmsnorm").model
    with torch.no_grad():
        model.stack.sublayers[2].block.pointwise_out.bias[0] += 0.1
    with pytest.raises(InputError, match="no longer centred; convert before training on"):
        rewrite(model, "crmsnorm")


def test_decisions_that_do_not_fit_are_refused() -> None:
    for name in PASSES:
        chosen = pass_named(name)
        for stacks, said in (({"other": 0}, "no 'other'"), ({"stack": 9}, "from 0 to 8"), ({"norm": 0}, "no stack")):
            with pytest.raises(InputError, match=said):
                chosen.apply(host(), {"stacks": stacks})
        with pytest.raises(InputError, match="no 'stacks'"):
            chosen.apply(host(), {})


# ------------------------------------------------------------------------------------------------------ applications


def speech(**changes: Any) -> Any:
    config = dataclasses.replace(Speech(width=8, layers=3, heads=2, kernel=5, placement="pre", reduce=None), **changes)
    return randomised(Squeezeformer(8, 7, config))


def recordings(network: Any) -> Tensor:
    features, lengths = draw(3, 41, 8, seed=1).to(next(network.parameters()).dtype), torch.tensor([41, 40, 23])
    logits, counts = network(features, lengths)
    return torch.cat([row[:n] for row, n in zip(logits, counts.tolist(), strict=True)])


def table(**changes: Any) -> Any:
    config = dataclasses.replace(Table(width=8, layers=3, heads=2, feedforward="mlp"), **changes)
    return randomised(ExcelFormer(5, 3, config))


def rows(network: Any) -> Tensor:
    y: Tensor = network(draw(6, 5, seed=2).to(next(network.parameters()).dtype))
    return y


APPLICATIONS: list[tuple[Callable[[], Any], Callable[[Any], Tensor], dict[str, int], dict[str, str]]] = [
    (speech, recordings, {"before": 0}, {}),
    (lambda: speech(block="macaron", mixer="softmax", position="none"), recordings, {"before": 0}, {}),
    (
        lambda: speech(reduce=1),
        recordings,
        {"after": 0},
        {"before": "the time reduction reads its stream", "reduced": "the time recovery reads its stream"},
    ),
    (table, rows, {"stack": 1}, {}),
]


@pytest.mark.parametrize(("made", "run", "stacks", "left"), APPLICATIONS)
def test_applications(made: Any, run: Any, stacks: dict[str, int], left: dict[str, str]) -> None:
    model = made()
    for name in PASSES:
        done: Rewritten[Any] = rewrite(model, name, evidence=Evidence(run=run))
        assert done.rewrite.decision["stacks"] == stacks
        assert done.rewrite.decision["left"] == left
        assert done.change64 is not None
        assert done.change32 is not None
        assert done.change64 < 1e-10
        assert done.change32 < 1e-5
        again = replay(made().train(), [done.rewrite])
        again.load_state_dict(done.model.state_dict())
        assert torch.equal(run(again.eval()), run(done.model))


def test_applications_say_what_would_fit() -> None:
    with pytest.raises(InputError, match=r"stack: sublayer 5 \(feedforward glu\) writes by no linear map.*'mlp'"):
        rewrite(table(feedforward="glu"), "rmsnorm")
    with pytest.raises(InputError, match="stack: the head reads its stream"):
        rewrite(table(head="paper"), "rmsnorm")
    with pytest.raises(InputError, match="the head, or a norm that sees the mean, reads its stream"):
        rewrite(speech(placement="post"), "rmsnorm")


def test_both_passes_one_after_the_other_are_replayed() -> None:
    model = host()
    rms = rewrite(model, "rmsnorm")
    crms = rewrite(rms.model, "crmsnorm")
    again = replay(Host((Repeat(BLOCKS, 3),)).double(), [rms.rewrite, crms.rewrite])
    again.load_state_dict(crms.model.state_dict())
    assert torch.equal(again.eval()(TOKENS), crms.model(TOKENS))
    stack: Stack = crms.model.stack
    assert all(isinstance(sublayer, Residual) for sublayer in stack.sublayers)
    assert stack.parameter_count() < model.stack.parameter_count()
