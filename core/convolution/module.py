"""The convolution module of Conformer (Gulati et al., arXiv 2005.08100) and Squeezeformer (arXiv 2206.00888).

    h = act(W1 x + b1)                       D -> C channels, each token alone
    u = norm(depthwise(h, zero in padding))  k taps along time
    y = W2 silu(u) + b2                      C -> D

``activation="swish"`` (Squeezeformer): act = silu, C = 2D. ``"glu"`` (Conformer): act(a; b) = a * sigmoid(b) on the
halves of W1 x + b1, C = D. The kernel is centred, or with ``causal=True`` all on the left. Biases make what was zero
padding non-zero, so that it is zeroed again before the depth-wise convolution; the norm is given the mask.

Initialisation: both linear maps U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the depth-wise one with fan_in k; biases zero.
Deviation: dropout is the residual sublayer's (``core.layout``), after W2, as in both papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention import Capabilities, Mixer
from core.convolution.depthwise import DepthwiseConv
from core.errors import InputError
from core.initialisation import uniform_fan_in_
from core.norm import norm_named

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class ConvolutionModule(Mixer):
    """Gated or swished channels, mixed along time by a depth-wise convolution.

    Args:
        width: D.
        kernel: taps; odd.
        activation: ``swish`` with 2D channels, or ``glu`` with D.
        causal: position i reads positions i-k+1 ... i only, instead of i-(k-1)/2 ... i+(k-1)/2.
        norm: name in ``core.norm.NORMS``, of the channels after the convolution.
        norm_options: that norm's options.

    Attributes:
        in_place: swishes overwrite what they are of, which spares memory where only the result is wanted; hooks then
            see overwritten numbers.

    Raises:
        InputError: an even kernel, an unknown activation or norm, or an option that the norm does not take.

    >>> import torch
    >>> module = ConvolutionModule(8, kernel=5, norm_options={"eps": 1e-3, "momentum": 0.015})
    >>> module(torch.zeros(2, 7, 8)).shape
    torch.Size([2, 7, 8])
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True)
    source = "Gulati et al., Conformer, arXiv 2005.08100; Kim et al., Squeezeformer, arXiv 2206.00888"
    cost = "4 N D^2 + 2 N D kernel; with 'glu' 3 N D^2 + N D kernel"

    def __init__(
        self,
        width: int,
        *,
        kernel: int = 31,
        activation: Literal["swish", "glu"] = "swish",
        causal: bool = False,
        norm: str = "batchnorm",
        norm_options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        super().__init__(width)
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"the kernel must be odd, not {kernel}", where="convolution")
        if activation not in ("swish", "glu"):
            raise InputError(f"no activation {activation!r}", where="convolution", mend="swish or glu")
        self.activation, self.causal, self.in_place = activation, causal, False
        channels = 2 * width if activation == "swish" else width
        left = kernel - 1 if causal else kernel // 2
        self.pointwise_in = nn.Linear(width, 2 * width)
        self.depthwise = DepthwiseConv(channels, kernel, left=left, right=kernel - 1 - left)
        self.norm = norm_named(norm, channels, norm_options, where="convolution")
        self.pointwise_out = nn.Linear(channels, width)
        uniform_fan_in_(self.pointwise_in)
        uniform_fan_in_(self.pointwise_out)

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Convolve within each sequence."""
        h = self.pointwise_in(x)
        h = F.silu(h, self.in_place) if self.activation == "swish" else F.glu(h)
        if mask is not None:
            h = h.masked_fill(~mask[:, :, None], 0.0)
        y: Tensor = self.pointwise_out(F.silu(self.norm(self.depthwise(h), mask), self.in_place))
        return y

    def input_maps(self) -> Sequence[nn.Module]:
        """The first point-wise map."""
        return (self.pointwise_in,)

    def output_maps(self) -> Sequence[nn.Module]:
        """The second point-wise map."""
        return (self.pointwise_out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"activation={self.activation}, causal={self.causal}"
