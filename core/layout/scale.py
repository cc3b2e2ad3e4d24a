"""A learned scale and shift of what a block reads (Squeezeformer, arXiv 2206.00888).

    f(a * x + b),   a, b in R^D,   a = 1 and b = 0 at the start

The residual stream carries the unscaled x: in a stack with post-norms this is the freedom that a pre-norm's weight and
bias would give the block. For inference it can be folded away: ``core.rewrite.fold``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InputScale(nn.Module):
    """``gain * x + bias`` for every channel of ``x (...,D)``, in the dtype of its input.

    Args:
        width: D.

    >>> InputScale(2)(torch.tensor([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"gain": "gain", "bias": "bias"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens D"]:
        """Scale and shift every token."""
        return torch.addcmul(self.bias, x, self.gain).to(x.dtype)
