"""Token mixers; :data:`MIXERS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.attention.base import Capabilities, GridMixer, Mixer
from core.attention.headed import HeadedAttention
from core.attention.identity import IdentityMixer
from core.attention.linear import linear_attention
from core.attention.linformer import Linformer
from core.attention.minimal import MinimalAttention
from core.attention.nala import NaLaAttention
from core.attention.normlin import NormLin
from core.attention.pooling import Pooling
from core.attention.random_mixing import RandomMixing
from core.attention.reduced import SpatialReductionAttention
from core.attention.relative import RelativeAttention, relative_attention, relative_shift
from core.attention.sinusoids import relative_positions
from core.attention.softmax import SoftmaxAttention, softmax_attention
from core.attention.stickbreaking import StickBreakingAttention
from core.attention.topk import TopKAttention

MIXERS: dict[str, type[Mixer]] = {
    "identity": IdentityMixer,
    "linformer": Linformer,
    "minimal": MinimalAttention,
    "nala": NaLaAttention,
    "normlin": NormLin,
    "pooling": Pooling,
    "random": RandomMixing,
    "relative": RelativeAttention,
    "softmax": SoftmaxAttention,
    "sra": SpatialReductionAttention,
    "stickbreaking": StickBreakingAttention,
    "topk": TopKAttention,
}

__all__ = [
    "MIXERS",
    "Capabilities",
    "GridMixer",
    "HeadedAttention",
    "IdentityMixer",
    "Linformer",
    "MinimalAttention",
    "Mixer",
    "NaLaAttention",
    "NormLin",
    "Pooling",
    "RandomMixing",
    "RelativeAttention",
    "SoftmaxAttention",
    "SpatialReductionAttention",
    "StickBreakingAttention",
    "TopKAttention",
    "linear_attention",
    "relative_attention",
    "relative_positions",
    "relative_shift",
    "softmax_attention",
]
