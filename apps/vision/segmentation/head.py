"""The heads: features of all stages, fused at the finest grid, to logits (DAFormer, arXiv 2111.14887; SegFormer).

    z_i = up(W_i F_i + b_i)                                  every feature to C channels, bilinearly to the first grid
                                                             (or, with a norm, up(relu(norm(W_i F_i))))
    fused  y = bottleneck(branches(z_1, ..., z_n))           1 x 1 and dilated 3 x 3, side by side; 3 x 3
    last   y = fuse(z_1, ..., bottleneck(branches(F_n)))     1 x 1; the last feature by the branches alone
    none   y = fuse(z_1, ..., z_n)                           SegFormer
    logits = W dropout(y) + b                                whole channels dropped

Every convolution before the classifier goes without bias, and a norm and ReLU follow it; of a separable one, both
halves. ``fuse`` is linear in what is enlarged, and so are its parts: each z_i is multiplied by its columns of ``fuse``
before it is enlarged, which is the same function at a fraction of the cost.

The classifier starts N(0, 0.01); all starts are in :mod:`apps.vision.segmentation.initialisation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from apps.vision.segmentation.config import ModelConfig
from core.grid import Grid, to_map, to_tokens
from core.norm import norm_named

Map = Float[Tensor, "B _ _ _"]
"""A map; channels and grids differ from one to the next."""
_FAST = 6
"""Dilation up to which oneDNN has a fast depth-wise kernel for maps with channels last."""


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the grid, a norm, ReLU."""

    def __init__(self, channels: int, width: int, config: ModelConfig, *, dilation: int, depthwise: bool = False):
        super().__init__()
        kernel, padding = (1, 0) if dilation == 0 else (3, dilation)
        groups = channels if depthwise else 1
        step = max(1, dilation)
        self.conv = nn.Conv2d(channels, width, kernel, padding=padding, dilation=step, groups=groups, bias=False)
        self.norm = norm_named(config.head_norm, width, {}, "model.head_norm")

    def forward(self, x: Map) -> Map:
        """A map of other channels on the same grid."""
        apart = self.conv.groups == x.shape[1] > 1 and self.conv.dilation[0] > _FAST
        return self.finish(_by_subgrids(self.conv, x) if apart and _takes_long(x) else self.conv(x))

    def finish(self, x: Map) -> Map:
        """What follows the convolution."""
        return to_map(F.relu(self.norm(to_tokens(x))), (x.shape[2], x.shape[3]))


