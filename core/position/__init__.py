"""Positions as plugs of attention; :data:`POSITIONS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.position.alibi import Alibi, alibi_slopes
from core.position.base import Position
from core.position.rotary import Rotary, rotate

POSITIONS: dict[str, type[Position]] = {"none": Position, "rotary": Rotary, "alibi": Alibi}

__all__ = ["POSITIONS", "Alibi", "Position", "Rotary", "alibi_slopes", "rotate"]
