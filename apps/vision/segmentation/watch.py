"""What can be watched while a segmentor trains, most of it without a label of the target.

====================== ===============================================================================================
``source_miou``        percent, on labelled images of the source
``target_entropy``     mean over pixels of H(p), p the student's probabilities, in nats
``target_information`` H(mean of p) - mean of H(p), in nats: confident of each pixel, and not of one class everywhere
                       (Gomes, Krause and Perona, NIPS 2010)
``target_agreement``   percent of pixels on which student and teacher say the same class
``target_miou``        percent, where labels of the target are shown; for the record alone
``teacher_miou``       percent, of the teacher on the same images
``teacher_accuracy``   percent of their labelled pixels that the teacher, hence a pseudo-label, is right about
``pseudo_confident``   percent of those that the teacher is sure of, by the threshold of the training
``pseudo_accuracy``    percent of those it is sure of that it is right about; nan where it is sure of none
====================== ===============================================================================================

Entropies and agreement are of the network's own grid; everything that is held against a label is of the label's size.
The teacher is in evaluation mode here, and sees whole images; in a step its norms take the statistics of its batch, and
it sees crops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from apps.vision.segmentation.adaptation import enlarged, pseudo_labels
from apps.vision.segmentation.config import AdaptationConfig
from apps.vision.segmentation.data.classes import IGNORE
from apps.vision.segmentation.data.whole import Role, alike
from apps.vision.segmentation.metrics import class_ious, confusion

GREATER_IS_BETTER = {
    "source_miou": True,
    "target_agreement": True,
    "target_entropy": False,
    "target_information": True,
}
Logits = Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B K h w"]]
_COMPARED = {Role.SOURCE: "source_miou", Role.SHOWN: "target_miou"}


def watched(
    student: Logits,
    teacher: Logits | None,
    batches: Iterable[Mapping[str, Any]],
    classes: int,
    config: AdaptationConfig,
) -> dict[str, float]:
    """The numbers above, as far as the batches hold images for them.

    Args:
        student: logits of images by what is judged, in evaluation mode.
        teacher: by what it should agree with, in evaluation mode.
        batches: of :class:`.data.whole.WholeImages`, each read once.
        classes: K.
        config: when the teacher is sure.
    """
    matrices = {role: np.zeros((classes, classes), dtype=np.int64) for role in _COMPARED}
    seen, taught = _Unlabelled(classes), _Taught(classes, config)
    for batch in batches:
        for places, images in alike(batch["images"]):
            logits = student(images).float()
            told = teacher(images) if teacher is not None and _has_target(batch, places) else None
            for row, place in enumerate(places):
                role, label = Role(int(batch["roles"][place])), batch["labels"][place]
                if role in _COMPARED:
                    matrices[role] += _confusion(logits[row], label, classes)
                else:
                    seen.add(logits[row], None if told is None else told[row])
                if role is Role.SHOWN and told is not None:
                    taught.add(told[row], label)
    found = {_COMPARED[role]: _miou(matrix) for role, matrix in matrices.items() if matrix.any()}
    return {**found, **seen.found(), **taught.found()}


class _Unlabelled:
    """Sums over pixels of the target."""

    def __init__(self, classes: int) -> None:
        self.mean, self.entropy = torch.zeros(classes, dtype=torch.float64), 0.0
        self.same, self.compared, self.pixels = 0, 0, 0

    def add(self, logits: Float[Tensor, "K h w"], taught: Float[Tensor, "K h w"] | None) -> None:
        logs = logits.log_softmax(0)
        self.mean += logs.exp().flatten(1).sum(1).double().cpu()
        self.entropy += float(-(logs.exp() * logs).sum())
        self.pixels += logits[0].numel()
        if taught is not None:
            self.same += int((logits.argmax(0) == taught.argmax(0)).sum())
            self.compared += logits[0].numel()

    def found(self) -> dict[str, float]:
        if not self.pixels:
            return {}
        mean, entropy = self.mean / self.pixels, self.entropy / self.pixels
        numbers = {
            "target_entropy": entropy,
            "target_information": float(-torch.xlogy(mean, mean).sum()) - entropy,
        }
        if self.compared:
            numbers["target_agreement"] = 100.0 * self.same / self.compared
        return numbers


class _Taught:
    """What the teacher says of images of the target whose labels are shown."""

    def __init__(self, classes: int, config: AdaptationConfig) -> None:
        self.matrix = np.zeros((classes, classes), dtype=np.int64)
        self.confident, self.right = 0, 0
        # of whole images, whose borders are no crop's
        self._rule = replace(config, share_of="pixel", ignore_top=0, ignore_bottom=0)

    def add(self, logits: Float[Tensor, "K h w"], label: Tensor) -> None:
        label = label.to(logits.device)
        pseudo = pseudo_labels(logits[None], (label != IGNORE)[None], self._rule)
        said, sure = pseudo.labels[0], pseudo.weights[0] > 0
        self.matrix += confusion(label.cpu().numpy(), said.cpu().numpy(), len(self.matrix))
        self.confident += int(sure.sum())
        self.right += int((sure & (said == label)).sum())

    def found(self) -> dict[str, float]:
        pixels = int(self.matrix.sum())
        if not pixels:
            return {}
        return {
            "teacher_miou": _miou(self.matrix),
            "teacher_accuracy": 100.0 * float(np.trace(self.matrix)) / pixels,
            "pseudo_confident": 100.0 * self.confident / pixels,
            "pseudo_accuracy": 100.0 * self.right / self.confident if self.confident else float("nan"),
        }


def _has_target(batch: Mapping[str, Any], places: list[int]) -> bool:
    return bool((batch["roles"][places] != int(Role.SOURCE)).any())


def _confusion(logits: Float[Tensor, "K h w"], label: Tensor, classes: int) -> NDArray[np.int64]:
    said = enlarged(logits[None], (label.shape[0], label.shape[1]))[0].argmax(0)
    return confusion(label.cpu().numpy(), said.cpu().numpy(), classes)


def _miou(matrix: NDArray[np.int64]) -> float:
    return float(np.nanmean(class_ious(matrix)))
