"""Mixing by weights that do not depend on the data, and what its members share: restriction to the keys that are read.

    A_ij = w_ij / sum of w_il over the keys l that query i may read,   0 for other keys;   w_ij > 0

Where all may be read these are the rows of w, each divided by its sum. Renormalising over what masks and causality
leave is ours: the members' sources have neither. A query that may read nothing has a row of zeros.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.softmax import allowed_keys


def restricted_rows(
    weights: Float[Tensor, "N N"],
    mask: Bool[Tensor, "B N"] | None,
    pair_mask: Bool[Tensor, "*B N N"] | None,
    causal: bool,
) -> Float[Tensor, "*batch N N"]:
    """Positive weights as rows that add up to 1 over the keys that may be read.

    >>> import torch
    >>> restricted_rows(torch.tensor([[3.0, 1.0], [1.0, 3.0]]), None, None, True).tolist()
    [[1.0, 0.0], [0.25, 0.75]]
    """
    allowed = allowed_keys(mask, pair_mask, causal, weights)
    if allowed is None:
        return weights / weights.sum(-1, keepdim=True)
    allowed = allowed.squeeze(1) if allowed.ndim == 4 else allowed
    # Of equal shape with and without padding, so that a mask of ones changes nothing.
    kept = weights * allowed
    total = kept.sum(-1, keepdim=True)
    return kept / total.masked_fill(total == 0, 1.0)
