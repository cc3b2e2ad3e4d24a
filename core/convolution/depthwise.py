"""Depth-wise convolution over time as a layer: ``core.kernels.depthwise_conv1d`` with its parameters.

    y[b, i, c] = bias[c] + sum_{j < k} weight[c, 0, j] x[b, i*stride + j - left, c],   x = 0 outside [0, T)

Parameters are shaped as those of ``torch.nn.Conv1d(C, C, k, groups=C)``, whose state dict loads. Zeros are added where
``left`` and ``right`` say, at the ends of the padded batch: the caller sees to it that padding inside it is zero.

Initialisation: weight U(-1/sqrt(k), 1/sqrt(k)), bias zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import InputError
from core.kernels import conv_length, depthwise_conv1d


class DepthwiseConv(nn.Module):
    """Each channel convolved with its own kernel, ``(B,T,C) -> (B,L,C)``.

    Args:
        channels: C.
        kernel: k.
        stride: distance of neighbouring outputs.
        left: zeros before the first element.
        right: zeros after the last one.

    >>> reduction = DepthwiseConv(8, 5, stride=2, right=3)
    >>> reduction(torch.zeros(2, 7, 8)).shape
    torch.Size([2, 3, 8])
    >>> reduction.output_lengths(torch.tensor([7, 4, 1])).tolist()
    [3, 2, 0]
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"weight": "matrix", "bias": "bias"}

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, left: int = 0, right: int = 0) -> None:
        super().__init__()
        if min(channels, kernel, stride) < 1 or min(left, right) < 0:
            raise InputError(
                f"channels, kernel and stride must be at least 1 and the zeros at least 0, not {channels}, {kernel}, "
                f"{stride}, {left} and {right}",
                where="depth-wise convolution",
            )
        self.channels, self.kernel, self.stride, self.left, self.right = channels, kernel, stride, left, right
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -1 / math.sqrt(kernel), 1 / math.sqrt(kernel))

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B L C"]:
        """Convolve; L is the ``output_lengths`` of T."""
        ends = {"stride": self.stride, "left": self.left, "right": self.right}
        return depthwise_conv1d(x, self.weight, self.bias, **ends)

    def output_lengths(self, lengths: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """How many outputs sequences of these lengths have."""
        return conv_length(lengths, self.kernel, stride=self.stride, left=self.left, right=self.right)

    def extra_repr(self) -> str:
        """Sizes, for ``print(module)``."""
        return f"{self.channels}, {self.kernel}, stride={self.stride}, left={self.left}, right={self.right}"
