"""Spatial-reduction attention (Wang et al., PVT, arXiv 2102.12122; as in SegFormer, arXiv 2105.15203).

    z = norm(reduce(x)),   y = softmax(W_q x (W_k z)^T / sqrt(D/H)) W_v z,   W_out y

Queries are all N tokens of a grid (H, W); keys and values come from the map that a convolution with an R x R kernel and
stride R makes of it, ``floor(H/R) floor(W/R)`` tokens, a layer norm after it. R = 1 has neither, and is softmax
attention. Rows and columns that do not fill a cell are dropped, so that a grid smaller than R x R has no keys: its
tokens get zeros before the output projection.

A mask is followed exactly: a cell is read if all of it is real, which is what an image gets that was not padded on the
right and below. ``key_value`` makes keys (its first D rows) and values with one map.

Initialisation: linear maps U(-1/sqrt(D), 1/sqrt(D)), the convolution U(-1/sqrt(R^2 D), 1/sqrt(R^2 D)), biases zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities, GridMixer
from core.attention.headed import check_heads
from core.attention.softmax import softmax_attention
from core.errors import InputError
from core.grid import Grid
from core.initialisation import uniform_fan_in_


class SpatialReductionAttention(GridMixer):
    """Multi-head softmax attention of all tokens of a grid to the cells of a coarser one.

    Args:
        width: D.
        heads: H; divides D.
        reduction: R, rows and columns of a cell.
        bias: biases in the linear maps.
        dropout: probability of dropping an attention probability, in training.
        eps: of the norm after the reduction.

    Raises:
        InputError: ``heads`` does not divide ``width``, ``reduction`` is below one, or ``dropout`` is outside [0, 1).

    >>> SpatialReductionAttention(8, 2, reduction=2)(torch.zeros(3, 20, 8), grid=(4, 5)).shape
    torch.Size([3, 20, 8])
    """

    capabilities = Capabilities(grid=True, masked=True)
    source = "Wang et al., PVT, arXiv 2102.12122"
    cost = "3 N D^2 + 2 N D^2 / reduction^2 + 2 N^2 D / reduction^2; of whole cells, one N D^2 less for reduction 1"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        reduction: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(width)
        check_heads(width, heads, dropout, type(self).__name__)
        if reduction < 1:
            raise InputError(f"reduction {reduction} is below 1", where=type(self).__name__)
        self.heads, self.reduction, self.dropout = heads, reduction, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.key_value = nn.Linear(width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.reduce = nn.Conv2d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width, eps=eps) if reduction > 1 else None
        for linear in (self.query, self.key_value, self.out):
            uniform_fan_in_(linear)
        if self.reduce is not None:
            bound = 1 / math.sqrt(reduction**2 * width)
            nn.init.uniform_(self.reduce.weight, -bound, bound)
            nn.init.zeros_(self.reduce.bias)  # type: ignore[arg-type]

    def mix_grid(
        self,
        x: Float[Tensor, "B N D"],
        grid: Grid,
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B N D"]:
        """Attend from every token to the cells."""
        if min(grid) < self.reduction:
            nothing: Tensor = self.out(torch.zeros_like(x))
            return nothing
        cells = self._cells(x, grid)
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(cells).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = softmax_attention(q, k, v, key_mask=self._real_cells(mask, grid), dropout=dropout)
        projected: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return projected

    def _cells(self, x: Tensor, grid: Grid) -> Tensor:
        """The tokens that keys and values are made of."""
        if self.reduce is None or self.norm is None:
            return x
        cells: Tensor = self.norm(self._reduced(self.reduce, x, grid))
        return cells

    def _reduced(self, reduce: nn.Conv2d, x: Tensor, grid: Grid) -> Tensor:
        """``(B,cells,D)``: the convolution. Cells do not overlap, so that it is a linear map of the tokens of each."""
        side = self.reduction
        rows, columns = (length // side for length in grid)
        whole = x.reshape(x.shape[0], *grid, -1)[:, : rows * side, : columns * side]
        cells = whole.reshape(x.shape[0], rows, side, columns, side, -1).transpose(2, 3)
        weight = reduce.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(cells.reshape(x.shape[0], rows * columns, -1), weight, reduce.bias)

    def _real_cells(self, mask: Tensor | None, grid: Grid) -> Tensor | None:
        """``(B,cells)``: the cells all of whose tokens are real."""
        if mask is None or self.reduction == 1:
            return mask
        rows, columns = (side // self.reduction for side in grid)
        whole = mask.reshape(-1, *grid)[:, : rows * self.reduction, : columns * self.reduction]
        by_cell = whole.reshape(-1, rows, self.reduction, columns, self.reduction)
        return by_cell.all(4).all(2).flatten(1)

    def input_maps(self) -> Sequence[nn.Module]:
        """The maps to queries, and to keys and values, where no convolution reads the tokens as well."""
        return (self.query, self.key_value) if self.reduce is None else ()

    def output_maps(self) -> Sequence[nn.Module]:
        """The output projection."""
        return (self.out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"heads={self.heads}, reduction={self.reduction}, dropout={self.dropout}"
