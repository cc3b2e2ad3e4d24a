"""The share of a gap: exact where confusions are made for it, covered as often as it says, and none without a gap."""

import math

import numpy as np
import pytest

from apps.vision.segmentation.metrics import iou_metrics
from apps.vision.segmentation.share import UNSEEN, gap_closed

METRICS = iou_metrics(["road", "sky"])


def symmetric(hits, pixels):
    """Confusions of two classes of ``pixels`` each, ``hits`` of them right: IoU is hits / (2 pixels - hits) of both."""
    return np.array([[[h, pixels - h], [pixels - h, h]] for h in hits])


def closed(metric, own, lower, upper, **more):
    return gap_closed(METRICS[metric], own.sum(2), own, lower, upper, **more)


@pytest.mark.parametrize(
    ("metric", "hits"),
    [("pixel_accuracy", (40, 50, 60)), ("miou", (28, 48, 63)), ("iou/sky", (28, 48, 63))],  # IoU 20, 40, 60 %
)
def test_half_is_half_whatever_is_drawn(metric, hits):
    sizes = np.random.default_rng(0).integers(1, 9, 40)
    lower, own, upper = (symmetric([h] * 40, 84) * sizes[:, None, None] for h in hits)
    found = closed(metric, own, lower, upper)
    assert found.share.value == pytest.approx(50.0, abs=1e-9)
    assert (found.share.low, found.share.high) == (pytest.approx(50.0), pytest.approx(50.0))
    assert found.gap.value == pytest.approx(METRICS[metric](own.sum(2), upper) - METRICS[metric](own.sum(2), lower))


def test_both_ends_can_be_passed():
    lower, upper = symmetric([20] * 30, 84), symmetric([40] * 30, 84)
    assert closed("pixel_accuracy", symmetric([10] * 30, 84), lower, upper).share.value == pytest.approx(-50.0)
    assert closed("pixel_accuracy", symmetric([50] * 30, 84), lower, upper).share.value == pytest.approx(150.0)


def test_the_interval_is_of_ratios_of_the_same_resamples():
    rng = np.random.default_rng(3)
    lower, own, upper = (symmetric(rng.integers(low, low + 30, 25), 84) for low in (10, 25, 50))
    found = closed("miou", own, lower, upper, n=1000)
    ratios = []
    for _ in range(1000):  # images are repeated here, weighted there
        drawn = rng.integers(0, 25, 25)
        a, b, c = (METRICS["miou"](own[drawn].sum(2), each[drawn]) for each in (own, lower, upper))
        ratios.append(100 * (a - b) / (c - b))
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.share.low == pytest.approx(low, abs=0.15 * (high - low))
    assert found.share.high == pytest.approx(high, abs=0.15 * (high - low))
    assert found.share.error == pytest.approx(np.std(ratios), rel=0.1)


def test_the_interval_covers_as_often_as_it_says():
    rng, truth, inside = np.random.default_rng(11), 30.0, 0
    for seed in range(300):
        base, gap = rng.uniform(300, 500, 40), rng.normal(120, 60, 40)
        own = base + truth / 100 * gap + rng.normal(0, 25, 40)
        lower, mine, upper = (symmetric(np.round(hits).astype(int), 1000) for hits in (base, own, base + gap))
        share = closed("pixel_accuracy", mine, lower, upper, n=400, seed=seed).share
        inside += share.low <= truth <= share.high
    assert 0.91 <= inside / 300 <= 0.98


@pytest.mark.parametrize("more", [0, -5, 1])
def test_without_a_gap_there_is_no_share(more):
    noise = np.random.default_rng(5).integers(-20, 20, 30)
    lower, upper = symmetric([40] * 30, 84), symmetric(40 + noise - round(noise.mean()) + more, 84)
    found = closed("miou", symmetric([45] * 30, 84), lower, upper)
    assert found.share is None
    assert str(found) == UNSEEN == "gap not distinguishable from zero"


def test_one_image_shows_no_gap():
    found = closed("miou", symmetric([30], 84), symmetric([20], 84), symmetric([40], 84))
    assert found.share is None
    assert math.isnan(found.gap.low)


def test_resamples_without_a_gap_are_counted():
    gaps = np.array([300, 250, 40, -60, 350, 10, 200, -80])
    lower, own, upper = (symmetric(400 + part, 1000) for part in (0 * gaps, gaps // 2, gaps))
    found = closed("pixel_accuracy", own, lower, upper)
    assert found.gap.low > 0
    assert found.share.value == pytest.approx(50.0)
    assert found.share.n_valid < found.share.n
    assert f"undefined in {found.share.n - found.share.n_valid} of 2000 resamples" in found.share.note
