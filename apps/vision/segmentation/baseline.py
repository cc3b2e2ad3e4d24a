"""The floor: in each row of the image the class that fills most of it in the source, whatever is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8

from apps.vision.segmentation.data.classes import IGNORE
from apps.vision.segmentation.data.items import Labelled, in_threads
from apps.vision.segmentation.segmenter import Prediction

NAME = "the most frequent class of each row of the image, in the source"
BANDS = 64
"""Rows at which it is counted; images of any height are divided into so many."""


@dataclass(frozen=True)
class RowMajority:
    """A class for each band of rows, from the top.

    >>> RowMajority(np.array([1, 0])).predict((4, 2)).labels[:, 0].tolist()
    [1, 1, 0, 0]
    """

    classes: Int64[np.ndarray, "R"]

    @classmethod
    def learned(cls, items: Sequence[Labelled], classes: int, bands: int = BANDS) -> RowMajority:
        """From labels; a band without any takes the class that is most frequent altogether."""

        def count(item: Labelled) -> Float[np.ndarray, "R C"]:
            return _shares(item.label.read(), classes, bands)

        total = np.sum(list(in_threads(count, items)), axis=0)
        empty = total.sum(axis=1) == 0
        total[empty] = total.sum(axis=0)
        return cls(total.argmax(axis=1))

    def predict(self, size: tuple[int, int]) -> Prediction:
        """The same for every image of a size."""
        rows = self.classes[np.arange(size[0]) * len(self.classes) // size[0]].astype(np.uint8)
        labels = np.repeat(rows[:, None], size[1], axis=1)
        return Prediction(labels, np.ones(size, dtype=np.float32))


def _shares(label: UInt8[np.ndarray, "H W"], classes: int, bands: int) -> Float[np.ndarray, "R C"]:
    """Of the pixels of each band, how many belong to each class; images of any size count alike."""
    band = np.arange(label.shape[0]) * bands // label.shape[0]
    valid = label != IGNORE
    index = band[:, None] * classes + np.where(valid, label, 0)
    counts = np.bincount(index[valid].ravel(), minlength=bands * classes).reshape(bands, classes)
    return counts / label.size
