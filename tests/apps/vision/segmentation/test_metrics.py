from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from apps.vision.segmentation.metrics import class_ious, confusion, iou_metrics, measured, scores
from core.errors import InputError
from core.evaluation.bootstrap import bootstrap, paired

NAMES = ("a", "b", "c", "d")


def _drawn(images=12, seed=0, right=0.6, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.choice([*range(classes), 255], (images, 20, 30), p=[0.5, 0.3, 0.1, 0.05, 0.05]).astype(np.uint8)
    guesses = rng.integers(0, classes, labels.shape).astype(np.uint8)
    predictions = np.where((rng.random(labels.shape) < right) & (labels < classes), labels, guesses)
    return labels, predictions


def _matrices(labels, predictions, classes=4):
    return np.stack([confusion(a, b, classes) for a, b in zip(labels, predictions, strict=True)])


def test_equal_to_scikit_learn():
    labels, predictions = _drawn()
    matrices = _matrices(labels, predictions)
    valid = labels != 255
    expected = 100 * jaccard_score(labels[valid], predictions[valid], average=None)
    assert class_ious(matrices.sum(0)) == pytest.approx(expected)
    metrics, truth = iou_metrics(NAMES), matrices.sum(2)
    assert metrics["miou"](truth, matrices) == pytest.approx(expected.mean())
    assert metrics["iou/c"](truth, matrices) == pytest.approx(expected[2])
    assert metrics["pixel_accuracy"](truth, matrices) == pytest.approx(100 * (labels == predictions)[valid].mean())


def test_equal_to_mmsegmentation():
    pytest.importorskip("mmseg")
    from mmseg.evaluation import IoUMetric

    labels, predictions = _drawn(seed=5)
    theirs = IoUMetric(ignore_index=255, iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": NAMES}
    for label, prediction in zip(labels, predictions, strict=True):
        data = {"pred_sem_seg": {"data": torch.from_numpy(prediction)[None].long()}}
        theirs.process({}, [{**data, "gt_sem_seg": {"data": torch.from_numpy(label)[None].long()}}])
    found = theirs.compute_metrics(theirs.results)
    ours = scores(_matrices(labels, predictions), NAMES).metrics
    assert ours["miou"].value == pytest.approx(found["mIoU"], abs=0.006)  # theirs is rounded
    assert ours["pixel_accuracy"].value == pytest.approx(found["aAcc"], abs=0.006)


def test_the_mean_is_over_classes_with_support():
    label = np.array([[0, 0, 1, 255]])
    matrix = confusion(label, np.array([[0, 2, 1, 2]]), 4)[None]
    assert class_ious(matrix[0])[[0, 1]].tolist() == [50, 100]
    assert np.isnan(class_ious(matrix[0])[[2, 3]]).all()
    assert iou_metrics(NAMES)["miou"](matrix.sum(2), matrix) == 75
    found = scores(matrix, NAMES)
    assert found.without_support == ("c", "d")
    assert list(found.metrics) == ["miou", "pixel_accuracy", "iou/a", "iou/b"]
    with pytest.raises(InputError, match="no labelled pixel"):
        scores(np.zeros((2, 4, 4), dtype=np.int64), NAMES)


def test_weighted_is_resampling():
    matrices = _matrices(*_drawn())
    truth = matrices.sum(2)
    weights = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=5).astype(np.float64)
    for metric in iou_metrics(NAMES).values():
        rows = [np.repeat(np.arange(12), row.astype(int)) for row in weights]
        expected = [metric(truth[row], matrices[row]) for row in rows]
        assert metric.weighted(truth, matrices, weights) == pytest.approx(expected, nan_ok=True)


def test_pairs_and_intervals():
    labels, good = _drawn(40, right=0.7)
    bad = _drawn(40, right=0.6)[1]
    a, b = measured(_matrices(labels, good), NAMES), measured(_matrices(labels, bad), NAMES)
    one, other = a.measures["miou"], b.measures["miou"]
    assert np.array_equal(one.truth, other.truth)
    difference = paired(one.metric, one.truth, one.prediction, other.prediction)
    assert difference.low > 0
    assert difference.value == pytest.approx(one.value - other.value)
    estimate = bootstrap(one.metric, one.truth, one.prediction)
    assert estimate.low < one.value < estimate.high
    assert estimate.units == 40


@pytest.mark.untyped
def test_what_does_not_fit():
    with pytest.raises(InputError, match="different size"):
        confusion(np.zeros((2, 3), dtype=int), np.zeros((3, 2), dtype=int), 2)
    with pytest.raises(InputError, match="between 0 and 1"):
        confusion(np.array([[0, 2]]), np.array([[0, 0]]), 2)
    with pytest.raises(InputError, match="wants truth"):
        iou_metrics(NAMES)["miou"](np.zeros(3), np.zeros((3, 4, 4)))
