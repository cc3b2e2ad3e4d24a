"""A pre-norm model with layer norms, with RMS norms, and with one channel less are one function."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from core.layout import Entry, Repeat, Stack, build
from core.norm import CRMSNorm, LayerNorm, RMSNorm
from core.norm.base import fold_affine
from core.testing.tolerances import draw

WIDTH = 9
EXACT = {"rtol": 1e-12, "atol": 1e-12}
MIX = Entry("mixer", "softmax", {"heads": 1})
BLOCKS = (Entry("feedforward", "mlp", {"hidden": 12}), Entry("feedforward", "glu", {"hidden": 7, "bias": False}))


def model(entries: tuple[Entry, ...], width: int = WIDTH, norm: str = "layernorm") -> nn.ModuleDict:
    """Embeddings of tokens and positions, three blocks, a norm and a head; everything drawn at random."""
    named = tuple(dataclasses.replace(entry, norm=norm, norm_options={"eps": 0.1}) for entry in entries)
    last = {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "crmsnorm": CRMSNorm}[norm](width, eps=0.1)
    embeddings = {"tokens": nn.Embedding(11, width), "positions": nn.Embedding(6, width)}
    whole = nn.ModuleDict(
        {**embeddings, "stack": build((Repeat(named, 3),), width), "norm": last, "head": nn.Linear(width, 4)}
    )
    with torch.no_grad():
        for index, parameter in enumerate(whole.parameters()):
            parameter.copy_(0.7 * draw(*parameter.shape, seed=index))
    return whole.double()


def streams(whole: nn.ModuleDict, tokens: Tensor) -> Iterator[Tensor]:
    """The residual stream, from the embeddings to the end of the last block."""
    stack = whole["stack"]
    assert isinstance(stack, Stack)
    x = whole["tokens"](tokens) + whole["positions"](torch.arange(tokens.shape[1]))
    yield x
    for index in stack.order:
        x = stack.sublayers[index](x)
        yield x


def logits(whole: nn.ModuleDict, tokens: Tensor) -> Tensor:
    *_, x = streams(whole, tokens)
    y: Tensor = whole["head"](whole["norm"](x))
    return y


def linears(block: nn.Module) -> tuple[str, str]:
    return ("qkv", "out") if hasattr(block, "qkv") else ("up", "down")


def readers_and_writers(whole: nn.ModuleDict) -> Iterator[tuple[nn.Module, str, str]]:
    stack = whole["stack"]
    assert isinstance(stack, Stack)
    for sublayer in stack.sublayers:
        yield sublayer, *linears(sublayer.block)


def to_rms(whole: nn.ModuleDict, *, centred: tuple[str, ...] = ("tokens", "positions")) -> nn.ModuleDict:
    """Fold the affine maps of the norms, centre what writes to the stream, and take RMS norms without parameters."""
    with torch.no_grad():
        for sublayer, reader, writer in readers_and_writers(whole):
            block = sublayer.block
            _, folded = sublayer.norms[0].fold_into(getattr(block, reader))
            setattr(block, reader, folded)
            sublayer.norms[0] = RMSNorm(WIDTH, eps=0.1, affine=False)
            linear = getattr(block, writer)
            linear.weight -= linear.weight.mean(0, keepdim=True)
            if linear.bias is not None:
                linear.bias -= linear.bias.mean()
        for name in centred:
            whole[name].weight -= whole[name].weight.mean(1, keepdim=True)
        _, whole["head"] = whole["norm"].fold_into(whole["head"])
    whole["norm"] = RMSNorm(WIDTH, eps=0.1, affine=False)
    return whole


def compressed_reader(linear: nn.Linear) -> nn.Linear:
    small = nn.Linear(WIDTH - 1, linear.out_features, bias=linear.bias is not None, dtype=torch.float64)
    small.weight.copy_(linear.weight[:, :-1] - linear.weight[:, -1:])
    if linear.bias is not None:
        small.bias.copy_(linear.bias)
    return small


def to_crms(whole: nn.ModuleDict) -> nn.ModuleDict:
    """Drop the last channel of a model that ``to_rms`` has made."""
    with torch.no_grad():
        for sublayer, reader, writer in readers_and_writers(whole):
            block, linear = sublayer.block, getattr(sublayer.block, writer)
            setattr(block, reader, compressed_reader(getattr(block, reader)))
            sublayer.norms[0] = CRMSNorm(WIDTH - 1, eps=0.1, affine=False)
            linear.weight = nn.Parameter(linear.weight[:-1])
            if linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias[:-1])
        for name in ("tokens", "positions"):
            whole[name].weight = nn.Parameter(whole[name].weight[:, :-1])
        whole["head"] = compressed_reader(whole["head"])
    whole["norm"] = CRMSNorm(WIDTH - 1, eps=0.1, affine=False)
    return whole


TOKENS = torch.tensor([[3, 0, 7, 10, 2], [1, 1, 9, 4, 5]])


def test_layer_norm_rms_norm_and_one_channel_less_are_one_model() -> None:
    wanted = logits(model(BLOCKS), TOKENS)
    rms = to_rms(model(BLOCKS))
    torch.testing.assert_close(logits(rms, TOKENS), wanted, **EXACT)
    whole = list(streams(rms, TOKENS))
    for stream in whole:
        assert float(stream.detach().mean(-1).abs().max()) < 1e-13, "the stream is not centred"
    crms = to_crms(rms)
    torch.testing.assert_close(logits(crms, TOKENS), wanted, **EXACT)
    for stream, small in zip(whole, streams(crms, TOKENS), strict=True):
        torch.testing.assert_close(stream[..., :-1], small, **EXACT)
        torch.testing.assert_close(stream[..., -1], -small.sum(-1), **EXACT)
    torch.testing.assert_close(logits(crms.float(), TOKENS), wanted.float(), rtol=1e-5, atol=1e-5)


def test_with_attention_layer_norm_and_rms_norm_are_one_model_and_once_is_enough() -> None:
    entries = (MIX, BLOCKS[0])
    rms = to_rms(model(entries))
    once = logits(rms, TOKENS)
    torch.testing.assert_close(once, logits(model(entries), TOKENS), **EXACT)
    torch.testing.assert_close(logits(to_rms(rms), TOKENS), once, **EXACT)


def test_positions_that_are_not_centred_make_another_model() -> None:
    wanted = logits(model(BLOCKS), TOKENS)
    other = logits(to_rms(model(BLOCKS), centred=("tokens",)), TOKENS)
    assert float((other - wanted).detach().abs().max()) > 1e-3


def test_it_is_the_layer_norm_of_the_whole_token_at_any_eps() -> None:
    x = draw(20, WIDTH) * 3
    whole = x - x.mean(-1, keepdim=True)
    for eps in (1e-12, 1e-5, 2.0):
        small = CRMSNorm(WIDTH - 1, eps=eps, affine=False)(whole[:, :-1])
        torch.testing.assert_close(small, LayerNorm(WIDTH, eps=eps, affine=False)(x)[:, :-1], **EXACT)
        torch.testing.assert_close(small, RMSNorm(WIDTH, eps=eps, affine=False)(whole)[:, :-1], **EXACT)
    uncentred = RMSNorm(WIDTH, eps=1e-12, affine=False)(x) - LayerNorm(WIDTH, eps=1e-12, affine=False)(x)
    assert float(uncentred.abs().max()) > 1e-2


def test_the_reader_of_a_compressed_token_reads_the_whole_one() -> None:
    linear, x = nn.Linear(WIDTH, 3, dtype=torch.float64), draw(5, WIDTH)
    whole = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(compressed_reader(linear)(whole[:, :-1]), linear(whole), **EXACT)
        ones = torch.ones(WIDTH, dtype=torch.float64)
        torch.testing.assert_close(fold_affine(linear, ones, None)(x), linear(x), **EXACT)
