"""Attention with relative positions where no gradient is wanted; what it computes is in ``core.attention.relative``.

The position term of a block of queries, shifted, is the additive bias of
``torch.nn.functional.scaled_dot_product_attention`` (SDPA) for these queries: nothing else of the size of the scores is
made, and nothing is copied but, in batches of many short sequences, their queries. A block of m queries meets N+m-1
offsets. Numbers of 16 bits are computed with in float32, and the result is rounded once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores up to which sequences go whole, several at a time; queries at a time of longer ones. Measured in float32 for
# 25 to 750 tokens, 1 and 8 sequences, 4 heads of 36.
_SCORES, _ROWS = 1 << 17, 80
# Tokens up to which 16 bits are computed in float32: SDPA in 16 bits is slower, and products written out are for these.
WIDENED = 200


def faster_without_gradients(q: Tensor, *others: Tensor) -> bool:
    """Whether :func:`attention_by_rows` may stand in for what records gradients, and is faster.

    Args:
        q: queries ``(B,H,N,d)``.
        others: whatever else gradients could be wanted of.
    """
    if torch.compiler.is_compiling() or q.device.type != "cpu" or q.numel() == 0:
        return False
    if q.itemsize == 2 and (q.shape[2] > WIDENED or torch.is_autocast_enabled("cpu")):
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, *others)))


def attention_by_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    allowed: Tensor | None,
) -> Tensor:
    """Attention ``(B,H,N,d)``.

    Args:
        q: queries ``(B,H,N,d)``.
        k: keys, likewise.
        v: values, likewise.
        positions: ``(H,2N-1,d)``.
        content_bias: ``(H,d)``, u.
        position_bias: ``(H,d)``, v of the equation.
        allowed: which keys a query may read, ``(N,N)`` or ``(B or 1, 1, N or 1, N)``.
    """
    wide, scale = torch.promote_types(q.dtype, torch.float32), 1 / math.sqrt(q.shape[-1])
    queries, k, v, positions = (tensor.to(wide) for tensor in (q, k, v, positions))
    content, position = (queries + bias.to(wide).unsqueeze(1) for bias in (content_bias, position_bias))
    return _by_rows(content, position, k, v, positions, allowed, scale).to(q.dtype)


def _by_rows(
    content: Tensor, position: Tensor, k: Tensor, v: Tensor, positions: Tensor, allowed: Tensor | None, scale: float
) -> Tensor:
    """The same for queries with their biases added, all of one dtype."""
    batch, heads, n, _ = content.shape
    if allowed is not None:
        allowed = allowed.expand(batch, 1, n, n)
    together, parts = max(1, _SCORES // (heads * n * n)), 1
    if heads * n * n > _SCORES:
        parts = -(-n // _ROWS)
    if parts == 1 and together >= batch:
        return _block(content, position, k, v, positions, allowed, scale)
    # Laid out as SDPA lays out its results: the heads of a token side by side.
    y = torch.empty_like(content.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
    for start in range(0, batch, together):
        some = slice(start, start + together)
        for part in range(parts):
            first, last = n * part // parts, n * (part + 1) // parts
            at = (some, slice(None), slice(first, last))
            # Row r of the table has the offset n-1-r; these queries meet last-1 down to first-(n-1).
            met = positions[:, n - last : 2 * n - 1 - first]
            mask = None if allowed is None else allowed[at]
            y[at] = _block(content[at], position[at], k[some], v[some], met, mask, scale)
    return y


def _block(
    content: Tensor, position: Tensor, k: Tensor, v: Tensor, positions: Tensor, allowed: Tensor | None, scale: float
) -> Tensor:
    """Some queries ``(G,H,m,d)`` of whole sequences, with the offsets that they meet, ``(H,N+m-1,d)``."""
    together, heads, m, _ = content.shape
    rows = position.transpose(0, 1).flatten(1, 2)
    raw = torch.baddbmm(rows.new_empty(1), rows, positions.mT, beta=0, alpha=scale)
    width = raw.shape[2]
    # Scores by offset as scores by key, of the same memory: core.attention.relative.relative_shift.
    strides = (m * width, together * m * width, width - 1, 1)
    bias = raw.as_strided((together, heads, m, width - m + 1), strides, m - 1)
    if allowed is not None:
        # Not -inf, of which a query without keys would make NaN.
        bias.masked_fill_(~allowed, torch.finfo(bias.dtype).min)
    y = F.scaled_dot_product_attention(content, k, v, attn_mask=bias, scale=scale)
    return y if allowed is None else y.masked_fill_(~allowed.any(-1, keepdim=True), 0.0)
