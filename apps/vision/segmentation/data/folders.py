"""Domains out of folders: a table of files, plain folders, and the layouts of the public driving sets.

========== ===========================================================================================================
layout      what lies there
========== ===========================================================================================================
table       ``splits.csv`` (columns image; label, split, domain, sequence or group, id) and ``classes.json``
folder      ``images/``, ``labels/`` with the same names in them, ``classes.json``; below both ``train/``, ``valid/`` or
            ``val/``, ``test/``, or beside them ``train.txt``, … with one name a line, or no splits at all
cityscapes  ``leftImg8bit/{train,val}/CITY/*_leftImg8bit.png``, ``gtFine/…/*_gtFine_labelTrainIds.png`` or ``_labelIds``
acdc        ``rgb_anon/{fog,night,rain,snow}/{train,val}/SEQUENCE/*_rgb_anon.png``, ``gt/…/*_gt_labelTrainIds.png``
dark_zurich ``rgb_anon/{train,val}/{night,twilight,day}/SEQUENCE/*_rgb_anon.png``, ``gt/…`` likewise
gta5        ``images/*.png``, ``labels/*.png`` (the palette's index is the raw id)
synthia     ``RGB/*.png``, ``GT/LABELS/*.png``
mmseg       no folder but a config file of mmsegmentation, ``NAME.py``: :mod:`.mmseg_config`
========== ===========================================================================================================

The domain of a table is a value of its column; of ``acdc`` (all together if none is named) and ``dark_zurich`` a
condition. As the field reports it, the ``val`` part of a public set is what is scored: it becomes ``test``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apps.vision.segmentation.data import labelmaps
from apps.vision.segmentation.data.classes import Classes, LabelMap, read_classes
from apps.vision.segmentation.data.items import SPLITS, Domain, Item, Labelled, View
from apps.vision.segmentation.data.pictures import SUFFIXES, ImageFile, LabelFile
from core.command import Finding
from core.errors import InputError, nearest

Layout = Literal["auto", "table", "folder", "cityscapes", "acdc", "dark_zurich", "gta5", "synthia", "mmseg"]
ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
}
ALIASES |= {"test": "test", "testing": "test"}
"""Names that people have for the splits."""
TABLE, CLASSES = "splits.csv", "classes.json"
_CONDITIONS = ("fog", "night", "rain", "snow")
_TIMES = ("night", "twilight", "day")


@dataclass(frozen=True)
class Found:
    """One image that a layout lists, its label if any, and where it belongs."""

    key: str
    image: Path
    label: Path | None
    split: str | None
    group: str | None
    domain: str | None = None
    labels: LabelMap | None = None


def open_folder(
    path: Path, layout: Layout = "auto", domain: str | None = None, classes: Classes | None = None
) -> Domain:
    """The domain in a folder; no image is opened.

    Args:
        path: the folder, or the config file.
        layout: what lies there; ``auto`` looks.
        domain: value of a table's domain column, or a condition; None where there is no choice.
        classes: what to do without a ``classes.json``: labels hold the ids 0, 1, … of these.

    Raises:
        InputError: no such folder, layout or domain, or a table that cannot be read. What is wrong with single rows
            is in the ``faults`` of the domain.
    """
    if layout == "mmseg" or (layout == "auto" and path.suffix == ".py"):
        return _config(path, domain)
    if not path.is_dir():
        raise InputError("there is no such folder", where=str(path))
    kind = detect(path) if layout == "auto" else layout
    if kind in _PUBLIC:
        found = _of_domain(_PUBLIC[kind](path), domain, path, together=kind == "acdc")
        return _domain(path, found, labelmaps.CITYSCAPES, _PUBLIC_MAPS[kind])
    found = _of_domain(_table(path) if kind == "table" else _plain(path), domain, path)
    return _domain(path, found, *_classes_of(path, classes))


def _config(path: Path, domain: str | None) -> Domain:
    from apps.vision.segmentation.data.mmseg_config import open_config

    if domain is not None:
        what = f"a config has no domains, so none is {domain!r}"
        raise InputError(what, where=str(path), mend="name one config with --data, another with --target")
    return open_config(path)


def detect(path: Path) -> str:
    """Which layout a folder has.

    Raises:
        InputError: none that is known.
    """
    if (path / TABLE).is_file():
        return "table"
    if (path / "leftImg8bit").is_dir():
        return "cityscapes"
    if (path / "RGB").is_dir() and (path / "GT" / "LABELS").is_dir():
        return "synthia"
    if (path / "rgb_anon").is_dir():
        below = {child.name for child in (path / "rgb_anon").iterdir()}
        return "acdc" if below & set(_CONDITIONS) else "dark_zurich"
    if (path / "images").is_dir():
        named = (path / CLASSES).exists() or not (path / "labels").is_dir()
        return "folder" if named or not _looks_like_gta(path / "images") else "gta5"
    mend = f"put {TABLE} or the folders images and labels there, or name the layout of a public set"
    raise InputError("no layout that is known", where=str(path), mend=mend)


def _looks_like_gta(images: Path) -> bool:
    first = next((file for file in sorted(images.iterdir()) if file.suffix == ".png"), None)
    return first is not None and first.stem.isdigit() and len(first.stem) == 5


def _classes_of(path: Path, classes: Classes | None) -> tuple[Classes | None, LabelMap | None]:
    if (path / CLASSES).exists():
        return read_classes(path / CLASSES)
    if classes is None:
        return None, None
    return classes, LabelMap(
        ids={**{index: index for index in range(len(classes))}, 255: 255},
        colours={colour: index for index, colour in enumerate(classes.palette)},
    )


def _of_domain(found: Sequence[Found], domain: str | None, path: Path, *, together: bool = False) -> list[Found]:
    names = sorted({one.domain for one in found if one.domain is not None})
    if domain is None:
        if len(names) > 1 and not together:
            mend = "choose with --source-domain and --target-domain"
            raise InputError(f"several domains: {', '.join(names)}", where=str(path), mend=mend)
        return list(found)
    if not names:
        raise InputError(f"has no domains, so none is {domain!r}", where=str(path), mend="leave the domain out")
    if domain not in names:
        raise InputError(f"there is no domain {domain!r}", where=str(path), mend=nearest(domain, names))
    return [one for one in found if one.domain == domain]


def _domain(path: Path, found: Sequence[Found], classes: Classes | None, labels: LabelMap | None) -> Domain:
    splits: dict[str, list[Item]] = {}
    faults: list[Finding] = []
    named = any(one.split is not None for one in found)
    seen: dict[str, Path] = {}
    for one in found:
        fault = _fault(one, named, labels or one.labels, seen)
        if fault is not None:
            faults.append(fault)
            continue
        seen[one.key] = one.image
        splits.setdefault(one.split or "train", []).append(_item(one, one.labels or labels))
    ordered = {name: tuple(splits[name]) for name in SPLITS if name in splits}
    return Domain(name=str(path), classes=classes, splits=ordered, faults=tuple(faults))


def _item(one: Found, labels: LabelMap | None) -> Item:
    image = ImageFile(one.image)
    if one.label is None or labels is None:
        return View(key=one.key, image=image, group=one.group)
    return Labelled(key=one.key, image=image, label=LabelFile(one.label, labels), group=one.group)


def _fault(one: Found, named: bool, labels: LabelMap | None, seen: dict[str, Path]) -> Finding | None:
    if one.key in seen:
        what = f"the id {one.key!r} is also that of {seen[one.key]}"
        return _error("duplicate-id", what, one.image, one.split, "give every image an id of its own")
    if named and one.split not in SPLITS:
        what = "is in no split" if one.split is None else f"{one.split!r} is no split"
        return _error("no-split", what, one.image, None, "write train, valid or test, or leave the row out")
    if not one.image.is_file():
        return _error("missing", "there is no such image", one.image, one.split, "correct the table")
    if one.label is not None and not one.label.is_file():
        return _error("missing", "there is no such label", one.label, one.split, "leave it empty where there is none")
    if one.label is not None and labels is None:
        what = "is a label, and nothing says which classes its values are"
        return _error("no-classes", what, one.label, one.split, f"write {CLASSES} beside it")
    return None


def _error(kind: str, what: str, where: Path, split: str | None, mend: str) -> Finding:
    return Finding(severity="error", kind=kind, what=what, where=str(where), split=split, mend=mend)


# --- layouts ----------------------------------------------------------------------------------------------------------


def _table(path: Path) -> list[Found]:
    file = path / TABLE
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", where=str(file)) from error
    columns = list(rows[0]) if rows else []
    if "image" not in columns:
        mend = "give a first line with image and label, and as you have them split, domain, sequence, id"
        raise InputError("there is no column 'image', or no row", where=str(file), mend=mend)
    group = next((name for name in ("sequence", "group") if name in columns), "")
    found = []
    for line, row in enumerate(rows, start=2):
        if not row["image"]:
            raise InputError(f"line {line} names no image", where=str(file))
        split = (row.get("split") or "").strip().lower()
        found.append(
            Found(
                key=row.get("id") or Path(row["image"]).with_suffix("").as_posix(),
                image=path / row["image"],
                label=path / row["label"] if row.get("label") else None,
                split=ALIASES.get(split, split) or None,
                group=row.get(group) or None,
                domain=row.get("domain") or None,
            )
        )
    return found


def _plain(path: Path) -> list[Found]:
    images, labels = path / "images", path / "labels"
    if not images.is_dir():
        raise InputError("there is no folder 'images'", where=str(path), mend="put the images there")
    by_name = _labels_below(labels)
    listed = _lists(path)
    found = []
    for file in _files(images):
        name = file.relative_to(images).with_suffix("").as_posix()
        first = name.split("/")[0]
        split = listed.get(name) if listed else ALIASES.get(first.lower()) if "/" in name else None
        rest = name.split("/")[1 if split and not listed else 0 : -1]
        if listed and split is None:
            continue
        found.append(Found(name, file, by_name.get(name), split, "/".join(rest) or None))
    return found


def _labels_below(labels: Path) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for file in _files(labels) if labels.is_dir() else ():
        name = file.relative_to(labels).with_suffix("").as_posix()
        if name in by_name:
            what = f"{by_name[name].name} and {file.name} are labels of one image"
            raise InputError(what, where=str(file.parent), mend="keep one of them")
        by_name[name] = file
    return by_name


def _lists(path: Path) -> dict[str, str]:
    """Name of an image -> split, from ``train.txt`` and the like."""
    split_of: dict[str, str] = {}
    for file in sorted(path.glob("*.txt")):
        split = ALIASES.get(file.stem.lower())
        if split is None:
            continue
        try:
            names = file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})", where=str(file)) from error
        for name in filter(None, map(str.strip, names)):
            key = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
            if split_of.setdefault(key, split) != split:
                raise InputError(f"{name!r} is in {split_of[key]} and {split}", where=str(file), mend="keep it in one")
    return split_of


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _cityscapes(path: Path) -> Iterator[Found]:
    images = path / "leftImg8bit"
    for file in sorted(images.glob("*/*/*_leftImg8bit.png")):
        split, city = file.parts[-3:-1]
        if split not in ("train", "val"):
            continue  # the labels of test are not public
        stem = file.name.removesuffix("_leftImg8bit.png")
        folder = path / "gtFine" / split / city
        label, labels = folder / f"{stem}_gtFine_labelTrainIds.png", labelmaps.TRAIN_IDS
        if not label.exists():
            label, labels = folder / f"{stem}_gtFine_labelIds.png", labelmaps.LABEL_IDS
        known = label if label.exists() else None
        yield Found(stem, file, known, _scored(split), "_".join(stem.split("_")[:2]), labels=labels)


def _acdc(path: Path) -> Iterator[Found]:
    for file in sorted((path / "rgb_anon").glob("*/*/*/*_rgb_anon.png")):
        condition, split, sequence = file.parts[-4:-1]
        if condition in _CONDITIONS and split in ("train", "val"):
            yield _anon(path, file, split, f"{condition}/{sequence}", condition)


def _dark_zurich(path: Path) -> Iterator[Found]:
    for file in sorted((path / "rgb_anon").glob("*/*/*/*_rgb_anon.png")):
        split, time, sequence = file.parts[-4:-1]
        if time in _TIMES and split in ("train", "val"):
            yield _anon(path, file, split, f"{time}/{sequence}", time)


def _anon(path: Path, file: Path, split: str, group: str, domain: str) -> Found:
    place = file.relative_to(path / "rgb_anon").parent
    stem = file.name.removesuffix("_rgb_anon.png")
    label = path / "gt" / place / f"{stem}_gt_labelTrainIds.png"
    return Found(f"{place.as_posix()}/{stem}", file, label if label.exists() else None, _scored(split), group, domain)


def _flat(images: str, labels: str) -> Callable[[Path], Iterator[Found]]:
    def list_files(path: Path) -> Iterator[Found]:
        for file in _files(path / images):
            label = path / labels / file.name
            yield Found(file.stem, file, label if label.exists() else None, "train", None)

    return list_files


def _scored(split: str) -> str:
    return "test" if split == "val" else split


def _listed(files: Callable[[Path], Iterator[Found]]) -> Callable[[Path], list[Found]]:
    return lambda path: list(files(path))


_PUBLIC: dict[str, Callable[[Path], list[Found]]] = {
    "cityscapes": _listed(_cityscapes),
    "acdc": _listed(_acdc),
    "dark_zurich": _listed(_dark_zurich),
    "gta5": _listed(_flat("images", "labels")),
    "synthia": _listed(_flat("RGB", "GT/LABELS")),
}
_PUBLIC_MAPS = {
    "cityscapes": labelmaps.TRAIN_IDS,
    "acdc": labelmaps.TRAIN_IDS,
    "dark_zurich": labelmaps.TRAIN_IDS,
    "gta5": labelmaps.LABEL_IDS,
    "synthia": labelmaps.SYNTHIA,
}
