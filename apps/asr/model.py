"""Squeezeformer: attention, feed-forward, convolution, feed-forward, with the middle blocks at half the rate.

Source: Kim et al., "Squeezeformer: An Efficient Transformer for Automatic Speech Recognition" (NeurIPS 2022, arXiv
2206.00888), and the authors' program ``kssteven418/Squeezeformer``, whose computation the defaults follow.

    x = subsampling(features)                                  10 ms -> 40 ms
    x = blocks[: r](x);  y = blocks[r : k](reduce(x))          80 ms
    x = blocks[k :](x + recover(y));  logits = head(x)         40 ms

A block is four sublayers, each y = norm(x + dropout(f(a * x + b))), with f attention over relative positions, a
feed-forward, a convolution module and another feed-forward; a and b in R^D are learned. ``block="macaron"`` has the
order of Conformer (arXiv 2005.08100): half a feed-forward, attention, convolution, half a feed-forward. The head reads
the last sublayer as it is. Everything sees the whole recording: the model is not for streams.

Size: L (25 D^2 + 103 D) + 23 D^2 + 32 D + (D + 1) V parameters for 80 bins and V outputs, with the defaults.

Deviations from the program: lengths are exact and padding reaches nothing, so that a recording gives the same logits in
any batch; batch norms leave padding out of their statistics (``conv_masked=False`` is as released). A stream that no
sublayer normalises (placements ``pre`` and ``peri``, for ablations) is normalised once before the head.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from apps.asr.config import ModelConfig
from apps.asr.initialisation import official_
from apps.asr.reduction import TimeRecovery, TimeReduction, reduced_length
from apps.asr.subsampling import Subsampling, subsampled_length
from core.errors import InputError
from core.layout import Entry, Repeat, Request, build, feedforward_options, mixer_options
from core.layout.stack import Stack
from core.norm import NORMS, LayerNorm
from core.sequence import Ragged


class Head(nn.Linear):
    """The map to the outputs; a linear map whose weight the optimiser treats as a head."""

    parameter_roles: ClassVar[dict[str, str]] = {"weight": "head", "bias": "bias"}


class Squeezeformer(nn.Module):
    """The network: front end, blocks, head; starts with the official values.

    Args:
        bins: F, mel bins.
        outputs: V, tokens with the blank.
        config: architecture.

    Attributes:
        frame_seconds: step of the output tokens.
        frame_offset: time of the centre of what the front end reads for token 0, from the start of the recording.

    Raises:
        InputError: for a switch that this model, or one of its blocks, cannot take.

    >>> model = Squeezeformer(80, 128, ModelConfig()).eval()
    >>> sum(parameter.numel() for parameter in model.parameters())
    9031808
    >>> logits, lengths = model(torch.randn(2, 103, 80), torch.tensor([103, 50]))
    >>> logits.shape, lengths.tolist()
    (torch.Size([2, 25, 128]), [25, 12])
    """

    frame_seconds: ClassVar[float] = 0.04
    frame_offset: ClassVar[float] = 0.03

    def __init__(self, bins: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        if outputs < 2:
            raise InputError(f"{outputs} outputs are no blank and a token", where="Squeezeformer")
        self.bins, self.outputs, self.config = bins, outputs, config
        width = config.width
        self.subsampling = Subsampling(bins, width, dropout=config.dropout, norm=config.norm, norm_eps=config.norm_eps)
        before, reduced, after = (_stack(config, len(blocks)) for blocks in config.sections)
        self.before, self.reduced, self.after = before, reduced, after
        self.reduction = None if config.reduce is None else TimeReduction(width)
        self.recovery = None if config.reduce is None else TimeRecovery(width)
        bare = config.placement in ("pre", "peri")
        self.norm = NORMS[config.norm if bare else "identity"](width, eps=config.norm_eps)
        self.head = Head(width, outputs)
        official_(self, glorot=[self.head, *([] if self.recovery is None else [self.recovery.linear])])

    def forward(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B N V"], Int[Tensor, "B"]]:
        """Logits every 40 ms, and how many of them are real; what the others hold is not defined.

        ``torch.export`` takes it with free numbers of recordings and frames, of two recordings and 24 frames or more.

        Args:
            features: log-mel frames every 10 ms; what lies beyond a length is not read.
            lengths: frames of each recording; fewer than four give no logits.

        Raises:
            InputError: features of another number of bins, or lengths that are negative or beyond T.
        """
        tokens = subsampled_length(lengths)
        padded = self._padded(features, lengths)
        encoded = self.encode(features, lengths if padded else None)
        return self.head(encoded), tokens

    def encode(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """What the head reads, zero in the padding; no ``lengths`` says that there is none."""
        x = self.subsampling(features, lengths)
        tokens = None if lengths is None else subsampled_length(lengths)
        mask = _mask(tokens, x)
        x = self.before(x, mask=mask)
        if self.reduction is not None and self.recovery is not None:
            y = self.reduction(x, tokens)
            y = self.reduced(y, mask=_mask(None if tokens is None else reduced_length(tokens), y))
            x = self.after(self.recovery(y, x), mask=mask)
        normed: Tensor = self.norm(x, mask)
        return normed

    def streams(self) -> Mapping[str, str | None]:
        """The stacks, each with what reads its stream at the end and would notice a shift of all channels."""
        end = None if isinstance(self.norm, LayerNorm) else "the head, or a norm that sees the mean,"
        if self.reduction is None:
            return {"before": end}
        return {"before": "the time reduction", "reduced": "the time recovery", "after": end}

    def output_lengths(self, lengths: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Logits of recordings of so many frames."""
        return subsampled_length(lengths)

    def describe(self) -> tuple[str, ...]:
        """The parts in order, for ``info``; of blocks that are alike, the sublayers of the first.

        >>> model = Squeezeformer(80, 32, ModelConfig(width=8, layers=3, heads=2, reduce=1))
        >>> for line in model.describe()[:7]:
        ...     line
        'front end, 10 ms to 40 ms, 1,536 parameters'
        '1 block at 40 ms, 2,424 parameters'
        '  mixer relative, post layernorm, 400 parameters'
        '  feedforward mlp, post layernorm, 584 parameters'
        '  mixer convolution, post layernorm, 856 parameters'
        '  feedforward mlp, post layernorm, 584 parameters'
        'time reduction, 120 parameters'
        """
        lines = [_line("front end, 10 ms to 40 ms", self.subsampling)]
        lines += _block_lines(self.before, "40 ms")
        if self.reduction is not None and self.recovery is not None:
            lines += [_line("time reduction", self.reduction), *_block_lines(self.reduced, "80 ms")]
            lines += [_line("time recovery", self.recovery), *_block_lines(self.after, "40 ms")]
        return (*lines, _line("head", self.head))

    def _padded(self, features: Tensor, lengths: Tensor) -> bool:
        """Whether there is padding; an exported model must take any lengths, and asks no tensor."""
        if torch.compiler.is_compiling():
            return True
        if tuple(lengths.shape) != tuple(features.shape[:1]):
            raise InputError(
                f"{tuple(lengths.shape)} lengths for {features.shape[0]} recordings", where="Squeezeformer"
            )
        ragged = Ragged.from_lengths(lengths, features.shape[1])
        return bool((ragged.lengths < ragged.max_length).any())


