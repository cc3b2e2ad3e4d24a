"""Pooling as a token mixer (PoolFormer: Yu et al., arXiv 2111.11418, github.com/sail-sg/poolformer), along one axis.

    y_i = mean of x_j over the real j with |j - i| <= (p - 1)/2,   minus x_i

Padding, masked positions and what lies beyond the sequence are no part of the mean, so that a constant sequence gives
exact zeros; it is computed as the mean of x_j - x_i for that reason. No parameters.

Deviation: the paper pools over a grid of p x p; this is its form for a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities, Mixer
from core.errors import InputError


class Pooling(Mixer):
    """The mean of the neighbourhood minus the position itself.

    Args:
        width: D.
        pool: p, positions of the neighbourhood; odd.

    Raises:
        InputError: an even ``pool``.

    >>> Pooling(1)(torch.tensor([[[1.0], [1.0], [4.0]]])).flatten().tolist()
    [0.0, 1.0, -1.5]
    """

    capabilities = Capabilities(packed=True, masked=True)
    source = "Yu et al., PoolFormer, arXiv 2111.11418"
    cost = "0; N D pool additions"

    def __init__(self, width: int, *, pool: int = 3) -> None:
        super().__init__(width)
        if pool < 1 or pool % 2 == 0:
            raise InputError(f"the pool must be odd, not {pool}", where="pooling")
        self.pool = pool

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Pool within each sequence."""
        n, reach = x.shape[1], self.pool // 2
        real = torch.ones_like(x[..., :1]) if mask is None else mask[:, :, None].to(x.dtype)
        total, count = torch.zeros_like(x), real
        padded, weights = F.pad(x, (0, 0, reach, reach)), F.pad(real, (0, 0, reach, reach))
        for first in range(self.pool):
            if first != reach:  # its own difference is zero
                weight = weights[:, first : first + n]
                total = torch.addcmul(total, padded[:, first : first + n] - x, weight)
                count = count + weight
        return total / count.clamp(min=1.0)

    def extra_repr(self) -> str:
        """p, for ``print(module)``."""
        return f"pool={self.pool}"
