"""Colour jitter and blur of DAFormer's mixed images, as pure functions of images and a generator.

The released procedure uses kornia 0.5.8. These are its operations, unlike torchvision's:

* brightness **adds** U(-s, s), contrast **multiplies** by U(1-s, 1+s) about 0 (no mean), saturation multiplies S of
  HSV, hue adds U(-s, s) turns to H of HSV; each clamps to [0, 1]; the four in random order, drawn anew for each
  image.
* Gaussian blur with σ ~ U(0.15, 1.15), on an odd kernel of at most a tenth of the side, the borders reflected.

Measured against kornia 0.5.8, operation by operation: equal up to 2e-6, which are its guards against division by 0.

Jitter acts on pixels in [0, 1], blur on any scale. Whether either happens is one draw for the whole batch:
jitter with probability 0.8, blur with 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from apps.vision.segmentation.data.geometry import normalised_pixels, pixels_of
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How images are disturbed.

    Attributes:
        strength: s of the jitter.
        jitter: probability that a batch is jittered.
        blur: probability that a batch is blurred.
        sigma: smallest and largest deviation of the blur, in pixels.

    Raises:
        InputError: no probability, or a strength or a deviation that makes no sense.
    """

    strength: float = 0.2
    jitter: float = 0.8
    blur: float = 0.5
    sigma: tuple[float, float] = (0.15, 1.15)

    def __post_init__(self) -> None:
        for name, share in (("strength", self.strength), ("jitter", self.jitter), ("blur", self.blur)):
            if not 0 <= share <= 1:
                raise InputError(f"{share} is not between 0 and 1", where=name)
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise InputError(f"{self.sigma} is not a smallest and a largest deviation above 0", where="sigma")


def strong_augment(
    images: Float32[Tensor, "B 3 H W"], config: AugmentConfig, generator: torch.Generator
) -> Float32[Tensor, "B 3 H W"]:
    """Normalised images jittered and blurred at random; whether either happens is drawn once for all of them."""
    gates = torch.rand(2, generator=generator, device=generator.device).tolist()
    if gates[0] < config.jitter:
        images = normalised_pixels(colour_jitter(pixels_of(images), config.strength, generator))
    if gates[1] < config.blur:
        low, high = config.sigma
        sigma = low + (high - low) * torch.rand(len(images), generator=generator, device=generator.device)
        images = gaussian_blur(images, sigma.to(images.device))
    return images


def colour_jitter(
    images: Float32[Tensor, "B 3 H W"], strength: float, generator: torch.Generator
) -> Float32[Tensor, "B 3 H W"]:
    """Images in [0, 1] with brightness, contrast, saturation and hue changed, in an order drawn for each."""
    jittered = []
    for image in images:
        order = torch.randperm(4, generator=generator, device=generator.device).tolist()
        amounts = (2 * torch.rand(4, generator=generator, device=generator.device) - 1) * strength
        for operation in order:
            image = _OPERATIONS[operation](image, float(amounts[operation]))
        jittered.append(image)
    return torch.stack(jittered)


def brighter(image: Float[Tensor, "*B 3 H W"], amount: float) -> Float[Tensor, "*B 3 H W"]:
    """The amount added."""
    return (image + amount).clamp(0.0, 1.0)


def contrasted(image: Float[Tensor, "*B 3 H W"], amount: float) -> Float[Tensor, "*B 3 H W"]:
    """All values times 1 + amount."""
    return (image * (1.0 + amount)).clamp(0.0, 1.0)


def saturated(image: Float[Tensor, "*B 3 H W"], amount: float) -> Float[Tensor, "*B 3 H W"]:
    """Saturation times 1 + amount, at most 1; hue and the largest channel stay."""
    top = image.amax(-3, keepdim=True)
    spread = top - image.amin(-3, keepdim=True)
    # S = spread / top: all distances from the largest channel grow by one factor, until the least one is 0.
    grown = (spread * (1.0 + amount)).clamp(max=1.0).minimum(top)
    factor = torch.where(spread > 0, grown / spread.clamp(min=1e-12), torch.ones_like(spread))
    return top - (top - image) * factor


def hue_turned(image: Float[Tensor, "*B 3 H W"], amount: float) -> Float[Tensor, "*B 3 H W"]:
    """Hue turned by the amount, in turns; saturation and value stay."""
    red, green, blue = image.unbind(-3)
    top, spread = image.amax(-3), image.amax(-3) - image.amin(-3)
    safe = spread.clamp(min=1e-12)
    sixths = torch.where(
        top == red,
        (green - blue) / safe,
        torch.where(top == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    sixths = torch.where(spread > 0, sixths, torch.zeros_like(sixths)) + 6.0 * amount
    channels = []
    for offset in (5.0, 3.0, 1.0):  # of a channel: V - V S max(0, min(k, 4 - k, 1)), k = (offset + H) mod 6
        k = (offset + sixths) % 6.0
        channels.append(top - spread * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return torch.stack(channels, dim=-3)


_OPERATIONS = (brighter, contrasted, saturated, hue_turned)


def gaussian_blur(images: Float32[Tensor, "B 3 H W"], sigma: Float32[Tensor, "B"]) -> Float32[Tensor, "B 3 H W"]:
    """Each image blurred with its own deviation.

    The kernel's side is the largest odd number up to ⌈side / 10⌉, as released (51 for 512); of it only what lies within
    seven deviations is computed: the rest is below 1e-10.
    """
    reaches = [min(kernel_size(side) // 2, math.ceil(7 * float(sigma.max()))) for side in images.shape[-2:]]
    blurred = images.transpose(0, 1)  # (3, B, H, W): each image is a group of the convolution
    for axis, reach in zip((-2, -1), reaches, strict=True):
        steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        padding = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        weight = kernel[:, None, :, None] if axis == -2 else kernel[:, None, None, :]
        blurred = F.conv2d(F.pad(blurred, padding, mode="reflect"), weight, groups=len(images))
    return blurred.transpose(0, 1).contiguous()


def kernel_size(side: int) -> int:
    """Of the blur, for an image side.

    >>> kernel_size(512), kernel_size(224)
    (51, 23)
    """
    tenth = math.ceil(0.1 * side)
    return tenth if tenth % 2 else tenth - 1
