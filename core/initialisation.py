"""How the blocks' linear maps start.

    W ~ U(-s/sqrt(fan_in), s/sqrt(fan_in)),   b = 0

With s = 1 the variance is 1/(3 fan_in), which is what ``torch.nn.Linear`` gives its weights; a smaller s lets a block
start nearer to adding nothing.
"""

from __future__ import annotations

import math

from torch import nn


def uniform_fan_in_(linear: nn.Linear, scale: float = 1.0) -> None:
    """Weights U(-scale/sqrt(fan_in), scale/sqrt(fan_in)), zero bias, in place.

    >>> linear = nn.Linear(4, 3)
    >>> uniform_fan_in_(linear, 0.1)
    >>> bool((linear.weight.abs() <= 0.05).all()), linear.bias.tolist()
    (True, [0.0, 0.0, 0.0])
    """
    bound = scale / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.weight, -bound, bound)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def linear_like(linear: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """A linear map of other sizes with dtype, device, mode and kind of bias of ``linear``; memory without values.

    >>> linear_like(nn.Linear(4, 3, bias=False), 2, 5)
    Linear(in_features=2, out_features=5, bias=False)
    """
    meta = nn.Linear(inputs, outputs, bias=linear.bias is not None, device="meta", dtype=linear.weight.dtype)
    return meta.to_empty(device=linear.weight.device).train(linear.training)
