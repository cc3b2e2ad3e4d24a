"""What training and scoring read: images with labels, images without, and the pair of domains made of them.

:class:`View` is an image alone and :class:`Labelled` one with its label; neither is the other. Adaptation trains
on ``source: Labelled`` and ``target: View``: a target label cannot reach it, as a view has no field for one. Labels of
the target are in ``scored`` alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from apps.vision.segmentation.data.classes import IGNORE, Classes
from apps.vision.segmentation.data.pictures import Picture
from core.command import Finding
from core.errors import InputError, nearest

SPLITS = ("train", "valid", "test")
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class View:
    """An image without a label.

    Attributes:
        key: names it within its domain.
        image: its pixels.
        group: what resembles one another: a sequence, a place; None where unknown.
    """

    key: str
    image: Picture
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An image with its label; attributes as in :class:`View`."""

    key: str
    image: Picture
    label: Picture
    group: str | None = None

    @property
    def view(self) -> View:
        """The image alone."""
        return View(key=self.key, image=self.image, group=self.group)


Item = View | Labelled


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Images of one kind by split, some of them labelled.

    Attributes:
        name: as it was asked for.
        classes: train ids that its labels are in; None where it has no labels and says no classes.
        splits: name -> items, names among :data:`SPLITS`.
        synthetic: nobody photographed this.
        faults: rows and files that were left out.
    """

    name: str
    classes: Classes | None
    splits: Mapping[str, tuple[Item, ...]]
    synthetic: bool = False
    faults: tuple[Finding, ...] = ()

    def labelled(self, split: str) -> tuple[Labelled, ...]:
        """The items of a split that have labels; none where there is no such split."""
        return tuple(item for item in self.splits.get(split, ()) if isinstance(item, Labelled))

    def views(self, split: str) -> tuple[View, ...]:
        """All images of a split, without labels."""
        return tuple(item if isinstance(item, View) else item.view for item in self.splits.get(split, ()))


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A source to learn from, and a target to adapt to.

    Attributes:
        name: as it was asked for.
        classes: of both.
        source: labelled images of the source by split: ``train``, ``valid``, and ``test`` where there is one.
        target: images of the target to train on. They have no labels.
        scored: labelled images of the target by split, ``valid`` and ``test`` as far as there are any. Nothing is
            trained on them.
        synthetic: both domains are drawn by us.
    """

    name: str
    classes: Classes
    source: Mapping[str, tuple[Labelled, ...]]
    target: tuple[View, ...]
    scored: Mapping[str, tuple[Labelled, ...]]
    synthetic: bool = False

    def __str__(self) -> str:
        told = [f"source: {_counts(self.source)}", f"target: {len(self.target)} to adapt to, {_counts(self.scored)}"]
        return f"{self.name}{' (synthetic)' if self.synthetic else ''}: {len(self.classes)} classes; {'; '.join(told)}"

    def split(self, name: str) -> tuple[Labelled, ...]:
        """Labelled images to score on: ``valid`` and ``test`` of the target, ``source-valid``, ``source-test``.

        Raises:
            InputError: there is no such split.
        """
        splits = {**self.scored, **{f"source-{split}": items for split, items in self.source.items()}}
        items = splits.get(name, ())
        if not items:
            what = f"there is no labelled split {name!r}"
            raise InputError(what, where=self.name, mend=nearest(name, [key for key, some in splits.items() if some]))
        return items

    def part(self, share: float) -> Adaptation:
        """With a share of the source's training images; which ones depends on their keys alone."""
        train = self.source["train"]
        kept = sorted(train, key=lambda item: _hash(item.key))[: max(1, round(share * len(train)))]
        keys = {item.key for item in kept}
        return replace(self, source={**self.source, "train": tuple(item for item in train if item.key in keys)})

    @cached_property
    def counts(self) -> Int64[np.ndarray, "N K"]:
        """Of the source's training labels, as :func:`count_labels`; they are read once, however often it is trained on.

        Raises:
            InputError: a label that cannot be read.
        """
        return count_labels(self.source["train"], len(self.classes))

    def digests(self) -> dict[str, str]:
        """A digest of each split: of the contents of all files and their order, not of where they lie."""
        sets: dict[str, Sequence[Item]] = {f"source-{split}": items for split, items in self.source.items()}
        sets |= {"target-train": self.target, **{f"target-{split}": items for split, items in self.scored.items()}}
        return {name: digest_of(items, self.classes) for name, items in sets.items()}


def digest_of(items: Sequence[Item], classes: Classes) -> str:
    """Of the classes, and of keys, groups, images and labels of some items, in their order; hex."""
    total = hashlib.sha256(repr(classes.names).encode())
    for row in in_threads(_digest_item, items):
        total.update(row)
    return total.hexdigest()


def _digest_item(item: Item) -> bytes:
    label = item.label.digest() if isinstance(item, Labelled) else b""
    return hashlib.sha256(repr((item.key, item.group)).encode() + item.image.digest() + label).digest()


def count_labels(items: Sequence[Labelled], classes: int) -> Int64[np.ndarray, "N K"]:
    """Pixels of each class in each label at its original resolution; the last of K = classes + 1 is not labelled.

    Reads every label, in threads.

    Raises:
        InputError: a label that cannot be read.
    """

    def count(item: Labelled) -> Int64[np.ndarray, "K"]:
        return class_counts(item.label.read(), classes)

    return np.stack(list(in_threads(count, items)))


def class_counts(label: UInt8[np.ndarray, "H W"], classes: int) -> Int64[np.ndarray, "K"]:
    """Pixels of each class, and in one more place those that are not labelled.

    >>> class_counts(np.array([[0, 2, 2, 255]], dtype=np.uint8), 3).tolist()
    [1, 0, 2, 1]
    """
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    return np.append(counts[:classes], counts[IGNORE]).astype(np.int64)


def in_threads(function: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
    """``function`` of each item, in their order; reading and decoding leave Python, so threads run side by side."""
    threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def held_out(items: Sequence[_T], unit_of: Callable[[_T], str], share: float) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    """Items in two parts that share no unit, the second with about ``share`` of the units, at least one.

    Which units those are depends on their names alone.

    >>> held_out(["a1", "b1", "b2", "c1"], lambda name: name[0], 0.3)
    (('a1', 'b1', 'b2'), ('c1',))
    """
    units = sorted({unit_of(item) for item in items}, key=_hash)
    chosen = set(units[: max(1, round(share * len(units)))]) if len(units) > 1 else set()
    kept = tuple(item for item in items if unit_of(item) not in chosen)
    return kept, tuple(item for item in items if unit_of(item) in chosen)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _counts(splits: Mapping[str, Sequence[Item]]) -> str:
    return ", ".join(f"{len(items)} {name}" for name, items in splits.items()) or "none labelled"
