"""What is watched: numbers of a student and a teacher that say what is written here."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from apps.vision.segmentation.config import AdaptationConfig
from apps.vision.segmentation.data.whole import Role
from apps.vision.segmentation.watch import watched

CONFIG = AdaptationConfig(threshold=0.9, ignore_top=1, ignore_bottom=1)


class Says(nn.Module):
    """Gives its images, of three channels, as the logits of three classes, the classes turned by so many."""

    def __init__(self, turn=0):
        super().__init__()
        self.turn = turn

    def forward(self, images):
        return images.roll(self.turn, 1)


def image_of(*pixels):
    """One row: of each pixel the class that is said and its probability; the others share the rest."""
    probabilities = torch.empty(3, 1, len(pixels))
    for place, (said, certainty) in enumerate(pixels):
        probabilities[:, 0, place] = (1 - certainty) / 2
        probabilities[said, 0, place] = certainty
    return probabilities.log()


def batch_of(*items):
    images, labels, roles = zip(*items, strict=True)
    labels = [torch.tensor(label, dtype=torch.uint8).reshape(min(1, len(label)), len(label)) for label in labels]
    return {"images": list(images), "labels": labels, "roles": torch.tensor([int(role) for role in roles])}


IMAGE = image_of((0, 0.95), (1, 0.95), (1, 0.6), (2, 0.99), (1, 0.5), (1, 0.92))
LABEL = [0, 0, 2, 255, 2, 1]


def test_the_teacher_is_held_against_labels_that_are_shown():
    found = watched(Says(1), Says(), [batch_of((IMAGE, LABEL, Role.SHOWN))], 3, CONFIG)
    assert found["pseudo_confident"] == pytest.approx(60.0)  # three of five labelled pixels; borders count here
    assert found["pseudo_accuracy"] == pytest.approx(200 / 3)
    assert found["teacher_accuracy"] == pytest.approx(40.0)
    assert found["teacher_miou"] == pytest.approx((50 + 25 + 0) / 3)
    assert found["target_miou"] == pytest.approx((0 + 0 + 50) / 3)  # the student says 1 for 0, 2 for 1, 0 for 2
    assert "target_agreement" not in found
    assert "source_miou" not in found


def test_sums_are_over_all_images_of_all_batches_and_of_no_other_role():
    halves = [batch_of((IMAGE[..., part], LABEL[part], Role.SHOWN)) for part in (slice(0, 2), slice(2, 6))]
    more = batch_of((IMAGE, LABEL, Role.SOURCE), (IMAGE, [], Role.TARGET))
    one = watched(Says(), Says(), [batch_of((IMAGE, LABEL, Role.SHOWN))], 3, CONFIG)
    found = watched(Says(), Says(), [more, *halves], 3, CONFIG)
    assert {name: found[name] for name in one} == pytest.approx(one)
    assert found["target_agreement"] == 100.0


def test_labels_are_of_their_own_size_and_the_share_confident_is_taken_there():
    rows, columns = 7, 9
    small = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    label = np.random.default_rng(1).integers(0, 3, (rows, columns)).astype(np.uint8)
    batch = {"images": [small], "labels": [torch.from_numpy(label)], "roles": torch.tensor([int(Role.SHOWN)])}
    found = watched(Says(), Says(), [batch], 3, CONFIG)
    large = nn.functional.interpolate(small[None], (rows, columns), mode="bilinear", align_corners=False)[0].softmax(0)
    certainty, said = (each.numpy() for each in large.max(0))
    assert 0 < (certainty >= 0.9).mean() < 1
    assert found["pseudo_confident"] == pytest.approx(100 * (certainty >= 0.9).mean())
    assert found["pseudo_accuracy"] == pytest.approx(100 * (said == label)[certainty >= 0.9].mean())
    assert found["teacher_accuracy"] == pytest.approx(100 * (said == label).mean())


def test_what_is_not_there_is_not_said():
    batch = batch_of((IMAGE, LABEL, Role.SHOWN))
    unsure = watched(Says(), Says(), [batch], 3, AdaptationConfig(threshold=1.0))
    assert unsure["pseudo_confident"] == 0.0
    assert math.isnan(unsure["pseudo_accuracy"])
    alone = watched(Says(), None, [batch], 3, CONFIG)
    assert set(alone) == {"target_miou"}
    hidden = watched(Says(), Says(), [batch_of((IMAGE, LABEL, Role.SOURCE), (IMAGE, [], Role.TARGET))], 3, CONFIG)
    assert set(hidden) == {"source_miou", "target_entropy", "target_information", "target_agreement"}
