"""Parts of a trained model that its quality does not need are left out (AxFormer, arXiv 2010.03688 [abs]).

    for every part, in a fixed order:  leave it out if cost(model without it) <= lowest cost so far + tol

The parts are whole sublayers (the residual stream passes as it is), then heads of attention, then groups of hidden
units, in the order of the model; the units of a block go in groups of a share of it, those of the smallest weights,
|up_i| |down_i|, first. When something went, the walk begins again, until nothing goes: applied to its own result with
``tol=0`` the search leaves out nothing more. The cost is a number on validation data, the lower the better, and each
trial measures the smaller network itself. So the result never costs more than the start and ``tol``, on those data;
whether that holds on others is not said. Nothing is trained in between; the authors train on afterwards.

What is left out is left out of the weights: a head its rows of the maps to queries, keys and values (and of positions)
and its columns of the output map, a unit its rows and its column. The network is the one in which the columns are zero.

Known from the abstract alone; the order of the walk, the groups and the threshold are ours. The other half of the
paper, attention to the keys of highest score alone, is the mixer ``topk``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from core.attention import HeadedAttention, Mixer, RelativeAttention
from core.errors import InputError, nearest
from core.feedforward import HiddenUnits
from core.layout import Stack
from core.rewrite.base import Evidence, ModuleT, Pass, blocks_of, replaced
from core.rewrite.decisions import block_at, part, wholes
from core.rewrite.stacks import left_over, shorten
from core.rewrite.units import dense_blocks, unfit_units, units_at

KINDS = ("sublayers", "heads", "units")
"""What can be left out, in the order of the walk."""

_Gone = dict[str, dict[str, list[int]]]
"""By kind and path: positions in a stack's order, heads, hidden units, as the model numbers them."""


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What may be left out, and how the search goes."""

    elements: tuple[str, ...] = KINDS
    """Of sublayers, heads and units, those that are tried."""
    share: float = 0.125
    """Hidden units that are tried together, as a share of those that the block has."""
    tol: float = 0.0
    """How much the cost may rise in all."""
    most: int | None = None
    """Trials at most; each measures the cost once."""


class Prune(Pass[PruneOptions]):
    """Sublayers, heads and hidden units go that the validation cost does not need."""

    name = "prune"
    status = "approximate"
    line = "sublayers, heads and hidden units go, where the cost on validation data does not rise"
    source = "AxFormer [abs], arXiv 2010.03688; order and thresholds: ours"
    options = PruneOptions

    def decide(self, model: nn.Module, options: PruneOptions, evidence: Evidence) -> dict[str, Any]:
        """What goes, by path; the steps, each with the cost before and after."""
        cost = self.needs(evidence, "cost")
        _check(options)
        search = _Search(self, model, options, cost)
        if next(search.candidates(), None) is None:
            what = f"the model has no {' or '.join(options.elements)} that could go"
            raise InputError(what, where=self.name, mend="softmax-like attention, mlp and projected glu have such")
        search.run()
        lost = left_over(model, search.gone.get("sublayers", {}))
        # What is within a sublayer that went later is of no account.
        gone = {
            kind: {path: sorted(each) for path, each in of_kind.items() if id(model.get_submodule(path)) not in lost}
            for kind, of_kind in search.gone.items()
        }
        return {**gone, "steps": search.steps, "start": search.start, "end": search.last, "trials": search.trials}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model without the parts."""
        made: dict[str, nn.Module] = {}
        for path, gone in part(decision, "heads", dict, self.name).items():
            made[path] = _without_heads(model, path, gone)
        for path, gone in part(decision, "units", dict, self.name).items():
            units = units_at(model, path)
            made[path] = units.prune(wholes(gone, 0, units.hidden - 1, path))
        shorter: dict[str, list[int]] = {}
        for path, gone in part(decision, "sublayers", dict, self.name).items():
            stack = block_at(model, path, Stack, "stack")
            shorter[path] = wholes(gone, 0, len(stack.order) - 1, path)
        pruned = replaced(model, made)
        for path, positions in shorter.items():
            shorten(block_at(pruned, path, Stack, "stack"), set(positions))
        return pruned


