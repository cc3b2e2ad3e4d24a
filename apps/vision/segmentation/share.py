"""How much of the gap between two runs a third one closes, with an interval over images.

With m a metric of the same images, of the run itself, of one that learned from the source alone, and of one that
learned from the target's labels:

    share = 100 (m(own) - m(lower)) / (m(upper) - m(lower))    percent

0 is no better than the source alone, 100 as good as the target's labels; either can be passed. All three are computed
on the same resamples of images, and the interval is that of their ratio (BCa, as of every metric).

A share of nothing is no number: where the interval of ``m(upper) - m(lower)`` does not lie above zero there is none.
Resamples whose own gap is not above zero are left out and counted in the note of the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from core.evaluation.bootstrap import Difference, Estimate, bootstrap, paired
from core.evaluation.metrics import Metric
from core.evaluation.resampling import evaluate

UNSEEN = "gap not distinguishable from zero"


@dataclass(frozen=True)
class Closed:
    """What of a gap is closed.

    Attributes:
        gap: of the upper run to the lower one.
        share: in percent; None where the gap may be none.
    """

    gap: Difference
    share: Estimate | None

    def __str__(self) -> str:
        return UNSEEN if self.share is None else f"{self.share} % of the gap"


def gap_closed(
    metric: Metric,
    truth: Shaped[np.ndarray, "N C"],
    own: Int64[np.ndarray, "N C C"],
    lower: Int64[np.ndarray, "N C C"],
    upper: Int64[np.ndarray, "N C C"],
    *,
    n: int = 2000,
    seed: int = 0,
) -> Closed:
    """The share, where there is a gap.

    Args:
        metric: of (truth, confusions), greater is better.
        truth: labelled pixels of each class in each image.
        own, lower, upper: confusions of each image by three runs.
        n: resamples.
        seed: of them.

    Raises:
        InputError: not the same images.

    >>> from apps.vision.segmentation.metrics import iou_metrics
    >>> hits = np.random.default_rng(0).integers(40, 60, 50)
    >>> lower, own, upper = (np.array([[[h + more, 100 - h - more], [0, 0]] for h in hits]) for more in (0, 10, 40))
    >>> closed = gap_closed(iou_metrics(["a", "b"])["pixel_accuracy"], own.sum(2), own, lower, upper)
    >>> round(closed.share.value, 9)
    25.0
    >>> str(gap_closed(iou_metrics(["a", "b"])["miou"], own.sum(2), own, lower, lower))
    'gap not distinguishable from zero'
    """
    gap = paired(metric, truth, upper, lower, n=n, seed=seed)
    if not gap.low > 0:
        return Closed(gap, None)
    runs = np.stack([own, lower, upper], axis=1)
    return Closed(gap, bootstrap(_share(metric), truth, runs, n=n, seed=seed))


def _share(metric: Metric) -> Metric:
    """As a metric of (truth, confusions of three runs)."""
    return Metric("gap_closed", partial(_whole, metric), True, metric.needs, partial(_weighted, metric))


def _whole(metric: Metric, truth: Shaped[np.ndarray, "N C"], runs: Shaped[np.ndarray, "N 3 C C"]) -> float:
    return float(_weighted(metric, truth, runs, np.ones((1, len(truth))))[0])


def _weighted(
    metric: Metric,
    truth: Shaped[np.ndarray, "N C"],
    runs: Shaped[np.ndarray, "N 3 C C"],
    weights: Float[np.ndarray, "R N"],
) -> Float64[np.ndarray, "R"]:
    own, lower, upper = (evaluate(metric, (truth, runs[:, place]), weights) for place in range(3))
    gap = upper - lower
    with np.errstate(invalid="ignore"):  # nan where the metric is undefined
        there = gap > 0
    share: Float64[np.ndarray, "R"] = np.divide(100.0 * (own - lower), gap, out=np.full(gap.shape, np.nan), where=there)
    return share
