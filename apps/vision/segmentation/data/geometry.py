"""Where a crop comes from: resizing that keeps the ratio, crops by the category rule, flips.

DAFormer's pipeline (Hoyer et al., CVPR 2022, and its released configs): an image is resized to fit a box with its ratio
kept, cropped at random, flipped with probability one half, normalised. A source crop is tried again, up to ten times,
until it has more than one class and no class fills 75 % of its labelled pixels. An image smaller than the crop is
padded: with 0 after normalising, its label with 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from apps.vision.segmentation.data.classes import IGNORE
from core.errors import InputError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's red, green and blue, on a scale of 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """How crops are taken.

    Attributes:
        box: height and width that an image is resized to fit, with its ratio kept; None keeps its size.
        crop: height and width of a crop.
        largest_share: of a source crop's labelled pixels, the most that one class should fill.
        tries: crops more that are tried for that.
        flip: probability of a mirrored crop.
        pipeline: a config file of mmsegmentation whose training transforms take the place of all of these but the size
            of a crop; the box is then for whole images alone. The file is executed.

    Raises:
        InputError: no size, share or probability.
    """

    box: tuple[int, int] | None = None
    crop: tuple[int, int] = (512, 512)
    largest_share: float = 0.75
    tries: int = 10
    flip: float = 0.5
    pipeline: str | None = None

    def __post_init__(self) -> None:
        for name, size in (("box", self.box), ("crop", self.crop)):
            if size is not None and min(size) < 1:
                raise InputError(f"{size} is not a height and a width", where=name)
        for name, share in (("largest_share", self.largest_share), ("flip", self.flip)):
            if not 0 <= share <= 1:
                raise InputError(f"{share} is not between 0 and 1", where=name)
        if self.tries < 0:
            raise InputError(f"{self.tries} is not a number of tries", where="tries")


@dataclass(frozen=True)
class Cut:
    """A place in an image: upper left corner, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


def fitted(size: tuple[int, int], box: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of an image resized to fit a box, ratio kept.

    >>> fitted((1052, 1914), (720, 1280))
    (704, 1280)
    """
    if box is None:
        return size
    scale = min(max(box) / max(size), min(box) / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def resized_image(image: NDArray[Any], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """An image ``(H, W, 3)`` resized bilinearly, channels first."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if tuple(pixels.shape[1:]) == size:
        return pixels.contiguous()
    return F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False)[0].contiguous()


def resized_label(label: NDArray[Any], size: tuple[int, int]) -> UInt8[Tensor, "h w"]:
    """A label ``(H, W)`` resized to the nearest pixel."""
    values = torch.from_numpy(np.array(label))
    if tuple(values.shape) == size:
        return values
    return F.interpolate(values[None, None], size=size, mode="nearest-exact")[0, 0]


def draw_cut(size: tuple[int, int], config: CropConfig, generator: torch.Generator) -> Cut:
    """A random place in an image of this size."""
    top, left = (
        int(torch.randint(max(whole - part, 0) + 1, (), generator=generator))
        for whole, part in zip(size, config.crop, strict=True)
    )
    return Cut(top, left, bool(torch.rand((), generator=generator) < config.flip))


def draw_source_cut(label: UInt8[Tensor, "H W"], config: CropConfig, generator: torch.Generator) -> Cut:
    """A random place, drawn again while the crop's label breaks the category rule; the last one is kept."""
    size = label.shape[0], label.shape[1]
    cut = draw_cut(size, config, generator)
    for _ in range(config.tries):
        if _is_varied(cut_label(label, cut, config.crop), config.largest_share):
            break
        cut = draw_cut(size, config, generator)
    return cut


def _is_varied(label: UInt8[Tensor, "h w"], largest_share: float) -> bool:
    counts = torch.bincount(label.flatten(), minlength=IGNORE + 1)[:IGNORE]
    return int((counts > 0).sum()) > 1 and int(counts.max()) < largest_share * int(counts.sum())


def cut_label(label: UInt8[Tensor, "H W"], cut: Cut, crop: tuple[int, int]) -> UInt8[Tensor, "h w"]:
    """The label at a place, 255 where the image ends."""
    part = _part(label, cut, crop)
    return F.pad(part, _missing(part, crop), value=IGNORE)


def cut_image(image: UInt8[Tensor, "3 H W"], cut: Cut, crop: tuple[int, int]) -> Float32[Tensor, "3 h w"]:
    """The normalised image at a place, 0 where it ends."""
    part = normalised(_part(image, cut, crop))
    return F.pad(part, _missing(part, crop))


def cut_mask(size: tuple[int, int], cut: Cut, crop: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """True where there is an image at a place, False in the padding."""
    part = _part(torch.ones(size, dtype=torch.bool), cut, crop)
    return F.pad(part, _missing(part, crop), value=False)


def normalised(image: UInt8[Tensor, "*B 3 H W"]) -> Float32[Tensor, "*B 3 H W"]:
    """ImageNet's mean and deviation taken off."""
    mean, std = _constants(image)
    return (image.float() - mean) / std


def pixels_of(image: Float32[Tensor, "*B 3 H W"]) -> Float32[Tensor, "*B 3 H W"]:
    """The inverse of :func:`normalised`, on a scale of 0 to 1."""
    mean, std = _constants(image)
    return (image * std + mean) / 255.0


def normalised_pixels(pixels: Float32[Tensor, "*B 3 H W"]) -> Float32[Tensor, "*B 3 H W"]:
    """Mean and deviation taken off pixels on a scale of 0 to 1."""
    mean, std = _constants(pixels)
    return (pixels * 255.0 - mean) / std


def _constants(image: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in (MEAN, STD))
    return mean, std


def _part(image: Tensor, cut: Cut, crop: tuple[int, int]) -> Tensor:
    part = image[..., cut.top : cut.top + crop[0], cut.left : cut.left + crop[1]]
    return part.flip(-1) if cut.mirrored else part


def _missing(part: Tensor, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    return 0, crop[1] - part.shape[-1], 0, crop[0] - part.shape[-2]