@dataclass
class _Search:
    """The walk: what is gone by now, and what it costs."""

    prune: Prune
    model: nn.Module
    options: PruneOptions
    cost: Any
    gone: _Gone = field(default_factory=lambda: {kind: {} for kind in KINDS})
    steps: list[dict[str, Any]] = field(default_factory=list)
    trials: int = 0

    def run(self) -> None:
        """Walk until nothing goes, or there were as many trials as may be."""
        self.start = self.last = self.lowest = self._measure(self.model)
        went = True
        while went:
            went = False
            for kind, path, parts in self.candidates():
                if self.options.most is not None and self.trials >= self.options.most:
                    return
                went = self._try(kind, path, parts) or went

    def _try(self, kind: str, path: str, parts: list[int]) -> bool:
        """Leave some parts out, if that costs no more than may be."""
        self.trials += 1
        trial = {each: dict(of_kind) for each, of_kind in self.gone.items()}
        trial[kind][path] = [*trial[kind].get(path, []), *parts]
        after = self._measure(self.prune.apply(self.model, trial))
        if not after <= self.lowest + self.options.tol:
            return False
        step = {"element": kind, "where": path, "which": parts, "before": self.last, "after": after}
        self.steps.append(step)
        self.gone, self.last, self.lowest = trial, after, min(self.lowest, after)
        return True

    def _measure(self, model: nn.Module) -> float:
        cost = float(self.cost(model))
        if self.trials == 0 and not math.isfinite(cost):
            raise InputError(f"the cost of the model is {cost}", where=self.prune.name)
        return cost

    def candidates(self) -> Iterator[tuple[str, str, list[int]]]:
        """What can go next, in order; what went in the meantime is seen."""
        walks = {"sublayers": self._sublayers, "heads": self._heads, "units": self._units}
        for kind in KINDS:
            if kind in self.options.elements:
                for path, parts in walks[kind]():
                    yield kind, path, parts

    def _sublayers(self) -> Iterator[tuple[str, list[int]]]:
        for path, stack in blocks_of(self.model, Stack).items():
            for position in range(0 if len(stack.recodings) else len(stack.order)):
                if position not in self.gone["sublayers"].get(path, ()):
                    yield path, [position]

    def _heads(self) -> Iterator[tuple[str, list[int]]]:
        for path, block in blocks_of(self.model, Mixer).items():  # type: ignore[type-abstract]
            if self._is_left(block) and isinstance(block, HeadedAttention | RelativeAttention) and _has_heads(block):
                for head in range(block.heads):
                    gone = self.gone["heads"].get(path, [])
                    if head not in gone and len(gone) + 1 < block.heads:
                        yield path, [head]

    def _units(self) -> Iterator[tuple[str, list[int]]]:
        for path, block in dense_blocks(self.model).items():
            if self._is_left(block) and unfit_units(block) is None and not block.nested:
                gone = set(self.gone["units"].get(path, []))
                order = [unit for unit in _by_contribution(block) if unit not in gone]
                size = max(1, round(self.options.share * len(order)))
                for first in range(0, len(order), size):
                    group, gone = order[first : first + size], set(self.gone["units"].get(path, []))
                    if len(gone) + len(group) < block.hidden:
                        yield path, group

    def _is_left(self, block: nn.Module) -> bool:
        """Whether a block is in a sublayer that has not gone."""
        return id(block) not in left_over(self.model, self.gone["sublayers"])


def _by_contribution(block: HiddenUnits) -> list[int]:
    """The hidden units by the size of their weights, the smallest first."""
    rows = block.up.weight.detach().double().view(block.gates, block.hidden, -1).transpose(0, 1)
    columns: Tensor = block.projection().weight.detach().double().T
    # Every unit's numbers in a row of their own: the order does not depend on how many units there are.
    size = rows.flatten(1).contiguous().norm(dim=1) * columns.contiguous().norm(dim=1)
    return [int(unit) for unit in size.argsort(stable=True)]


def _has_heads(block: HeadedAttention | RelativeAttention) -> bool:
    """Whether heads can be left out of a block."""
    ordinary = isinstance(block, RelativeAttention) or type(block).mix is HeadedAttention.mix
    position = [block.position] if isinstance(block, RelativeAttention) else []
    return ordinary and all(type(each) is nn.Linear for each in (block.qkv, block.out, *position))


def _without_heads(model: nn.Module, path: str, gone: Any) -> nn.Module:
    """The attention at a path without some heads."""
    block = block_at(model, path, Mixer, "mixer")  # type: ignore[type-abstract]
    if not isinstance(block, HeadedAttention | RelativeAttention) or not _has_heads(block):
        raise InputError(f"{type(block).__name__} has no heads that could go", where=path)
    left_out = set(wholes(gone, 0, block.heads - 1, path))
    return block.take_heads([head for head in range(block.heads) if head not in left_out])


def _check(options: PruneOptions) -> None:
    where = "prune"
    for element in options.elements:
        if element not in KINDS:
            raise InputError(f"no elements {element!r}", where=where, mend=nearest(element, list(KINDS)))
    if not options.elements:
        raise InputError("nothing may go", where=where, mend=f"elements are {', '.join(KINDS)}")
    if not 0.0 < options.share < 1.0:
        raise InputError(f"a share of the hidden units is between 0 and 1, not {options.share:g}", where=where)
    if not options.tol >= 0.0:
        raise InputError(f"tol must be at least 0, not {options.tol:g}", where=where)
    if options.most is not None and options.most < 0:
        raise InputError(f"most must be at least 0, not {options.most}", where=where)
