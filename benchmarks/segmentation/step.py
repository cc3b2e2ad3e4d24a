"""One step of adaptation: ours, and the procedure of the released program written out from its facts.

The released program (lhoyer/DAFormer, ``DACS.forward_train``), on the batch of a step:

- student on the source, loss, backward; the graph is kept where there is a feature distance;
- features of a frozen ImageNet network without gradients, distance to the student's, backward;
- teacher on the target in the ordinary mode, its result detached. Its parameters were detached before the first step,
  so that no graph is recorded for them; ``graph`` leaves them attached, as one would without that line;
- pseudo-labels, ClassMix, jitter and blur; student on the mixed images, loss, backward.

Its losses are held until the step ends: with a feature distance the head's part of the first graph, which the second
backward pass does not reach, is there until then.

Both have the same network, batch and draws: the functions of :mod:`apps.vision.segmentation.adaptation` stand for the
parts that are the same in either. What differs is when backward is called, and what is held until then.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from apps.vision.segmentation.adaptation import draw_mask, mixed_images, mixed_labels, pixel_loss, pseudo_labels
from apps.vision.segmentation.adapting import Adapting, logits_of
from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.data.augment import strong_augment
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.distance import feature_distance, thing_cells
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import released
from apps.vision.segmentation.task import AdaptationTask, Reference, step_generator
from benchmarks.segmentation.networks import CLASSES, Precision, our_network
from core.clock import advance

Procedure = Literal["ours", "released", "graph"]
THINGS = frozenset({6, 7, 11, 12, 13, 14, 15, 16, 17, 18})
#: Before the step that is measured: the teacher is neither the student nor untrained.
AT, OF, SEED = 5, 100, 7


@dataclass(frozen=True)
class Step:
    """A step that can be made again and again; it leaves gradients at the student.

    Attributes:
        procedure: whose.
        task: ours; the others take its networks and settings.
        batch: of two images of each domain.
        precision: ``bf16`` is autocast around everything but the backward passes.
    """

    procedure: Procedure
    task: AdaptationTask
    batch: Mapping[str, Tensor]
    precision: Precision

    def __call__(self) -> dict[str, Tensor]:
        """The parts of the loss."""
        self.task.model.student.zero_grad(set_to_none=True)
        torch.manual_seed(SEED)
        if self.procedure != "ours":
            return self._released()
        with self._cast():
            losses = self.task.training_loss(self.batch)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        return {name: losses[name].detach() for name in ("source", "distance", "mixed") if name in losses}

    def _released(self) -> dict[str, Tensor]:
        batch, settings, student = self.batch, self.task.config.adaptation, self._student
        generator, parts = step_generator(), dict[str, Tensor]()
        with self._cast():
            features = student.features(batch["source"])
            parts["source"] = pixel_loss(student.logits(features), batch["labels"])
        self._backward(parts["source"], keep=self.task.reference is not None)
        if self.task.reference is not None:
            with self._cast():
                parts["distance"] = settings.distance * self._distance(features[-1])
            self._backward(parts["distance"])
        with self._cast():
            told = logits_of(self.task.model.teacher, batch["target"])
            pseudo = pseudo_labels(told.detach(), batch["target_mask"], settings)
            mask = draw_mask(batch["labels"], settings, generator)
            labels, weights = mixed_labels(mask, batch["labels"], pseudo)
            mixed = mixed_images(mask, batch["source"], batch["target"])
            images = strong_augment(mixed, settings.augment, generator)
            parts["mixed"] = pixel_loss(logits_of(student, images), labels, weights)
        self._backward(parts["mixed"])
        return {name: part.detach() for name, part in parts.items()}

    @property
    def _student(self) -> Segmentor:
        return cast(Segmentor, self.task.model.student)

    def _distance(self, own: Tensor) -> Tensor:
        reference, settings, batch = self.task.reference, self.task.config.adaptation, self.batch
        assert reference is not None
        with torch.no_grad():
            other = reference.features(batch["source"])[-1]
        grid = own.shape[2], own.shape[3]
        cells = thing_cells(batch["labels"], grid, CLASSES, reference.things, settings.distance_share)
        return feature_distance(own, other, cells, settings.distance_mean)

    @staticmethod
    def _backward(loss: Tensor, keep: bool = False) -> None:
        loss.backward(retain_graph=keep)  # type: ignore[no-untyped-call]

    def _cast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def gradients(self) -> list[Tensor]:
        """Those of the student's weights."""
        return [weight.grad for weight in self._student.parameters() if weight.grad is not None]


def prepare(procedure: Procedure, size: str, side: int, precision: Precision, distance: bool) -> Step:
    """A step on crops of ``side`` with the published network and settings; ``distance``: with the feature distance."""
    config = released(size)
    crop = CropConfig(crop=(side, side))
    # Margins in proportion to the crop; a teacher that was never trained is confident of what is likelier than chance.
    top, bottom = 15 * side // 512, 120 * side // 512
    adaptation = replace(config.adaptation, ignore_top=top, ignore_bottom=bottom, threshold=1 / CLASSES)
    config = replace(config, source=crop, target=crop, adaptation=adaptation)
    task = AdaptationTask(_pair(config), config, CLASSES, _reference(config) if distance else None)
    if procedure == "graph":
        task.model.teacher.requires_grad_(True)
    return Step(procedure, task, batch_of(side), precision)


def _pair(config: SegmentationConfig) -> Adapting:
    """Student and teacher in the middle of a run."""
    pair = Adapting(our_network(config.model), config.adaptation.alpha).train()
    advance(pair, 0, OF)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in pair.student.parameters():
            weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
    advance(pair, AT, OF)
    return pair


def _reference(config: SegmentationConfig) -> Reference:
    """A frozen network that stands for the one with ImageNet weights."""
    other: Any = copy.deepcopy(our_network(config.model))
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(1.1)
    other.eval().requires_grad_(False)
    return Reference(other.features, THINGS)


def batch_of(side: int) -> dict[str, Tensor]:
    """Two images of each domain; labels in squares of 64 pixels, some of them not labelled."""
    generator = torch.Generator().manual_seed(1)
    cells = -(-side // 64)
    labels = torch.randint(0, CLASSES + 1, (2, cells, cells), generator=generator)
    labels = labels.repeat_interleave(64, 1).repeat_interleave(64, 2)[:, :side, :side]
    source, target = torch.randn(2, 2, 3, side, side, generator=generator)
    return {
        "source": source,
        "labels": torch.where(labels == CLASSES, 255, labels).contiguous(),
        "target": target,
        "target_mask": torch.ones(2, side, side, dtype=torch.bool),
    }
