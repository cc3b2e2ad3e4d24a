"""Normalisation layers; :data:`NORMS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.norm.base import Norm
from core.norm.identity import Identity
from core.norm.layernorm import LayerNorm
from core.norm.rmsnorm import RMSNorm

NORMS: dict[str, type[Norm]] = {"identity": Identity, "layernorm": LayerNorm, "rmsnorm": RMSNorm}

__all__ = ["NORMS", "Identity", "LayerNorm", "Norm", "RMSNorm"]
