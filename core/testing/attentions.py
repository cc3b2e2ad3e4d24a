"""The members of ``core.attention`` by plain N x N weights, as ``core.testing.oracles`` has the other rooms' blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from core.testing.oracles import (
    POSITION_SCORES,
    GridOracle,
    MixerOracle,
    layernorm,
    linear,
    relative_mixer,
    softmax_mixer,
)


def readable(x: Tensor, mask: Tensor | None, pair_mask: Tensor | None, causal: bool) -> Tensor:
    """``(B,N,N)``: the keys (last axis) that each query of ``x (B,N,D)`` may read.

    >>> readable(torch.zeros(1, 2, 1), None, None, True).int().tolist()
    [[[1, 0], [1, 1]]]
    """
    n = x.shape[1]
    allowed = torch.ones(x.shape[0], n, n, dtype=torch.bool)
    if causal:
        allowed &= torch.arange(n)[:, None] >= torch.arange(n)
    if mask is not None:
        allowed &= mask[:, None, :]
    if pair_mask is not None:
        allowed &= pair_mask
    return allowed


def _real(y: Tensor, mask: Tensor | None) -> Tensor:
    return y if mask is None else y * mask[:, :, None].double()


# (module, queries (N,d), keys, values, allowed (N,N), head) -> (N,d)
_Head = Callable[[Any, Tensor, Tensor, Tensor, Tensor, int], Tensor]


def _by_head(head: _Head, module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """The maps qkv and out, and masks, around one head of one sequence after another."""
    d, qkv = x.shape[2] // module.heads, linear(module.qkv, x)
    allowed = readable(x, mask, pair_mask, module.causal)
    sequences = []
    for rows, may in zip(qkv, allowed, strict=True):
        q, k, v = rows.split(x.shape[2], dim=-1)
        heads = [slice(h * d, (h + 1) * d) for h in range(module.heads)]
        sequences.append(torch.cat([head(module, q[:, s], k[:, s], v[:, s], may, h) for h, s in enumerate(heads)], -1))
    y = torch.stack(sequences) if sequences else x
    return _real(linear(module.out, y) if isinstance(module.out, nn.Linear) else y, mask)


def _softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Softmax of each row over what is allowed; zeros where nothing is."""
    low = scores.detach().masked_fill(~allowed, -1e30)
    highest = low.amax(-1, keepdim=True) if scores.shape[-1] else low[..., :1]
    weights = (scores - highest.clamp(min=-1e29)).masked_fill(~allowed, -math.inf).exp()
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def _top_head(module: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, head: int) -> Tensor:
    """A key is read if fewer than K readable ones beat it: by a higher score, or by an equal one before it."""
    score, n = POSITION_SCORES[type(module.position).__name__], len(q)
    scores = torch.stack([score(module, head, q, k, i, list(range(n))) for i in range(n)]) if n else q @ k.T
    one, other = scores.detach()[:, :, None], scores.detach()[:, None, :]
    before = torch.arange(n) < torch.arange(n)[:, None]
    beaten = (((other > one) | ((other == one) & before)) & allowed[:, None, :]).sum(-1)
    return _softmax(scores, allowed & (beaten < module.k)) @ v


def _stick_head(module: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, head: int) -> Tensor:
    """Sticks broken piece by piece, from the query's own position backwards."""
    shares = 1 / (1 + (-(q @ k.T) / math.sqrt(q.shape[1])).exp())
    left, y = torch.ones(len(q), dtype=torch.float64), torch.zeros_like(v)
    places = torch.arange(len(q))
    for j in reversed(range(len(q))):
        reads = allowed[:, j] & (places >= j if module.attend_current else places > j)
        piece = left * shares[:, j] * reads
        y, left = y + piece[:, None] * v[j], left - piece
    return y + (left * allowed.diagonal())[:, None] * v if module.remainder else y


def _nala_weights(module: Any, q: Tensor, k: Tensor, turned: bool) -> Tensor:
    """``s_ij`` as N x N numbers, a coordinate of a part after another."""
    n, d = q.shape
    if module.features == "relu":
        parts = [((q + q.abs()) / 2, (k + k.abs()) / 2)]
    else:
        length = ((q**2).sum(-1, keepdim=True) + 1e-12) ** 0.5
        power, toward = 3 * (0.5 + length.tanh()), q / length
        if module.features == "signs":
            size, cubed = toward.abs() ** power, k.abs() ** 3
            parts = [(size * (sign * q > 0), cubed * (sign * k > 0)) for sign in (1, -1)]
        else:
            angles = toward * (math.pi / 4), k / ((k**2).sum(-1, keepdim=True) + 1e-12) ** 0.5 * (math.pi / 4)
            both = [[f(angle) for angle in angles] for f in (torch.cos, torch.sin)]
            parts = [(toward.abs() ** power * a, k.abs() ** 3 * b) for a, b in both]
    weights = torch.zeros(n, n, dtype=torch.float64)
    for a, b in parts:
        if not turned:
            weights = weights + a @ b.T
            continue
        pairs = d // 2
        distance = (torch.arange(n)[:, None] - torch.arange(n)).double()
        for m in range(pairs):
            angle = distance * 10000 ** (-m / pairs)
            same = a[:, m, None] * b[:, m] + a[:, m + pairs, None] * b[:, m + pairs]
            cross = a[:, m, None] * b[:, m + pairs] - a[:, m + pairs, None] * b[:, m]
            weights = weights + same * angle.cos() + cross * angle.sin()
        weights = weights + a[:, 2 * pairs :] @ b[:, 2 * pairs :].T
    return weights


