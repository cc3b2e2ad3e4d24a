"""Compressed root-mean-square normalisation (Jiang et al., arXiv 2305.14858, NeurIPS 2023), over the last axis.

    y = x / sqrt((sum(x^2) + sum(x)^2) / (D + 1) + eps) * weight

x stands for the token (x, -sum(x)) of width D + 1, whose channels add up to zero: there ``rmsnorm`` is ``layernorm``,
and the last channel says nothing that the others do not. A pre-norm model whose residual stream is written by centred
maps is therefore the same function with one channel less: drop the last row of every writer, subtract the last column
from the others in every reader, and put this norm in the place of the layer norm, with the same eps.

``weight (D,)`` starts at one. It is ours, for training from scratch; a converted model has it in the map that follows.
Each token is normalised alone. bfloat16 and float16 inputs are computed in float32 and rounded once.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.norm.base import Norm, fold_affine
from core.norm.root import over_root


class CRMSNorm(Norm):
    """Root-mean-square normalisation of centred tokens of which the last channel is left out.

    Args:
        width: D, of what is stored.
        eps: added to the mean square of the D + 1 channels inside the square root.
        affine: False leaves out ``weight``.

    >>> CRMSNorm(1, eps=1e-12)(torch.tensor([[3.0], [-2.0]])).flatten().tolist()
    [1.0, -1.0]
    """

    source = "Jiang et al., arXiv 2305.14858; its weight is ours"
    cost = "two sums of each token; the weight folds into the next map"

    def __init__(self, width: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(width, eps=eps)
        self.weight = nn.Parameter(torch.ones(width)) if affine else None

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise every token of ``x (...,D)`` by itself; ``mask`` is not used."""
        if self.weight is None:
            return over_root(x, self.eps, hidden=True)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return (over_root(wide, self.eps, hidden=True) * self.weight).to(x.dtype)

    def fold_into(self, linear: nn.Linear) -> tuple[CRMSNorm, nn.Linear]:
        """Move ``weight`` into the linear map that alone reads this norm."""
        bare = CRMSNorm(self.width, eps=self.eps, affine=False).train(self.training)
        scale = torch.ones(self.width, device=linear.weight.device) if self.weight is None else self.weight
        return bare, fold_affine(linear, scale, None)
