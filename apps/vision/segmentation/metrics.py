"""Intersection over union, from one confusion matrix over a whole set at original label size.

Everything is a function of one confusion matrix an image, ``(N, C, C)`` with the truth in rows, so that images can be
resampled and models compared on the same images:

    IoU_c = n_cc / (Σ_j n_cj + Σ_i n_ic - n_cc),    n = Σ over images,    mIoU = mean over classes with support

Support is a labelled pixel of the class in the set (or in the resample). A class that the truth lacks is left out of
the mean; what is wrongly taken for it still counts against the class that is there. With every class in the truth this
is the mIoU of mmsegmentation and of the papers; theirs counts a class that is only predicted as 0.

Values are percent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, Shaped
from numpy.typing import NDArray

from apps.vision.segmentation.data.classes import IGNORE
from core.application import Measure, Scored
from core.errors import InputError
from core.evaluation.bootstrap import Estimate, bootstrap
from core.evaluation.metrics import Metric


def confusion(
    label: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"], classes: int
) -> Int64[np.ndarray, "C C"]:
    """Pixels by true class (row) and predicted class (column); what is not labelled is left out.

    Args:
        label: train ids, 255 for "not labelled".
        prediction: train ids 0 to C-1, of the same size.
        classes: C.

    Raises:
        InputError: sizes differ, or ids outside the classes.

    >>> confusion(np.array([[0, 1, 1, 255]]), np.array([[0, 0, 1, 1]]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    if label.shape != prediction.shape:
        raise InputError(f"label {label.shape} and prediction {prediction.shape} are of different size")
    valid = label != IGNORE
    truth, guess = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    if truth.size and (max(truth.max(), guess.max()) >= classes or min(truth.min(), guess.min()) < 0):
        raise InputError(f"train ids must lie between 0 and {classes - 1}")
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def class_ious(matrix: Shaped[np.ndarray, "*R C C"]) -> Float64[np.ndarray, "*R C"]:
    """IoU of each class in percent from summed confusions; nan where the truth has none of it."""
    return _ious(_counts(matrix).astype(np.float64))


def iou_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """``miou``, ``pixel_accuracy``, and ``iou/NAME`` of each class: metrics of (truth, confusions).

    The truth is ``(N, C)``, labelled pixels of each class in each image, the prediction ``(N, C, C)``.

    >>> metric = iou_metrics(["road", "sky"])["miou"]
    >>> matrices = np.array([[[3, 1], [0, 4]], [[4, 0], [0, 0]]])
    >>> round(metric(matrices.sum(2), matrices), 2)
    83.75
    """
    metrics = [_metric("miou", _mean_iou), _metric("pixel_accuracy", _pixel_accuracy)]
    for index, name in enumerate(names):
        metrics.append(_metric(f"iou/{name}", _one_iou, slice(index, index + 1)))
    return {metric.name: metric for metric in metrics}


def measured(matrices: Int64[np.ndarray, "N C C"], names: Sequence[str]) -> Scored:
    """Every metric with what it is a function of, from the confusions of each image.

    Images are the units, not sequences: a test set often has one to three of those, of which no interval can be made.
    """
    truth = matrices.sum(axis=2)
    return Scored({name: Measure(metric, truth, matrices) for name, metric in iou_metrics(names).items()})


@dataclass(frozen=True)
class Scores:
    """What a model reaches on a set.

    Attributes:
        metrics: ``miou``, ``pixel_accuracy`` and ``iou/NAME`` of classes with support, in percent with 95 % intervals
            by image.
        matrix: ``(C, C)`` pixels by true (row) and predicted class.
        without_support: classes that no label of the set has.
        images: how many.
    """

    metrics: Mapping[str, Estimate]
    matrix: Int64[np.ndarray, "C C"]
    without_support: tuple[str, ...]
    images: int


def scores(matrices: Int64[np.ndarray, "N C C"], names: Sequence[str], *, seed: int = 0) -> Scores:
    """Scores with intervals by image.

    Raises:
        InputError: there is no labelled pixel.
    """
    matrix = matrices.sum(axis=0)
    if not matrix.sum():
        raise InputError("there is no labelled pixel to score on")
    lacking = tuple(name for name, pixels in zip(names, matrix.sum(axis=1), strict=True) if not pixels)
    truth = matrices.sum(axis=2)
    estimates = {
        name: bootstrap(metric, truth, matrices, seed=seed)
        for name, metric in iou_metrics(names).items()
        if name.removeprefix("iou/") not in lacking
    }
    return Scores(estimates, matrix, lacking, len(matrices))


# --- as functions of summed counts, one or many at a time -------------------------------------------------------------


OfCounts = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_ALL = slice(None)


def _metric(name: str, of: OfCounts, classes: slice = _ALL) -> Metric:
    return Metric(name, partial(_whole, of, classes), True, "label", partial(_weighted, of, classes))


def _whole(
    of: OfCounts, classes: slice, truth: Shaped[np.ndarray, "N C"], confusions: Shaped[np.ndarray, "N C C"]
) -> float:
    return float(_weighted(of, classes, truth, confusions, np.ones((1, len(truth))))[0])


def _weighted(
    of: OfCounts,
    classes: slice,
    truth: Shaped[np.ndarray, "N C"],
    confusions: Shaped[np.ndarray, "N C C"],
    weights: Float[np.ndarray, "R N"],
) -> Float64[np.ndarray, "R"]:
    """Resampled are three numbers a class, and those of the classes that are asked for."""
    if confusions.ndim != 3 or truth.shape != confusions.shape[:2] or not len(truth):
        raise InputError(f"wants truth (N, C) and confusions (N, C, C), got {truth.shape} and {confusions.shape}")
    counts = _counts(confusions)[:, :, classes].astype(np.float64)
    return of((weights @ counts.reshape(len(counts), -1)).reshape(len(weights), *counts.shape[1:]))


def _counts(matrix: Shaped[np.ndarray, "*R C C"]) -> Shaped[np.ndarray, "*R 3 C"]:
    """Of each class the pixels that are right, that truly are of it, and that were said to be."""
    return np.stack([np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2)], axis=-2)


def _ious(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    hits, truth, guess = (counts[..., row, :] for row in range(3))
    ious: NDArray[np.float64] = np.divide(
        100.0 * hits, truth + guess - hits, out=np.full(hits.shape, np.nan), where=truth > 0
    )
    return ious


def _one_iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ious(counts)[..., 0]


def _mean_iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    ious = _ious(counts)
    present = np.isfinite(ious)
    count = present.sum(-1).astype(np.float64)
    total = np.where(present, ious, 0.0).sum(-1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def _pixel_accuracy(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    hits, total = counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1)
    share: NDArray[np.float64] = np.divide(100.0 * hits, total, out=np.full(hits.shape, np.nan), where=total > 0)
    return share
