"""Per-position maps; :data:`FEEDFORWARDS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.feedforward.base import ACTIVATIONS, FeedForward
from core.feedforward.glu import GLU
from core.feedforward.mlp import MLP

FEEDFORWARDS: dict[str, type[FeedForward]] = {"glu": GLU, "mlp": MLP}

__all__ = ["ACTIVATIONS", "FEEDFORWARDS", "GLU", "MLP", "FeedForward"]
