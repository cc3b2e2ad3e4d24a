"""Logits of images of any size: whole or in windows, mirrored and at several scales, a few at a time.

Windows lie at multiples of the stride, the last ones of a row and of a column pushed back into the image; logits of
each are enlarged to its size, summed, and divided by how many windows a pixel is in. Of several views of an image the
probabilities are averaged at its own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from apps.vision.segmentation.adaptation import enlarged
from apps.vision.segmentation.adapting import logits_of
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How images go through a network; the options of every verb that lets them.

    Raises:
        InputError: no window, stride, scale or batch.
    """

    window: tuple[int, int] | None = None
    """Height and width of sliding windows; images are taken whole unless given."""
    stride: tuple[int, int] | None = None
    """Distances of windows, down and across; two thirds of the window unless given."""
    flip: bool = False
    """Also mirrored, and averaged."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the image that are averaged."""
    batch: int = 4
    """Images, or windows, at a time; bounds memory, does not change the result."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers that the network computes in; bf16 under autocast."""

    def __post_init__(self) -> None:
        if self.window is not None and min(self.window) < 1:
            raise InputError(f"{self.window} is not a height and a width", where="window")
        if self.stride is not None and (self.window is None or not _steps(self.stride, self.window)):
            raise InputError(f"{self.stride} must be from 1 to the window's size", where="stride")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise InputError(f"{self.scales} are not sizes", where="scales")
        if self.batch < 1:
            raise InputError(f"{self.batch} images are none", where="batch")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"{self.precision!r} is not fp32 or bf16", where="precision")

    @property
    def plain(self) -> bool:
        """One view of each image."""
        return not self.flip and len(self.scales) == 1

    @property
    def strides(self) -> tuple[int, int]:
        """Distances of windows."""
        assert self.window is not None
        height, width = self.window
        return self.stride or (max(1, 2 * height // 3), max(1, 2 * width // 3))


def _steps(stride: tuple[int, int], window: tuple[int, int]) -> bool:
    return all(1 <= step <= side for step, side in zip(stride, window, strict=True))


def view_logits(
    network: nn.Module, images: Float[Tensor, "B 3 H W"], inference: Inference
) -> Iterator[Float[Tensor, "B K h w"]]:
    """Logits of each view of normalised images of one size, mirrored back; on the network's grid, or the view's."""
    height, width = images.shape[2:]
    for scale in inference.scales:
        size = max(1, round(scale * height)), max(1, round(scale * width))
        scaled = images if size == (height, width) else F.interpolate(images, size, mode="bilinear")
        yield _logits(network, scaled, inference)
        if inference.flip:
            yield _logits(network, scaled.flip(-1), inference).flip(-1)


def _logits(network: nn.Module, images: Tensor, inference: Inference) -> Tensor:
    window = inference.window
    if window is None or (images.shape[2] <= window[0] and images.shape[3] <= window[1]):
        return _run(network, images, inference)
    return torch.stack([_windowed(network, image, inference) for image in images])


def _run(network: nn.Module, images: Tensor, inference: Inference) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=inference.precision == "bf16"):
        return logits_of(network, images).float()


def _windowed(network: nn.Module, image: Float[Tensor, "3 H W"], inference: Inference) -> Float[Tensor, "K H W"]:
    """Logits of one image at its own size, by windows."""
    assert inference.window is not None
    sides = [min(side, whole) for side, whole in zip(inference.window, image.shape[1:], strict=True)]
    tops, lefts = (
        starts(whole, side, step) for whole, side, step in zip(image.shape[1:], sides, inference.strides, strict=True)
    )
    total: Tensor | None = None
    count = image.new_zeros(image.shape[1:])
    windows = [(slice(top, top + sides[0]), slice(left, left + sides[1])) for top, left in product(tops, lefts)]
    for first in range(0, len(windows), inference.batch):
        cuts = windows[first : first + inference.batch]
        found = _run(network, torch.stack([image[:, rows, columns] for rows, columns in cuts]), inference)
        for (rows, columns), logits in zip(cuts, enlarged(found, (sides[0], sides[1])), strict=True):
            if total is None:
                total = logits.new_zeros(len(logits), *image.shape[1:])
            total[:, rows, columns] += logits
            count[rows, columns] += 1
    assert total is not None
    return total / count


def enlarged_rows(logits: Float[Tensor, "K h w"], size: tuple[int, int], rows: slice) -> Float[Tensor, "K R W"]:
    """What :func:`.adaptation.enlarged` has in some rows, without the others.

    Args:
        logits: on any grid.
        size: rows and columns that they are enlarged to.
        rows: which of them, from a start to a stop.

    >>> logits = torch.arange(6.0).view(1, 2, 3)
    >>> torch.allclose(enlarged_rows(logits, (5, 7), slice(1, 4)), enlarged(logits[None], (5, 7))[0, :, 1:4])
    True
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    height = logits.shape[1]
    if tuple(logits.shape[1:]) == size:
        return logits[:, rows]
    centres = torch.arange(rows.start, rows.stop, dtype=logits.dtype, device=logits.device)
    places = ((centres + 0.5) * (height / size[0]) - 0.5).clamp(min=0.0)
    upper = places.long()
    first, last = int(upper[0]), min(int(upper[-1]) + 2, height)
    part = logits[None, :, first:last]
    wide = F.interpolate(part, (last - first, size[1]), mode="bilinear", align_corners=False)[0]
    lower = (upper + 1).clamp(max=height - 1)
    return torch.lerp(wide[:, upper - first], wide[:, lower - first], (places - upper)[:, None])


def starts(whole: int, side: int, step: int) -> list[int]:
    """Where windows begin along an axis, the last one ending with it.

    >>> starts(10, 4, 3), starts(10, 4, 4), starts(4, 4, 2)
    ([0, 3, 6], [0, 4, 6], [0])
    """
    count = max(0, -(-(whole - side) // step)) + 1
    return [min(index * step, whole - side) for index in range(count)]
