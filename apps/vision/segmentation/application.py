"""Domain-adaptive segmentation as an application: what training, comparing and searching need of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.data.items import Adaptation, Labelled
from apps.vision.segmentation.data.sources import Source, load_adaptation, load_supervised
from apps.vision.segmentation.fitting import Fitted, fit_segmenter, new_model
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.metrics import confusion, iou_metrics, measured
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import PRESETS
from apps.vision.segmentation.segmenter import PLAIN, TASK, Prediction, Segmenter, load_run
from apps.vision.segmentation.watch import GREATER_IS_BETTER
from core.application import Application, Scored, Trained
from core.command import RunDirectory
from core.evaluation.metrics import Metric
from core.rewrite import Rewrite
from core.training import Progress
from core.training.progress import ProgressName

NOMINAL_CLASSES = 19
PROBE_IMAGES = 2
"""Images that a network is tried on."""
_SOURCE = "source-"


class Segmentation(Application[SegmentationConfig, Adaptation, Segmenter]):
    """DAFormer on a source and a target."""

    name = TASK
    model_name = "daformer"
    validation = f"{_SOURCE}valid"  # a choice by labels of the target's would be one with labels of the target
    config = SegmentationConfig
    presets = PRESETS
    source = Source

    def load(self, source: Source, config: SegmentationConfig) -> Adaptation:
        """Source and target by split; no image is decoded. Labels of the target are there for ``target`` alone."""
        return load_supervised(source) if config.adaptation.kind == "target" else load_adaptation(source)

    def facts(self, source: Source, data: Adaptation) -> dict[str, Any]:
        """The source, and a digest of each split, by the names that they are scored under."""
        images = {f"{_SOURCE}{name}": len(items) for name, items in data.source.items()}
        images |= {"target-train": len(data.target), **{name: len(items) for name, items in data.scored.items()}}
        digests = data.digests()
        renamed = {name: name.removeprefix("target-") for name in (f"target-{split}" for split in data.scored)}
        return {
            **{field.name: getattr(source, field.name) for field in dataclasses.fields(Source)},
            "name": data.name,
            "synthetic": data.synthetic,
            "images": images,
            "digest": {renamed.get(name, name): digest for name, digest in digests.items()},
        }

    def part(self, data: Adaptation, share: float) -> Adaptation:
        """Labelled images; those of the target are all there."""
        return data.part(share)

    def build(self, config: SegmentationConfig, data: Adaptation) -> nn.Module:
        """A network with as many outputs as there are classes."""
        return new_model(config, len(data.classes))

    def prototype(self, config: SegmentationConfig) -> nn.Module:
        """The network for the classes of Cityscapes."""
        return Segmentor(NOMINAL_CLASSES, config.model)

    def fit(
        self,
        config: SegmentationConfig,
        data: Adaptation,
        *,
        directory: Path | None = None,
        progress: ProgressName | Progress = "off",
    ) -> Trained[Segmenter]:
        """One network; its teacher is let go of at the end."""
        fitted = fit_segmenter(config, data, directory=directory, progress=progress)
        result = fitted.result
        return Trained(
            model=fitted.segmenter,
            results=(result,),
            complete=result.stopped_by != "minutes",
            facts=_facts(fitted),
            history=result.history,
            summary=_summary(fitted),
        )

    def phases(self, config: SegmentationConfig) -> Sequence[tuple[float, SegmentationConfig]]:
        """Steps before images are mixed, and those with."""
        adaptation = config.adaptation
        if adaptation.kind != "adapt" or adaptation.mix_start in (0, 1):
            return [(1.0, config)]
        parts = {1.0: adaptation.mix_start, 0.0: 1.0 - adaptation.mix_start}
        return [
            (
                share,
                dataclasses.replace(config, adaptation=dataclasses.replace(adaptation, mix_start=start, mix_ramp=0)),
            )
            for start, share in parts.items()
        ]

    def open(self, run: RunDirectory) -> Segmenter:
        """The segmenter of a finished run."""
        return load_run(run.path)

    def monitored(self, config: SegmentationConfig, data: Adaptation) -> str:
        """As ``watch`` says; where only the end counts, the mIoU on the source."""
        return "source_miou" if config.watch == "last" else config.watch

    def greater_is_better(self, config: SegmentationConfig, data: Adaptation) -> bool:
        """Of all but entropy."""
        return GREATER_IS_BETTER[self.monitored(config, data)]

    def rewritten(
        self, model: Segmenter, networks: Sequence[nn.Module], rewrites: Sequence[Sequence[Rewrite]]
    ) -> Segmenter:
        """The segmenter with another network."""
        (network,), (each,) = networks, rewrites
        return Segmenter(model.config, model.classes, cast(Segmentor, network), each)

    def probe(self, model: Segmenter, data: Adaptation, split: str) -> Callable[[nn.Module], Tensor]:
        """Logits of the first images, one after the other, as they may differ in size."""
        items = data.split(split)[:PROBE_IMAGES]
        images = [model.prepared(item.image.read(), box_of(model, split))[None] for item in items]

        def run(network: nn.Module) -> Tensor:
            kind = next(network.parameters()).dtype
            return torch.cat([network(image.to(kind)).flatten() for image in images])

        return run

    def metrics(self, data: Adaptation) -> Mapping[str, Metric]:
        """Mean IoU, pixel accuracy and the IoU of each class, in percent."""
        return iou_metrics(data.classes.names)

    def score(self, model: Segmenter, data: Adaptation, split: str) -> Scored:
        """All of them on labelled images: ``valid`` and ``test`` of the target, ``source-valid``, ``source-test``."""
        predictions = predicted(model, data, split)
        return measured(matrices(data.split(split), predictions, len(data.classes)), data.classes.names)


APPLICATION = Segmentation()


def box_of(model: Segmenter, split: str) -> tuple[int, int] | None:
    """What images of a split are resized to fit."""
    config = model.config
    of_source = split.startswith(_SOURCE) and config.adaptation.kind != "target"
    return config.source.box if of_source else config.target.box


def predicted(model: Segmenter, data: Adaptation, split: str, inference: Inference = PLAIN) -> Iterator[Prediction]:
    """What a segmenter says of the images of a labelled split, in order, as they are done."""
    return model.predict((item.image for item in data.split(split)), inference, box=box_of(model, split))


def matrices(items: Sequence[Labelled], predictions: Iterable[Prediction], classes: int) -> Int64[np.ndarray, "N C C"]:
    """A confusion matrix for each image."""
    pairs = zip(items, predictions, strict=True)
    return np.stack([confusion(item.label.read(), said.labels, classes) for item, said in pairs])


def _facts(fitted: Fitted) -> dict[str, Any]:
    result = fitted.result
    return {
        "adaptation": fitted.segmenter.config.adaptation.kind,
        "images": fitted.images,
        "best": result.best,
        "best_epoch": result.best_epoch,
        "steps": result.steps,
        "seconds": result.seconds,
        "seconds_to_best": result.seconds_to_best,
        "stopped_by": result.stopped_by,
    }


_LEARNED = {
    "adapt": "{source:,} labelled images and {target:,} of the target without labels",
    "none": "{source:,} labelled images, none of the target",
    "target": "{source:,} labelled images of the target",
}


def _summary(fitted: Fitted) -> Sequence[str]:
    """What a person reads after training."""
    config, result = fitted.segmenter.config, fitted.result
    learned = _LEARNED[config.adaptation.kind].format(**fitted.images)
    best = "the last weights"
    if config.watch != "last" and result.best is not None:
        best = f"validation {config.watch}: {result.best:.4g} in epoch {result.best_epoch}"
    return [f"trained on {learned}, {result.steps:,} steps in {result.seconds:.0f} s; {best}"]
