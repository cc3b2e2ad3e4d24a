from __future__ import annotations

import pytest
import torch

from apps.vision.segmentation.data.geometry import (
    CropConfig,
    Cut,
    cut_image,
    cut_label,
    cut_mask,
    draw_cut,
    draw_source_cut,
    fitted,
    normalised,
    pixels_of,
    resized_image,
    resized_label,
)
from core.errors import InputError


def test_sizes_of_the_published_recipe():
    """Card of the method: GTA in 1280 x 720 comes out at 1280 x 704, the others exactly."""
    assert fitted((1052, 1914), (720, 1280)) == (704, 1280)
    assert fitted((760, 1280), (760, 1280)) == (760, 1280)
    assert fitted((1024, 2048), (512, 1024)) == (512, 1024)
    assert fitted((1080, 1920), (540, 960)) == (540, 960)
    assert fitted((240, 320), None) == (240, 320)


def test_halving_is_the_mean_of_four_and_a_label_of_the_set():
    image = torch.arange(2 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 3)
    half = resized_image(image.numpy(), (1, 2))
    expected = image.float().reshape(1, 2, 2, 2, 3).mean((1, 3)).permute(2, 0, 1)
    assert (half.float() - expected).abs().max() <= 0.5
    label = torch.tensor([[0, 9, 3, 3], [9, 9, 3, 7]], dtype=torch.uint8)
    assert set(resized_label(label.numpy(), (1, 2)).flatten().tolist()) <= {0, 3, 7, 9}


def test_a_cut_is_the_same_place_in_all():
    size = 9, 11
    label = torch.arange(99, dtype=torch.uint8).reshape(size)
    image = torch.stack([label, label, label])
    for mirrored in (False, True):
        cut = Cut(2, 3, mirrored)
        part = cut_label(label, cut, (4, 5))
        expected = label[2:6, 3:8]
        assert torch.equal(part, expected.flip(1) if mirrored else expected)
        pixels = (pixels_of(cut_image(image, cut, (4, 5))) * 255).round()
        assert torch.equal(pixels, part.float().expand(3, 4, 5))


def test_what_is_missing_is_zero_ignored_and_masked():
    cut = Cut(0, 0, True)
    image = cut_image(torch.full((3, 2, 3), 200, dtype=torch.uint8), cut, (4, 5))
    label = cut_label(torch.zeros(2, 3, dtype=torch.uint8), cut, (4, 5))
    mask = cut_mask((2, 3), cut, (4, 5))
    assert torch.equal(mask, label == 0)
    assert int(mask.sum()) == 6
    assert (image[:, ~mask] == 0).all()
    assert (image[:, mask] != 0).all()


def test_normalising_has_the_constants_of_imagenet():
    image = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    expected = torch.tensor([(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375])
    assert torch.allclose(normalised(image).flatten(), expected)


def test_places_are_uniform_and_mirrored_half_of_the_time():
    generator = torch.Generator().manual_seed(0)
    config = CropConfig(crop=(2, 3))
    cuts = [draw_cut((4, 5), config, generator) for _ in range(1800)]
    counts = torch.bincount(torch.tensor([3 * cut.top + cut.left for cut in cuts]), minlength=9)
    assert counts.min() > 200 - 4 * 14
    assert abs(sum(cut.mirrored for cut in cuts) - 900) < 4 * 21.3


def test_the_category_rule():
    """Left half one class, right half another; unlabelled pixels do not count."""
    label = torch.zeros(8, 64, dtype=torch.uint8)
    label[:, 32:] = 1
    label[:4] = 255
    config = CropConfig(crop=(8, 8), tries=200)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        part = cut_label(label, draw_source_cut(label, config, generator), config.crop)
        ones = int((part == 1).sum())
        assert 8 < ones < 24  # of 32 labelled ones, less than 75 % are of either
    never = CropConfig(crop=(8, 8), tries=0)
    generator = torch.Generator().manual_seed(1)
    parts = [cut_label(label, draw_source_cut(label, never, generator), never.crop) for _ in range(20)]
    assert any(len(part.unique()) == 2 for part in parts)
    everywhere = torch.zeros(8, 64, dtype=torch.uint8)
    draw_source_cut(everywhere, config, generator)  # cannot be satisfied: the last try is kept


def test_settings_that_make_no_sense():
    for wrong in ({"crop": (0, 3)}, {"flip": 2.0}, {"largest_share": -1.0}, {"tries": -1}):
        with pytest.raises(InputError):
            CropConfig(**wrong)
