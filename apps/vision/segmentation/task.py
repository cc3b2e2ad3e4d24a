"""The learning tasks: labels alone, or DAFormer's step with a teacher; and what is watched while they train.

A step of adaptation, on a batch of source images with labels and target images without (:mod:`.adaptation`):

    L_S    student on the source
    L_FD   the same features of the source against those of an ImageNet network (:mod:`.distance`), if there is one
    L_M    student on mixed images, jittered and blurred, against labels and pseudo-labels
    loss   L_S + lambda_FD L_FD + weight(t) L_M

with one backward pass of the sum; the released program makes three, which is the same. The graph of the source's losses
does not wait for it (:mod:`.settled`): a step holds one graph of the student at a time. The teacher goes without
gradients. What is random comes from a generator that is seeded from the global one, which the engine seeds by the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from apps.vision.segmentation.adaptation import (
    draw_mask,
    mixed_images,
    mixed_labels,
    pixel_loss,
    pseudo_labels,
    ramp,
)
from apps.vision.segmentation.adapting import Adapting, logits_of
from apps.vision.segmentation.config import AdaptationConfig, SegmentationConfig
from apps.vision.segmentation.data.augment import strong_augment
from apps.vision.segmentation.data.style import STYLES
from apps.vision.segmentation.distance import feature_distance, thing_cells
from apps.vision.segmentation.settled import settled
from apps.vision.segmentation.watch import watched
from core.auxiliary import collected
from core.training import Task

Batch = Mapping[str, Any]


class SupervisedTask(Task):
    """A segmentor that learns from labels.

    Args:
        model: any :class:`.adapting.Segments`.
        config: augmentation and loss.
        classes: K.
    """

    entries: Sequence[str] = ("features", "logits")

    def __init__(self, model: nn.Module, config: SegmentationConfig, classes: int) -> None:
        super().__init__()
        self.model, self.config, self.classes = model, config, classes

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of a batch, in nats a pixel, and what blocks of the model add to it."""
        images = self._source(batch["source"], step_generator())
        with collected() as extra:
            loss = pixel_loss(logits_of(self.model, images), batch["labels"], mean_over=self.config.mean_over)
        return {"loss": loss + extra.total()}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """What :func:`.watch.watched` finds."""
        return watched(partial(logits_of, self.model), None, batches, self.classes, self.config.adaptation)

    def _source(self, images: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
        """Source images as the student sees them."""
        config = self.config
        return strong_augment(images, config.photometric_augment, generator) if config.photometric else images


@dataclass(frozen=True)
class Reference:
    """What features of things should stay near to.

    Attributes:
        features: of normalised images, by a frozen network in evaluation mode.
        things: train ids.
    """

    features: Callable[[Tensor], Sequence[Tensor]]
    things: frozenset[int]


class AdaptationTask(SupervisedTask):
    """A segmentor that learns from the source's labels and its teacher's pseudo-labels of the target.

    Args:
        model: student and teacher.
        config: every setting of the step.
        classes: K.
        reference: an ImageNet network; without one there is no feature distance.
    """

    model: Adapting
    entries = ("features", "logits", "taught")

    def __init__(
        self, model: Adapting, config: SegmentationConfig, classes: int, reference: Reference | None = None
    ) -> None:
        super().__init__(model, config, classes)
        self.reference = reference

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a step.

        Returns:
            ``loss``; its parts ``source``, with a reference ``distance`` (with its weight), and where images are mixed
            ``mixed`` (without its weight) and ``confident``, the share of target pixels that the teacher is sure of.
        """
        settings: AdaptationConfig = self.config.adaptation
        generator = step_generator()
        weight = settings.mix_weight * ramp(*self.model.told, settings.mix_start, settings.mix_ramp)
        batch = {**batch, "source": self._styled(batch, generator)}
        parts: dict[str, Tensor] = {}
        total = self._on_source(batch, generator, parts)
        if weight > 0:
            total = settled(total, self.model.student.parameters())
            with collected() as extra:
                parts["mixed"], parts["confident"] = self._mixed(batch, generator)
            total = total + weight * parts["mixed"] + extra.total()
        if weight == 0 or settings.statistics == "teacher":
            self.model.share_statistics("student" if weight == 0 else "teacher")
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """What :func:`.watch.watched` finds, of student and teacher."""
        return watched(self.model, self.model.taught, batches, self.classes, self.config.adaptation)

    def _styled(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
        """Source images, some of them in the light of the target's."""
        settings: AdaptationConfig = self.config.adaptation
        images: Tensor = batch["source"]
        if settings.style == 0:
            return images
        chosen = torch.rand(len(images), generator=generator) < settings.style
        styled = STYLES[settings.style_of](images, batch["target"], batch["target_mask"])
        return torch.where(chosen.to(images.device)[:, None, None, None], styled, images)

    def _on_source(self, batch: Batch, generator: torch.Generator, parts: dict[str, Tensor]) -> Tensor:
        """The losses on source images, which ``parts`` are told, with what blocks add."""
        with collected() as extra:
            features = self.model.features(images := self._source(batch["source"], generator))
            logits = self.model.logits(features)
            parts["source"] = pixel_loss(logits, batch["labels"], mean_over=self.config.mean_over)
            if self.reference is not None:
                weight = self.config.adaptation.distance
                parts["distance"] = weight * self._distance(self.reference, features[-1], images, batch)
        return parts["source"] + parts.get("distance", 0.0) + extra.total()

    def _mixed(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss on mixed images, and the mean share of confident pixels."""
        settings: AdaptationConfig = self.config.adaptation
        pseudo = pseudo_labels(self.model.taught(batch["target"]), batch["target_mask"], settings)
        mask = draw_mask(batch["labels"], settings, generator)
        images = mixed_images(mask, batch["source"], batch["target"])
        labels, weights = mixed_labels(mask, batch["labels"], pseudo)
        logits = self.model(strong_augment(images, settings.augment, generator))
        return pixel_loss(logits, labels, weights, mean_over=self.config.mean_over), pseudo.confident.mean()

    def _distance(self, reference: Reference, own: Tensor, images: Tensor, batch: Batch) -> Tensor:
        settings: AdaptationConfig = self.config.adaptation
        with torch.no_grad():
            other = reference.features(images)[-1]
        grid = own.shape[2], own.shape[3]
        cells = thing_cells(batch["labels"], grid, self.classes, reference.things, settings.distance_share)
        return feature_distance(own, other, cells, settings.distance_mean)


def step_generator() -> torch.Generator:
    """A generator on the processor that is a function of the step, whose seed the engine has set."""
    return torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))
