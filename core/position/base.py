"""What softmax attention asks of a kind of positions: to turn queries and keys, or to add to the scores.

A kind of positions has no weights and keeps no tensors: it works in any dtype and for any length. Token t of a sequence
has position t; padding comes after the real tokens, and packed sequences each start at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from core.errors import InputError


class Position:
    """No positions at all, and the interface of the others.

    Args:
        heads: H.
        head_width: d, numbers a head.

    Attributes:
        source: whose idea it is.
        cost: as of :class:`core.attention.Mixer`.

    >>> import torch
    >>> Position(heads=2, head_width=4).bias(5, torch.zeros(1)) is None
    True
    """

    source: ClassVar[str] = "ours: without positions"
    cost: ClassVar[str] = "0"

    def __init__(self, heads: int, head_width: int) -> None:
        if heads < 1 or head_width < 1:
            raise InputError(f"{heads} heads of {head_width} numbers", where="positions", mend="at least one of each")
        self.heads, self.head_width = heads, head_width

    def take(self, heads: Sequence[int]) -> Position:
        """The positions of these heads, in this order."""
        return type(self)(len(heads), self.head_width)

    def turn(self, x: Float[Tensor, "B H N d"]) -> Float[Tensor, "B H N d"]:
        """Queries or keys with their positions in them."""
        return x

    def bias(self, n: int, like: Tensor) -> Float[Tensor, "H N N"] | None:
        """What is added to the scores of n queries (second last axis) and n keys, in dtype and device of ``like``."""
        return None
