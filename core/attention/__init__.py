"""Token mixers; :data:`MIXERS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.attention.base import Capabilities, Mixer
from core.attention.softmax import SoftmaxAttention, softmax_attention

MIXERS: dict[str, type[Mixer]] = {"softmax": SoftmaxAttention}

__all__ = ["MIXERS", "Capabilities", "Mixer", "SoftmaxAttention", "softmax_attention"]
