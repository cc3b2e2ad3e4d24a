"""Per-position maps; :data:`FEEDFORWARDS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.feedforward.activations import ACTIVATIONS, LEARNED_ACTIVATIONS, StarReLU
from core.feedforward.activator import Activator
from core.feedforward.base import FeedForward
from core.feedforward.experts import Experts
from core.feedforward.glu import GLU
from core.feedforward.memory import Memory, MemoryLayer
from core.feedforward.mix import MixFFN
from core.feedforward.mlp import MLP
from core.feedforward.nested import choose, extract
from core.feedforward.split import balanced_clusters, expert_labels, split_into_experts
from core.feedforward.units import HiddenUnits

FEEDFORWARDS: dict[str, type[FeedForward]] = {
    "activator": Activator,
    "experts": Experts,
    "glu": GLU,
    "memory": Memory,
    "mixffn": MixFFN,
    "mlp": MLP,
}

__all__ = [
    "ACTIVATIONS",
    "FEEDFORWARDS",
    "GLU",
    "LEARNED_ACTIVATIONS",
    "MLP",
    "Activator",
    "Experts",
    "FeedForward",
    "HiddenUnits",
    "Memory",
    "MemoryLayer",
    "MixFFN",
    "StarReLU",
    "balanced_clusters",
    "choose",
    "expert_labels",
    "extract",
    "split_into_experts",
]
