"""Feed-forwards of hidden units that add up: taken, reordered, divided, left out, and nested one in another.

    y = sum over units i of w_i unit_i(x) + b

Unit i is row i of ``up`` (in a gated block, row i of both halves) and column i of ``down``; b is the bias of ``down``.
So any choice of units, in any order, is a block of the same kind, by slicing.

Nested training (Devvrit et al., MatFormer, arXiv 2310.07707, NeurIPS 2024): with ``nested`` shares of the hidden units,
a training step computes with the first ``share * hidden`` units only, one share a step, drawn evenly as a function of
the step (:mod:`core.clock`) and therefore the same in all blocks. Units beyond have zero gradients in that step; the
decay and the moments of an optimiser still move them. :mod:`core.feedforward.nested` chooses sizes afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from core.clock import untold
from core.errors import InputError
from core.feedforward.base import FeedForward
from core.initialisation import linear_like

UnitsT = TypeVar("UnitsT", bound="HiddenUnits")


class HiddenUnits(FeedForward):
    """A feed-forward ``down(units(up(x)))``; subclasses say what a unit is.

    Args:
        width: D.
        hidden: hidden units.
        nested: shares of the hidden units, in (0, 1], of which each training step uses one; none uses all.

    Attributes:
        gates: rows of ``up`` for each unit.
        by_unit: names of parameters besides ``up`` and ``down`` that have a row for each unit; None in their place
            where a block goes without.
        chosen: the number of units to compute with, where one was chosen.

    Raises:
        InputError: sizes below one, or a share outside its range.
    """

    gates: ClassVar[int] = 1
    by_unit: ClassVar[tuple[str, ...]] = ()
    up: nn.Linear
    down: nn.Module

    def __init__(self, width: int, hidden: int, nested: Sequence[float] = ()) -> None:
        super().__init__(width)
        if hidden < 1:
            raise InputError(f"a feed-forward needs hidden >= 1, not {hidden}")
        if not all(0.0 < share <= 1.0 for share in nested):
            raise InputError(f"nested shares are in (0, 1], not {tuple(nested)}")
        self.hidden, self.nested = hidden, tuple(nested)
        self._drawn: int | None = None
        self.chosen: int | None = None

    def input_maps(self) -> Sequence[nn.Module]:
        """``up``."""
        return (self.up,)

    def output_maps(self) -> Sequence[nn.Module]:
        """``down``, where there is one."""
        return () if isinstance(self.down, nn.Identity) else (self.down,)

    # ------------------------------------------------------------------------------------------------- nesting

    def at_step(self, step: int, of: int) -> None:
        """Draw the share of a training step."""
        if self.nested:
            draw = torch.randint(len(self.nested), (), generator=torch.Generator().manual_seed(step))
            self._drawn = self.count_of(self.nested[int(draw)])

    def count_of(self, share: float) -> int:
        """Hidden units that are this share of all, at least one."""
        return max(1, round(share * self.hidden))

    def choose(self, count: int | None) -> None:
        """Compute with the first ``count`` units from now on, in training too; None takes the choice back."""
        if count is not None:
            self._check_count(count)
            self.projection()
        self.chosen = count

    def active(self) -> int:
        """The number of units that the next forward pass computes with."""
        if self.chosen is not None:
            return self.chosen
        if not self.training or not self.nested:
            return self.hidden
        if self._drawn is None:
            raise untold("a nested feed-forward")
        return self._drawn

    def _read(self, x: Tensor, count: int) -> Tensor:
        """``up`` of the first ``count`` units, one gate after the other."""
        if count == self.hidden:
            y: Tensor = self.up(x)
            return y
        weight, bias = self._by_gate(self.up.weight)[:, :count].flatten(0, 1), self.up.bias
        return F.linear(x, weight, None if bias is None else self._by_gate(bias)[:, :count].flatten())

    def _by_gate(self, rows: Tensor) -> Tensor:
        """Rows of ``up`` as (gates, units, ...)."""
        return rows.reshape(self.gates, -1, *rows.shape[1:])

    def _write(self, h: Tensor, count: int) -> Tensor:
        """``down`` of the first ``count`` units."""
        if count == self.hidden:
            y: Tensor = self.down(h)
            return y
        down = self.projection()
        return F.linear(h, down.weight[:, :count], down.bias)

    # --------------------------------------------------------------------------------------------------- units

    def keys(self) -> tuple[Tensor, Tensor | None]:
        """What decides whether a unit fires: its row of ``up`` (of the gate, in a gated block), and the bias there."""
        bias = self.up.bias
        return self.up.weight[-self.hidden :], None if bias is None else bias[-self.hidden :]

    def slice(self: UnitsT, count: int) -> UnitsT:
        """A block with the first ``count`` units."""
        self._check_count(count)
        return self._take(torch.arange(count))

    def permute(self: UnitsT, order: Int[Tensor, " units"]) -> UnitsT:
        """A block that computes the same, its unit i being unit ``order[i]`` of this one."""
        if sorted(order.tolist()) != list(range(self.hidden)):
            raise InputError(f"not an order of {self.hidden} hidden units", where=type(self).__name__)
        taken = self._take(order)
        taken.nested = self.nested
        return taken

    def prune(self: UnitsT, units: Sequence[int]) -> UnitsT:
        """A block without these units; the others keep their order."""
        gone = set(units)
        if not gone <= set(range(self.hidden)):
            raise InputError(f"there are hidden units 0 to {self.hidden - 1} to prune", where=type(self).__name__)
        return self._take(torch.tensor([unit for unit in range(self.hidden) if unit not in gone], dtype=torch.int64))

    def partition(self: UnitsT, labels: Int[Tensor, " units"]) -> tuple[UnitsT, ...]:
        """One block for each label 0, 1, ..., of the units that have it, in order; their results add up to this one's.

        The bias of ``down`` is in the first block; in the others it is zero.
        """
        if tuple(labels.shape) != (self.hidden,) or int(labels.min()) < 0:
            raise InputError(f"not a label for each of {self.hidden} hidden units", where=type(self).__name__)
        parts = [self._take((labels == label).nonzero().squeeze(1)) for label in range(int(labels.max()) + 1)]
        with torch.no_grad():
            for part in parts[1:]:
                if part.projection().bias is not None:
                    part.projection().bias.zero_()
        return tuple(parts)

    @staticmethod
    def join(parts: Sequence[HiddenUnits]) -> HiddenUnits:
        """One block with the units of all, one after the other: what undoes :meth:`partition`, up to their order.

        ``parts`` are of one kind with the same options; the biases of their ``down`` add up.
        """
        first = parts[0]
        whole = first._empty(sum(part.hidden for part in parts))
        with torch.no_grad():
            for name, value in whole.up.named_parameters():
                pieces = [part._by_gate(part.up.get_parameter(name)) for part in parts]
                value.copy_(torch.cat(pieces, dim=1).flatten(0, 1))
            for name, value in whole._rows().items():
                value.copy_(torch.cat([part.get_parameter(name) for part in parts]))
            down = whole.projection()
            down.weight.copy_(torch.cat([part.projection().weight for part in parts], dim=1))
            if down.bias is not None:
                down.bias.copy_(torch.stack([part.projection().bias for part in parts]).sum(0))
        return whole

    def _take(self: UnitsT, units: Tensor) -> UnitsT:
        """A new block with these units, in this order."""
        if len(units) == 0:
            raise InputError("no hidden unit is left", where=type(self).__name__)
        taken, down = self._empty(len(units)), self.projection()
        with torch.no_grad():
            for name, value in taken.up.named_parameters():
                rows = self._by_gate(self.up.get_parameter(name))
                value.copy_(rows[:, units.to(rows.device)].flatten(0, 1))
            for name, value in taken._rows().items():
                rows = self.get_parameter(name)
                value.copy_(rows[units.to(rows.device)])
            new = taken.projection()
            new.weight.copy_(down.weight[:, units.to(down.weight.device)])
            if new.bias is not None:
                new.bias.copy_(down.bias)
        return taken

    def _empty(self: UnitsT, hidden: int) -> UnitsT:
        """A block like this one of so many units, whose maps are not filled."""
        up, down = self.up, self.projection()
        new_up = linear_like(up, up.in_features, self.gates * hidden)
        new_down = linear_like(down, hidden, down.out_features)
        # The maps stand in for themselves while the rest is copied: no draw of the random state, no large copy.
        other = copy.deepcopy(self, {id(up): new_up, id(down): new_down})
        other.hidden, other.nested, other._drawn, other.chosen = hidden, (), None, None
        for name, rows in self._rows().items():
            other.register_parameter(name, nn.Parameter(rows.detach().new_empty(hidden, *rows.shape[1:])))
        return other

    def _rows(self) -> dict[str, nn.Parameter]:
        """The parameters of ``by_unit`` that there are."""
        return {name: getattr(self, name) for name in self.by_unit if getattr(self, name) is not None}

    def projection(self) -> nn.Linear:
        """``down``; a block without it is an ``InputError``."""
        if not isinstance(self.down, nn.Linear):
            raise InputError("units that are not projected cannot be chosen", where=type(self).__name__)
        return self.down

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.hidden:
            raise InputError(f"{count} of {self.hidden} hidden units cannot be taken", where=type(self).__name__)
