from __future__ import annotations

import numpy as np
import pytest
import torch

from apps.vision.segmentation.data.geometry import CropConfig, cut_label
from apps.vision.segmentation.data.items import count_labels
from apps.vision.segmentation.data.rare import (
    RareClassConfig,
    RareClassSampler,
    class_probabilities,
    class_shares,
)
from core.errors import InputError


def test_probabilities_of_the_card():
    shares = np.array([0.9, 0.09, 0.01])
    assert class_probabilities(shares, 0.1) == pytest.approx([9.4e-5, 0.310, 0.690], rel=2e-3)
    sharp = class_probabilities(shares, 0.01)
    assert sharp[0] == pytest.approx(0, abs=1e-30)
    assert sharp[1:] == pytest.approx([3.4e-4, 0.9997], rel=2e-2)
    assert class_probabilities(shares, np.inf) == pytest.approx([1 / 3] * 3)
    assert class_probabilities(np.array([0.5, 0.0, 0.5]), 0.1)[1] == 0


def test_the_counts_scale_with_the_resolution():
    """Card of the method: 114 pixels of a 320 x 240 frame, 287 of a 224 crop; 1500 of a 512 crop."""
    counts = np.array([[320 * 240 - 115, 115, 0], [320 * 240 - 114, 114, 0]])
    sampler = RareClassSampler(counts, RareClassConfig(), (224, 224), ["a", "b"])
    assert [images.tolist() for images in sampler.images] == [[0, 1], [0]]
    assert sampler.crop_pixels == 287
    assert RareClassSampler(counts, RareClassConfig(), (512, 512), ["a", "b"]).crop_pixels == 1500


def test_draws_follow_the_probabilities_and_the_eligible_images():
    counts = np.array([[900, 0, 0], [800, 90, 10], [1000, 40, 3]])
    config = RareClassConfig(temperature=0.5, image_pixels=5)
    sampler = RareClassSampler(counts, config, (8, 8), ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    drawn = np.array([sampler.draw(generator) for _ in range(4000)])
    rate = (drawn[:, 0] == 1).mean()
    p = sampler.probabilities[1]
    assert abs(rate - p) < 4 * np.sqrt(p * (1 - p) / 4000)
    assert set(drawn[drawn[:, 0] == 1, 1]) == {1, 2}
    assert set(drawn[drawn[:, 0] == 0, 1]) == {0, 1, 2}
    assert class_shares(counts, "all")[0] < class_shares(counts)[0]


def test_a_class_that_no_image_has_enough_of():
    with pytest.raises(InputError, match=r"enough pixels of 'b' to draw it by \(7 at most\); set image_pixels below 7"):
        RareClassSampler(np.array([[90, 7, 0]]), RareClassConfig(image_pixels=7), (8, 8), ["a", "b"])


def test_crops_are_taken_again_for_the_class():
    label = torch.zeros(16, 160, dtype=torch.uint8)
    label[:, 150:] = 1
    config = CropConfig(crop=(16, 16), tries=0)
    rare = RareClassConfig(crop_pixels=32, image_pixels=1, tries=500)
    sampler = RareClassSampler(np.array([[2400, 160, 0]]), rare, config.crop, ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        assert int((cut_label(label, sampler.cut(label, 1, config, generator), config.crop) == 1).sum()) > 32
    with pytest.raises(InputError):
        RareClassConfig(temperature=0.0)


def test_labels_are_counted_at_their_own_resolution(two_domains):
    from apps.vision.segmentation.data.sources import Source, load_adaptation

    data = load_adaptation(Source(data=str(two_domains), source_domain="day", target_domain="dusk"))
    assert count_labels(data.source["train"], 3).tolist() == [[72 * 32] * 3 + [0]] * 6
