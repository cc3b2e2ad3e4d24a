"""Multi-head softmax attention (Vaswani et al., arXiv 1706.03762).

    S = q k^T / sqrt(D/H),   y_i = sum_j softmax_j(S_i restricted to the keys that query i may read) v_j

Shapes: q, k, v and y ``(B,H,N,D/H)``. A query that may read nothing yields zeros, and its gradients are zero.

Computed by ``torch.nn.functional.scaled_dot_product_attention`` (SDPA), except for dropout on a processor: SDPA then
holds the N x N probabilities and draws a random number for each; the same, written out with ``core.kernels.keep_mask``,
is faster. Facts measured on CPU with torch 2.14 that this file relies on, and that the tests check: SDPA with a boolean
mask gives zeros and finite gradients for a query without keys, in float64, float32 and bfloat16; ``is_causal`` needs no
N x N mask. SDPA does *not* stop a NaN or infinity in a key that the mask excludes (0 * NaN), so that keys and values
must be finite everywhere in the pure function; :class:`SoftmaxAttention` zeroes padding first.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities, Mixer
from core.errors import InputError
from core.initialisation import uniform_fan_in_
from core.kernels import keep_mask


def softmax_attention(
    q: Float[Tensor, "B H N d"],
    k: Float[Tensor, "B H N d"],
    v: Float[Tensor, "B H N d"],
    *,
    key_mask: Bool[Tensor, "B N"] | None = None,
    pair_mask: Bool[Tensor, "*B N N"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "B H N d"]:
    """Softmax attention over heads, scaled by 1/sqrt(d).

    Args:
        q: queries ``(B,H,N,d)``.
        k: keys, likewise; finite also where a mask excludes them.
        v: values, likewise.
        key_mask: ``(B,N)``, True at keys that may be read.
        pair_mask: ``(N,N)`` or ``(B,N,N)``, True where the query (second last axis) may read the key (last axis).
        causal: query i reads keys <= i only. Without masks nothing of size N x N is made.
        dropout: probability of dropping an attention probability; the caller passes 0 outside training.

    Returns:
        ``(B,H,N,d)``; zeros for a query that may read nothing.

    >>> values = torch.tensor([[[[1.0], [3.0]]]])
    >>> softmax_attention(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1), values, causal=True).flatten().tolist()
    [1.0, 2.0]
    """
    if dropout > 0.0 and q.device.type == "cpu":
        return _dropping(q, k, v, _allowed(key_mask, pair_mask, causal, q), dropout)
    if key_mask is None and pair_mask is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    allowed = _allowed(key_mask, pair_mask, causal, q)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)


def _dropping(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
    """Attention with dropped probabilities, written out."""
    q, keys = q * (1 / math.sqrt(q.shape[-1])), k.transpose(-1, -2)
    if allowed is None:
        scores = q @ keys
    else:
        # Not -inf: a query that may read nothing would get NaN, and so would its gradient.
        bias = torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, torch.finfo(q.dtype).min)
        if bias.ndim > 2:
            bias = bias.expand(*q.shape[:2], -1, k.shape[-2]).flatten(0, 1)
        scores = torch.baddbmm(bias, q.flatten(0, 1), keys.flatten(0, 1)).view(*q.shape[:3], -1)
    weights = scores.softmax(-1)
    keep, scale = keep_mask(weights.shape, dropout, q.device)
    if allowed is not None:
        keep = keep & allowed
    return (weights * keep.to(weights.dtype)) @ (v * scale)


def _allowed(key_mask: Tensor | None, pair_mask: Tensor | None, causal: bool, q: Tensor) -> Tensor | None:
    """The masks and causality as one boolean mask that broadcasts to ``(B,H,N,N)``; None where all may be read."""
    parts = []
    if key_mask is not None:
        parts.append(key_mask[:, None, None, :])
    if pair_mask is not None:
        parts.append(pair_mask if pair_mask.ndim == 2 else pair_mask[:, None])
    if causal:
        parts.append(torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril())
    return functools.reduce(torch.logical_and, parts) if parts else None


class SoftmaxAttention(Mixer):
    """Multi-head self-attention with its linear maps.

    ``qkv`` is one linear map D -> 3D whose rows are ``[q; k; v]``, each third ordered by head: its rows
    ``h*D/H : (h+1)*D/H`` belong to head h. Separate ``W_q, W_k, W_v`` are therefore imported with ``torch.cat``. The
    output projection ``out`` reads the heads in that order.

    Initialisation: ``qkv`` U(-s/sqrt(D), s/sqrt(D)) with s = ``init_scale``; ``out`` the same form with s = 1; biases
    zero. ExcelFormer (arXiv 2301.02819) attenuates with s = 0.01 and projects only when it has more than one head.

    Args:
        width: D.
        heads: H; divides D.
        causal: position i reads positions <= i only.
        bias: biases in both maps.
        dropout: probability of dropping an attention probability, in training; N x N numbers a head are then held.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.

    Raises:
        InputError: ``heads`` does not divide ``width``, or ``dropout`` is outside [0, 1).

    >>> mixer = SoftmaxAttention(8, 2, causal=True)
    >>> mixer(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    >>> mixer(torch.zeros(7, 8), offsets=torch.tensor([0, 4, 4, 7])).shape
    torch.Size([7, 8])
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True, pairwise=True)

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        project: bool = True,
    ) -> None:
        super().__init__(width)
        if heads < 1 or width % heads:
            raise InputError(f"{heads} heads do not divide the width {width}", where="softmax attention")
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout {dropout} is outside [0, 1)", where="softmax attention")
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias) if project else nn.Identity()
        uniform_fan_in_(self.qkv, init_scale)
        if isinstance(self.out, nn.Linear):
            uniform_fan_in_(self.out, 1.0)

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Attend within each sequence."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = softmax_attention(q, k, v, key_mask=mask, pair_mask=pair_mask, causal=self.causal, dropout=dropout)
        projected: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return projected

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"heads={self.heads}, causal={self.causal}, dropout={self.dropout}"
