"""Presets: functions that give a full configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from apps.asr.augment import AugmentConfig
from apps.asr.config import SIZES, AsrConfig, ModelConfig
from apps.asr.tokenizer import TokenizerConfig
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings

PEAK = {"xs": 2e-3, "s": 2e-3, "sm": 1.5e-3, "m": 1.5e-3, "ml": 1e-3, "l": 5e-4}
"""Peak learning rates of NVIDIA/NeMo's recipe, for batches of 1024 utterances (2048: ML, L)."""


def default() -> AsrConfig:
    """For corpora of minutes to some hours on a CPU, from scratch: ``manyformer asr train``.

    Eight blocks of width 96, letters as tokens, three speeds, averaged weights, a little silence around every
    recording. Unlike the published sizes it norms what a sublayer reads, not the stream, which learns to spell in fewer
    steps: chosen by short trials on three hours of read speech (training and validation splits).
    """
    return AsrConfig(
        augment=AugmentConfig(frequency_masks=2, frequency_width=15, time_masks=2, speeds=(0.9, 1.0, 1.1)),
        # The published momentum, 0.015, is one of long runs: here the running statistics would lag behind.
        model=ModelConfig(width=96, layers=8, heads=4, reduce=3, placement="pre", conv_momentum=0.1),
        optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), eps=1e-9, weight_decay=5e-4),
        schedule=ScheduleConfig(name="warmup_cosine", warmup=0.1),
        fit=FitSettings(max_epochs=60, clip_norm=5.0, ema=0.998),
        batch_seconds=16.0,
        pad_seconds=0.08,
    )


def tiny() -> AsrConfig:
    """For trying things out: ``manyformer asr train --preset tiny``. Three narrow blocks, a few epochs."""
    return AsrConfig(
        augment=AugmentConfig(frequency_masks=0, time_masks=0),
        model=ModelConfig(width=32, layers=3, heads=2, reduce=1, kernel=15, conv_momentum=0.1, dropout=0.0),
        optim=OptimConfig(lr=4e-3, betas=(0.9, 0.98), weight_decay=5e-4),
        schedule=ScheduleConfig(name="warmup_cosine", warmup=0.1),
        fit=FitSettings(max_epochs=4, clip_norm=5.0),
        batch_seconds=30.0,
    )


def published(size: str) -> AsrConfig:
    """A published size with its recipe: ``manyformer asr train --preset xs --data LibriSpeech``.

    It needs LibriSpeech (960 hours) and graphics cards: 500 epochs of batches of 1024 utterances (2048: ML, L) on
    several of them, here 8192 seconds of audio (16384). 128 SentencePiece pieces; AdamW, betas 0.9 and 0.98, decay 5e-4
    [U: by way of another program's tests]; the rate rises over 20 epochs, stays at its peak for 160, then falls as the
    reciprocal of the steps [U: both as commented in NeMo's configuration], its peak as in NeMo's recipe; SpecAugment
    with the released widths and number of masks. Nobody has trained these here: the published error rates are the
    paper's, not ours.
    """
    found = SIZES[size]
    return AsrConfig(
        augment=AugmentConfig(time_masks=found.time_masks),
        tokenizer=TokenizerConfig(kind="sentencepiece", pieces=128),
        model=found.model(),
        optim=OptimConfig(lr=PEAK[size], betas=(0.9, 0.98), eps=1e-9, weight_decay=5e-4),
        schedule=ScheduleConfig(name="hold_anneal", warmup=20 / 500, hold=160 / 500),
        fit=FitSettings(max_epochs=500),
        batch_seconds=16384.0 if size in ("ml", "l") else 8192.0,
        longest=16.7,
        watch="wer",
    )


PRESETS: dict[str, Callable[[], AsrConfig]] = {
    "default": default,
    "tiny": tiny,
    **{size: partial(published, size) for size in SIZES},
}
"""Presets by the names used on the command line; the first is what a command without ``--preset`` begins with."""
