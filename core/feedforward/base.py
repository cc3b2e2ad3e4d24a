"""What the maps of this room have in common: a position's result depends on it alone, or on its grid neighbours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError


class FeedForward(nn.Module, ABC):
    """A map applied to every position by itself: ``(...,D) -> (...,D)``; or one that ``reads_grid``.

    Args:
        width: D.

    Attributes:
        reads_mask: ``forward`` takes a ``mask (...)``, True at real positions, which changes no real position's result
            outside training.
        reads_grid: ``forward`` needs a ``grid``, the ``(H,W)`` on which the N tokens of ``(B,N,D)`` lie row by row, and
            a position's result depends on its neighbours there.
        source: whose idea it is.
        cost: as of :class:`core.attention.Mixer`.
    """

    reads_mask: ClassVar[bool] = False
    reads_grid: ClassVar[bool] = False
    source: ClassVar[str]
    cost: ClassVar[str]

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"a feed-forward needs width >= 1, not {width}")
        self.width = width

    def input_maps(self) -> Sequence[nn.Module]:
        """The linear maps that are all that reads x, so that a scale of x can move into them; none if others do."""
        return ()

    def output_maps(self) -> Sequence[nn.Module]:
        """The maps whose results, weighted and added up, are all that this block returns; none if it returns others."""
        return ()

    @abstractmethod
    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
