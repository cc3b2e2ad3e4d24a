"""Ragged batches: B sequences of unequal length T_b, padded to (B,T,...) or packed as rows (total,...).

Three descriptions of the same thing are common: ``lengths (B,)``, a boolean ``mask (B,T)`` that is True at real
elements, and ``offsets (B+1,)`` where sequence b owns the rows ``offsets[b]:offsets[b+1]``. :class:`Ragged` holds one
of them, validated once, and derives the others. Padding is always at the end of a sequence.

Row order: rows are sorted by sequence, then by time; row r of sequence b and time t is r = offsets[b] + t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from core.errors import InputError

# Padding that sequences of like length may share: this part of their squared lengths, or so many squared elements,
# which cost less than another group does.
_PADDING, _LITTLE = 0.15, 4096


@dataclass(frozen=True, eq=False)
class Ragged:
    """How B sequences of unequal length lie in a padded batch and in packed rows.

    Build it with :meth:`from_lengths`, :meth:`from_mask` or :meth:`from_offsets`, which validate; the plain constructor
    trusts its arguments.

    Attributes:
        lengths: ``(B,)`` int64, elements of each sequence; zero is allowed.
        max_length: T, the time axis of the padded form.

    >>> ragged = Ragged.from_lengths(torch.tensor([2, 0, 1]))
    >>> ragged.offsets.tolist(), ragged.mask.tolist()
    ([0, 2, 2, 3], [[True, True], [False, False], [True, False]])
    >>> ragged.unpack(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]
    """

    lengths: Int[Tensor, "B"]
    max_length: int

    @classmethod
    def from_lengths(cls, lengths: Int[Tensor, "B"], max_length: int | None = None) -> Ragged:
        """From ``(B,)`` lengths, padded to ``max_length`` (default: the longest).

        Raises:
            InputError: not one axis of whole numbers, a negative length, or a length beyond ``max_length``.
        """
        if lengths.ndim != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise InputError(f"lengths are {_spell(lengths)}, not one axis of whole numbers")
        low, high = (int(lengths.min()), int(lengths.max())) if lengths.numel() else (0, 0)
        if low < 0:
            raise InputError(f"a length is negative ({low})")
        if max_length is not None and high > max_length:
            raise InputError(f"a length ({high}) is beyond the padded length {max_length}")
        return cls(lengths.to(torch.int64), high if max_length is None else max_length)

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "B T"]) -> Ragged:
        """From a ``(B,T)`` mask, True at real elements, all of which come before the padding.

        Raises:
            InputError: not a boolean matrix, or a real element after padding.
        """
        if mask.ndim != 2 or mask.dtype != torch.bool:
            raise InputError(f"the mask is {_spell(mask)}, not a boolean matrix (B,T)")
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise InputError("the mask has a real element after padding", mend="move the padding to the end")
        return cls(mask.sum(dim=1), mask.shape[1])

    @classmethod
    def from_offsets(cls, offsets: Int[Tensor, "S"], total: int) -> Ragged:
        """From ``(B+1,)`` offsets into ``total`` packed rows.

        Raises:
            InputError: the offsets do not start at 0, decrease somewhere, or do not end at ``total``.
        """
        if offsets.ndim != 1 or offsets.numel() == 0 or offsets.is_floating_point() or offsets.dtype == torch.bool:
            raise InputError(f"offsets are {_spell(offsets)}, not one axis of B+1 whole numbers")
        first, last = int(offsets[0]), int(offsets[-1])
        if first != 0 or last != total:
            raise InputError(f"offsets run from {first} to {last}, the packed rows from 0 to {total}")
        lengths = offsets.to(torch.int64).diff()
        if bool((lengths < 0).any()):
            raise InputError("offsets decrease", mend="sort the sequences by where their rows start")
        return cls(lengths, int(lengths.max()) if lengths.numel() else 0)

    @cached_property
    def mask(self) -> Bool[Tensor, "B T"]:
        """``(B,T)``, True at real elements."""
        return torch.arange(self.max_length, device=self.lengths.device) < self.lengths[:, None]

    @cached_property
    def offsets(self) -> Int[Tensor, "S"]:
        """``(B+1,)`` int64: sequence b owns the rows ``offsets[b]:offsets[b+1]``."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    @cached_property
    def total(self) -> int:
        """Real elements in all sequences together: the number of packed rows."""
        return int(self.lengths.sum())

    @cached_property
    def _positions(self) -> Int[Tensor, "total"]:
        """Where each packed row lies in the flattened padded form."""
        return self.mask.flatten().nonzero().squeeze(1)

    @cached_property
    def by_length(self) -> ByLength:
        """The sequences in groups of like length, for work that grows with the square of a length.

        >>> groups = Ragged.from_lengths(torch.tensor([10, 0, 100, 99])).by_length
        >>> [group.lengths.tolist() for group in groups.groups], groups.order[:2].tolist(), groups.back[:2].tolist()
        ([[100, 99], [10]], [10, 11], [199, 200])
        """
        sequences = torch.argsort(self.lengths, descending=True, stable=True)
        lengths = self.lengths[sequences]
        starts = self.offsets[:-1][sequences] - (lengths.cumsum(0) - lengths)
        places = torch.arange(self.total, device=lengths.device)
        order = places + starts.repeat_interleave(lengths, output_size=self.total)
        plain = lengths.tolist()
        cuts = pairwise(_cuts([length for length in plain if length]))
        groups = tuple(Ragged(lengths[first:last], plain[first]) for first, last in cuts)
        return ByLength(order, torch.empty_like(order).index_copy(0, order, places), groups)

    def pack(self, x: Shaped[Tensor, "B T ..."]) -> Shaped[Tensor, "total ..."]:
        """Padded ``(B,T,...)`` to packed rows ``(total,...)``; differentiable, the padding is not read.

        Raises:
            InputError: the first two axes of ``x`` are not ``(B,T)``.
        """
        if tuple(x.shape[:2]) != (self.lengths.shape[0], self.max_length):
            raise InputError(f"cannot pack {_spell(x)}: {self} is needed")
        return x.flatten(0, 1).index_select(0, self._positions)

    def unpack(self, rows: Shaped[Tensor, "total ..."]) -> Shaped[Tensor, "B T ..."]:
        """Packed rows ``(total,...)`` to padded ``(B,T,...)`` with exact zeros in the padding; differentiable.

        Raises:
            InputError: the number of rows is not ``total``.
        """
        if rows.ndim == 0 or rows.shape[0] != self.total:
            raise InputError(f"cannot unpack {_spell(rows)}: {self.total} rows are needed")
        count, tail = self.lengths.shape[0], rows.shape[1:]
        flat = rows.new_zeros(count * self.max_length, *tail).index_copy(0, self._positions, rows)
        return flat.view(count, self.max_length, *tail)

    def __str__(self) -> str:
        return f"a padded batch of shape ({self.lengths.shape[0]}, {self.max_length}, ...)"


@dataclass(frozen=True, eq=False)
class ByLength:
    """Sequences sorted by length, the longest first, and cut into groups; :attr:`Ragged.by_length`.

    Attributes:
        order: ``(total,)``, the packed row that stands at each place when sequences are sorted.
        back: ``(total,)``, the place of each packed row.
        groups: sequences of like length, in order; none of them is empty, and what they hold is all rows.
    """

    order: Int[Tensor, "total"]
    back: Int[Tensor, "total"]
    groups: tuple[Ragged, ...]


def _cuts(lengths: list[int]) -> list[int]:
    """Where groups of lengths, sorted from the longest, begin and end."""
    cuts, real = [0], 0
    for i, length in enumerate(lengths):
        padded = (i + 1 - cuts[-1]) * lengths[cuts[-1]] ** 2
        real += length**2
        if padded - real > max(_PADDING * real, _LITTLE):
            cuts.append(i)
            real = length**2
    return [*cuts, len(lengths)] if lengths else []


def _spell(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
