"""Rewrites: a trained model becomes a smaller, faster or adaptable one; :data:`PASSES` maps names to passes."""

from __future__ import annotations

from core.rewrite.base import (
    Evidence,
    Pass,
    Rewrite,
    blocks_of,
    replaced,
    rewrites_from_state,
    rewrites_state,
)
from core.rewrite.harness import Inexact, Rewritten, pass_named, replay, rewrite
from core.rewrite.passes import PASSES

__all__ = [
    "PASSES",
    "Evidence",
    "Inexact",
    "Pass",
    "Rewrite",
    "Rewritten",
    "blocks_of",
    "pass_named",
    "replaced",
    "replay",
    "rewrite",
    "rewrites_from_state",
    "rewrites_state",
]
