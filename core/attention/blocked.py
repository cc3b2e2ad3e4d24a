"""Attention with relative positions, a block of queries at a time; what it computes is in ``core.attention.relative``.

Written out, a query meets 2N-1 offsets, of which it uses N, and N x N numbers a head are kept for the way back. Here a
block of m queries is multiplied with the N+m-1 offsets it can meet, its scores stay in the cache of the processor, and
the way back computes them anew, as FlashAttention does (Dao et al., arXiv 2205.14135). With P = softmax(S), dP = dy v^T

    dS_ij = P_ij (dP_ij - dy_i . y_i),   dv = P^T dy,   dq = dS k,   dk = dS^T q,   and likewise for the positions

Nothing larger than a block of scores is ever made. Shapes inside are heads first, ``(H,B,N,d)``, so that one product a
head serves all sequences of a block. Gradients of gradients are not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores computed at a time: 1 MiB in float32. Measured for 50 to 750 tokens, 1 and 8 sequences, 4 heads of 36.
_BLOCK = 1 << 18


def in_one_block(q: Tensor) -> bool:
    """Whether there is nothing to divide: few scores, another device than a processor, or a graph being traced."""
    batch, heads, n, _ = q.shape
    return torch.compiler.is_compiling() or q.device.type != "cpu" or batch * heads * n * n <= _BLOCK


def blocked_attention(
    content: Tensor, position: Tensor, k: Tensor, v: Tensor, positions: Tensor, allowed: Tensor | None
) -> Tensor:
    """Attention ``(B,H,N,d)``.

    Args:
        content: scaled queries with u added, ``(B,H,N,d)``.
        position: scaled queries with v added, likewise.
        k: keys, likewise.
        v: values, likewise.
        positions: ``(H,2N-1,d)``.
        allowed: which keys a query may read, ``(N,N)`` or ``(B or 1, 1, N or 1, N)``.
    """
    first = [tensor.transpose(0, 1).contiguous() for tensor in (content, position, k, v)]
    mask = None if allowed is None else allowed.expand(1, 1, -1, -1) if allowed.ndim == 2 else allowed.transpose(0, 1)
    return cast(Tensor, _Blocked.apply(*first, positions, mask)).transpose(0, 1)


@dataclass(frozen=True)
class _Inputs:
    """What scores are made of, heads first, with ``allowed (1,B|1,N|1,N)``."""

    content: Tensor
    position: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor
    allowed: Tensor | None

    def blocks(self) -> Iterator[_Block]:
        """The blocks that cover all queries: rows of one sequence, or several whole sequences."""
        heads, batch, n, _ = self.k.shape
        parts = -(-n // max(1, min(n, _BLOCK // (heads * n))))
        together = max(1, min(batch, _BLOCK // (heads * n * n)))
        for start in range(0, batch, together):
            for part in range(parts):
                rows = slice(n * part // parts, n * (part + 1) // parts)
                yield _Block(self, slice(start, min(start + together, batch)), rows)


class _Block:
    """Some rows of some sequences; 3-D tensors are ``(H*G,...)`` for its G sequences."""

    def __init__(self, inputs: _Inputs, sequences: slice, rows: slice) -> None:
        self.inputs, self.sequences, self.rows = inputs, sequences, rows
        self.at = (slice(None), sequences, rows)
        n = inputs.k.shape[2]
        # Row r of the table has the offset n-1-r; these queries meet rows.stop-1 down to rows.start-(n-1).
        self.offsets = slice(n - rows.stop, 2 * n - 1 - rows.start)
        self.content, self.position = inputs.content[self.at].flatten(0, 1), inputs.position[self.at].flatten(1, 2)
        self.k, self.v = (tensor[:, sequences].flatten(0, 1) for tensor in (inputs.k, inputs.v))
        self.positions = inputs.positions[:, self.offsets]

    def weights(self) -> Tensor:
        """Attention probabilities ``(H*G,m,N)``; a query without keys gets uniform ones."""
        bias = self.shift(torch.bmm(self.position, self.positions.mT))
        allowed = self.allowed()
        if allowed is not None:
            # Not -inf, of which a query without keys would make NaN.
            heads, together = len(self.positions), self.sequences.stop - self.sequences.start
            each = bias.view(heads, together, *bias.shape[1:])
            each.masked_fill_(~allowed, torch.finfo(bias.dtype).min)
        scores = torch.baddbmm(bias, self.content, self.k.mT)
        return torch.softmax(scores, dim=-1, out=scores)

    def shift(self, raw: Tensor) -> Tensor:
        """Scores by offset ``(H, G*m, N+m-1)`` as scores by key ``(H*G, m, N)``, of the same memory."""
        m, (heads, _, width) = self.rows.stop - self.rows.start, raw.shape
        count = heads * (self.sequences.stop - self.sequences.start)
        return raw.as_strided((count, m, width - m + 1), (m * width, width - 1, 1), m - 1)

    def allowed(self) -> Tensor | None:
        """The mask of these rows, ``(1,G|1,m|1,N)``."""
        mask = self.inputs.allowed
        if mask is not None and mask.shape[1] > 1:
            mask = mask[:, self.sequences]
        if mask is not None and mask.shape[2] > 1:
            mask = mask[:, :, self.rows]
        return mask

    def result(self) -> Tensor:
        """``(H,G,m,d)``; zeros for a query without keys."""
        y = torch.bmm(self.weights(), self.v).view(self.inputs.k[self.at].shape)
        return self.silence(y)

    def silence(self, y: Tensor) -> Tensor:
        """Zeros where a query has no keys."""
        allowed = self.allowed()
        return y if allowed is None else y.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Tensor:
        inputs = _Inputs(*tensors)
        y = torch.empty_like(inputs.v)
        for block in inputs.blocks():
            y[block.at] = block.result()
        ctx.save_for_backward(*tensors, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, y = ctx.saved_tensors
        inputs = _Inputs(*tensors)
        grads = _Grads.of(inputs)
        for block in inputs.blocks():
            grads.add(block, dy, y)
        return grads.content, grads.position, grads.k, grads.v, grads.positions.to(inputs.positions.dtype), None


@dataclass(frozen=True)
class _Grads:
    """Gradients, heads first, filled block by block."""

    content: Tensor
    position: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor

    @classmethod
    def of(cls, inputs: _Inputs) -> _Grads:
        """Zeros. Every block of the batch adds to the positions: that sum is in float32 at least."""
        wide = torch.promote_types(inputs.positions.dtype, torch.float32)
        return cls(
            torch.zeros_like(inputs.content),
            torch.zeros_like(inputs.position),
            torch.zeros_like(inputs.k),
            torch.zeros_like(inputs.v),
            torch.zeros_like(inputs.positions, dtype=wide),
        )

    def add(self, block: _Block, dy: Tensor, y: Tensor) -> None:
        """What one block adds."""
        shape = block.inputs.k[block.at].shape
        dy, y = block.silence(dy[block.at]).flatten(0, 1), y[block.at].flatten(0, 1)
        weights = block.weights()
        inner = (dy * y).sum(-1, keepdim=True).expand_as(weights)
        dp = torch.baddbmm(inner, dy, block.v.mT, beta=-1)
        self._sum(self.v, block, torch.bmm(weights.mT, dy))
        # Written through the shifted view, so that the other offsets of `raw` stay zero.
        raw = dy.new_zeros(shape[0], block.position.shape[1], block.positions.shape[1])
        ds = torch.mul(dp, weights, out=block.shift(raw))
        self.content[block.at] = torch.bmm(ds, block.k).view(shape)
        self._sum(self.k, block, torch.bmm(ds.mT, block.content))
        self.position[block.at] = torch.bmm(raw, block.positions).view(shape)
        self.positions[:, block.offsets] += torch.bmm(raw.mT, block.position)

    def _sum(self, total: Tensor, block: _Block, part: Tensor) -> None:
        chosen = total[:, block.sequences]
        chosen += part.view(chosen.shape)
