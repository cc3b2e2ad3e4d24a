"""Stages on coarser and coarser grids, each of them a transition, a stack and a norm; data, and what is built of them.

    x_0 = the image;   x_s = norm_s(stack_s(transition_s(x_{s-1}))),   s = 1, 2, ...

A transition is a strided convolution of the map, whose windows may overlap, and a norm of the tokens that it makes.
What a stage gives is its feature, and what the next transition reads. Maps are ``(B,C,H,W)``; those inside and those
that come out have their channels last in memory, as tokens do.

A convolution with kernel k, stride s and padding p makes floor((n + 2p - k)/s) + 1 of n rows, which is ceil(n/s) for
k = 2p + 1: images of any size, with no other padding than its zeros. What is smaller than a window is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.grid import Grid, to_map, to_tokens
from core.kernels import conv_length
from core.layout.build import build
from core.layout.entries import Layout
from core.layout.stack import Stack
from core.norm import norm_named


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. ``dataclasses.asdict`` gives it as plain data.

    Attributes:
        width: D, channels of the stage.
        layout: of its stack.
        kernel: rows and columns of a window of the transition.
        stride: distance of windows.
        padding: zeros around the map.
        embed_norm: of the transition's tokens; name in ``core.norm.NORMS``.
        embed_norm_options: its constructor arguments besides the width.
        norm: of the stack's result, likewise.
        norm_options: likewise.
    """

    width: int
    layout: Layout
    kernel: int
    stride: int
    padding: int = 0
    embed_norm: str = "layernorm"
    embed_norm_options: Mapping[str, Any] = field(default_factory=dict)
    norm: str = "layernorm"
    norm_options: Mapping[str, Any] = field(default_factory=dict)


class Transition(nn.Module):
    """From a map to the tokens of a coarser grid: a strided convolution and a norm.

    Initialisation: weight U(-1/sqrt(fan_in), 1/sqrt(fan_in)), bias zero.

    Args:
        channels: C of the map.
        stage: whose beginning this is.

    >>> tokens, grid = Transition(3, Stage(width=8, layout=(), kernel=7, stride=4, padding=3))(torch.zeros(2, 3, 9, 16))
    >>> tokens.shape, grid
    (torch.Size([2, 12, 8]), (3, 4))
    """

    def __init__(self, channels: int, stage: Stage) -> None:
        super().__init__()
        if min(channels, stage.width, stage.kernel, stage.stride) < 1 or stage.padding < 0:
            raise InputError("a transition needs channels, width, kernel and stride >= 1 and padding >= 0")
        self.conv = nn.Conv2d(channels, stage.width, stage.kernel, stage.stride, stage.padding)
        self.norm = norm_named(stage.embed_norm, stage.width, stage.embed_norm_options, "layout, transition")
        bound = 1 / math.sqrt(channels * stage.kernel**2)
        nn.init.uniform_(self.conv.weight, -bound, bound)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], Grid]:
        """The tokens of a map, and the grid that they lie on.

        Raises:
            InputError: a map of other channels, or one that is smaller than a window.
        """
        conv, (rows, columns) = self.conv, x.shape[2:]
        if x.shape[1] != conv.in_channels or min(map(self.output_length, (rows, columns))) < 1:
            where = f"a map with {conv.in_channels} channels that is not smaller than a window"
            raise InputError(f"{tuple(x.shape)} is not {where}", where="transition")
        y = conv(x.contiguous(memory_format=torch.channels_last))
        normed: Tensor = self.norm(to_tokens(y))
        return normed, (y.shape[2], y.shape[3])

    def output_length(self, length: int) -> int:
        """Rows (or columns) that a map of so many has after it."""
        (kernel, _), (stride, _), padding = self.conv.kernel_size, self.conv.stride, int(self.conv.padding[0])
        return conv_length(length, kernel, stride=stride, left=padding, right=padding)


class PyramidStage(nn.Module):
    """A transition, a stack and a norm."""

    def __init__(self, channels: int, stage: Stage) -> None:
        super().__init__()
        self.transition = Transition(channels, stage)
        self.stack: Stack = build(stage.layout, stage.width)
        self.norm = norm_named(stage.norm, stage.width, stage.norm_options, "layout, stage")

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The feature of the stage."""
        tokens, grid = self.transition(x)
        return to_map(self.norm(self.stack(tokens, grid=grid)), grid)


class Pyramid(nn.Module):
    """Stages one after another.

    Args:
        stages: in order.
        channels: C of the image.

    >>> from core.layout import Entry
    >>> block = (Entry("mixer", "pooling"), Entry("feedforward", "mlp", {"hidden": 16}))
    >>> pyramid = Pyramid([Stage(width=8, layout=block, kernel=3, stride=2, padding=1) for _ in range(2)])
    >>> [tuple(feature.shape) for feature in pyramid(torch.zeros(2, 3, 9, 12))]
    [(2, 8, 5, 6), (2, 8, 3, 3)]
    """

    def __init__(self, stages: Sequence[Stage], channels: int = 3) -> None:
        super().__init__()
        inputs = [channels, *(stage.width for stage in stages)]
        self.stages = nn.ModuleList(PyramidStage(*pair) for pair in zip(inputs, stages, strict=False))
        self.widths = tuple(stage.width for stage in stages)

    def forward(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The feature of every stage."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)

    def parts(self) -> tuple[PyramidStage, ...]:
        """The stages, as what they are."""
        return tuple(stage for stage in self.stages if isinstance(stage, PyramidStage))

    def sizes(self, rows: int, columns: int) -> tuple[Grid, ...]:
        """Grids of the stages for an image of so many rows and columns.

        >>> Pyramid([Stage(width=8, layout=(), kernel=7, stride=4, padding=3)]).sizes(513, 512)
        ((129, 128),)
        """
        grids = []
        for stage in self.parts():
            rows, columns = (stage.transition.output_length(side) for side in (rows, columns))
            grids.append((rows, columns))
        return tuple(grids)