def _nala_head(module: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, head: int) -> Tensor:
    plain = _nala_weights(module, q, k, turned=False) * allowed
    above = _nala_weights(module, q, k, turned=True) * allowed if module.position == "rotary" else plain
    read = allowed.sum(-1, keepdim=True).clamp(min=1).double()
    y: Tensor = above @ v / (plain.sum(-1, keepdim=True) + 1e-6 * read)
    return y


def _linformer_head(module: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, head: int) -> Tensor:
    """Mixtures of the keys that are real, of which no query differs from another."""
    real, n = allowed.any(0).double()[:, None], len(q)
    by_key = module.mix_keys.double()[:, :n]
    by_value = by_key if module.mix_values is None else module.mix_values.double()[:, :n]
    keys, values = by_key @ (k * real), by_value @ (v * real)
    scores = q @ keys.T / math.sqrt(q.shape[1])
    y: Tensor = _softmax(scores, torch.ones_like(scores, dtype=torch.bool)) @ values
    return y


def _fixed(weights: Tensor, x: Tensor, allowed: Tensor) -> Tensor:
    """Rows of positive weights, divided by the sum of what is allowed."""
    kept = weights * allowed
    total = kept.sum(-1, keepdim=True)
    return kept / torch.where(total > 0, total, torch.ones_like(total)) @ x


def normlin(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.NormLin`` without dropout."""
    weights = (1 + module.weight.double().exp()).log()
    y = _fixed(weights, linear(module.value, x), readable(x, mask, pair_mask, module.causal))
    return _real(linear(module.out, y), mask)


def random_mixing(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.RandomMixing``."""
    scores = module.logits.double().expand(x.shape[0], -1, -1)
    return _real(_softmax(scores, readable(x, mask, pair_mask, module.causal)) @ x, mask)


def identity_mixer(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.IdentityMixer``."""
    own = readable(x, None, pair_mask, False).diagonal(dim1=1, dim2=2)
    return _real(x * own[:, :, None].double(), mask)


def pooling(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.Pooling``."""
    reach, rows = module.pool // 2, []
    for b, sequence in enumerate(x):
        real = [True] * len(sequence) if mask is None else mask[b].tolist()
        for i, own in enumerate(sequence):
            near = [j for j in range(max(0, i - reach), min(len(sequence), i + reach + 1)) if real[j]]
            rows.append(sequence[near].mean(0) - own if near else torch.zeros_like(own))
    return _real(torch.stack(rows).view(x.shape) if rows else x, mask)


def minimal(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.MinimalAttention`` without dropout: one similarity matrix, one value matrix."""
    size = x.shape[2]
    if module.qk == "symmetric":
        rows = module.triangle.double().split(list(range(1, size + 1)))
        lower = torch.stack([torch.cat([row, row.new_zeros(size - len(row))]) for row in rows])
        queries = keys = x @ lower
    else:
        queries, keys = linear(module.query, x), x if module.key is None else linear(module.key, x)
    weights = _softmax(queries @ keys.mT / math.sqrt(size), readable(x, mask, pair_mask, module.causal))
    y = weights @ (x if module.value is None else linear(module.value, x))
    y = y if module.out is None else linear(module.out, y)
    if module.shift is not None:
        y = y + weights.sum(-1, keepdim=True) * module.shift.double()
    return _real(y, mask)


def spatial_reduction(
    module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None, *, grid: tuple[int, int]
) -> Tensor:
    """``core.attention.SpatialReductionAttention`` without dropout: cell after cell, without those not all real."""
    size, (rows, columns) = module.reduction, grid
    d = x.shape[2] // module.heads
    sequences = []
    for b, tokens in enumerate(x):
        real = torch.ones(rows * columns, dtype=torch.bool) if mask is None else mask[b]
        cells = []
        for top, left in product(range(0, rows - size + 1, size), range(0, columns - size + 1, size)):
            inside = [(top + i) * columns + left + j for i in range(size) for j in range(size)]
            if not bool(real[inside].all()):
                continue
            cells.append(tokens[inside[0]])
            if size > 1:
                kernel = module.reduce.weight.double().flatten(2)
                mixed = sum((kernel[:, :, tap] @ tokens[token] for tap, token in enumerate(inside)), torch.zeros(()))
                cells[-1] = layernorm(module.norm, mixed + module.reduce.bias.double())
        q = linear(module.query, tokens)
        kv = linear(module.key_value, torch.stack(cells) if cells else tokens[:0])
        allowed = torch.ones(len(q), len(kv), dtype=torch.bool)
        heads = []
        for h in range(module.heads):
            k, v = (kv[:, part * x.shape[2] + h * d : part * x.shape[2] + (h + 1) * d] for part in range(2))
            heads.append(_softmax(q[:, h * d : (h + 1) * d] @ k.T / math.sqrt(d), allowed) @ v)
        sequences.append(torch.cat(heads, dim=-1))
    return _real(linear(module.out, torch.stack(sequences) if sequences else x), mask)


MIXER_ORACLES: dict[str, MixerOracle | GridOracle] = {
    "identity": identity_mixer,
    "linformer": partial(_by_head, _linformer_head),
    "minimal": minimal,
    "nala": partial(_by_head, _nala_head),
    "normlin": normlin,
    "pooling": pooling,
    "random": random_mixing,
    "relative": relative_mixer,
    "softmax": softmax_mixer,
    "sra": spatial_reduction,
    "stickbreaking": partial(_by_head, _stick_head),
    "topk": partial(_by_head, _top_head),
}
