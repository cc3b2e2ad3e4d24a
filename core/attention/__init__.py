"""Token mixers; :data:`MIXERS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.attention.base import Capabilities, Mixer
from core.attention.relative import RelativeAttention, relative_attention, relative_positions, relative_shift
from core.attention.softmax import SoftmaxAttention, softmax_attention

MIXERS: dict[str, type[Mixer]] = {"relative": RelativeAttention, "softmax": SoftmaxAttention}

__all__ = [
    "MIXERS",
    "Capabilities",
    "Mixer",
    "RelativeAttention",
    "SoftmaxAttention",
    "relative_attention",
    "relative_positions",
    "relative_shift",
    "softmax_attention",
]
