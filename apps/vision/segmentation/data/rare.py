"""Rare class sampling: source images are drawn by class, rare classes more often.

Hoyer et al., DAFormer, CVPR 2022. With f_c the share of class c among the labelled pixels of the source,

    P(c) = exp((1 - f_c) / T) / Σ_k exp((1 - f_k) / T)

over the classes that occur. A class is drawn by P, then evenly an image with more than n pixels of it at its original
resolution, then a crop, which is taken again (at most ten times) while it has no more than m pixels of the class.

The authors use T = 0.01, n = 3000 on GTA frames (0.149 % of them) and m = 1500 in crops of 512 x 512 (0.57 %). Where no
counts are given, these shares are kept for other sizes. T = 0.01 is sharp: on sets of ten classes it puts nearly all
draws on the few rarest; 0.1 spreads them, and suits small sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from apps.vision.segmentation.data.geometry import (
    CropConfig,
    Cut,
    cut_label,
    draw_source_cut,
)
from core.errors import InputError

IMAGE_SHARE, CROP_SHARE = 3000 / (1914 * 1052), 1500 / 512**2
"""The authors' counts as shares of a frame and of a crop."""


@dataclass(frozen=True, kw_only=True)
class RareClassConfig:
    """How source images are drawn.

    Attributes:
        temperature: T; infinity draws all classes alike.
        image_pixels: n, at original resolution; None: 0.149 % of the image.
        crop_pixels: m; None: 0.57 % of the crop.
        tries: crops more that are tried.
        shares_of: f_c among ``labelled`` pixels, as the released code has it, or among ``all``.

    Raises:
        InputError: a temperature that is not positive, or a negative count.
    """

    temperature: float = 0.01
    image_pixels: int | None = None
    crop_pixels: int | None = None
    tries: int = 10
    shares_of: Literal["labelled", "all"] = "labelled"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"{self.temperature} is not above 0", where="temperature")
        for name, count in (("image_pixels", self.image_pixels), ("crop_pixels", self.crop_pixels)):
            if count is not None and count < 0:
                raise InputError(f"{count} is not a number of pixels", where=name)
        if self.tries < 0:
            raise InputError(f"{self.tries} is not a number of tries", where="tries")


def class_shares(
    counts: Int64[np.ndarray, "N K"], of: Literal["labelled", "all"] = "labelled"
) -> Float64[np.ndarray, "C"]:
    """f: the share of each class in what :func:`.items.count_labels` gave.

    >>> class_shares(np.array([[6, 2, 2]])).tolist(), class_shares(np.array([[6, 2, 2]]), "all").tolist()
    ([0.75, 0.25], [0.6, 0.2])
    """
    pixels = counts.sum(axis=0).astype(np.float64)
    shares: Float64[np.ndarray, "C"] = pixels[:-1] / max(1.0, pixels.sum() if of == "all" else pixels[:-1].sum())
    return shares


def class_probabilities(shares: Float64[np.ndarray, "C"], temperature: float) -> Float64[np.ndarray, "C"]:
    """P(c); 0 for classes that do not occur.

    >>> class_probabilities(np.array([0.9, 0.09, 0.01]), 0.1).round(3).tolist()
    [0.0, 0.31, 0.69]
    """
    logits = np.where(shares > 0, (1.0 - shares) / temperature, -np.inf)
    weights = np.exp(logits - logits.max())
    probabilities: Float64[np.ndarray, "C"] = weights / weights.sum()
    return probabilities


class RareClassSampler:
    """Draws a class, then an image that has it.

    Args:
        counts: from :func:`.items.count_labels`.
        config: T and the smallest counts.
        crop: height and width of a crop.
        names: of the classes, for errors.

    Raises:
        InputError: a class that occurs has no image with enough pixels of it.
    """

    def __init__(
        self,
        counts: Int64[np.ndarray, "N K"],
        config: RareClassConfig,
        crop: tuple[int, int],
        names: Sequence[str],
    ) -> None:
        self.config = config
        self.shares = class_shares(counts, config.shares_of)
        self.probabilities = class_probabilities(self.shares, config.temperature)
        pixels = counts.sum(axis=1)
        fewest = IMAGE_SHARE * pixels if config.image_pixels is None else np.full(len(pixels), config.image_pixels)
        eligible = counts[:, :-1] > fewest[:, None]
        lacking = np.flatnonzero((self.shares > 0) & ~eligible.any(axis=0))
        if len(lacking):
            best = int(counts[:, lacking[0]].max())
            what = f"no source image has enough pixels of {names[lacking[0]]!r} to draw it by ({best} at most)"
            raise InputError(what, where="rare class sampling", mend=f"set image_pixels below {best}, or leave it off")
        self.images = [torch.from_numpy(np.flatnonzero(column)) for column in eligible.T]
        self._cumulative = torch.from_numpy(np.cumsum(self.probabilities))
        self.crop_pixels = round(CROP_SHARE * crop[0] * crop[1]) if config.crop_pixels is None else config.crop_pixels

    def draw(self, generator: torch.Generator) -> tuple[int, int]:
        """A class, and the index of an image that has it."""
        u = torch.rand((), generator=generator, dtype=torch.float64) * self._cumulative[-1]
        chosen = int(torch.searchsorted(self._cumulative, u, right=True))
        images = self.images[chosen]
        return chosen, int(images[int(torch.randint(len(images), (), generator=generator))])

    def cut(self, label: Tensor, of: int, config: CropConfig, generator: torch.Generator) -> Cut:
        """A crop of an image with this label that has more than m pixels of the class, if one of the tries does."""
        cut = draw_source_cut(label, config, generator)
        for _ in range(self.config.tries):
            if int((cut_label(label, cut, config.crop) == of).sum()) > self.crop_pixels:
                break
            cut = draw_source_cut(label, config, generator)
        return cut
