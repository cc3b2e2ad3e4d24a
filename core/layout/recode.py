"""Steps between the sublayers of a stack that change how tokens are written down, not what they say to a layer norm.

    centre      x - mean(x)                           D -> D
    compress    (x - mean(x)) without its last        D -> D - 1
    restore     (x, -sum(x))                          D - 1 -> D

A layer norm gives the same for x and x - mean(x), and channels that add up to zero are told by all of them but one
(Jiang et al., arXiv 2305.14858). None has parameters. Means and sums are in float32 at least, and rounded once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Centre(nn.Module):
    """Every token without the mean of its channels.

    >>> Centre()(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
    [[-2.0, -1.0, 3.0]]
    """

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens D"]:
        """Subtract the mean of each token of ``x (...,D)``."""
        return _centred(x).to(x.dtype)


class Compress(nn.Module):
    """Every token without the mean of its channels, and without the last one of them.

    >>> Compress()(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
    [[-2.0, -1.0]]
    """

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens less"]:
        """Centred tokens of ``x (...,D)``, D - 1 channels of them."""
        return _centred(x)[..., :-1].to(x.dtype)


class Restore(nn.Module):
    """Every token with the channel that :class:`Compress` left out.

    >>> Restore()(torch.tensor([[-2.0, -1.0]])).tolist()
    [[-2.0, -1.0, 3.0]]
    """

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens more"]:
        """``x (...,D)`` and minus its sum."""
        kind = torch.promote_types(x.dtype, torch.float32)
        return torch.cat([x, -x.sum(-1, keepdim=True, dtype=kind).to(x.dtype)], dim=-1)


def _centred(x: Tensor) -> Tensor:
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return wide - wide.mean(-1, keepdim=True)


Recode = Centre | Compress | Restore
