"""Stick-breaking attention (ModuleFormer: Shen et al., arXiv 2306.04640; Tan et al., arXiv 2410.17980).

    l = q k^T / sqrt(D/H),   b_ij = sigmoid(l_ij) for the keys j <= i that query i may read, 0 for others
    A_ij = b_ij * product of (1 - b_il) over j < l <= i,   y_i = sum_j A_ij v_j

Each query breaks a stick from its own position backwards: the nearest key takes its share b, the next a share of what
is left. What is recent comes first, so that no positions are needed, and rows add up to at most 1. It is defined
towards the past only. In logarithms, in float32 at least:

    log A_ij = logsigmoid(l_ij) + sum of logsigmoid(-l_il) over j < l <= i

``attend_current=False`` is the form of the second paper's program: keys j < i only. There ``remainder`` gives what is
left of the stick to the query's own value: y_i + (1 - sum_j A_ij) v_i.

Cost as of softmax attention, with N x N numbers a head held. Taken over: attention alone, not the mixture of attention
experts. Deviations: linear maps start as those of softmax attention do; ModuleFormer declares a dropout of A and never
applies it, here it is applied.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities
from core.attention.headed import HeadedAttention
from core.attention.softmax import allowed_keys
from core.errors import InputError
from core.kernels import dropout as drop


def stick_breaking(logits: Float[Tensor, "*heads N M"], allowed: Bool[Tensor, "*_ M"]) -> Float[Tensor, "*heads N M"]:
    """A of the logits ``l``, in which a key that is not ``allowed`` (past keys only) breaks nothing off.

    >>> half = torch.zeros(3, 3)  # every share is one half of what is left
    >>> stick_breaking(half, torch.ones(3, 3, dtype=torch.bool).tril()).tolist()
    [[0.5, 0.0, 0.0], [0.25, 0.5, 0.0], [0.125, 0.25, 0.5]]
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    left = F.logsigmoid(-wide).masked_fill(~allowed, 0.0)
    # The sum over l > j: shifted by one before it is added up, so that nothing has to be subtracted again.
    later = F.pad(left, (0, 1))[..., 1:].flip(-1).cumsum(-1).flip(-1)
    return (F.logsigmoid(wide) + later).exp().masked_fill(~allowed, 0.0).to(logits.dtype)


class StickBreakingAttention(HeadedAttention):
    """Multi-head stick-breaking attention, always causal, with the linear maps of softmax attention.

    Args:
        width: D.
        heads: H; divides D.
        causal: True; there is no other form.
        attend_current: a position reads itself too.
        remainder: add what is left of the stick times the position's own value.
        bias: biases in both maps.
        dropout: probability of dropping a weight of A, in training.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.

    Raises:
        InputError: ``causal=False``, ``heads`` that do not divide ``width``, or ``dropout`` outside [0, 1).

    >>> StickBreakingAttention(8, 2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    capabilities = Capabilities(causal=True, bidirectional=False, packed=True, masked=True, pairwise=True)
    source = "Shen et al., ModuleFormer, arXiv 2306.04640; Tan et al., arXiv 2410.17980"
    cost = "4 N D^2 + 2 N^2 D; N^2 numbers a head are held"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = True,
        attend_current: bool = True,
        remainder: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        project: bool = True,
    ) -> None:
        if not causal:
            raise InputError(
                "a stick is broken from a position backwards: it cannot read later ones",
                where="stick-breaking attention",
                mend="leave causal at True, or use softmax",
            )
        super().__init__(width, heads, causal=True, bias=bias, dropout=dropout, init_scale=init_scale, project=project)
        self.attend_current, self.remainder = attend_current, remainder

    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """Break the sticks of all heads."""
        n = q.shape[2]
        past = torch.ones(n, n, dtype=torch.bool, device=q.device).tril(0 if self.attend_current else -1)
        readable = allowed_keys(mask, pair_mask, False, q)
        weights = stick_breaking(q @ k.mT / math.sqrt(q.shape[-1]), past if readable is None else readable & past)
        left = 1 - weights.sum(-1, keepdim=True)
        y = (drop(weights, self.dropout) if self.training else weights) @ v
        if not self.remainder:
            return y
        if pair_mask is not None:
            own = torch.diagonal(pair_mask, dim1=-2, dim2=-1)[..., None]
            left = left * (own if pair_mask.ndim == 2 else own[:, None])
        return y + left * v

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"{super().extra_repr()}, attend_current={self.attend_current}, remainder={self.remainder}"
