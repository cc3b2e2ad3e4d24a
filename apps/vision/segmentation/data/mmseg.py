"""Datasets of mmsegmentation 1.x as domains of ours: their files, classes, palette and rules for labels.

Any object with the surface of ``mmseg.datasets.BaseSegDataset`` will do (``CityscapesDataset``, ``ADE20KDataset``, a
class of your own); nothing of mmsegmentation is imported. Its transforms are not run: files are read, cropped and
augmented by us (:mod:`.mmseg_pipeline` is for those who want its own). What :mod:`.mmseg.datasets` made of a domain of
ours becomes that domain again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from apps.vision.segmentation.data import labelmaps
from apps.vision.segmentation.data.classes import IGNORE, Classes, LabelMap, colours_for
from apps.vision.segmentation.data.items import SPLITS, Domain, Item, Labelled, View
from apps.vision.segmentation.data.pictures import ImageFile, LabelFile
from core.errors import InputError, nearest

_LONGER = {"light": "traffic light", "sign": "traffic sign"}
"""Names of classes of Cityscapes that mmsegmentation writes out."""


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

    Images of one folder are a group, as sequences and cities are laid out. The classes of Cityscapes, or those of them
    that were chosen, get the names and the things that they have here.

    Args:
        dataset: built without ``lazy_init``.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        InputError: no such split, or a dataset without classes or images.
    """
    return domain_of_all({split: [dataset]}, type(dataset).__name__)


def domain_of_all(datasets: Mapping[str, Sequence[SegDataset]], name: str) -> Domain:
    """Datasets of several splits, and several of one split, as a domain.

    An image that a split has twice is there once: how often it is drawn is not the data's to say.

    Args:
        datasets: by split; all of the same classes.
        name: of the domain, to which the folder of all images is added.

    Raises:
        InputError: as for :func:`domain_of`; also where classes differ.
    """
    splits: dict[str, tuple[Item, ...]] = {}
    every = [(split, each, _infos(each)) for split, some in datasets.items() for each in some]
    root = _root([info for _, _, infos in every for info in infos])
    classes = [_classes(each) for _, each, _ in every]
    for (split, each, infos), own in zip(every, classes, strict=True):
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}", mend=nearest(split, SPLITS))
        if own.names != classes[0].names:
            what = f"its classes are not those of {type(every[0][1]).__name__}"
            raise InputError(what, where=type(each).__name__, mend="give all datasets the same classes")
        items = [_item(info, root, _root(infos), len(own), each.ignore_index) for info in infos]
        splits[split] = _once([*splits.get(split, ()), *items])
    return Domain(name=f"{name} {root}", classes=classes[0], splits=splits)


def mmseg_class_names(classes: Classes) -> tuple[str, ...]:
    """The names that mmsegmentation has for classes: ``traffic light`` and ``traffic sign`` of Cityscapes."""
    if classes.names != labelmaps.CITYSCAPES.names:
        return classes.names
    return tuple(_LONGER.get(name, name) for name in classes.names)


def _classes(dataset: SegDataset) -> Classes:
    known = dataset.metainfo
    names = tuple(known.get("classes") or ())
    if not names:
        raise InputError("the dataset has no classes", where=type(dataset).__name__)
    palette = tuple((int(r), int(g), int(b)) for r, g, b in known.get("palette") or ())
    things = frozenset(known.get("things") or ())  # of a domain of ours
    street, written = labelmaps.CITYSCAPES, mmseg_class_names(labelmaps.CITYSCAPES)
    declared = getattr(type(dataset), "METAINFO", {}).get("classes") or names
    if tuple(declared) == written and set(names) <= set(
        written
    ):  # all of Cityscapes' classes, or some that were chosen
        ours = dict(zip(written, range(len(street)), strict=True))
        things = frozenset(index for index, name in enumerate(names) if ours[name] in street.things)
        names = tuple(street.names[ours[name]] for name in names)
    return Classes(names=names, palette=palette or colours_for(len(names)), things=things)


def _infos(dataset: SegDataset) -> list[Mapping[str, Any]]:
    if not len(dataset):
        raise InputError("the dataset has no images", where=type(dataset).__name__)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if any("img_path2" in info for info in infos):
        raise InputError("the dataset is of pairs of images, for changes between them", where=type(dataset).__name__)
    return infos


def _root(infos: Sequence[Mapping[str, Any]]) -> Path:
    """The folder that has all images in it."""
    paths = {os.path.abspath(info["img_path"]) for info in infos}
    root = Path(os.path.commonpath(sorted(paths)))
    return root.parent if len(paths) == 1 else root


def _item(info: Mapping[str, Any], root: Path, own_root: Path, classes: int, ignore: int) -> Item:
    ours = info.get("item")
    if isinstance(ours, View | Labelled):
        return ours
    path = Path(os.path.abspath(info["img_path"]))
    folder = path.relative_to(own_root).parent
    group = None if folder == Path(".") else folder.as_posix()
    key, image = path.relative_to(root).with_suffix("").as_posix(), ImageFile(Path(info["img_path"]))
    label = info.get("seg_map_path")
    if label is None:
        return View(key=key, image=image, group=group)
    labels = label_map(classes, ignore, bool(info.get("reduce_zero_label")), info.get("label_map") or {})
    return Labelled(key=key, image=image, label=LabelFile(Path(label), labels), group=group)


def _once(items: Sequence[Item]) -> tuple[Item, ...]:
    found: dict[str, Item] = {}
    for item in items:
        known = found.setdefault(item.key, item)
        if known.image.where != item.image.where:
            what = f"the id {item.key!r} is that of {known.image.where} and of {item.image.where}"
            raise InputError(what, mend="give every image an id of its own")
    return tuple(found.values())


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
