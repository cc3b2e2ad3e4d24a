"""Presets: functions that give a full configuration."""

from __future__ import annotations

from collections.abc import Callable

from apps.tabular.prediction.config import MixingConfig, ModelConfig, TabularConfig
from apps.tabular.prediction.data.encode import EncodingConfig
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings


def tiny() -> TabularConfig:
    """For trying things out: ``manyformer tabular train --preset tiny``. One small network, a few epochs."""
    return TabularConfig(
        model=ModelConfig(width=16, heads=4, layers=2),
        optim=OptimConfig(lr=5e-3, weight_decay=0.0),
        fit=FitSettings(max_epochs=12, patience=6),
    )


def default() -> TabularConfig:
    """For tables of up to some ten thousand rows on a CPU: ``manyformer tabular train``.

    Four networks of width 64 with four heads; AdamW at 2e-3 with decay 0.3, warm-up and a cosine over 60 epochs, the
    gradient's norm limited to 1, patience 30; no mixing, no category embedding. Chosen by hand on held-out parts of the
    training and validation rows of nine small public tables; no test rows were looked at. Such a choice still favours
    tables like those.
    """
    return TabularConfig(
        model=ModelConfig(width=64, heads=4, layers=3),
        optim=OptimConfig(lr=2e-3, weight_decay=0.3),
        schedule=ScheduleConfig(name="warmup_cosine", warmup=0.05),
        fit=FitSettings(max_epochs=60, patience=30, clip_norm=1.0),
        members=4,
    )


def official() -> TabularConfig:
    """The released program's run: ``manyformer tabular train --preset official``. Slow on a CPU.

    L 3, d 256, H 32, attention dropout 0.3, AdamW at 1e-4 without decay, warm-up over 10 of at most 500 epochs and then
    a cosine, patience 200, Feat-Mix with beta 0.5 (one of the two augmentations that its script runs), its encoding.
    The warm-up here rises by step, there by epoch.
    """
    return TabularConfig(
        encoding=EncodingConfig(profile="official"),
        model=ModelConfig(),
        mixing=MixingConfig(kind="feat", beta=0.5),
        optim=OptimConfig(lr=1e-4, weight_decay=0.0),
        schedule=ScheduleConfig(name="warmup_cosine", warmup=10 / 500),
        fit=FitSettings(max_epochs=500, patience=200),
        watch="metric",
        batch_size="official",
    )


PRESETS: dict[str, Callable[[], TabularConfig]] = {"default": default, "tiny": tiny, "official": official}
"""Presets by the names used on the command line; the first is what a command without ``--preset`` begins with."""
