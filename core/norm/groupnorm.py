"""Group normalisation (Wu and He, arXiv 1803.08494) of sequences: over their real tokens and a group's channels.

    y = (x - mean) / sqrt(var + eps) * weight + bias

with mean and biased variance of one sequence's real tokens and D/groups channels. One group is the "modified layer
norm" of MetaFormer (Yu et al., arXiv 2210.13452). The first axis of ``x (B,...,D)`` is the samples; of ``x (B,D)`` each
row is one, whose statistics are of its channels alone, as ``torch.nn.functional.group_norm`` reads that shape.
``weight`` and ``bias``, ``(D,)``, are named as in ``torch.nn.GroupNorm``, whose state dict loads. Statistics are
computed in float32 at least.

A token's result depends on the other tokens of its sequence, outside training too: not for causal models.
Deviation: padding is left out of the statistics and comes out as zeros; public implementations count it in.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.errors import InputError
from core.norm.base import Norm, fold_affine


class GroupNorm(Norm):
    """Normalisation of each sequence as a whole, in groups of channels.

    Args:
        width: D.
        groups: into which the channels are divided; must divide the width.
        eps: added to the variance inside the square root.
        affine: False leaves out ``weight`` and ``bias``.
        bias: False leaves out ``bias``.

    >>> x, mask = torch.tensor([[[0.0, 2.0], [9.0, 9.0]]]), torch.tensor([[True, False]])
    >>> GroupNorm(2, eps=1e-12)(x, mask).flatten().tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """

    by_sequence = True
    source = "Wu and He, arXiv 1803.08494"
    cost = "two statistics of each sequence and group; weight and bias fold into the next map"

    def __init__(
        self, width: int, *, groups: int = 1, eps: float = 1e-5, affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__(width, eps=eps)
        if groups < 1 or width % groups:
            raise InputError(f"{groups} groups do not divide the width {width}", where="groupnorm")
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine and bias else None

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise every sequence of ``x (B,...,D)`` by its tokens where ``mask`` is True (all, without one)."""
        kind = torch.promote_types(torch.promote_types(x.dtype, torch.float32), self._dtype(x))
        padding = None if mask is None else ~mask[..., None]
        wide = (x if padding is None else x.masked_fill(padding, 0.0)).to(kind)
        y = self._normalised(wide, mask)
        if self.weight is not None:
            y = y * self.weight.to(kind)
        if self.bias is not None:
            y = y + self.bias.to(kind)
        return (y if padding is None else y.masked_fill(padding, 0.0)).to(x.dtype)

    def _dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype if self.weight is None else self.weight.dtype

    def _normalised(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x (B,...,D)`` without its affine; padding is zero on the way in, and anything on the way out."""
        # Samples, tokens, groups, channels of a group.
        rows = x.reshape(-1, 1, self.width) if x.ndim < 3 else x.flatten(1, -2)
        z = rows.reshape(*rows.shape[:2], self.groups, self.width // self.groups)
        if mask is None:
            centred = z - z.mean(dim=(1, 3), keepdim=True)
            var = centred.square().mean(dim=(1, 3), keepdim=True)
        else:
            real = mask.reshape(rows.shape[:2])[:, :, None, None].to(x.dtype)
            count = real.sum(1, keepdim=True).clamp(min=1.0) * z.shape[3]
            centred = (z - z.sum(dim=(1, 3), keepdim=True) / count) * real
            var = centred.square().sum(dim=(1, 3), keepdim=True) / count
        y: Tensor = centred * torch.rsqrt(var + self.eps)
        return y.reshape(x.shape)

    def fold_into(self, linear: nn.Linear) -> tuple[GroupNorm, nn.Linear]:
        """Move ``weight`` and ``bias`` into the linear map that alone reads this norm (it gains a bias)."""
        bare = GroupNorm(self.width, groups=self.groups, eps=self.eps, affine=False).train(self.training)
        scale = torch.ones(self.width, device=linear.weight.device) if self.weight is None else self.weight
        return bare, fold_affine(linear, scale, self.bias)

    def extra_repr(self) -> str:
        """Width, eps and groups, for ``print(module)``."""
        return f"{super().extra_repr()}, groups={self.groups}"
