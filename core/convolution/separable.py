"""Separable convolution (ConvFormer; MetaFormer baselines: Yu et al., arXiv 2210.13452, github.com/sail-sg/metaformer).

    h = s relu(W1 x)^2 + b          D -> 2D, StarReLU with learned numbers s and b
    y = W2 depthwise(h)             k taps along time, zeros beyond the sequence; 2D -> D

No biases besides b. The kernel is centred, or with ``causal=True`` (ours) all on the left. As b makes what was zero
padding non-zero, it is zeroed again before the convolution.

Initialisation: W1 and W2 truncated normal of deviation 0.02, the taps U(-1/sqrt(k), 1/sqrt(k)), s = 1, b = 0 as in the
public code (s = 0.894 and b = -0.447 would give unit variance). Deviation: the paper convolves a grid with k x k taps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention import Capabilities, Mixer
from core.errors import InputError
from core.feedforward import StarReLU
from core.kernels import depthwise_conv1d


class SeparableConvolution(Mixer):
    """A linear map, StarReLU, a depth-wise convolution along time, a linear map.

    Args:
        width: D.
        kernel: taps; odd.
        causal: position i reads positions i-k+1 ... i only, instead of i-(k-1)/2 ... i+(k-1)/2.

    Raises:
        InputError: an even kernel.

    >>> SeparableConvolution(8)(torch.zeros(2, 7, 8)).shape
    torch.Size([2, 7, 8])
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"taps": "matrix"}
    capabilities = Capabilities(causal=True, packed=True, masked=True)
    source = "Yu et al., ConvFormer, arXiv 2210.13452"
    cost = "4 N D^2 + 2 N D kernel"

    def __init__(self, width: int, *, kernel: int = 7, causal: bool = False) -> None:
        super().__init__(width)
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"the kernel must be odd, not {kernel}", where="separable convolution")
        self.kernel, self.causal = kernel, causal
        self.pointwise_in = nn.Linear(width, 2 * width, bias=False)
        self.activation = StarReLU()
        self.taps = nn.Parameter(torch.empty(2 * width, 1, kernel))
        self.pointwise_out = nn.Linear(2 * width, width, bias=False)
        nn.init.uniform_(self.taps, -1 / math.sqrt(kernel), 1 / math.sqrt(kernel))
        for linear in (self.pointwise_in, self.pointwise_out):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Convolve within each sequence."""
        h = self.activation(self.pointwise_in(x))
        if mask is not None:
            h = h.masked_fill(~mask[:, :, None], 0.0)
        left = self.kernel - 1 if self.causal else self.kernel // 2
        y: Tensor = self.pointwise_out(depthwise_conv1d(h, self.taps, left=left, right=self.kernel - 1 - left))
        return y

    def input_maps(self) -> Sequence[nn.Module]:
        """The first point-wise map."""
        return (self.pointwise_in,)

    def output_maps(self) -> Sequence[nn.Module]:
        """The second point-wise map."""
        return (self.pointwise_out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"kernel={self.kernel}, causal={self.causal}"
