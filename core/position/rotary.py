"""Rotary positions (RoPE; Su et al., arXiv 2104.09864): pairs of numbers turned by an angle that grows with t.

    (a, b) of pair m  ->  (a cos(t w_m) - b sin(t w_m),  b cos(t w_m) + a sin(t w_m)),    w_m = 10000^(-m / M)

Turned so, the product of a query at i with a key at j depends on their contents and on i - j alone.

Convention: half-split, as in the public code of GPT-NeoX and Llama: pair m is (x_m, x_{m+M}) with M = floor(d/2). The
paper's own pairs are neighbours, (x_2m, x_2m+1); weights go from one to the other by reordering the rows of the query
and key maps. Deviation: where d is odd, the last number is not turned.

Angles are computed in float64, and the turn in float32 or better: in bfloat16, positions beyond 256 would be equal.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from core.position.base import Position

_BASE = 10000.0


def rotate(x: Float[Tensor, "*heads N d"]) -> Float[Tensor, "*heads N d"]:
    """Each row turned by its position, 0 to N-1.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> rotate(x).round(decimals=3).tolist()  # the second by one radian: cos 1, sin 1
    [[1.0, 0.0], [0.5400000214576721, 0.8410000205039978]]
    """
    n, pairs = x.shape[-2], x.shape[-1] // 2
    frequencies = _BASE ** -(torch.arange(pairs, dtype=torch.float64, device=x.device) / max(pairs, 1))
    angles = torch.arange(n, dtype=torch.float64, device=x.device)[:, None] * frequencies
    dtype = torch.promote_types(x.dtype, torch.float32)
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([*(part.to(x.dtype) for part in turned), rest], dim=-1)


class Rotary(Position):
    """Queries and keys turned by angles that grow with the position."""

    source = "Su et al., arXiv 2104.09864"
    cost = "0; 4 N D products of single numbers"

    def turn(self, x: Float[Tensor, "B H N d"]) -> Float[Tensor, "B H N d"]:
        """Queries or keys with their positions in them."""
        return rotate(x)
