"""Colours of one image given to another."""

import numpy as np
import pytest
import torch

from apps.vision.segmentation.data.style import STYLES, histogram, moments


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pair():
    """Two images, and two that have a border without an image."""
    source = 0.4 * torch.randn(2, 3, 12, 12, generator=generator())  # no pixel is clipped
    target = torch.cat([0.3 * torch.randn(2, 3, 12, 8, generator=generator(1)) - 0.5, torch.zeros(2, 3, 12, 4)], dim=3)
    mask = torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[:, :, :8] = True
    return source, target, mask


def test_moments_are_those_of_the_target(pair):
    source, target, mask = pair
    styled = moments(source, target, mask)
    for statistic in (torch.mean, torch.std):
        assert torch.allclose(statistic(styled, (2, 3)), statistic(target[..., :8], (2, 3)), atol=3e-3)


def test_a_distribution_is_that_of_the_target(pair):
    source, target, mask = pair
    styled = histogram(source, target, mask)
    shares = torch.linspace(0, 1, 21)
    for image in range(2):
        for channel in range(3):
            ours = np.quantile(styled[image, channel].numpy(), shares)
            theirs = np.quantile(target[image, channel, :, :8].numpy(), shares)
            assert np.abs(ours - theirs).max() < 0.12
            assert np.isin(styled[image, channel].numpy(), target[image, channel, :, :8].numpy()).all()


@pytest.mark.parametrize("style", STYLES)
def test_what_was_brighter_is_not_darker_and_what_was_equal_stays_so(style, pair):
    source, target, mask = pair
    source = (8 * source).round() / 8
    styled = STYLES[style](source, target, mask)
    order = source.flatten(2).argsort(2)
    steps, were = styled.flatten(2).gather(2, order).diff(dim=2), source.flatten(2).gather(2, order).diff(dim=2)
    assert (steps >= -1e-6).all()
    assert (steps[were == 0].abs() < 1e-6).all()


def test_an_image_is_its_own_model(pair):
    source, _, mask = pair
    everything = torch.ones_like(mask)
    for style in STYLES.values():
        assert torch.allclose(style(source, source, everything), source, atol=1e-6)


def test_a_target_without_a_pixel_changes_no_distribution(pair):
    source, target, mask = pair
    assert torch.equal(histogram(source, target, torch.zeros_like(mask)), source)
