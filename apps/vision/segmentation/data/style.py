"""Source images in the light of the target's: colours of one image given to another, its labels unchanged.

All functions take normalised images ``(B,3,H,W)`` of source and target, and a mask that is False where the target has
no image; the target image of the same place in the batch is the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apps.vision.segmentation.data.geometry import normalised_pixels, pixels_of

Images = Float[Tensor, "B 3 H W"]
Mask = Bool[Tensor, "B H W"]


def moments(source: Images, target: Images, mask: Mask) -> Images:
    """Mean and deviation of each colour are the target's.

    After Reinhard et al. ("Color Transfer between Images", IEEE CG&A 2001), in RGB and not in Lab.
    """
    real = mask[:, None].to(target.dtype)
    count = real.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (target * real).sum((2, 3), keepdim=True) / count
    deviation = ((target - mean).square() * real).sum((2, 3), keepdim=True).div(count).sqrt()
    spread, centre = torch.std_mean(source, (2, 3), correction=0, keepdim=True)
    styled = (source - centre) / spread.clamp(min=1e-3) * deviation + mean
    return normalised_pixels(pixels_of(styled).clamp(0.0, 1.0))


def histogram(source: Images, target: Images, mask: Mask) -> Images:
    """Each colour's values are distributed as the target's: histogram specification (Gonzalez and Woods, Digital Image
    Processing, ch. 3), by ranks; equal values stay equal."""
    styled = torch.empty_like(source)
    for image, model, real, out in zip(source, target, mask, styled, strict=True):
        for channel in range(3):
            values, wanted = image[channel].contiguous(), model[channel][real].sort().values
            if not len(wanted):
                out[channel] = values
                continue
            ordered = values.flatten().sort().values
            low = torch.searchsorted(ordered, values)
            high = torch.searchsorted(ordered, values, right=True)
            rank = (low + high - 1).to(values.dtype) / (2 * len(ordered) - 2 or 1)
            out[channel] = wanted[(rank * (len(wanted) - 1)).round().long()]
    return styled


STYLES: dict[str, Callable[[Images, Images, Mask], Images]] = {"moments": moments, "histogram": histogram}
"""By the names of ``adaptation.style_of``."""
