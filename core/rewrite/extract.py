"""Nested feed-forwards become plain ones of a chosen size (Devvrit et al., MatFormer, arXiv 2310.07707).

    FFN_g(x) = down_g(activation(up_g(x))),    up_g, down_g: the first g hidden units

The new network computes what the trained one computes with these sizes chosen (:mod:`core.feedforward.nested`), for
one share of the units in all blocks or one for each, also for combinations that were never trained together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.errors import InputError
from core.rewrite.base import Evidence, ModuleT, Pass, replaced
from core.rewrite.decisions import part, whole
from core.rewrite.units import dense_blocks, units_at


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """Which sizes."""

    shares: tuple[float, ...] = (0.5,)
    """Of the hidden units, in (0, 1]: one for all nested feed-forwards, or one for each in the model's order."""


class Extract(Pass[ExtractOptions]):
    """Nested feed-forwards become plain ones."""

    name = "extract"
    status = "approximate"
    line = "nested feed-forwards keep the first of their hidden units alone"
    source = "MatFormer, arXiv 2310.07707"
    options = ExtractOptions

    def decide(self, model: nn.Module, options: ExtractOptions, evidence: Evidence) -> dict[str, Any]:
        """The number of units that each nested feed-forward keeps."""
        blocks = {path: block for path, block in dense_blocks(model).items() if block.nested}
        if not blocks:
            what = "no feed-forward of the model is nested"
            raise InputError(what, where=self.name, mend="train it with nested shares, or use the pass prune")
        shares = options.shares * len(blocks) if len(options.shares) == 1 else options.shares
        if len(shares) != len(blocks):
            raise InputError(f"{len(shares)} shares for {len(blocks)} nested feed-forwards", where=self.name)
        for share in shares:
            if not 0.0 < share <= 1.0:
                raise InputError(f"shares are in (0, 1], not {share:g}", where=self.name)
        pairs = zip(blocks.items(), shares, strict=True)
        return {"sizes": {path: block.count_of(share) for (path, block), share in pairs}}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with plain feed-forwards in place of the nested ones."""
        made: dict[str, nn.Module] = {}
        for path, size in part(decision, "sizes", dict, self.name).items():
            block = units_at(model, path, chosen=True)
            made[path] = block.slice(whole(size, 1, block.hidden, path))
        return replaced(model, made)
