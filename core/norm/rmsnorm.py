"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), over the last axis.

    y = x / sqrt(mean(x^2) + eps) * weight

No mean is subtracted and there is no bias. ``weight (D,)`` starts at one and is named as in ``torch.nn.RMSNorm``, whose
state dict loads. Each token is normalised alone, so the mask is not needed. bfloat16 and float16 inputs are computed in
float32, the weight included, and rounded once.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.norm.base import Norm, fold_affine
from core.norm.root import over_root


class RMSNorm(Norm):
    """Root-mean-square normalisation of the last axis.

    Args:
        width: D.
        eps: added to the mean square inside the square root.
        affine: False leaves out ``weight``.

    Attributes:
        centred: tokens are expected to have mean zero. Changes how 16 bits are computed without ``weight``, never what:
            see :func:`core.norm.root.over_root`.

    >>> RMSNorm(2)(torch.tensor([[1.0, 7.0]])).detach()
    tensor([[0.2000, 1.4000]])
    """

    source = "Zhang and Sennrich, arXiv 1910.07467"
    cost = "one statistic of each token; the weight folds into the next map"

    def __init__(self, width: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(width, eps=eps)
        self.centred = False
        self.weight = nn.Parameter(torch.ones(width)) if affine else None

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise every token of ``x (...,D)`` by itself; ``mask`` is not used."""
        if self.weight is None:
            return over_root(x, self.eps, centred=self.centred)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return (over_root(wide, self.eps) * self.weight).to(x.dtype)

    def fold_into(self, linear: nn.Linear) -> tuple[RMSNorm, nn.Linear]:
        """Move ``weight`` into the linear map that alone reads this norm."""
        bare = RMSNorm(self.width, eps=self.eps, affine=False).train(self.training)
        scale = torch.ones(self.width, device=linear.weight.device) if self.weight is None else self.weight
        return bare, fold_affine(linear, scale, None)
