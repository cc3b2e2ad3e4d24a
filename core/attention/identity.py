"""No mixing at all, y = x: the control of MetaFormer (Yu et al., arXiv 2210.13452, "IdentityFormer").

It reads no other position, so that every mask is followed; a position that may not read itself gives zeros.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities, Mixer


class IdentityMixer(Mixer):
    """Each position as it is.

    Args:
        width: D.

    >>> IdentityMixer(2)(torch.tensor([[[1.0, 2.0]]])).tolist()
    [[[1.0, 2.0]]]
    """

    capabilities = Capabilities(independent=True, packed=True, masked=True, pairwise=True)
    source = "Yu et al., MetaFormer baselines, arXiv 2210.13452"
    cost = "0"

    def __init__(self, width: int) -> None:
        super().__init__(width)

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """x, where a position may read itself."""
        if pair_mask is None:
            return x
        reads_itself = torch.diagonal(pair_mask, dim1=-2, dim2=-1)
        return x * reads_itself[..., None]
