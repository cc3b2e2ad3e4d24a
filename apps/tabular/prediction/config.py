"""Every setting of the application, as plain data: numbers, words and nested records, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from apps.tabular.prediction.data.encode import EncodingConfig
from core.errors import InputError
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings

Kind = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are the published architecture (released program, run configuration)."""

    width: int = 256
    """Width D of a token."""
    heads: int = 32
    """Attention heads; must divide the width."""
    layers: int = 3
    """Blocks of attention and feed-forward."""
    mixer: str = "softmax"
    """Token mixer, a name in ``core.attention.MIXERS`` or ``core.convolution.CONVOLUTIONS``; it must be able to follow
    the mask."""
    norm: str = "layernorm"
    """Normalisation, a name in ``core.norm.NORMS``."""
    feedforward: str = "glu"
    """Feed-forward, a name in ``core.feedforward.FEEDFORWARDS``. ``glu``: value * tanh(gate), the published one;
    ``mlp``: two layers with GELU and as many weights; ``experts``: four of those, two for each token."""
    placement: Literal["pre", "post", "peri", "none"] = "pre"
    """Where the norm stands in a block."""
    attention_dropout: float = 0.3
    """Dropout of attention probabilities."""
    residual_dropout: float = 0.0
    """Dropout of what a block adds."""
    init_scale: float = 0.01
    """Width of the initial query, key, value and feed-forward weights, relative to the usual; 1 is no attenuation."""
    head: Literal["official", "paper"] = "official"
    """How tokens become outputs."""
    mask: Literal["semi_permeable", "full", "reversed"] = "semi_permeable"
    """Which features a feature may read: those at least as informative (published), all, or (to compare) the others."""
    ties: Literal["arbitrary", "mutual"] = "arbitrary"
    """Features of equal importance: read in the order they stand in, or each other."""
    category_embedding: bool = False
    """Add a learned vector for each category to the token of its feature (an extension)."""


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Augmentation: each training row is mixed with another of its batch, labels in proportion."""

    kind: Literal["none", "feat", "hidden", "input"] = "none"
    """``feat``: exchange whole features; ``hidden``: exchange embedding dimensions; ``input``: interpolate rows."""
    beta: float = 0.5
    """The share r is drawn from Beta(beta, beta)."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise InputError(f"must be positive, got {self.beta}", where="mixing.beta")


@dataclass(frozen=True, kw_only=True)
class TabularConfig:
    """Everything that decides a trained model, besides the data."""

    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    """From table to numbers."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    """Augmentation."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over the run."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Length of a run. Its seed, and what it watches, are set from ``seed`` and ``watch``."""
    watch: Literal["auto", "metric", "loss"] = "auto"
    """Validation number that picks the best weights. "metric": AUC, accuracy or RMSE by kind of target, as released;
    "auto": the same but for several classes, where accuracy is too coarse on few rows: there the loss."""
    members: int = 1
    """Networks trained from different seeds, whose predictions are averaged."""
    batch_size: int | Literal["auto", "official"] = "auto"
    """Rows of a training batch. "official" takes fewer of wide tables, as released; "auto" also fewer of short ones."""
    validation_fraction: float = 0.15
    """Share of the training rows set aside for validation where none are given."""
    seed: int = 0
    """Decides everything random."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"must be at least 1, got {self.members}", where="members")
        known = self.batch_size >= 1 if isinstance(self.batch_size, int) else self.batch_size in ("auto", "official")
        if not known:
            raise InputError(f"must be at least 1, 'auto' or 'official', got {self.batch_size!r}", where="batch_size")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"must lie between 0 and 1, got {self.validation_fraction}", where="validation_fraction")

    def rows_per_batch(self, n_features: int, n_rows: int) -> int:
        """``batch_size`` with the words resolved; no more than there are rows.

        "official": 512 rows, 128 above 32 features, 32 above 100, 16 above 1000. "auto": at most that, and the power of
        two nearest to a 32nd of the rows (at least 32, at most 256), so that a short table too makes enough steps.

        >>> [TabularConfig(batch_size="official").rows_per_batch(n, 9000) for n in (8, 33, 101, 1001)]
        [512, 128, 32, 16]
        >>> [TabularConfig().rows_per_batch(8, n) for n in (20, 500, 2000, 9000)]
        [20, 32, 64, 256]
        """
        if isinstance(self.batch_size, int):
            return min(self.batch_size, n_rows)
        rows = next(rows for most, rows in OFFICIAL_BATCH if n_features <= most)
        if self.batch_size == "auto":
            near: int = 2 ** round(math.log2(max(n_rows / 32, 1)))
            rows = min(rows, max(32, min(256, near)))
        return min(rows, n_rows)


OFFICIAL_BATCH: tuple[tuple[float, int], ...] = ((32, 512), (100, 128), (1000, 32), (float("inf"), 16))
"""Features at most -> rows of a batch, in the released program."""
