"""A contender at a point, made into a call that can be timed again and again.

Equal terms. Mixers have 8 heads where they have heads, and are otherwise as their tables build them; a causal one meets
causal softmax attention. Feed-forwards have as many weights as the plain one with 4 D hidden units, as near as their
hidden units allow; who has no hidden units is as large as it is. Norms whose training depends on its progress are told
that they are in the middle of it. A pass is one of evaluation without gradients, or a training step's forward and
backward pass, with gradients of the input. In bf16 weights and numbers are bfloat16.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.blocks.points import CAUSAL, HEADS, Point, is_causal, mixers
from core.clock import advance
from core.feedforward import FEEDFORWARDS, FeedForward
from core.layout import Request, mixer_options
from core.norm import NORMS
from core.sequence import Ragged

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
EXPANSION = 4
#: Ragged batches of a call, and how much of a batch is real tokens, up to a hundredth.
DRAWS, FILL = 3, 0.6


@dataclass(frozen=True)
class Call:
    """A module on its inputs; calling it runs them once.

    Attributes:
        module: in the mode of its pass.
        inputs: what is put in, one after the other.
        apply: the module's result for the number of an input.
        training: with a backward pass.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    apply: Callable[[int], Tensor]
    training: bool

    def __call__(self) -> None:
        if not self.training:
            with torch.inference_mode():
                for number in range(len(self.inputs)):
                    self.apply(number)
            return
        self.module.zero_grad(set_to_none=True)
        for number, x in enumerate(self.inputs):
            x.grad = None
            y = self.apply(number)
            y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]


def prepare(point: Point, contender: str) -> Call:
    """The call of a contender; the same numbers each time."""
    torch.manual_seed(0)
    makers = {"mixer": _mixer, "norm": _norm, "feedforward": _feedforward, "packed": _ragged, "folded": _folded}
    with torch.random.fork_rng():
        return makers[point.family](point, contender)


def ready(point: Point, contender: str) -> Call:
    """The same after a small one, for measuring its memory."""
    small = replace(point, tokens=16, batch=2)
    prepare(small, contender)()
    return prepare(point, contender)


def weights(point: Point, contender: str) -> int:
    """Numbers that are learned."""
    return sum(weight.numel() for weight in prepare(point, contender).module.parameters())


def _call(point: Point, module: nn.Module) -> Call:
    """A module on one full batch."""
    x = torch.randn(point.batch, point.tokens, point.width)
    training = point.mode == "step"
    module, x = _cast(point, module), x.to(DTYPES[point.precision]).requires_grad_(training)
    return Call(module, (x,), lambda _: module(x), training)


def _cast(point: Point, module: nn.Module) -> nn.Module:
    return module.to(DTYPES[point.precision]).train(point.mode == "step")


def _built_mixer(point: Point, contender: str) -> nn.Module:
    name = contender.removesuffix(CAUSAL)
    offered = {"heads": HEADS, "tokens": point.tokens}
    # What reads earlier positions alone has no such option to turn on.
    request = Request(causal=is_causal(contender))
    return mixers()[name](point.width, **mixer_options(name, request, offered, host="benchmarks"))


def _mixer(point: Point, contender: str) -> Call:
    return _call(point, _built_mixer(point, contender))


def _norm(point: Point, contender: str) -> Call:
    norm = NORMS[contender](point.width)
    advance(norm, step=1, of=4)
    return _call(point, norm)


def _feedforward(point: Point, contender: str) -> Call:
    return _call(point, feedforward(contender, point.width))


def feedforward(name: str, width: int) -> FeedForward:
    """A feed-forward with as many weights as the plain one, as near as whole hidden units allow."""
    made = FEEDFORWARDS[name]
    if "hidden" not in inspect.signature(made).parameters:
        return made(width)
    options: dict[str, Any] = {"hidden": _hidden(name, width)}
    return made(width, **options)


@cache
def _hidden(name: str, width: int) -> int:
    """Hidden units: the weights of every member are an affine function of them."""

    def size(kind: str, hidden: int) -> int:
        options: dict[str, Any] = {"hidden": hidden}
        return sum(weight.numel() for weight in FEEDFORWARDS[kind](width, **options).parameters())

    wanted, base = size("mlp", EXPANSION * width), size(name, 1)
    return max(1, round(1 + (wanted - base) / (size(name, 2) - base)))


def _ragged(point: Point, contender: str) -> Call:
    """The same ragged batches as packed rows, with offsets that are validated in the call, or padded with a mask."""
    name, how = contender.split()
    module, training = _cast(point, _built_mixer(point, name)), point.mode == "step"
    inputs, arguments = [], []
    for lengths in draws(point.batch, point.tokens):
        ragged = Ragged.from_lengths(lengths)
        rows = torch.randn(ragged.total, point.width).to(DTYPES[point.precision])
        inputs.append((rows if how == "packed" else ragged.unpack(rows)).requires_grad_(training))
        arguments.append({"offsets": ragged.offsets} if how == "packed" else {"mask": ragged.mask})
    return Call(module, tuple(inputs), lambda i: module(inputs[i], **arguments[i]), training)


def draws(batch: int, tokens: int) -> list[Tensor]:
    """Lengths of :data:`DRAWS` batches, even between a fifth of ``tokens`` and all, with :data:`FILL` of them real.

    Draws that are filled otherwise are thrown away; the longest sequence has ``tokens``.
    """
    found = list[Tensor]()
    for seed in count():
        lengths = torch.randint(max(1, tokens // 5), tokens + 1, (batch,), generator=torch.manual_seed(seed))
        lengths[lengths.argmax()] = tokens
        if abs(float(lengths.sum()) / (batch * tokens) - FILL) <= 0.01:
            found.append(lengths)
        if len(found) == DRAWS:
            return found
    raise AssertionError


def _folded(point: Point, contender: str) -> Call:
    """A linear map alone, after a norm, or after what is left of the norm once it was folded into the map."""
    linear = nn.Linear(point.width, point.width)
    if contender == "linear":
        return _call(point, nn.Sequential(linear))
    name, how = contender.split()
    norm = NORMS[name](point.width)
    advance(norm, step=3, of=4)
    norm.train()(torch.randn(64, point.width))  # its statistics are some batch's
    pair = norm.eval().fold_into(linear) if how == "folded" else (norm, linear)
    return _call(point, nn.Sequential(*pair))
