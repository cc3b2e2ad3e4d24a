"""A map of tokens on a grid that reads a row above and below, computed in pieces that stay in the cache.

``y = f(x)`` where row r of y depends on the rows r - 1, r, r + 1 of x, those beyond the grid being zeros that f adds
itself. A piece is some images, or some rows of one with a row on either side, whose results are thrown away. What f
holds inside is then as large as a piece: memory that the processor has at hand, and the system need not give anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from core.grid import Grid


class Piece(NamedTuple):
    """Some rows of some images: those read, and those of them whose results count."""

    images: slice
    read: slice
    kept: slice


def pieces(images: int, grid: Grid, row_bytes: int, at_once: int) -> Iterator[Piece]:
    """The pieces of so many images, each with so many bytes inside at most, if a row and its neighbours fit.

    >>> [tuple(piece.read.indices(5)[:2]) for piece in pieces(1, (5, 9), row_bytes=10, at_once=30)]
    [(0, 2), (0, 3), (1, 4), (2, 5), (3, 5)]
    >>> len(list(pieces(7, (5, 9), row_bytes=10, at_once=100)))
    4
    """
    rows = grid[0]
    together = at_once // (rows * row_bytes)
    if together:
        for first in range(0, images, together):
            yield Piece(slice(first, min(images, first + together)), slice(0, rows), slice(0, rows))
        return
    height = max(1, at_once // row_bytes - 2)
    for image in range(images):
        for first in range(0, rows, height):
            last, above = min(rows, first + height), min(first, 1)
            read = slice(first - above, min(rows, last + 1))
            yield Piece(slice(image, image + 1), read, slice(above, above + last - first))


def in_pieces(
    function: Callable[[Tensor, Grid], Tensor], x: Float[Tensor, "B N D"], grid: Grid, plan: Sequence[Piece]
) -> Float[Tensor, "B N _"]:
    """``function(x, grid)`` piece after piece; outside of training, as it writes into its result.

    Args:
        function: of tokens ``(b,n,D)`` and the grid of a piece.
        x: tokens.
        grid: that they lie on.
        plan: :func:`pieces` of all images.
    """
    rows, columns = x.reshape(x.shape[0], *grid, x.shape[2]), grid[1]
    y: Tensor | None = None
    for piece in plan:
        part = rows[piece.images, piece.read]
        mapped = function(part.flatten(1, 2), (part.shape[1], columns))
        kept = mapped.reshape(*part.shape[:3], -1)[:, piece.kept]
        y = kept.new_empty(*rows.shape[:3], kept.shape[3]) if y is None else y
        first = piece.read.start + piece.kept.start
        y[piece.images, first : first + kept.shape[1]] = kept
    assert y is not None
    return y.flatten(1, 2)
