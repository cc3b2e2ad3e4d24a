"""One look at an image and its label: everything that ``check`` asks of a single pair, in one pass over both.

Nothing that is decoded is kept, so that a set may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from apps.vision.segmentation.data.batches import sizes_differ
from apps.vision.segmentation.data.items import Item, Labelled, class_counts
from apps.vision.segmentation.data.pictures import Header, ImageFile, LabelFile, Picture, refuse_form
from core.command import Finding, from_error
from core.errors import InputError

SMALLEST = 64
"""Sides below this leave an encoder of stride 32 two cells or fewer."""
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """What one item shows.

    Attributes:
        item: which.
        size: height and width; None where the image cannot be read.
        light: ``(256,)`` pixels by luminance.
        colour: mean red, green and blue.
        counts: ``(C + 1,)`` pixels by class, the last not labelled; None without a readable label.
        values: distinct values of a one-channel label, as stored; at most 256 of them.
        digest: of the image file's content.
        findings: what is wrong with it.
    """

    item: Item
    size: tuple[int, int] | None
    light: Int64[np.ndarray, "256"]
    colour: NDArray[np.float64]
    counts: Int64[np.ndarray, "K"] | None
    values: tuple[int, ...]
    digest: bytes
    findings: tuple[Finding, ...]


def look_at(item: Item, split: str, classes: int) -> Look:
    """Decode an item and say what is there; raises nothing of its own."""
    findings: list[Finding] = []
    pixels: NDArray[Any] | None = None
    digest = b""
    try:
        findings += _of_header(item, split)
        digest = item.image.digest()
        pixels = item.image.read()
    except InputError as error:
        findings.append(from_error(error, _kind(item), split=split))
    counts: Int64[np.ndarray, "K"] | None = None
    values: tuple[int, ...] = ()
    if isinstance(item, Labelled):
        counts, values, found = _label(item.label, split, classes, None if pixels is None else pixels.shape[:2])
        findings += found
    light, colour = _light(pixels)
    size = None if pixels is None else (pixels.shape[0], pixels.shape[1])
    return Look(item, size, light, colour, counts, values, digest, tuple(findings))


def _kind(item: Item) -> str:
    """Names the fault of an image that cannot be read."""
    try:
        if isinstance(item.image, ImageFile):
            refuse_form(item.image.header, item.image.where)
    except InputError:
        header = _header(item)
        return (
            "unreadable" if header is None else "cmyk" if header.mode == "CMYK" else "16-bit" if header.deep else "form"
        )
    return "unreadable"


def _header(item: Item) -> Header | None:
    try:
        return item.image.header if isinstance(item.image, ImageFile) else None
    except InputError:
        return None


def _of_header(item: Item, split: str) -> Iterator[Finding]:
    header = _header(item)
    if header is not None and header.orientation != 1 and isinstance(item, Labelled):
        what = f"the camera marked it as turned (EXIF orientation {header.orientation}); it is turned upright"
        mend = "make sure that it was labelled upright, or remove the mark"
        yield Finding(severity="warning", kind="turned", what=what, where=item.image.where, split=split, mend=mend)
    if min(item.image.size) < SMALLEST:
        height, width = item.image.size
        what, mend = f"only {width} x {height} pixels", "give larger images"
        yield Finding(severity="warning", kind="tiny", what=what, where=item.image.where, split=split, mend=mend)


def _label(
    label: Picture, split: str, classes: int, size: tuple[int, ...] | None
) -> tuple[Int64[np.ndarray, "K"] | None, tuple[int, ...], list[Finding]]:
    values: tuple[int, ...] = ()
    kind = "unreadable-label"
    try:
        if isinstance(label, LabelFile):
            stored = label.values()
            if stored.ndim == 2:
                values = tuple(np.unique(stored)[:256].tolist())
            if size is not None and stored.shape[:2] != size:
                kind = "size"
                raise sizes_differ(size, stored.shape[:2], label.where)
            kind = "ids" if stored.ndim == 2 else "colours"
            train_ids = label.labels.decode(stored, label.where)
        else:
            train_ids = label.read()
    except InputError as error:
        return None, values, [from_error(error, kind, split=split)]
    counts = class_counts(train_ids, classes)
    if counts[:-1].sum():
        return counts, values, []
    what, mend = "nothing in it is labelled", "leave it out, or correct the ids in classes.json"
    found = Finding(severity="warning", kind="unlabelled", what=what, where=label.where, split=split, mend=mend)
    return counts, values, [found]


def _light(pixels: NDArray[Any] | None) -> tuple[Int64[np.ndarray, "256"], NDArray[np.float64]]:
    if pixels is None:
        return np.zeros(256, dtype=np.int64), np.full(3, np.nan)
    luminance = (pixels.reshape(-1, 3).astype(np.float32) @ LUMINANCE + 0.5).astype(np.uint8)
    return np.bincount(luminance, minlength=256).astype(np.int64), pixels.reshape(-1, 3).mean(0, dtype=np.float64)
