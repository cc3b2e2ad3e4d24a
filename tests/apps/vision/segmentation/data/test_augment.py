"""Colour operations against Python's own colorsys and hand-computed values; the blur against a direct convolution."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from apps.vision.segmentation.data.augment import (
    AugmentConfig,
    brighter,
    colour_jitter,
    contrasted,
    gaussian_blur,
    hue_turned,
    saturated,
    strong_augment,
)
from core.errors import InputError

IMAGE = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(3))


def _by_colorsys(image, change):
    rows = image.flatten(1).T.tolist()
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*row))) for row in rows]
    return torch.tensor(changed).T.reshape(image.shape)


def test_brightness_adds_and_contrast_multiplies():
    pixels = torch.tensor([0.0, 0.5, 0.95])[:, None, None]
    assert torch.allclose(brighter(pixels, 0.1).flatten(), torch.tensor([0.1, 0.6, 1.0]))
    assert torch.allclose(brighter(pixels, -0.2).flatten(), torch.tensor([0.0, 0.3, 0.75]))
    assert torch.allclose(contrasted(pixels, 0.2).flatten(), torch.tensor([0.0, 0.6, 1.0]))
    assert torch.allclose(contrasted(pixels, -0.2).flatten(), torch.tensor([0.0, 0.4, 0.76]))


@pytest.mark.parametrize("amount", [-0.2, 0.1, 0.2, 3.0])
def test_saturation_multiplies_s_of_hsv(amount):
    expected = _by_colorsys(IMAGE, lambda h, s, v: (h, min(1.0, s * (1 + amount)), v))
    assert torch.allclose(saturated(IMAGE, amount), expected, atol=1e-6)


@pytest.mark.parametrize("amount", [-0.2, 0.05, 0.2])
def test_hue_turns(amount):
    expected = _by_colorsys(IMAGE, lambda h, s, v: ((h + amount) % 1.0, s, v))
    assert torch.allclose(hue_turned(IMAGE, amount), expected, atol=1e-6)
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None]
    assert torch.allclose(hue_turned(red, 1 / 3).flatten(), torch.tensor([0.2, 0.8, 0.2]), atol=1e-6)


def test_grey_has_no_hue_and_no_saturation():
    grey = torch.rand(1, 4, 4).expand(3, 4, 4)
    for operation in (saturated, hue_turned):
        assert torch.equal(operation(grey, 0.15), grey)


def test_jitter_is_a_function_of_its_generator_image_by_image():
    images = torch.stack([IMAGE, IMAGE])

    def drawn(seed, batch):
        return colour_jitter(batch, 0.2, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1, images), drawn(1, images))
    assert not torch.equal(drawn(1, images)[0], drawn(1, images)[1])
    assert torch.equal(drawn(1, images)[0], drawn(1, images[:1])[0])
    assert torch.allclose(colour_jitter(images, 0.0, torch.Generator()), images, atol=1e-6)
    before = torch.get_rng_state()
    drawn(2, images)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_blur_is_a_gaussian_with_reflected_borders():
    images = torch.rand(2, 3, 64, 90, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.4, 1.15])
    blurred = gaussian_blur(images, sigma)
    for image, out, deviation in zip(images.double().numpy(), blurred, sigma.tolist(), strict=True):
        expected = image
        for axis, side in ((1, 7), (2, 9)):  # the largest odd numbers up to a tenth of the side, rounded up
            steps = np.arange(side) - side // 2
            kernel = np.exp(-0.5 * (steps / deviation) ** 2)
            expected = correlate1d(expected, kernel / kernel.sum(), axis=axis, mode="mirror")
        assert np.allclose(out.numpy(), expected, atol=1e-6)


def test_gates_are_one_draw_for_the_batch():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = AugmentConfig()
    unchanged = [
        torch.equal(strong_augment(images, config, torch.Generator().manual_seed(seed)), images) for seed in range(400)
    ]
    # neither jitter (0.8) nor blur (0.5): one in ten
    assert abs(np.mean(unchanged) - 0.1) < 4 * np.sqrt(0.09 / 400)
    off = AugmentConfig(jitter=0.0, blur=0.0)
    assert strong_augment(images, off, torch.Generator()) is images
    with pytest.raises(InputError):
        AugmentConfig(jitter=1.5)
    with pytest.raises(InputError):
        AugmentConfig(sigma=(2.0, 1.0))


def test_jitter_acts_on_pixels_between_0_and_1():
    """On normalised images the jitter must go through pixels: a white image stays within white."""
    from apps.vision.segmentation.data.geometry import normalised, pixels_of

    white = normalised(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
    for seed in range(20):
        out = pixels_of(strong_augment(white, AugmentConfig(jitter=1.0, blur=0.0), torch.Generator().manual_seed(seed)))
        assert out.max() <= 1 + 1e-6
        assert out.min() > 0.5
