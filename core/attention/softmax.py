"""Multi-head softmax attention (Vaswani et al., arXiv 1706.03762).

    S = q k^T / sqrt(D/H) [+ bias],   y_i = sum_j softmax_j(S_i restricted to the keys that query i may read) v_j

Shapes: q, k, v and y ``(B,H,N,D/H)``. A query that may read nothing yields zeros, and its gradients are zero.

Computed by ``torch.nn.functional.scaled_dot_product_attention`` (SDPA) or, on a processor, written out where that is
faster (measured with torch 2.14, one thread, 8 heads of 32): with dropout, for which SDPA draws a random number a
probability and ``core.kernels.keep_mask`` a quarter of one; in 16 bits up to 128 tokens; in other dtypes, with
gradients, up to 24; in 16 bits with fewer keys than queries, up to 256 keys (forward and backward in half the time of
SDPA). Facts measured on CPU that this file relies on, and that the tests check: SDPA with a boolean mask
gives zeros and finite gradients for a query without keys, in float64, float32 and bfloat16; ``is_causal`` needs no
N x N mask. SDPA does *not* stop a NaN or infinity in a key that the mask excludes (0 * NaN), so that keys and values
must be finite everywhere in the pure function; :class:`SoftmaxAttention` zeroes padding first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities
from core.attention.headed import HeadedAttention
from core.errors import InputError, nearest
from core.kernels import keep_mask
from core.position import POSITIONS

# Tokens up to which attention written out is faster than SDPA on a processor: with gradients; and in 16 bits, always.
_WRITTEN_OUT, _WRITTEN_OUT_16 = 24, 128
# In 16 bits, keys up to which it is where there are more queries, as on grids; then N x M numbers a head are held.
_FEW_KEYS_16 = 256


def softmax_attention(
    q: Float[Tensor, "B H N d"],
    k: Float[Tensor, "B H M d"],
    v: Float[Tensor, "B H M d"],
    *,
    key_mask: Bool[Tensor, "B M"] | None = None,
    pair_mask: Bool[Tensor, "*B N M"] | None = None,
    bias: Float[Tensor, "H N M"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "B H N d"]:
    """Softmax attention over heads, scaled by 1/sqrt(d).

    Args:
        q: queries ``(B,H,N,d)``.
        k: keys ``(B,H,M,d)``; finite also where a mask excludes them.
        v: values, likewise.
        key_mask: ``(B,M)``, True at keys that may be read.
        pair_mask: ``(N,M)`` or ``(B,N,M)``, True where the query (second last axis) may read the key (last axis).
        bias: ``(H,N,M)``, finite, added to the scaled scores.
        causal: query i reads keys <= i only; for M = N. Beyond 128 tokens, without masks nothing of size N x N is made.
        dropout: probability of dropping an attention probability; the caller passes 0 outside training.

    Returns:
        ``(B,H,N,d)``; zeros for a query that may read nothing.

    >>> values = torch.tensor([[[[1.0], [3.0]]]])
    >>> softmax_attention(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1), values, causal=True).flatten().tolist()
    [1.0, 2.0]
    """
    if _faster_written_out(q, k, dropout):
        allowed, scale = allowed_keys(key_mask, pair_mask, causal, q), 1 / math.sqrt(q.shape[-1])
        few = k.shape[-2] < q.shape[-2]  # the scale goes to the fewer numbers
        return attend(q if few else q * scale, k * scale if few else k, v, bias, allowed, dropout)
    if key_mask is None and pair_mask is None and (bias is None or not causal):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=causal)
    allowed = cast(Tensor, allowed_keys(key_mask, pair_mask, causal, q))
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    # A mask of numbers: what may not be read gets a finite one, as in `attend`, and rows of those are set to zero.
    bias = bias.masked_fill(~allowed, torch.finfo(bias.dtype).min)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return y.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def _faster_written_out(q: Tensor, k: Tensor, dropout: float) -> bool:
    """Whether :func:`attend` is faster than SDPA; the limits are measured, see above."""
    if q.device.type != "cpu":
        return False
    if dropout > 0.0:
        return True
    if torch.compiler.is_compiling():  # a graph serves any length
        return False
    recorded = torch.is_grad_enabled() and q.requires_grad
    if k.shape[-2] < q.shape[-2]:
        return q.itemsize == 2 and k.shape[-2] <= _FEW_KEYS_16
    return q.shape[-2] <= (_WRITTEN_OUT_16 if q.itemsize == 2 else _WRITTEN_OUT if recorded else 0)


def attend(
    q: Float[Tensor, "B H N d"],
    k: Float[Tensor, "B H M d"],
    v: Float[Tensor, "B H M d"],
    bias: Float[Tensor, "... N M"] | None,
    allowed: Bool[Tensor, "... _ M"] | None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H N d"]:
    """Softmax attention written out: one array of scores, no scaling.

    Args:
        q: queries ``(B,H,N,d)``; they, or the keys, are already scaled.
        k: keys ``(B,H,M,d)``; finite also where a mask excludes them.
        v: values, likewise.
        bias: added to the scores; broadcasts to ``(B,H,N,M)``.
        allowed: which keys a query may read, likewise; None where it may read all.
        dropout: probability of dropping an attention probability.

    Returns:
        ``(B,H,N,d)``; zeros for a query that may read nothing.
    """
    if allowed is not None:
        # Not -inf: a query that may read nothing would get NaN, and so would its gradient.
        start = torch.zeros_like(allowed, dtype=q.dtype) if bias is None else bias
        bias = start.masked_fill(~allowed, torch.finfo(q.dtype).min)
    queries, keys = q.flatten(0, 1), k.flatten(0, 1).mT
    if bias is None:
        scores = torch.bmm(queries, keys)
    else:
        if bias.ndim > 2:
            bias = bias.expand(*q.shape[:2], -1, -1).flatten(0, 1)
        scores = torch.baddbmm(bias, queries, keys)
    weights = scores.softmax(-1)
    if dropout > 0.0:
        keep, scale = keep_mask(weights.shape, dropout, q.device)
        weights, v = weights * keep.to(weights.dtype), v * scale
    y = torch.bmm(weights, v.flatten(0, 1)).view(q.shape)
    return y if allowed is None else y.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def allowed_keys(
    key_mask: Bool[Tensor, "B M"] | None, pair_mask: Bool[Tensor, "*B N M"] | None, causal: bool, q: Tensor
) -> Bool[Tensor, "... N"] | None:
    """The masks and causality as one boolean mask that broadcasts to ``(B,H,N,M)``; None where all may be read."""
    parts = []
    if key_mask is not None:
        parts.append(key_mask[:, None, None, :])
    if pair_mask is not None:
        parts.append(pair_mask if pair_mask.ndim == 2 else pair_mask[:, None])
    if causal:
        parts.append(torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril())
    return functools.reduce(torch.logical_and, parts) if parts else None


class SoftmaxAttention(HeadedAttention):
    """Multi-head softmax attention.

    Its linear maps are those of ``core.attention.HeadedAttention``.

    ExcelFormer (arXiv 2301.02819) attenuates with ``init_scale`` 0.01 and projects only when it has more than one head.

    Args:
        width: D.
        heads: H; divides D.
        causal: position i reads positions <= i only.
        bias: biases in both maps.
        dropout: probability of dropping an attention probability, in training; N x N numbers a head are then held.
        position: "none", "rotary" or "alibi"; see ``core.position``.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.

    Raises:
        InputError: ``heads`` does not divide ``width``, ``dropout`` is outside [0, 1), or no such ``position``.

    >>> mixer = SoftmaxAttention(8, 2, causal=True)
    >>> mixer(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    >>> mixer(torch.zeros(7, 8), offsets=torch.tensor([0, 4, 4, 7])).shape
    torch.Size([7, 8])
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True, pairwise=True)
    positions = tuple(POSITIONS)
    source = "Vaswani et al., arXiv 1706.03762"
    cost = "4 N D^2 + 2 N^2 D"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        position: str = "none",
        init_scale: float = 1.0,
        project: bool = True,
    ) -> None:
        super().__init__(
            width, heads, causal=causal, bias=bias, dropout=dropout, init_scale=init_scale, project=project
        )
        if position not in POSITIONS:
            mend = nearest(position, list(POSITIONS))
            raise InputError(f"no position {position!r}", where="softmax attention", mend=mend)
        self.position = POSITIONS[position](heads, width // heads)

    def take_heads(self, kept: Sequence[int]) -> SoftmaxAttention:
        """As of every attention over heads; each keeps its positions."""
        taken = cast(SoftmaxAttention, super().take_heads(kept))
        taken.position = self.position.take(kept)
        return taken

    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """Softmax attention of the heads, with the positions."""
        return softmax_attention(
            self.position.turn(q),
            self.position.turn(k),
            v,
            key_mask=mask,
            pair_mask=pair_mask,
            bias=self.position.bias(q.shape[2], q),
            causal=self.causal,
            dropout=self.dropout if self.training else 0.0,
        )

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"{super().extra_repr()}, positions={type(self.position).__name__}"
