"""The parts of DAFormer's adaptation step, as pure functions of tensors and a generator.

Source: Hoyer, Dai and Van Gool, DAFormer (CVPR 2022, arXiv 2111.14887), in the form of its released program; ClassMix
after Olsson et al. (arXiv 2007.07936) and Tranheden et al., DACS (arXiv 2007.08702). With p the teacher's probabilities
of a target image, c = max p, y_S the labels of a source image of the same size:

    pseudo-labels   yhat = argmax p,   w = q = share of pixels with c >= threshold; 0 in rows at the border
                    (balanced, which is ours: w = q b(yhat), see class_weights; f is the mean of p over the batch)
    ClassMix        M = y_S in a random half of the classes that are there
                    x = M x_S + (1 - M) x_T,   y = M y_S + (1 - M) yhat,   w = M + (1 - M) w
    loss            sum of w CE over pixels / number of pixels, those without a label included

All images of a batch have one size. Labels are train ids, 255 for "not labelled".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from apps.vision.segmentation.config import AdaptationConfig
from apps.vision.segmentation.data.classes import IGNORE

Labels = Int64[Tensor, "B H W"]
Weights = Float[Tensor, "B H W"]
Images = Float[Tensor, "B 3 H W"]
_RAREST = 1e-3


@dataclass(frozen=True)
class Pseudo:
    """What a teacher says of target images.

    Attributes:
        labels: ``(B,H,W)`` most probable classes.
        weights: ``(B,H,W)`` how much each pixel counts.
        confident: ``(B,)`` share of each image's pixels that reach the threshold.
    """

    labels: Labels
    weights: Weights
    confident: Float[Tensor, " B"]


def enlarged(logits: Float[Tensor, "B K h w"], size: tuple[int, int]) -> Float[Tensor, "B K H W"]:
    """Logits at a size, bilinearly, in float32 at least; corners not aligned."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def pixel_loss(
    logits: Float[Tensor, "B K h w"],
    labels: Labels,
    weights: Weights | None = None,
    *,
    mean_over: Literal["all", "labelled"] = "all",
) -> Float[Tensor, ""]:
    """Cross-entropy of enlarged logits, in nats a pixel.

    Args:
        logits: on any grid.
        labels: what is true.
        weights: how much each pixel counts; 1 where absent.
        mean_over: what the sum is divided by: all pixels, as released, or those with a label.

    >>> labels = torch.tensor([[[0, 255]]])
    >>> pixel_loss(torch.zeros(1, 2, 1, 2), labels) * 2 == pixel_loss(
    ...     torch.zeros(1, 2, 1, 2), labels, mean_over="labelled"
    ... )
    tensor(True)
    """
    with torch.autocast(logits.device.type, enabled=False):
        size = labels.shape[1], labels.shape[2]
        losses = F.cross_entropy(enlarged(logits, size), labels, ignore_index=IGNORE, reduction="none")
        total = (losses if weights is None else losses * weights).sum()
    count = labels.numel() if mean_over == "all" else (labels != IGNORE).sum().clamp(min=1)
    return total / count


def class_weights(shares: Float[Tensor, " K"], balance: float) -> Float[Tensor, " K"]:
    """How much a pseudo-label counts by its class: b_k = (f_k + 0.001)^-balance, times what makes sum f_k b_k = 1.

    Rare classes are not washed away by frequent ones while a network teaches itself; one that is said too often counts
    less the more often it is said. The addend keeps a class that hardly occurs from counting without bound.

    Args:
        shares: f, of the classes among all pixels.
        balance: 0 all alike; 1 each class as much as any other.

    >>> class_weights(torch.tensor([0.9, 0.1]), 0.0), class_weights(torch.tensor([0.8, 0.2]), 1.0).round(decimals=2)
    (tensor([1., 1.]), tensor([0.6300, 2.5000]))
    """
    raw = (shares + _RAREST) ** -balance
    return raw / (raw * shares).sum()


@torch.no_grad()
def pseudo_labels(logits: Float[Tensor, "B K h w"], mask: Bool[Tensor, "B H W"], config: AdaptationConfig) -> Pseudo:
    """What a teacher's logits say of images of the mask's size.

    Args:
        logits: on any grid.
        mask: False where there is no image; such pixels count 0, and for no share.
        config: threshold, what q is a share of, how classes are balanced, rows that count 0.
    """
    height, width = mask.shape[1:]
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = enlarged(logits, (height, width)).softmax(1)
    certainty, labels = probabilities.max(1)
    reached = (certainty > config.threshold) if config.test == "above" else (certainty >= config.threshold)
    sure = (reached & mask).to(certainty.dtype)
    pixels = mask.flatten(1).sum(1)
    confident = sure.flatten(1).sum(1) / pixels.clamp(min=1)
    of_batch = sure.sum() / pixels.sum().clamp(min=1)
    weights = {"pixel": sure, "image": confident[:, None, None], "batch": of_batch}[config.share_of] * mask
    if config.balance > 0:
        shares = (probabilities * mask[:, None]).sum((0, 2, 3)) / pixels.sum().clamp(min=1)
        weights = weights * class_weights(shares, config.balance)[labels]
    weights[:, : config.ignore_top] = 0.0
    weights[:, max(0, height - config.ignore_bottom) :] = 0.0
    return Pseudo(labels, weights, confident)


def draw_mask(labels: Labels, config: AdaptationConfig, generator: torch.Generator) -> Bool[Tensor, "B H W"]:
    """Of each image the pixels of half of the classes (rounded up), drawn without replacement.

    Args:
        labels: of the source.
        config: whether the classes are those of the image or, as released, of the whole batch, which an image may lack;
            and whether "not labelled" is one of them.
        generator: on the processor.

    >>> labels = torch.tensor([[[0, 1, 2, 255]]])
    >>> int(draw_mask(labels, AdaptationConfig(), torch.Generator().manual_seed(0)).sum())
    2
    """
    masks = []
    of_batch = _values(labels, config.mix_ignored) if config.mix_classes_of == "batch" else None
    for label in labels:
        values = _values(label, config.mix_ignored) if of_batch is None else of_batch
        chosen = torch.randperm(len(values), generator=generator)[: (len(values) + 1) // 2]
        masks.append(torch.isin(label, values[chosen.to(values.device)]))
    return torch.stack(masks)


def _values(labels: Tensor, ignored: bool) -> Tensor:
    values: Tensor = torch.unique(labels)
    return values if ignored else values[values != IGNORE]


def mixed_images(mask: Bool[Tensor, "B H W"], source: Images, target: Images) -> Images:
    """The source within the mask, the target elsewhere."""
    return torch.where(mask[:, None], source, target)


def mixed_labels(mask: Bool[Tensor, "B H W"], source: Labels, pseudo: Pseudo) -> tuple[Labels, Weights]:
    """Labels and weights of mixed images: the source's with weight 1 within the mask, the teacher's elsewhere."""
    return torch.where(mask, source, pseudo.labels), torch.where(mask, 1.0, pseudo.weights)


def ramp(step: int, of: int, start: float, share: float) -> float:
    """0 before a share of the steps, from there a line to 1 during another share of them.

    >>> [ramp(step, 100, 0.2, 0.5) for step in (0, 19, 20, 45, 70, 99)], ramp(0, 100, 0.0, 0.0)
    ([0.0, 0.0, 0.0, 0.5, 1.0, 1.0], 1.0)
    """
    passed = step - start * of
    if passed < 0:
        return 0.0
    return min(1.0, passed / (share * of)) if share > 0 else 1.0
