"""How Squeezeformer starts, as in the authors' program ``kssteven418/Squeezeformer``.

    every linear map and convolution   weight and bias ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    last map of a convolution module   likewise with 1/sqrt(D), whatever it reads (2D channels)
    recovery and head                  weight ~ U(-g, g), g = sqrt(6 / (fan_in + fan_out)) (Glorot); bias 0

Norms and input scales stay at 1, their shifts and the vectors u and v of relative attention at 0, as they are built. A
depthwise kernel of k taps has fan_in k. Deviation: the program gives the linear map of the front end 1/sqrt(5120) at
every width, which is 1/sqrt(fan_in) for D = 256 only; here it follows fan_in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from core.convolution import ConvolutionModule, DepthwiseConv


def official_(model: nn.Module, glorot: Iterable[nn.Linear] = ()) -> None:
    """Give the linear maps and convolutions of a fresh model the official values, in place.

    Args:
        model: any, with the blocks of :mod:`core` in it.
        glorot: its linear maps that start as the recovery and the head do.

    >>> head = nn.Linear(3, 3)
    >>> official_(head, [head])
    >>> bool((head.weight.abs() <= 1).all()), head.bias.tolist()
    (True, [0.0, 0.0, 0.0])
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | DepthwiseConv):
            _uniform_(module.weight, module.bias, math.prod(module.weight.shape[1:]))
    for module in model.modules():
        if isinstance(module, ConvolutionModule):
            _uniform_(module.pointwise_out.weight, module.pointwise_out.bias, module.width)
    for linear in glorot:
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)


def _uniform_(weight: Tensor, bias: Tensor | None, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)
