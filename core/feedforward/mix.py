"""The mixing feed-forward of SegFormer (Xie et al., arXiv 2105.15203).

    y = down(dropout(activation(filter(up(x))))),   up: D -> hidden, down: hidden -> D

``filter`` is a depth-wise 3 x 3 convolution with a bias on the grid that the tokens lie on, zeros around it: what tells
the network where a token is. Every unit has its own filter, so that the units still add up. Padding within a batch is
zeroed before the filter reads it, biases making it non-zero.

Initialisation: ``up`` and ``down`` U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the taps U(-1/3, 1/3), biases zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.errors import InputError
from core.feedforward.activations import activation_named
from core.feedforward.pieces import Piece, in_pieces, pieces
from core.feedforward.units import HiddenUnits
from core.grid import Grid, check_grid, to_map, to_tokens
from core.initialisation import uniform_fan_in_
from core.kernels import Dropout

# Bytes of hidden units: those of a piece outside of training, and those below which all are computed at once. Measured
# (torch 2.14, one thread): float32 in a third of the time with 8 MB of them, in half with 16 MB; bfloat16 as before.
_PIECE, _MANY = 1 << 21, 1 << 23


class MixFFN(HiddenUnits):
    """Two linear maps with a depth-wise 3 x 3 convolution on the grid and an activation between them.

    Args:
        width: D.
        hidden: hidden units; row i of ``up``, filter i and column i of ``down`` are unit i.
        activation: one of ``core.feedforward.ACTIVATIONS``, or ``starrelu``.
        bias: biases in both maps and of the filters.
        dropout: probability of dropping a hidden unit, in training.
        nested: shares of the hidden units, of which each training step uses one.

    Raises:
        InputError: an unknown activation, a size below one, or a share outside (0, 1].

    >>> MixFFN(8, 32)(torch.zeros(2, 12, 8), grid=(3, 4)).shape
    torch.Size([2, 12, 8])
    """

    reads_mask: ClassVar[bool] = True
    reads_grid: ClassVar[bool] = True
    by_unit: ClassVar[tuple[str, ...]] = ("taps", "shift")
    parameter_roles: ClassVar[Mapping[str, str]] = {"taps": "matrix", "shift": "bias"}
    source = "Xie et al., SegFormer, arXiv 2105.15203"
    cost = "2 N D hidden + 9 N hidden"

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
        nested: Sequence[float] = (),
    ) -> None:
        super().__init__(width, hidden, nested)
        self.activation = activation
        self.activate = activation_named(activation, "mixffn")
        self.up = nn.Linear(width, hidden, bias=bias)
        self.taps = nn.Parameter(torch.empty(hidden, 1, 3, 3).uniform_(-1 / 3, 1 / 3))
        self.shift = nn.Parameter(torch.zeros(hidden)) if bias else None
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = Dropout(dropout)
        uniform_fan_in_(self.up)
        uniform_fan_in_(self.down)

    def forward(
        self, x: Float[Tensor, "B N D"], *, mask: Bool[Tensor, "B N"] | None = None, grid: Grid | None = None
    ) -> Float[Tensor, "B N D"]:
        """Map every token with its neighbours on ``grid`` (H, W), N = H W; ``mask`` says which of them are real.

        Raises:
            InputError: no grid, or one that the tokens do not fill.
        """
        if grid is None:
            raise InputError("this feed-forward needs the tokens to lie on a grid", where="MixFFN", mend="pass one")
        check_grid(grid, x.shape[1], "MixFFN")
        count = self.active()
        plan = () if mask is not None or torch.is_grad_enabled() else self._plan(x, grid, count)
        if len(plan) > 1:
            return in_pieces(partial(self._mapped, count=count), x, grid, plan)
        return self._mapped(x, grid, count, mask)

    def _mapped(self, x: Tensor, grid: Grid, count: int, mask: Tensor | None = None) -> Tensor:
        """All tokens at once."""
        h = self._read(x, count)
        if mask is not None:
            h = h.masked_fill(~mask[:, :, None], 0.0)
        return self._write(self.dropout(self.activate(self._filtered(h, grid, count))), count)

    def _plan(self, x: Tensor, grid: Grid, count: int) -> tuple[Piece, ...]:
        """The pieces that hidden units are computed in; none, where all of them are few, or something looks on."""
        if torch.compiler.is_compiling():  # a graph serves any size
            return ()
        row_bytes = grid[1] * count * x.element_size()
        seen = any(each._forward_hooks or each._forward_pre_hooks for each in (self.up, self.down))
        many = _MANY // 2 if grid[0] * row_bytes <= _PIECE else _MANY  # whole images have no rows on either side
        few = x.device.type != "cpu" or x.shape[0] * grid[0] * row_bytes < many
        if few or seen or (self.training and self.dropout.p > 0):
            return ()
        return tuple(pieces(x.shape[0], grid, row_bytes, _PIECE))

    def _filtered(self, h: Tensor, grid: Grid, count: int) -> Tensor:
        """Every unit convolved with its own filter."""
        if h.shape[0] == 0 or h.shape[1] == 0:
            return h
        taps, shift = self.taps[:count], None if self.shift is None else self.shift[:count]
        return to_tokens(F.conv2d(to_map(h, grid), taps, shift, padding=1, groups=count))

    def extra_repr(self) -> str:
        """The activation, for ``print(module)``."""
        return f"activation={self.activation}"
