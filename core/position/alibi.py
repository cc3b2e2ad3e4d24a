"""Attention with linear biases (ALiBi; Press et al., arXiv 2108.12409): scores fall with the distance.

    S_ij = q_i . k_j / sqrt(d) - m_h |i - j|

|i - j| is the form for both directions, as in MosaicBERT (arXiv 2312.17482); causal attention reads j <= i only, where
it is the paper's i - j. Slopes of H heads, H a power of two: m_h = 2^(-8h/H), h = 1..H. Other H, after the paper's
public code: the slopes of the largest power of two below H, then every second one of twice as many heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from core.position.base import Position


def alibi_slopes(heads: int) -> list[float]:
    """m_h of each head, all positive.

    >>> alibi_slopes(2), alibi_slopes(3)
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = _geometric(power)
    return slopes + _geometric(2 * power)[0::2][: heads - power]


def _geometric(heads: int) -> list[float]:
    return [2.0 ** (-8.0 * h / heads) for h in range(1, heads + 1)]


class Alibi(Position):
    """A bias of the scores of each head that falls with the distance."""

    source = "Press et al., arXiv 2108.12409; both directions as MosaicBERT, arXiv 2312.17482"
    cost = "0; N^2 additions a head, and as many numbers held"

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__(heads, head_width)
        self.slopes = alibi_slopes(heads)

    def take(self, heads: Sequence[int]) -> Alibi:
        """The positions of these heads, which keep their slopes.

        >>> Alibi(heads=2, head_width=4).take([1]).slopes
        [0.00390625]
        """
        taken = Alibi(len(heads), self.head_width)
        taken.slopes = [self.slopes[head] for head in heads]
        return taken

    def bias(self, n: int, like: Tensor) -> Float[Tensor, "H N N"]:
        """``-m_h |i - j|``.

        >>> Alibi(heads=1, head_width=4).bias(2, torch.zeros(1, dtype=torch.float64)).tolist()
        [[[-0.0, -0.00390625], [-0.00390625, -0.0]]]
        """
        slopes = torch.tensor(self.slopes, dtype=like.dtype, device=like.device)
        places = torch.arange(n, device=like.device)
        distance = (places[:, None] - places).abs().to(like.dtype)
        return -slopes[:, None, None] * distance
