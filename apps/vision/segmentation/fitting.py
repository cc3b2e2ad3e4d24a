"""From source and target to a trained segmentor.

``adaptation.kind`` says what is learned from: the source with its labels alone, the source and the target's images, or
the target with its labels, which are read for this kind only: they are another data set then
(:func:`.data.sources.load_supervised`), and no other kind has a place for them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apps.vision.segmentation.adapting import Adapting
from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.data.batches import AdaptationBatches, BatchConfig, Store
from apps.vision.segmentation.data.items import Adaptation, View
from apps.vision.segmentation.data.whole import Role, Watched, WholeImages
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.segmenter import Segmenter
from apps.vision.segmentation.task import AdaptationTask, Reference, SupervisedTask
from apps.vision.segmentation.watch import GREATER_IS_BETTER
from apps.vision.segmentation.weights import load_weights, read_state
from core.command import note
from core.optim import Optimizer
from core.training import FitResult, FitSettings, FixedSize, Loader, Progress, fit, preserved
from core.training.progress import ProgressName

WATCHED = 32
"""Training images of the target that are watched, at most, where it has no ``valid``."""
_EVALUATED = 8


@dataclass(frozen=True)
class Fitted:
    """What training gives: the segmenter, and how it came to be."""

    segmenter: Segmenter
    result: FitResult
    images: dict[str, int]
    """Of the source and of the target that were learned from."""


@preserved()
def fit_segmenter(
    config: SegmentationConfig,
    data: Adaptation,
    *,
    directory: Path | None = None,
    progress: ProgressName | Progress = "off",
) -> Fitted:
    """Train on ``data``, watching what ``config.watch`` says.

    Args:
        config: every setting.
        data: for the kind of the config, as the application loads them.
        directory: where to keep checkpoints; nothing is written where absent.
        progress: as for :func:`core.training.fit`.

    Raises:
        InputError: the data cannot be learned from, or the folder holds another run.
        Interrupted: stopped by a signal, after saving.
    """
    store = Store()
    train, valid = training(config, data, store), watching(config, data, store)
    torch.manual_seed(config.seed)
    student = new_model(config, len(data.classes))
    task = task_of(config, data, student)
    settings = settings_of(config)
    result = fit(
        task,
        train=train,
        valid=valid,
        optimizer=optimizer_of(config, student),
        schedule=config.schedule.build(settings.max_epochs * len(train)),
        settings=settings,
        directory=directory,
        progress=progress,
    )
    adapted = len(data.target) if config.adaptation.kind == "adapt" else 0
    images = {"source": len(data.source["train"]), "target": adapted}
    return Fitted(Segmenter(config, data.classes, student), result, images)


def new_model(config: SegmentationConfig, classes: int) -> Segmentor:
    """A network as training begins it: with ImageNet weights where a file is given.

    Raises:
        InputError: the file cannot be read, or does not fit.
    """
    model = Segmentor(classes, config.model)
    if config.pretrained is not None:
        load_weights(model, read_state(config.pretrained), part="imagenet", head=False)
    return model


def task_of(config: SegmentationConfig, data: Adaptation, student: nn.Module) -> SupervisedTask:
    """The task of the config's kind."""
    if config.adaptation.kind != "adapt":
        return SupervisedTask(student, config, len(data.classes))
    pair = Adapting(student, config.adaptation.alpha)
    return AdaptationTask(pair, config, len(data.classes), _reference(config, data))


def _reference(config: SegmentationConfig, data: Adaptation) -> Reference | None:
    """The frozen ImageNet network, if the distance to it counts; says where it should and cannot."""
    if config.adaptation.distance == 0:
        return None
    lacking = None if config.pretrained else "no ImageNet weights (pretrained)"
    lacking = lacking or (None if data.classes.things else "no class is a thing (classes.json)")
    if lacking is not None:
        note(f"the feature distance is off: {lacking}")
        return None
    encoder = new_model(config, len(data.classes)).encoder.eval().requires_grad_(False)

    def features(images: torch.Tensor) -> Any:
        return encoder.to(images.device)(images)

    return Reference(features, data.classes.things)


def optimizer_of(config: SegmentationConfig, student: nn.Module) -> Optimizer:
    """AdamW as released: the head at a rate of its own, all of it decayed; of the encoder all but norms."""
    decay = config.optim.weight_decay
    overrides = {"head": {"lr": config.optim.lr * config.head_rate}, "bias": {"weight_decay": decay}}
    return config.optim.build(student, rules=[("head.*", "head")], overrides=overrides)


def settings_of(config: SegmentationConfig) -> FitSettings:
    """Of the engine."""
    if config.watch == "last":
        return dataclasses.replace(
            config.fit, seed=config.seed, monitor="source_miou", mode="max", keep="last", patience=None
        )
    mode: Any = "max" if GREATER_IS_BETTER[config.watch] else "min"
    return dataclasses.replace(config.fit, seed=config.seed, monitor=config.watch, mode=mode)


def training(config: SegmentationConfig, data: Adaptation, store: Store) -> Loader:
    """Batches to learn from."""
    adapt = config.adaptation.kind == "adapt"
    crops = config.target if config.adaptation.kind == "target" else config.source
    batches = AdaptationBatches(
        data.source["train"],
        data.target if adapt else (),
        data.classes.names,
        BatchConfig(source=crops, target=config.target, rare=config.rare if config.rare_classes else None),
        length=config.epoch_images,
        counts=data.counts if config.rare_classes else None,
        store=store,
    )
    return Loader(batches, FixedSize(config.batch, drop_last=True), seed=config.seed, shuffle=True)


def watching(config: SegmentationConfig, data: Adaptation, store: Store) -> Loader:
    """Images to evaluate on."""
    source = config.target.box if config.adaptation.kind == "target" else config.source.box
    watched = [
        Watched(Role.SOURCE, data.source["valid"], source),
        Watched(Role.TARGET, _looked_at(data), config.target.box),
    ]
    if config.show_target:
        watched.append(Watched(Role.SHOWN, data.scored.get("valid", ()), config.target.box))
    return Loader(WholeImages(watched, store), _EVALUATED, shuffle=False)


def _looked_at(data: Adaptation) -> tuple[View, ...]:
    """Images of the target, without labels: of its ``valid``, or some that are trained on."""
    valid = tuple(item.view for item in data.scored.get("valid", ()))
    return valid or data.target[:: max(1, -(-len(data.target) // WATCHED))]
