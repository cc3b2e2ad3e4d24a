"""Datasets of mmsegmentation 1.x as domains of ours: their files, classes, palette and rules for labels.

Any object with the surface of ``mmseg.datasets.BaseSegDataset`` will do (``CityscapesDataset``, ``ADE20KDataset``, a
class of your own); nothing of mmsegmentation is imported. Its transforms are not run: files are read, cropped and
augmented by us.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from apps.vision.segmentation.data.classes import IGNORE, Classes, LabelMap, colours_for
from apps.vision.segmentation.data.items import SPLITS, Domain, Item, Labelled, View
from apps.vision.segmentation.data.pictures import ImageFile, LabelFile
from core.errors import InputError, nearest


@runtime_checkable
class SegDataset(Protocol):
    """What is used of a dataset of mmsegmentation."""

    @property
    def metainfo(self) -> Mapping[str, Any]:
        """``classes`` and ``palette``."""

    @property
    def ignore_index(self) -> int:
        """What "not labelled" is in its labels."""

    def __len__(self) -> int: ...

    def get_data_info(self, idx: int) -> Mapping[str, Any]:
        """``img_path``, and where there is a label ``seg_map_path``, ``reduce_zero_label``, ``label_map``."""


def domain_of(dataset: SegDataset, split: str = "train") -> Domain:
    """A dataset of mmsegmentation as one split of a domain; no image is opened.

    Images of one folder are a group, as sequences and cities are laid out.

    Args:
        dataset: built without ``lazy_init``.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        InputError: no such split, or a dataset without classes or images.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}", mend=nearest(split, SPLITS))
    where = type(dataset).__name__
    names = tuple(dataset.metainfo.get("classes") or ())
    if not names or not len(dataset):
        raise InputError("the dataset has no classes or no images", where=where)
    palette = tuple((int(r), int(g), int(b)) for r, g, b in dataset.metainfo.get("palette") or ())
    classes = Classes(names=names, palette=palette or colours_for(len(names)))
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    root = Path(os.path.commonpath([str(info["img_path"]) for info in infos]))
    root = root.parent if len(infos) == 1 else root
    items = tuple(_item(info, root, len(names), dataset.ignore_index) for info in infos)
    return Domain(name=f"{where} {root}", classes=classes, splits={split: items})


def _item(info: Mapping[str, Any], root: Path, classes: int, ignore: int) -> Item:
    path = Path(info["img_path"])
    name = path.relative_to(root)
    group = None if name.parent == Path(".") else name.parent.as_posix()
    key, image = name.with_suffix("").as_posix(), ImageFile(path)
    label = info.get("seg_map_path")
    if label is None:
        return View(key=key, image=image, group=group)
    labels = label_map(classes, ignore, bool(info.get("reduce_zero_label")), info.get("label_map") or {})
    return Labelled(key=key, image=image, label=LabelFile(Path(label), labels), group=group)


def label_map(classes: int, ignore: int, reduce_zero: bool, renamed: Mapping[int, int]) -> LabelMap:
    """What mmsegmentation makes of the value of a label: ``reduce_zero_label`` first, then its ``label_map``.

    Values that neither gives a class nor makes ``ignore`` are refused when they occur; there they would stop the loss.

    >>> ids = label_map(3, 255, True, {}).ids
    >>> ids[0], ids[1], ids[3], 4 in ids
    (255, 0, 2, False)
    """
    ids = {}
    for value in range(256):
        # 0 becomes 255 and everything else one less; 255 stays.
        reduced = value if not reduce_zero else 255 if value in (0, 255) else value - 1
        train_id = renamed.get(reduced, reduced)
        if train_id < classes:
            ids[value] = train_id
        elif train_id in (ignore, IGNORE):
            ids[value] = IGNORE
    return LabelMap(ids=ids)
