"""Linear attention: weights that are products of features, so that no N x N matrix is needed.

    y_i = sum_j s_ij v_j / (sum_j s'_ij + eps m_i),   s_ij = f(q_i) . g(k_j),   m_i = number of keys that i reads

s' are the weights of the denominator, which may have features of their own; with s' = s rows add up to 1, up to eps.
Sums over keys come first, (sum_j g(k_j) v_j^T) and (sum_j g(k_j)): O(N f d) a head instead of O(N^2). The causal form
cuts the sequence into chunks: sums of the chunks before come from one cumulative sum, and within a chunk weights are
written out. Nothing of size N x N is made and nothing runs token by token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# Tokens of a chunk of the causal form: what is written out within it costs as much as the states between chunks.
_CHUNK = 64


def linear_attention(
    q: Float[Tensor, "B H N f"],
    k: Float[Tensor, "B H N f"],
    v: Float[Tensor, "B H N d"],
    *,
    below: tuple[Float[Tensor, "B H N f"], Float[Tensor, "B H N f"]] | None = None,
    key_mask: Bool[Tensor, "B N"] | None = None,
    causal: bool = False,
    eps: float = 1e-6,
) -> Float[Tensor, "B H N d"]:
    """Attention with the weights ``q_i . k_j`` of features, divided by their sums.

    Args:
        q: features of the queries.
        k: features of the keys; finite also where a mask excludes them, and so are values.
        v: values.
        below: features of queries and keys in the denominator; None: the same.
        key_mask: ``(B,N)``, True at keys that may be read.
        causal: query i reads keys <= i only.
        eps: added to the mean weight of a query.

    Returns:
        ``(B,H,N,d)``; zeros for a query that may read nothing.

    >>> ones = torch.ones(1, 1, 3, 1, dtype=torch.float64)
    >>> linear_attention(ones, ones, ones.cumsum(2), causal=True).flatten().round(decimals=4).tolist()
    [1.0, 1.5, 2.0]
    """
    ones = torch.ones_like(v[..., :1])
    counts = ones if key_mask is None else ones * key_mask[:, None, :, None]
    if key_mask is not None:
        k = k * counts
    sums = _causal_sums if causal else _sums
    read = counts.cumsum(2) if causal else counts.sum(2, keepdim=True)
    if below is None:
        # The sum of the weights is what a value of one would give: weights are made once for both.
        both = sums(q, k, torch.cat([v, ones], dim=-1))
        y, total = both[..., :-1], both[..., -1:]
    else:
        y, total = sums(q, k, v), sums(below[0], below[1] * counts, ones)
    return y / (total + eps * read.clamp(min=1.0))


def _sums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``sum_j (q_i . k_j) v_j`` over all j."""
    return q @ (k.mT @ v)


def _causal_sums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same over j <= i."""
    n = q.shape[2]
    chunks = -(-n // _CHUNK)
    q, k, v = (F.pad(x, (0, 0, 0, -n % _CHUNK)).view(*x.shape[:2], chunks, _CHUNK, x.shape[3]) for x in (q, k, v))
    within = (q @ k.mT).tril() @ v
    # Shifted by a chunk, not the inclusive sum less the own: later tokens would reach earlier ones by its rounding.
    before = F.pad((k.mT @ v).cumsum(2), (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return (within + q @ before).flatten(2, 3)[:, :, :n]
