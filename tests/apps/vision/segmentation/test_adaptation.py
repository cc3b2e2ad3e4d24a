"""The parts of the adaptation step, each against what it says it is."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from apps.vision.segmentation.adaptation import (
    class_weights,
    draw_mask,
    mixed_images,
    mixed_labels,
    pixel_loss,
    pseudo_labels,
    ramp,
)
from apps.vision.segmentation.config import AdaptationConfig
from apps.vision.segmentation.distance import feature_distance, thing_cells
from core.errors import InputError

PLAIN = AdaptationConfig(ignore_top=0, ignore_bottom=0, threshold=0.75)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def two_way(probabilities):
    """Logits of two classes whose first has these probabilities."""
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def labels_of(*shape, values=(0, 1, 2, 3, 255), seed=0):
    return torch.tensor(values)[torch.randint(len(values), shape, generator=generator(seed))]


def test_the_loss_divides_by_ignored_pixels_too():
    logits, labels = torch.randn(2, 4, 3, 5, generator=generator()), labels_of(2, 12, 20)
    weights = torch.rand(2, 12, 20, generator=generator(1))
    up = F.interpolate(logits, (12, 20), mode="bilinear", align_corners=False).log_softmax(1)
    total = 0.0
    for image, row, column in torch.nonzero(labels != 255).tolist():
        total -= float(weights[image, row, column] * up[image, labels[image, row, column], row, column])
    assert float(pixel_loss(logits, labels, weights)) == pytest.approx(total / labels.numel(), rel=1e-5)
    labelled = int((labels != 255).sum())
    assert labelled < labels.numel()
    assert float(pixel_loss(logits, labels, weights, mean_over="labelled")) == pytest.approx(total / labelled, rel=1e-5)
    assert float(pixel_loss(logits, torch.full((2, 12, 20), 255), mean_over="labelled")) == 0.0


def test_the_weight_of_pseudo_labels_is_a_share_of_the_batch_or_of_the_image():
    logits = two_way([[[0.9, 0.1], [0.6, 0.6]], [[0.6, 0.5], [0.6, 0.8]]])  # 2 of 4 and 1 of 4 are confident
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    of_batch = pseudo_labels(logits, mask, PLAIN)
    assert torch.equal(of_batch.weights, torch.full((2, 2, 2), 3 / 8, dtype=torch.float64))
    assert of_batch.labels[0].tolist() == [[0, 1], [0, 0]]
    of_image = pseudo_labels(logits, mask, AdaptationConfig(**{**vars(PLAIN), "share_of": "image"}))
    assert of_image.weights[:, 0, 0].tolist() == [0.5, 0.25] == of_image.confident.tolist()
    assert (of_image.weights == of_image.weights[:, :1, :1]).all()
    of_pixel = pseudo_labels(logits, mask, AdaptationConfig(**{**vars(PLAIN), "share_of": "pixel"}))
    assert of_pixel.weights.tolist() == [[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_labels_of_rare_classes_count_more_and_all_of_them_one_in_the_mean(balance):
    shares = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    counts = class_weights(shares, balance)
    assert float(counts @ shares) == pytest.approx(1.0)
    for one in range(4):  # 0.001: a class that nobody says does not count without bound
        for other in range(4):
            ratio = ((float(shares[other]) + 1e-3) / (float(shares[one]) + 1e-3)) ** balance
            assert float(counts[one] / counts[other]) == pytest.approx(ratio)


@pytest.mark.parametrize("share_of", ["image", "pixel", "batch"])
def test_balanced_labels_count_by_what_the_teacher_says_of_the_batch_and_stay_as_confident(share_of):
    logits, mask = torch.randn(2, 4, 6, 8, generator=generator()), torch.ones(2, 6, 8, dtype=torch.bool)
    logits[:, 0] += 2.0
    mask[1, :, 5:] = False
    logits[1, :, :, 5:] = torch.tensor([0.0, 9.0, 0.0, 0.0])[:, None, None]  # where no image is, nothing is said
    config = AdaptationConfig(**{**vars(PLAIN), "ignore_top": 1, "threshold": 0.4, "share_of": share_of})
    plain, balanced = (pseudo_labels(logits, mask, replace(config, balance=balance)) for balance in (0.0, 0.5))
    said = torch.zeros(4)
    for image, row, column in torch.nonzero(mask).tolist():
        said += logits[image, :, row, column].softmax(0) / int(mask.sum())
    assert torch.equal(balanced.labels, plain.labels)
    assert torch.equal(balanced.confident, plain.confident)
    expected = plain.weights * class_weights(said, 0.5)[plain.labels]
    assert torch.allclose(balanced.weights, expected, rtol=1e-5)
    assert len(torch.unique(balanced.weights)) > len(torch.unique(plain.weights))
    assert not balanced.weights[:, 0].any()
    assert not balanced.weights[1, :, 5:].any()


def test_a_probability_of_the_threshold_itself_counts_as_released_and_not_as_in_the_paper():
    logits, mask = two_way([[[0.5, 0.5]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    for test, share in (("at_least", 1.0), ("above", 0.0)):
        config = AdaptationConfig(**{**vars(PLAIN), "test": test, "threshold": 0.5})
        assert pseudo_labels(logits, mask, config).confident.item() == share


def test_rows_at_the_border_and_padding_count_nothing():
    config = AdaptationConfig(**{**vars(PLAIN), "ignore_top": 1, "ignore_bottom": 2})
    mask = torch.ones(1, 6, 4, dtype=torch.bool)
    mask[:, :, 3] = False
    found = pseudo_labels(two_way(torch.full((1, 6, 4), 0.9)), mask, config)
    assert found.confident.item() == 1.0  # of the pixels that are there
    assert found.weights[0].tolist() == [[0.0] * 4, *[[1.0, 1.0, 1.0, 0.0]] * 3, *[[0.0] * 4] * 2]


def test_mixed_labels_are_the_sources_within_the_mask_and_the_teachers_elsewhere():
    source, config = labels_of(3, 16, 16), AdaptationConfig(**{**vars(PLAIN), "ignore_top": 4})
    pseudo = pseudo_labels(torch.randn(3, 4, 16, 16, generator=generator()), torch.ones(3, 16, 16).bool(), config)
    mask = draw_mask(source, config, generator())
    labels, weights = mixed_labels(mask, source, pseudo)
    assert torch.equal(labels[mask], source[mask])
    assert torch.equal(labels[~mask], pseudo.labels[~mask])
    assert (weights[mask] == 1).all()
    assert torch.equal(weights[~mask], pseudo.weights[~mask])
    top = weights[:, :4]
    assert (top[~mask[:, :4]] == 0).all()
    assert (top[mask[:, :4]] == 1).all()
    assert mask[:, :4].any()
    images = torch.randn(2, 3, 3, 16, 16, generator=generator())
    mixed = mixed_images(mask, *images)
    seen = mask[:, None].expand_as(mixed)
    assert torch.equal(mixed[seen], images[0][seen])
    assert torch.equal(mixed[~seen], images[1][~seen])


@pytest.mark.parametrize("ignored", [True, False])
def test_class_mix_takes_half_of_the_values_of_each_image(ignored):
    config = AdaptationConfig(mix_classes_of="image", mix_ignored=ignored)
    labels = torch.stack([labels_of(9, 9), labels_of(9, 9, values=(1, 255))])
    drawn = set()
    for seed in range(30):
        for label, mask in zip(labels, draw_mask(labels, config, generator(seed)), strict=True):
            chosen, there = set(label[mask].tolist()), {*label.tolist()[0], *label.flatten().tolist()}
            there -= set() if ignored else {255}
            assert len(chosen) == (len(there) + 1) // 2
            assert torch.equal(mask, torch.isin(label, torch.tensor(sorted(chosen))))
            drawn |= chosen
    assert drawn == {0, 1, 2, 3, *([255] if ignored else [])}


def test_class_mix_of_the_batch_may_choose_what_an_image_lacks():
    labels = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).long()  # two values: one is drawn for each image
    filled = [draw_mask(labels, AdaptationConfig(), generator(seed)).flatten(1).float().mean(1) for seed in range(40)]
    assert {tuple(each.tolist()) for each in filled} == {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)}


def test_cells_that_a_thing_fills():
    labels = torch.zeros(1, 8, 12, dtype=torch.int64)
    labels[0, :4, :4] = 2  # a thing alone
    labels[0, :3, 4:8] = 2  # three quarters of it
    labels[0, :2, 8:] = 2  # half
    labels[0, 4:, :4] = 255
    labels[0, 4:, 4:8] = 1  # another class
    assert thing_cells(labels, (2, 3), 3, {2}, 0.75)[0].tolist() == [[True, True, False], [False] * 3]
    assert not thing_cells(labels, (2, 3), 3, {0, 2}, 0.8)[0, 0, 1]
    # Ten columns on three cells of four: what is beyond the image is not labelled.
    cut = torch.full((1, 8, 10), 2)
    assert thing_cells(cut, (2, 3), 3, {2}, 0.75)[0].tolist() == [[True, True, False]] * 2


def test_the_feature_distance_is_a_mean_over_cells_or_over_images():
    own, other = torch.randn(2, 2, 5, 3, 4, generator=generator(), dtype=torch.float64).unbind(0)
    cells = torch.zeros(2, 3, 4, dtype=torch.bool)
    cells[0, 0, 0] = cells[0, 1, 2] = cells[1, 2, 3] = True
    a, b, c = (float((own[i, :, r, s] - other[i, :, r, s]).norm()) for i, r, s in ((0, 0, 0), (0, 1, 2), (1, 2, 3)))
    assert float(feature_distance(own, other, cells, "batch")) == pytest.approx((a + b + c) / 3, rel=1e-6)
    assert float(feature_distance(own, other, cells, "image")) == pytest.approx(((a + b) / 2 + c) / 2, rel=1e-6)


@pytest.mark.parametrize("mean_over", ["batch", "image"])
def test_no_cell_and_no_distance_give_zero_gradients(mean_over):
    own = torch.randn(2, 3, 2, 2, generator=generator(), requires_grad=True)
    for other, cells in (
        (torch.zeros(2, 3, 2, 2), torch.zeros(2, 2, 2).bool()),
        (own.detach(), torch.ones(2, 2, 2).bool()),
    ):
        loss = feature_distance(own, other, cells, mean_over)
        (gradient,) = torch.autograd.grad(loss, own)
        assert loss.item() < 1e-10
        assert torch.equal(gradient, torch.zeros_like(own))


def test_the_weight_of_mixed_images_rises_with_the_step():
    assert [ramp(step, 300, 0.0, 1 / 3) for step in (0, 50, 100, 299)] == [0.0, 0.5, 1.0, 1.0]
    assert [ramp(step, 300, 1 / 3, 1 / 3) for step in (0, 99, 100, 150, 200, 299)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    assert [ramp(step, 300, 1 / 3, 0.0) for step in (99, 100)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 1.5), ("alpha", 1.0), ("ignore_top", -1), ("mix_weight", float("inf"))]
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(InputError, match=f"adaptation.{field}"):
        AdaptationConfig(**{field: value})
