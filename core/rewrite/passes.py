"""The table of passes."""

from __future__ import annotations

from typing import Any

from core.rewrite.base import Pass
from core.rewrite.low_rank import LowRank

PASSES: dict[str, Pass[Any]] = {each.name: each for each in (LowRank(),)}
"""By their names."""
