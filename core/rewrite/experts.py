"""Dense feed-forwards become experts, and experts dense feed-forwards again (EMoE, arXiv 2310.10908).

    y = sum over e of expert_e(x) + b = dense(x)                  with all experts active
    y = sum over the kept e of expert_e(x) + b                    otherwise

The hidden units are clustered by their keys into experts of equal size, and each position is mapped by the experts with
whose mean key it agrees most (:mod:`core.feedforward.split`). The decision holds the expert of every unit, so that no
cluster is looked for when a model is loaded. Nothing is learned by the router: the weights are those of the dense
block, and after a training with few active experts they can be one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.errors import InputError
from core.feedforward import GLU, MLP, Experts, HiddenUnits, expert_labels, split_into_experts
from core.rewrite.base import Evidence, ModuleT, Pass, Status, blocks_of, replaced
from core.rewrite.decisions import block_at, part, whole, wholes
from core.rewrite.maps import fitting
from core.rewrite.stacks import relabelled
from core.rewrite.units import altered, dense_blocks, unfit_units, units_at


@dataclass(frozen=True, kw_only=True)
class ExpertsOptions:
    """How to divide."""

    experts: int = 4
    """Experts of a block; they divide its hidden units."""
    active: int = 2
    """Experts that map a position; as many as there are change nothing."""
    blocks: tuple[str, ...] = ()
    """Patterns of paths of feed-forwards, such as after.*; all that fit unless given."""


class SplitIntoExperts(Pass[ExpertsOptions]):
    """Dense feed-forwards become experts."""

    name = "experts"
    status = "approximate"
    line = "feed-forwards become experts of units that fire together, few of them active"
    source = "EMoE, arXiv 2310.10908"
    options = ExpertsOptions

    def decide(self, model: nn.Module, options: ExpertsOptions, evidence: Evidence) -> dict[str, Any]:
        """The expert of every hidden unit."""
        experts, active = options.experts, options.active
        if not 1 <= active <= experts:
            raise InputError(f"{active} of {experts} experts cannot be active", where=self.name)
        labels: dict[str, list[int]] = {}
        dense, mend = dense_blocks(model), "an mlp, or a glu with its projection, fits"
        if not dense:
            raise InputError("the model has no feed-forward of hidden units", where=self.name, mend=mend)
        chosen = fitting(dense, options.blocks, _undividable, where=self.name, what="feed-forward", mend=mend)
        for path, block in chosen.items():
            if block.hidden % experts:
                what = f"{experts} experts do not divide the {block.hidden} hidden units of {path}"
                raise InputError(what, where=self.name, mend="give another number of experts")
            labels[path] = expert_labels(block, experts).tolist()
        return {"labels": labels, "experts": experts, "active": active}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with experts in place of the blocks."""
        made: dict[str, nn.Module] = {}
        for path, labels in part(decision, "labels", dict, self.name).items():
            block = units_at(model, path)
            if not isinstance(block, MLP | GLU):
                raise InputError(_undividable(block) or "", where=path)
            experts = whole(decision.get("experts"), 1, block.hidden, self.name)
            active = whole(decision.get("active"), 1, experts, self.name)
            found = torch.tensor(wholes(labels, 0, experts - 1, path), dtype=torch.int64)
            made[path] = split_into_experts(block, experts, active, labels=found)
        return relabelled(replaced(model, made))

    def statuses(self, decision: Mapping[str, Any]) -> Status:
        """Exact where all experts are active."""
        return "exact" if decision.get("active") == decision.get("experts") else "approximate"


@dataclass(frozen=True, kw_only=True)
class MergeExpertsOptions:
    """Which to merge."""

    blocks: tuple[str, ...] = ()
    """Patterns of paths of experts; all that fit unless given."""


class MergeExperts(Pass[MergeExpertsOptions]):
    """Experts become the dense feed-forward that they are together."""

    name = "merge_experts"
    status = "approximate"
    line = "experts with the average router become the dense feed-forward that they are together"
    source = "EMoE, arXiv 2310.10908"
    options = MergeExpertsOptions

    def decide(self, model: nn.Module, options: MergeExpertsOptions, evidence: Evidence) -> dict[str, Any]:
        """The blocks, and whether all experts of all of them are active."""
        blocks = blocks_of(model, Experts)
        if not blocks:
            raise InputError("the model has no experts", where=self.name)
        mend = "the average router has weights of one"
        kept = fitting(blocks, options.blocks, _unmergeable, where=self.name, what="block of experts", mend=mend)
        exact = all(block.active == len(block.experts) for block in kept.values())
        return {"blocks": [*kept], "exact": exact}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with dense blocks in place of the experts."""
        made: dict[str, nn.Module] = {}
        for path in part(decision, "blocks", list, self.name):
            block = block_at(model, path, Experts, "block of experts")
            reason = _unmergeable(block)
            if reason is not None:
                raise InputError(reason, where=str(path))
            made[str(path)] = block.merge()
        return relabelled(replaced(model, made))

    def statuses(self, decision: Mapping[str, Any]) -> Status:
        """Exact where all experts were active."""
        return "exact" if decision.get("exact") is True else "approximate"


def _undividable(block: HiddenUnits) -> str | None:
    """Why a feed-forward cannot become experts; None where it can."""
    return unfit_units(block) if isinstance(block, MLP | GLU) else f"{type(block).__name__} is no mlp or glu"


def _unmergeable(block: Experts) -> str | None:
    """Why experts are no dense feed-forward; None where they are."""
    if block.router is not None:
        return "experts weighted by a softmax are no plain feed-forward"
    if any(altered(each) for each in block.experts):
        return "its maps are no plain linear ones any more"
    return None
