"""Presets: functions that give a full configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from apps.vision.segmentation.config import SIZES, AdaptationConfig, ModelConfig, SegmentationConfig
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.rare import RareClassConfig
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings

STEPS, EVERY = 40_000, 2_000
"""Of the published recipe: steps of a run, and those after which is evaluated."""


def small() -> SegmentationConfig:
    """For sets of some hundred images on a CPU, from scratch: ``manyformer segmentation train``.

    Mix Transformer B0 with a narrow head whose context is that of the last stage: on a processor a step is 1.7 times as
    fast as with DAFormer's. Pseudo-labels come late, as the teacher of an untrained network teaches noise: three
    quarters of the steps learn from the source alone, and are as fast; then images are mixed too, after a teacher that
    follows faster (alpha 0.99), and what it says of rare classes counts more (balance 0.5), as they would be washed
    away otherwise. The last weights are kept: those that are best on the source are from before. Rare classes are drawn
    with temperature 0.1: at the published 0.01 nearly all draws of a small set fall on its few rarest classes.
    """
    crop = CropConfig(crop=(160, 224))
    return SegmentationConfig(
        model=ModelConfig(context="last", head_width=64, dilations=(1, 2, 4), drop_path=0.0),
        adaptation=AdaptationConfig(
            alpha=0.99,
            threshold=0.9,
            share_of="image",
            balance=0.5,
            ignore_top=0,
            ignore_bottom=0,
            mix_classes_of="image",
            mix_ignored=False,
            mix_start=0.75,
            mix_ramp=0.02,
        ),
        source=crop,
        target=crop,
        rare=RareClassConfig(temperature=0.1),
        photometric=True,
        mean_over="labelled",
        batch=4,
        optim=OptimConfig(lr=3e-3),
        head_rate=1.0,
        schedule=ScheduleConfig(name="warmup_times_linear", warmup=0.05),
        fit=FitSettings(max_epochs=40),
        watch="last",
    )


def tiny() -> SegmentationConfig:
    """For trying things out on ``synthetic:streets``: ``--preset tiny``. A very narrow network, a few epochs."""
    config = small()
    crop = CropConfig(crop=(64, 96))
    return dataclasses.replace(
        config,
        model=ModelConfig(
            widths=(16, 32, 40, 64),
            depths=(1, 1, 1, 1),
            heads=(1, 1, 1, 2),
            head_width=32,
            dilations=(1, 2, 4),
            drop_path=0.0,
            head_dropout=0.0,
        ),
        source=crop,
        target=crop,
        batch=8,
        epoch_images=96,
        fit=FitSettings(max_epochs=4),
    )


def released(size: str = "b5") -> SegmentationConfig:
    """DAFormer as its program has it: ``--preset b5 --data GTA --target CITYSCAPES --pretrained mit_b5.pth``.

    40,000 steps of two crops of 512 from each domain: GTA at 1280 x 720, Cityscapes at 1024 x 512 (for Synthia, give
    ``--source.box 760 1280``). It wants ImageNet weights, for its start and for the feature distance, and a graphics
    card with 10 GB. Nobody has trained these here: the published numbers are the paper's, not ours.
    """
    return SegmentationConfig(
        model=SIZES[size].model(),
        source=CropConfig(box=(720, 1280)),
        target=CropConfig(box=(512, 1024)),
        epoch_images=2 * EVERY,
        schedule=ScheduleConfig(name="warmup_times_linear", warmup=1500 / STEPS),
        fit=FitSettings(max_epochs=STEPS // EVERY),
        watch="last",
    )


def paper() -> SegmentationConfig:
    """As the paper says it, where the released program differs: confidence and ClassMix of each image, a strict
    threshold, frequencies among all pixels, the feature distance a mean over images [U: recalled, not re-read]."""
    config = released()
    adaptation = dataclasses.replace(
        config.adaptation, test="above", share_of="image", mix_classes_of="image", distance_mean="image"
    )
    return dataclasses.replace(config, adaptation=adaptation, rare=RareClassConfig(shares_of="all"))


def fixed() -> SegmentationConfig:
    """The released program without what looks like a slip: confidence and ClassMix of each image, ClassMix without
    "not labelled", losses averaged over pixels that have a label."""
    config = released()
    adaptation = dataclasses.replace(config.adaptation, share_of="image", mix_classes_of="image", mix_ignored=False)
    return dataclasses.replace(config, adaptation=adaptation, mean_over="labelled")


PRESETS: dict[str, Callable[[], SegmentationConfig]] = {
    "default": small,
    "tiny": tiny,
    **{size: partial(released, size) for size in SIZES},
    "released": released,
    "paper": paper,
    "fixed": fixed,
}
"""Presets by the names used on the command line; the first is what a command without ``--preset`` begins with."""
