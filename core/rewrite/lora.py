"""Adapters of low rank are attached, and merged (LoRA; Hu et al., arXiv 2106.09685); see :mod:`core.rewrite.adapters`.

After ``lora`` the model computes what it did, and its adapters alone can be trained: every other parameter is frozen
(running statistics of batch norms still move in training mode). After ``merge`` it is as it was before, of the same
sizes under the same names, with other weights, and all of it can be trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.attention import HeadedAttention, RelativeAttention
from core.errors import InputError
from core.rewrite.adapter_norms import norm_diagnostic
from core.rewrite.adapters import LoRALinear
from core.rewrite.base import Evidence, ModuleT, NoOptions, Pass, blocks_of, replaced
from core.rewrite.decisions import block_at, number, part, whole
from core.rewrite.maps import block_maps, matching


@dataclass(frozen=True, kw_only=True)
class LoRAOptions:
    """Which maps get adapters, and of which kind."""

    rank: int = 8
    """r."""
    alpha: float = 16.0
    """What an adapter adds is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Probability of dropping a number that an adapter reads, in training."""
    rank_stabilised: bool = False
    """Multiply by alpha / sqrt(rank)."""
    maps: tuple[str, ...] = ()
    """Patterns of names, such as qkv or before.*; all maps by which blocks read and write unless given."""
    slices: str = ""
    """Of maps to queries, keys and values, the thirds with an adapter, such as qv; one adapter of all three unless
    given."""
    seed: int = 0
    """Of the start of the adapters."""


class LoRA(Pass[LoRAOptions]):
    """Linear maps are frozen and get adapters."""

    name = "lora"
    status = "exact"
    line = "every weight is frozen, and linear maps get adapters of low rank, which alone are trained"
    source = "Hu et al., arXiv 2106.09685"
    options = LoRAOptions

    def decide(self, model: nn.Module, options: LoRAOptions, evidence: Evidence) -> dict[str, Any]:
        """The maps, each with its thirds."""
        maps = {path: module for path, module in block_maps(model).items() if type(module) is nn.Linear}
        if not maps:
            raise InputError("no block of the model has a plain linear map", where=self.name)
        fused = {id(block.qkv) for block in model.modules() if isinstance(block, HeadedAttention | RelativeAttention)}
        chosen = matching(maps, options.maps, self.name, "plain linear map")
        slices = {path: options.slices if id(module) in fused else "" for path, module in chosen.items()}
        if options.slices and not any(slices.values()):
            what = f"none of the maps has the thirds {options.slices!r}"
            raise InputError(what, where=self.name, mend="slices are those of maps called qkv")
        decision = {
            "maps": slices,
            "rank": options.rank,
            "alpha": options.alpha,
            "dropout": options.dropout,
            "rank_stabilised": options.rank_stabilised,
            "seed": options.seed,
        }
        for path in slices:
            self._layer(model, path, decision, 0)
        return decision

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with adapters, everything else frozen."""
        paths = part(decision, "maps", dict, self.name)
        seed = whole(decision.get("seed"), 0, 2**62, self.name)
        made = {path: self._layer(model, path, decision, seed + index) for index, path in enumerate(paths)}
        adapted = replaced(model, made)
        adapted.requires_grad_(False)
        for layer in blocks_of(adapted, LoRALinear).values():
            layer.adapters.requires_grad_(True)
        return adapted

    def _layer(self, model: nn.Module, path: str, decision: Mapping[str, Any], seed: int) -> LoRALinear:
        base = block_at(model, path, nn.Linear, "linear map")
        rank = whole(decision.get("rank"), 1, min(base.in_features, base.out_features), path)
        return LoRALinear(
            copy.deepcopy(base),
            rank=rank,
            alpha=number(decision.get("alpha"), self.name),
            dropout=number(decision.get("dropout"), self.name),
            rank_stabilised=part(decision, "rank_stabilised", bool, self.name),
            thirds=part(part(decision, "maps", dict, self.name), path, str, self.name),
            seed=seed,
        ).train(base.training)


class Merge(Pass[NoOptions]):
    """Adapters become a part of the maps that they adapt."""

    name = "merge"
    status = "exact"
    line = "adapters of low rank become a part of the maps that they adapt"
    source = "Hu et al., arXiv 2106.09685"
    options = NoOptions

    def decide(self, model: nn.Module, options: NoOptions, evidence: Evidence) -> dict[str, Any]:
        """The maps with adapters, and how large the numbers of adapted attentions are."""
        layers = blocks_of(model, LoRALinear)
        if not layers:
            raise InputError("the model has no adapters", where=self.name, mend="the pass lora attaches them")
        norms = [] if evidence.run is None else norm_diagnostic(model, evidence)
        return {"maps": [*layers], "norms": norms}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with plain linear maps, all of it trainable."""
        paths = part(decision, "maps", list, self.name)
        layers = {str(path): block_at(model, path, LoRALinear, "map with adapters") for path in paths}
        merged = replaced(model, {path: layer.merged() for path, layer in layers.items()})
        return merged.requires_grad_(True)
