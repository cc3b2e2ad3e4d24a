"""The table of passes."""

from __future__ import annotations

from typing import Any

from core.rewrite.base import Pass
from core.rewrite.centring import ToCRMSNorm, ToRMSNorm
from core.rewrite.collapse import Collapse
from core.rewrite.experts import MergeExperts, SplitIntoExperts
from core.rewrite.extract import Extract
from core.rewrite.fold import Fold
from core.rewrite.lora import LoRA, Merge
from core.rewrite.low_rank import LowRank
from core.rewrite.prune import Prune

_ALL: tuple[Pass[Any], ...] = (
    SplitIntoExperts(),
    MergeExperts(),
    Extract(),
    LowRank(),
    LoRA(),
    Merge(),
    Collapse(),
    Prune(),
    Fold(),
    ToRMSNorm(),
    ToCRMSNorm(),
)
PASSES: dict[str, Pass[Any]] = {each.name: each for each in _ALL}
"""By their names."""
