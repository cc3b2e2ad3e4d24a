"""The contract of a token mixer: how the positions of a sequence exchange information.

``forward(x, *, mask, pair_mask, offsets) -> y`` preserves the shape. Four laws hold for every member, whatever its
mechanism, because :class:`Mixer` keeps them around the member's own :meth:`Mixer.mix`:

* padding never matters: masked positions are set to zero on the way in (so that a NaN there reaches nothing, neither
  forward nor backward) and on the way out;
* packed rows ``(total,D)`` with offsets give what each sequence gives alone (:meth:`Mixer.mix_packed`);
* a member that needs tokens to lie on a grid is told which (:class:`GridMixer`), and no other sees one;
* what a member cannot do is refused with one line.

Masks are boolean, True = real / may attend: the opposite of ``torch.nn.MultiheadAttention``'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.errors import InputError
from core.grid import Grid, check_grid
from core.sequence import Ragged


@dataclass(frozen=True)
class Capabilities:
    """What a mixer can do.

    Attributes:
        causal: takes ``causal=True``, with which position i reads positions <= i only.
        bidirectional: can read later positions; what cannot is always causal.
        independent: a position reads itself alone, so that any mask is followed.
        fixed_length: works for one N only, the ``tokens`` of its constructor.
        bounded_length: works for any N up to the ``tokens`` of its constructor.
        grid: needs the tokens to lie on a grid; its class is a :class:`GridMixer`.
        packed: takes packed rows with offsets.
        masked: takes a mask of real tokens.
        pairwise: takes a mask of which key a query may read.
        selects: picks keys by comparing scores, so that a rounding error can change the result as a whole.
    """

    causal: bool = False
    bidirectional: bool = True
    independent: bool = False
    fixed_length: bool = False
    bounded_length: bool = False
    grid: bool = False
    packed: bool = False
    masked: bool = False
    pairwise: bool = False
    selects: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """What differs from a mixer that reads both ways, without masks, at any length on a line.

        >>> Capabilities(causal=True, bounded_length=True).words
        ('causal', 'up to `tokens`')
        """
        words = {
            "always causal": not self.bidirectional,
            "causal": self.causal and self.bidirectional,
            "reads no other position": self.independent,
            "`tokens` alone": self.fixed_length,
            "up to `tokens`": self.bounded_length,
            "on a grid": self.grid,
            "masked": self.masked,
            "pairwise": self.pairwise,
            "packed": self.packed,
            "selects": self.selects,
        }
        return tuple(word for word, true in words.items() if true)


class Mixer(nn.Module, ABC):
    """A token mixer. Members set ``capabilities``, ``source`` and ``cost``, and write :meth:`mix`.

    Args:
        width: D.
        tokens: N of a member of fixed or bounded length.

    Attributes:
        positions: names in ``core.position.POSITIONS`` that the option ``position`` may have, where there is one.
        source: whose idea it is.
        cost: multiply-adds of a pass over N tokens outside training, in N, D and the names of options; then, after a
            semicolon, what else there is to say.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    positions: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str]
    cost: ClassVar[str]

    def __init__(self, width: int, tokens: int | None = None) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"a mixer needs width >= 1, not {width}")
        if tokens is not None and tokens < 0:
            raise InputError(f"a mixer cannot be made for {tokens} tokens")
        self.width, self.tokens = width, tokens

    @abstractmethod
    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Mix one checked, padded batch. What comes out at masked positions is thrown away."""

    def mix_packed(self, rows: Float[Tensor, "total D"], ragged: Ragged) -> Float[Tensor, "total D"]:
        """Mix checked, packed rows; here in one padded batch. Members with a better way say so."""
        return ragged.pack(self.mix(ragged.unpack(rows), ragged.mask, None))

    def input_maps(self) -> Sequence[nn.Module]:
        """The linear maps that are all that reads x, so that a scale of x can move into them; none if others do."""
        return ()

    def output_maps(self) -> Sequence[nn.Module]:
        """The maps whose results, weighted and added up, are all that this block returns; none if it returns others."""
        return ()

    def forward(
        self,
        x: Float[Tensor, "*tokens D"],
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        pair_mask: Bool[Tensor, "*B N N"] | None = None,
        offsets: Int[Tensor, "S"] | Ragged | None = None,
        grid: Grid | None = None,
    ) -> Float[Tensor, "*tokens D"]:
        """Mix the tokens of each sequence.

        Args:
            x: ``(B,N,D)``, or packed rows ``(total,D)`` when ``offsets`` is given.
            mask: ``(B,N)``, True at real tokens; the others are not read, and zero in the result.
            pair_mask: ``(N,N)`` or ``(B,N,N)``, True where the query (second last axis) may read the key (last axis).
                It narrows what ``mask`` and causality allow.
            offsets: ``(B+1,)``, sequence b owns the rows ``offsets[b]:offsets[b+1]``; or a ``Ragged`` already made from
                them, which spares the validation in every layer.
            grid: ``(H,W)``, N = H W: token i lies in row i // W and column i % W.

        Raises:
            InputError: shapes or dtypes that do not fit, invalid offsets, or a request beyond ``capabilities``.
        """
        self._check(x, mask, pair_mask, offsets)
        self._check_grid(x, offsets, grid)
        if offsets is not None:
            ragged = offsets if isinstance(offsets, Ragged) else Ragged.from_offsets(offsets, total=x.shape[0])
            self._check_length(ragged.max_length)
            return self.mix_packed(x, ragged)
        self._check_length(x.shape[1])
        if mask is None:
            return self._mix_on(x, None, pair_mask, grid)
        padding = ~mask[:, :, None]
        return self._mix_on(x.masked_fill(padding, 0.0), mask, pair_mask, grid).masked_fill(padding, 0.0)

    def _mix_on(self, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None, grid: Grid | None) -> Tensor:
        """Mix checked tokens, the grid being nothing to members that do not need it."""
        return self.mix(x, mask, pair_mask)

    def _check(self, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None, offsets: object | None) -> None:
        """Refuse what does not fit."""
        name, axes = type(self).__name__, 3 if offsets is None else 2
        if x.ndim != axes or x.shape[-1] != self.width:
            wanted = f"(total, {self.width}), rows packed by the offsets" if axes == 2 else f"(B, N, {self.width})"
            raise InputError(f"x has shape {tuple(x.shape)}, not {wanted}", where=name)
        asked = {"packed": offsets, "masked": mask, "pairwise": pair_mask}
        for capability, value in asked.items():
            if value is not None and not getattr(self.capabilities, capability):
                mend = f"take one whose capabilities say {capability!r}"
                raise InputError(f"this mixer cannot do {capability} input", where=name, mend=mend)
        if offsets is not None and (mask is not None or pair_mask is not None):
            raise InputError("packed rows take no mask", where=name, mend="unpack them, or leave out the mask")
        tokens = tuple(x.shape[:2])
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != tokens):
            raise InputError(f"the mask must be boolean {tokens}, not {_spell(mask)}", where=name)
        square = tokens[-1:] * 2
        if pair_mask is not None and (
            pair_mask.dtype != torch.bool or tuple(pair_mask.shape) not in (square, tokens[:1] + square)
        ):
            wanted = f"{square} or {tokens[:1] + square}"
            raise InputError(f"pair_mask must be boolean {wanted}, not {_spell(pair_mask)}", where=name)

    def _check_grid(self, x: Tensor, offsets: object | None, grid: Grid | None) -> None:
        """Refuse a grid that the tokens do not fill, and none where one is needed."""
        name = type(self).__name__
        if grid is None:
            if self.capabilities.grid:
                raise InputError("this mixer needs the tokens to lie on a grid", where=name, mend="pass grid=(H, W)")
        elif offsets is not None:
            raise InputError("packed rows lie on no grid", where=name, mend="leave out the grid")
        else:
            check_grid(grid, x.shape[1], name)

    def _check_length(self, n: int) -> None:
        """Refuse another length than that of the constructor."""
        can, made_for = self.capabilities, self.tokens
        if made_for is not None and ((can.fixed_length and n != made_for) or (can.bounded_length and n > made_for)):
            most = "up to " if can.bounded_length else ""
            raise InputError(f"{n} tokens; it was made for {most}{made_for}", where=type(self).__name__)


class GridMixer(Mixer):
    """A mixer of tokens on a grid, ``(H,W)`` row by row. Members write :meth:`mix_grid` in place of ``mix``."""

    @abstractmethod
    def mix_grid(
        self,
        x: Float[Tensor, "B N D"],
        grid: Grid,
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B N D"]:
        """Mix one checked, padded batch. What comes out at masked positions is thrown away."""

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """A sequence is a grid of one row."""
        return self.mix_grid(x, (1, x.shape[1]), mask, pair_mask)

    def _mix_on(self, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None, grid: Grid | None) -> Tensor:
        return self.mix_grid(x, cast(Grid, grid), mask, pair_mask)


def _spell(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