SUBLAYERS = 4


def _mask(lengths: Tensor | None, x: Tensor) -> Bool[Tensor, "B N"] | None:
    return None if lengths is None else Ragged(lengths, x.shape[1]).mask


def _stack(config: ModelConfig, blocks: int) -> Stack:
    """So many blocks."""
    common: dict[str, Any] = {
        "norm": config.norm,
        "norm_options": {"eps": config.norm_eps},
        "placement": config.placement,
        "drop": config.dropout,
        "scale": config.scale,
    }
    feedforward = Entry("feedforward", config.feedforward, _feedforward_options(config), **common)
    attention = Entry("mixer", config.mixer, _mixer_options(config), **common)
    convolution = Entry("mixer", "convolution", _convolution_options(config), **common)
    if config.block == "macaron":
        half = replace(feedforward, factor=0.5)
        return build((Repeat((half, attention, convolution, half), blocks),), config.width)
    return build((Repeat((attention, feedforward, convolution, feedforward), blocks),), config.width)


def _mixer_options(config: ModelConfig) -> dict[str, Any]:
    request = Request(masked=True, any_length=True, position=config.position)
    offered = {"heads": config.heads, "dropout": config.attention_dropout}
    return mixer_options(config.mixer, request, offered, host="recordings")


def _feedforward_options(config: ModelConfig) -> dict[str, Any]:
    """``mlp``, ``glu`` and ``activator`` hold 2 * expansion * D^2 weights, a gate's three matrices being narrower."""
    offered = {"activation": "silu", "dropout": config.dropout, "nested": config.nested}
    options = feedforward_options(config.feedforward, config.expansion * config.width, offered)
    if config.nested and "nested" not in options:
        raise InputError(f"{config.feedforward!r} has no sizes in it", where="model.nested", mend="use 'mlp' or 'glu'")
    return options


def _convolution_options(config: ModelConfig) -> dict[str, Any]:
    batch = {"momentum": config.conv_momentum, "masked": config.conv_masked}
    taken = inspect.signature(NORMS[config.conv_norm]).parameters if config.conv_norm in NORMS else {}
    own = {option: value for option, value in batch.items() if option in taken}
    return {
        "kernel": config.kernel,
        "activation": config.conv_activation,
        "norm": config.conv_norm,
        "norm_options": {"eps": config.conv_norm_eps, **own},
    }


def _line(name: str, module: nn.Module) -> str:
    return f"{name}, {sum(parameter.numel() for parameter in module.parameters()):,} parameters"


def _block_lines(stack: Stack, rate: str) -> list[str]:
    sublayers = stack.describe()
    first, blocks = sublayers[:SUBLAYERS], len(sublayers) // SUBLAYERS
    if sublayers == first * blocks:
        head = _line(f"{blocks} {'block' if blocks == 1 else 'blocks'} at {rate}", stack)
        return [head, *(f"  {sublayer}" for sublayer in first)]
    # A pruned network.
    return [_line(f"{len(sublayers)} sublayers at {rate}", stack), *(f"  {sublayer}" for sublayer in sublayers)]
