"""Feature distance to an ImageNet network, on things (DAFormer, arXiv 2111.14887).

    L = mean over the cells of the mask of || F(x) - G(x) ||_2

F and G are the last features of the student and of a frozen network with ImageNet weights, the norm runs over channels.
A cell of the feature's grid is in the mask if a thing fills at least three quarters of its pixels; pixels without a
label are a class of their own, which is none. An empty mask gives 0, as there is nothing to be far from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from apps.vision.segmentation.data.classes import IGNORE


def thing_cells(
    labels: Int64[Tensor, "B H W"], grid: tuple[int, int], classes: int, things: Iterable[int], share: float
) -> Bool[Tensor, "B h w"]:
    """Cells of a grid that a thing fills.

    Args:
        labels: train ids.
        grid: rows and columns of the features; each is a cell of ceil(H / h) x ceil(W / w) pixels, those beyond the
            image counting as not labelled.
        classes: K.
        things: train ids.
        share: of a cell's pixels, the least that its class must have.
    """
    cell = tuple(-(-side // cells) for side, cells in zip(labels.shape[1:], grid, strict=True))
    missing = (0, grid[1] * cell[1] - labels.shape[2], 0, grid[0] * cell[0] - labels.shape[1])
    known = F.pad(labels, missing, value=IGNORE)
    known = torch.where(known == IGNORE, classes, known)
    counts = F.avg_pool2d(F.one_hot(known, classes + 1).permute(0, 3, 1, 2).float(), cell)
    largest, of = counts.max(1)
    countable = torch.zeros(classes + 1, dtype=torch.bool, device=labels.device)
    countable[sorted(things)] = True
    return countable[of] & (largest >= share)


def feature_distance(
    own: Float[Tensor, "B C h w"],
    other: Float[Tensor, "B C h w"],
    cells: Bool[Tensor, "B h w"],
    mean_over: Literal["batch", "image"],
) -> Float[Tensor, ""]:
    """Mean distance of features in the cells; 0 where there are none.

    Args:
        own: of the student.
        other: of the frozen network.
        cells: that count.
        mean_over: all cells of the batch alike, as released, or a mean over images of the means over their cells.

    >>> own = torch.zeros(2, 3, 1, 1, requires_grad=True)
    >>> feature_distance(own, torch.ones(2, 3, 1, 1), torch.zeros(2, 1, 1, dtype=torch.bool), "batch").item()
    0.0
    """
    gap = (own - other).float()
    # The gradient of a norm at 0 is not a number, and 0 times it is none either.
    norms = gap.square().sum(1).clamp(min=1e-24).sqrt()
    kept = torch.where(cells, norms, torch.zeros_like(norms))
    if mean_over == "batch":
        return kept.sum() / cells.sum().clamp(min=1)
    return (kept.flatten(1).sum(1) / cells.flatten(1).sum(1).clamp(min=1)).mean()
