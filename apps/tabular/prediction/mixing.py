"""Feat-Mix, Hid-Mix and input mixup: mixing rows of a training batch.

Source: Chen et al., KDD 2024 (arXiv 2301.02819), and ``WhatAShot/ExcelFormer``. With r ~ Beta(beta, beta), a
permutation pi of the batch, and lambda the share of its own label that a row keeps:

    feat    keep[b,f] = u_bf > r_b, u ~ U(0,1)    z~ = keep * z + (1 - keep) * z[pi]    lambda_b = sum_f keep[b,f] w_f
    hidden  keep[b,d] = u_bd < r_b, all tokens    z~ = keep * z + (1 - keep) * z[pi]    lambda_b = r_b
    input   one r a batch                         x~ = r * x + (1 - r) * x[pi]          lambda_b = r

w is the normalised importance (sum 1). Feat-Mix keeps a share 1 - r of the features in expectation, Hid-Mix a share r
of the dimensions; only Feat-Mix weighs labels by the mask that was drawn. ``feat`` and ``hidden`` mix tokens
``z (B,N,D)``, ``input`` mixes features ``x (B,N)``. Because tokens are made feature by feature, Feat-Mix on tokens
equals exchanging raw values. Draws come from torch's global generator, which training seeds at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apps.tabular.prediction.config import MixingConfig


@dataclass(frozen=True)
class Mix:
    """One draw: with whom each row is mixed, what it keeps, and the share of its label.

    ``keep`` broadcasts against what is mixed: boolean (exchange) or a number in [0, 1] (interpolation).
    """

    site: Literal["input", "tokens"]
    partner: Int[Tensor, " B"]
    keep: Bool[Tensor, "B ..."] | Float[Tensor, "B ..."]
    share: Float[Tensor, " B"]

    def __call__(self, values: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Mix ``values`` (features ``(B,N)`` at the input, tokens ``(B,N,D)`` after the tokeniser)."""
        other = values[self.partner]
        if self.keep.dtype == torch.bool:
            return torch.where(self.keep, values, other)
        return other + self.keep * (values - other)


def feat_mix(batch: int, importance: Float[Tensor, " N"], beta: float) -> Mix:
    """Exchange whole features; a label counts by the importance of the features kept.

    Args:
        batch: number of rows B.
        importance: weight of each feature, at least 0; normalised here (all zero counts as all equal).
        beta: parameter of the Beta distribution.

    >>> mix = feat_mix(4, torch.tensor([3.0, 1.0]), beta=0.5)
    >>> bool((mix.share == mix.keep[:, :, 0].float() @ torch.tensor([0.75, 0.25])).all())
    True
    """
    partner, r = _draw(batch, beta, importance.device)
    keep = torch.rand(batch, len(importance), device=importance.device) > r[:, None]
    return Mix("tokens", partner, keep[:, :, None], kept_share(keep, importance))


def kept_share(keep: Bool[Tensor, "B N"], importance: Float[Tensor, " N"]) -> Float[Tensor, " B"]:
    """Feat-Mix's lambda: the share of all importance that the kept features carry.

    >>> kept_share(torch.tensor([[True, False]]), torch.tensor([3.0, 1.0]))
    tensor([0.7500])
    """
    total = importance.sum()
    weights = torch.where(total > 0, importance / total, torch.full_like(importance, 1 / len(importance)))
    return (keep * weights).sum(1)


def hidden_mix(batch: int, width: int, beta: float, device: torch.device | None = None) -> Mix:
    """Exchange embedding dimensions, the same ones in every token of a row; lambda is the drawn r."""
    partner, r = _draw(batch, beta, device)
    keep = torch.rand(batch, width, device=device) < r[:, None]
    return Mix("tokens", partner, keep[:, None, :], r)


def input_mix(batch: int, beta: float, device: torch.device | None = None) -> Mix:
    """Interpolate rows with one r for the batch (mixup)."""
    partner, r = _draw(batch, beta, device)
    share = r[:1].expand(batch)
    return Mix("input", partner, share[:, None], share)


def draw_mix(config: MixingConfig, batch: int, importance: Float[Tensor, " N"], width: int) -> Mix | None:
    """Draw the mix that the configuration names; ``None`` for no mixing."""
    if config.kind == "feat":
        return feat_mix(batch, importance, config.beta)
    if config.kind == "hidden":
        return hidden_mix(batch, width, config.beta, importance.device)
    if config.kind == "input":
        return input_mix(batch, config.beta, importance.device)
    return None


def _draw(batch: int, beta: float, device: torch.device | None) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    r = torch.distributions.Beta(beta, beta).sample((batch,))
    return torch.randperm(batch, device=device), r.to(device)