def _takes_long(x: Map) -> bool:
    """Whether a depth-wise convolution of a large dilation falls off the fast path of a processor's library."""
    compiling = torch.compiler.is_compiling()  # graphs keep the one operation
    return not compiling and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def _by_subgrids(conv: nn.Conv2d, x: Map) -> Map:
    """A depth-wise 3 x 3 convolution that keeps the grid, of dilation d = f g, as one of dilation g on f x f subgrids.

    Every f-th row and column sees only its like, so that the subgrids are images of their own: the same sums in the
    same order, and a kernel that is fast.
    """
    (dilation, _), (height, width) = conv.dilation, x.shape[2:]
    f = next(f for f in range(2, dilation + 1) if dilation % f == 0 and dilation // f <= _FAST)
    rows, columns = -(-height // f), -(-width // f)
    cells = F.pad(x, (0, f * columns - width, 0, f * rows - height)).permute(0, 2, 3, 1)
    cells = (
        cells.reshape(len(x), rows, f, columns, f, -1).permute(0, 2, 4, 1, 3, 5).reshape(-1, rows, columns, x.shape[1])
    )
    near = dilation // f
    y = F.conv2d(cells.permute(0, 3, 1, 2), conv.weight, padding=near, dilation=near, groups=conv.groups)
    y = y.permute(0, 2, 3, 1).reshape(len(x), f, f, rows, columns, -1).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(len(x), f * rows, f * columns, -1)[:, :height, :width].permute(0, 3, 1, 2)


class Embedding(nn.Linear):
    """A linear map of every cell of a map."""

    def forward(self, input: Map) -> Map:
        """A map of other channels on the same grid."""
        return to_map(super().forward(to_tokens(input)), (input.shape[2], input.shape[3]))


def _embedding(channels: int, config: ModelConfig) -> nn.Module:
    if config.embedding == "linear":
        return Embedding(channels, config.head_width)
    return ConvNorm(channels, config.head_width, config, dilation=0)


class Context(nn.Module):
    """Branches of several dilations side by side, and the 3 x 3 convolution that makes one of them."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.head_width
        self.branches = nn.ModuleList(_branch(channels, config, dilation) for dilation in config.dilations)
        self.bottleneck = ConvNorm(len(config.dilations) * width, width, config, dilation=1)

    def forward(self, x: Map) -> Map:
        """A map of the head's width."""
        y: Tensor = self.bottleneck(_joined([branch(x) for branch in self.branches]))
        return y


def _branch(channels: int, config: ModelConfig, dilation: int) -> nn.Module:
    width = config.head_width
    if dilation == 1:
        return ConvNorm(channels, width, config, dilation=0)
    if not config.separable:
        return ConvNorm(channels, width, config, dilation=dilation)
    halves = (channels, channels, config), (channels, width, config)
    return nn.Sequential(ConvNorm(*halves[0], dilation=dilation, depthwise=True), ConvNorm(*halves[1], dilation=0))


class Classifier(nn.Conv2d):
    """The map to the classes; a 1 x 1 convolution whose weight the optimiser treats as a head."""

    parameter_roles: ClassVar[dict[str, str]] = {"weight": "head", "bias": "bias"}


class Head(nn.Module):
    """Logits at the first feature's grid.

    Args:
        classes: K.
        config: architecture.

    >>> features = [torch.zeros(2, width, side, side) for width, side in zip((32, 64, 160, 256), (8, 4, 2, 1))]
    >>> Head(5, ModelConfig())(features).shape
    torch.Size([2, 5, 8, 8])
    """

    def __init__(self, classes: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.head_width
        embedded = config.widths[:-1] if config.context == "last" else config.widths
        self.embeddings = nn.ModuleList(_embedding(channels, config) for channels in embedded)
        self.context: Context | None = None
        self.fuse: ConvNorm | None = None
        if config.context != "none":
            channels = config.widths[-1] if config.context == "last" else width * len(config.widths)
            self.context = Context(channels, config)
        if config.context != "fused":
            self.fuse = ConvNorm(width * len(config.widths), width, config, dilation=0)
        self.dropout = nn.Dropout2d(config.head_dropout)
        self.classifier = Classifier(width, classes, 1)

    def forward(self, features: Sequence[Map]) -> Float[Tensor, "B K H W"]:
        """Logits of features that get coarser."""
        grid = (features[0].shape[2], features[0].shape[3])
        # The last feature may have the context alone.
        maps = [embed(feature) for embed, feature in zip(self.embeddings, features, strict=False)]
        if self.fuse is None:
            assert self.context is not None
            y = self.context(_joined([_enlarged(z, grid) for z in maps]))
        else:
            y = self._fused([*maps, *([] if self.context is None else [self.context(features[-1])])], grid, self.fuse)
        logits: Tensor = self.classifier(self.dropout(y))
        return logits

    @staticmethod
    def _fused(maps: Sequence[Map], grid: Grid, fuse: ConvNorm) -> Map:
        """``fuse`` of the enlarged maps, multiplied before they are enlarged."""
        weights = torch.split(fuse.conv.weight, [z.shape[1] for z in maps], dim=1)
        parts = [_enlarged(F.conv2d(z, weight), grid) for z, weight in zip(maps, weights, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return fuse.finish(total)


def _enlarged(x: Map, grid: Grid) -> Map:
    """Bilinearly to a grid, corners not aligned."""
    return x if tuple(x.shape[2:]) == grid else F.interpolate(x, grid, mode="bilinear", align_corners=False)


def _joined(maps: Sequence[Map]) -> Map:
    return torch.cat(list(maps), dim=1)
