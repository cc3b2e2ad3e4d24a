"""Normalisation layers; :data:`NORMS` maps the names that configurations use to classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.construction import construct
from core.errors import InputError, nearest
from core.norm.base import Norm
from core.norm.batchnorm import BatchNorm
from core.norm.crmsnorm import CRMSNorm
from core.norm.groupnorm import GroupNorm
from core.norm.identity import Identity
from core.norm.layernorm import LayerNorm
from core.norm.prepbn import PRepBN
from core.norm.rmsnorm import RMSNorm
from core.norm.unifiednorm import UnifiedNorm

NORMS: dict[str, type[Norm]] = {
    "batchnorm": BatchNorm,
    "crmsnorm": CRMSNorm,
    "groupnorm": GroupNorm,
    "identity": Identity,
    "layernorm": LayerNorm,
    "prepbn": PRepBN,
    "rmsnorm": RMSNorm,
    "unifiednorm": UnifiedNorm,
}


def norm_named(name: str, width: int, options: Mapping[str, Any], where: str) -> Norm:
    """The norm called ``name``, built with ``options``; what is wrong with either is an ``InputError`` at ``where``.

    >>> norm_named("layernorm", 8, {"eps": 1e-3}, "block")
    LayerNorm(8, eps=0.001)
    """
    if name not in NORMS:
        raise InputError(f"no norm {name!r}", where=where, mend=nearest(name, list(NORMS)))
    return construct(NORMS[name], width, options, f"{where}, norm {name!r}")


__all__ = [
    "NORMS",
    "BatchNorm",
    "CRMSNorm",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Norm",
    "PRepBN",
    "RMSNorm",
    "UnifiedNorm",
    "norm_named",
]
