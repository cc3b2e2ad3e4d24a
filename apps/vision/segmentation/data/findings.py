"""Everything wrong with a source and a target, found before training: labels above all.

Single files are judged by the rules that training reads them by (:mod:`.pictures`, :mod:`.classes`). What only a whole
set can show is judged here: labels that are masks of 0 and 255, ids that begin at 1, a palette in another order,
classes that one side lacks, and what splits share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from apps.vision.segmentation.data.classes import IGNORE, Classes, LabelMap
from apps.vision.segmentation.data.gap import Gap, gap_between
from apps.vision.segmentation.data.items import Domain, Item, Labelled, in_threads
from apps.vision.segmentation.data.look import Look, look_at
from apps.vision.segmentation.data.pictures import LabelFile
from apps.vision.segmentation.data.rare import IMAGE_SHARE
from apps.vision.segmentation.data.sources import carried
from core.command import Finding, Severity, from_error
from core.errors import InputError

FEW_IMAGES = 20
MOSTLY_UNLABELLED = 0.5
_NOTHING = {"background", "void", "unlabelled", "unlabeled", "ignore", "other", "none"}

Progress = Callable[[int, int], None]
"""Called with (images looked at, all images)."""


@dataclass(frozen=True)
class Inspected:
    """What was found, and the gap where both sides could be read."""

    findings: tuple[Finding, ...]
    gap: Gap | None


def inspect(source: Domain, target: Domain, *, most: int | None = None, progress: Progress | None = None) -> Inspected:
    """Look at the images and labels of both domains.

    Args:
        source: its labels count as those that are learned from.
        target: labels where it has them are compared and scored with, never learned from.
        most: of each split, so many images evenly spaced; all where it is not given.
        progress: told how far it is.
    """
    findings = [*_named(source.faults, "source"), *_named(target.faults, "target"), *_of_sets(source, target)]
    if source.classes is None:
        return Inspected(tuple(findings), None)
    own: dict[str, tuple[Item, ...]] = {split: items for split, items in source.splits.items() if items}
    try:
        other = {split: _in_classes(target, split, source.classes) for split in target.splits}
    except InputError as error:
        findings.append(from_error(error, "classes"))
        other = {}
    sides = {"source": own, "target": other}
    if most is not None:
        findings += _left_out(sides, most)
        sides = {side: {split: _spaced(items, most) for split, items in of.items()} for side, of in sides.items()}
    looks = _looks(sides, len(source.classes), progress)
    findings += (one for seen in looks.values() for look in seen for one in look.findings)
    for side in ("source", "target"):
        findings += _of_values(
            [one for (of, _), seen in looks.items() if of == side for one in seen], side, source.classes
        )
    for side in ("source", "target"):
        findings += _shared({split: seen for (of, split), seen in looks.items() if of == side}, side)
    of_source, of_target = looks.get(("source", "train"), []), looks.get(("target", "train"), [])
    findings += _between(of_source, of_target)
    gap = gap_between(of_source, _with_labels(of_target, looks), source.classes)
    findings += _of_classes(of_source, gap, source.classes)
    return Inspected(tuple(findings), gap)


def _in_classes(domain: Domain, split: str, classes: Classes) -> tuple[Item, ...]:
    """Items of the target with labels in the source's classes, in their order."""
    labelled = {item.key: item for item in carried(domain, split, classes)}
    return tuple(labelled.get(item.key, item) for item in domain.splits[split])


def _spaced(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    return tuple(items[index * len(items) // most] for index in range(most)) if len(items) > most else tuple(items)


def _left_out(sides: Mapping[str, Mapping[str, Sequence[Item]]], most: int) -> Iterator[Finding]:
    for side, splits in sides.items():
        for split, items in splits.items():
            if len(items) > most:
                what = f"{most:,} of {len(items):,} images were looked at; what is wrong with others is not told"
                yield _said("note", "sampled", what, None, f"{side} {split}")


def _with_labels(train: Sequence[Look], looks: Mapping[tuple[str, str], Sequence[Look]]) -> Sequence[Look]:
    """The target's training images; where those have no labels, those of its other splits stand in for the classes."""
    if not train or any(look.counts is not None for look in train):
        return train
    scored = [
        look for split in ("valid", "test") for look in looks.get(("target", split), ()) if look.counts is not None
    ]
    no_light = np.zeros(256, dtype=np.int64)
    return [*train, *(replace(look, light=no_light, colour=np.zeros(3)) for look in scored)]


def _looks(
    sides: Mapping[str, Mapping[str, Sequence[Item]]], classes: int, progress: Progress | None
) -> dict[tuple[str, str], list[Look]]:
    total = sum(len(items) for splits in sides.values() for items in splits.values())
    done, looks = 0, defaultdict(list)
    for side, splits in sides.items():
        for split, items in splits.items():
            for look in in_threads(partial(look_at, split=f"{side} {split}", classes=classes), items):
                looks[side, split].append(look)
                done += 1
                if progress is not None:
                    progress(done, total)
    return dict(looks)


def _named(findings: Sequence[Finding], side: str) -> Iterator[Finding]:
    for one in findings:
        yield replace(one, split=f"{side} {one.split}" if one.split else side)


def _said(severity: Severity, kind: str, what: str, where: str | None, split: str, mend: str | None = None) -> Finding:
    return Finding(severity=severity, kind=kind, what=what, where=where, split=split, mend=mend)


# --- of the sets ------------------------------------------------------------------------------------------------------


def _of_sets(source: Domain, target: Domain) -> Iterator[Finding]:
    """Is there anything to learn from, and anything to adapt to?"""
    train, scored = source.labelled("train"), [*target.labelled("valid"), *target.labelled("test")]
    if source.classes is None:
        mend = "write classes.json there"
        yield _said("error", "no-classes", "nothing says which classes there are", source.name, "source", mend)
    if not train:
        mend = "the source needs labels: check the folder 'labels' or the column 'label'"
        yield _said("error", "no-source", "there is no labelled image in 'train'", source.name, "source", mend)
    elif len(train) < FEW_IMAGES:
        what = f"{len(train)} labelled images to learn from"
        yield _said("warning", "few", what, source.name, "source", "label more")
    lacking = len(source.views("train")) - len(train)
    if train and lacking:
        what = f"{lacking} images have no label: they are not learned from"
        yield _said("warning", "no-label", what, source.name, "source", "label them, or leave them out")
    if not target.views("train"):
        mend = "adaptation trains on the target's images; they need no labels"
        yield _said("error", "no-target", "there is no target image in 'train'", target.name, "target", mend)
    if not scored:
        mend = "label some in 'valid' or 'test' to know how far adaptation gets"
        yield _said("note", "not-scored", "the target has no labelled image to score on", target.name, "target", mend)


def _shared(splits: Mapping[str, Sequence[Look]], side: str) -> Iterator[Finding]:
    """Files and sequences that are in two splits."""
    names = list(splits)
    for first, second in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        known = {look.digest: look.item.image.where for look in splits[first] if look.digest}
        for look in splits[second]:
            if look.digest in known:
                what = f"the same image as {known[look.digest]} in {first}"
                where = look.item.image.where
                yield _said("warning", "shared-file", what, where, f"{side} {second}", "keep it in one split")
        groups = [{look.item.group for look in splits[name]} - {None} for name in (first, second)]
        both = sorted(str(group) for group in groups[0] & groups[1])
        if both and first == "train":
            count = f"{len(both)} sequences are" if len(both) > 1 else "1 sequence is"
            what = f"{count} in train too ({', '.join(both[:3])}): neighbours look alike, and scores flatter"
            yield _said("warning", "shared-sequence", what, None, f"{side} {second}", "split by sequence")


def _between(source: Sequence[Look], target: Sequence[Look]) -> Iterator[Finding]:
    known = {look.digest for look in source if look.digest}
    same = [look for look in target if look.digest in known]
    if same and len(same) == len(target):
        what = "source and target are the same images: this trains with the target's labels, as an upper reference"
        yield _said("note", "same-domain", what, None, "target")
    elif same:
        what = f"{len(same)} target images are in the source too"
        yield _said("warning", "shared-file", what, same[0].item.image.where, "target train", "take them out of one")


# --- of labels --------------------------------------------------------------------------------------------------------


def _of_values(looks: Sequence[Look], split: str, classes: Classes) -> Iterator[Finding]:
    """What the values of all labels of a domain say together."""
    labels = [look.item.label for look in looks if isinstance(look.item, Labelled) and look.values]
    first = next((label for label in labels if isinstance(label, LabelFile)), None)
    if first is None:
        return
    where, values = str(first.path.parent), {value for look in looks for value in look.values}
    if values <= {0, IGNORE} and IGNORE in values:
        what = "all labels hold only 0 and 255: masks, of which 255 means 'not labelled' here"
        mend = 'write ids 0 and 1, or say in classes.json "ids": {"0": "background", "255": "object"}'
        if first.labels.ids.get(IGNORE) == IGNORE:
            yield _said("error", "mask-0-255", what, where, split, mend)
    yield from _of_zero(values, first.labels, classes, where, split)
    yield from _of_palette(first, classes, split)
    counts = [look.counts for look in looks if look.counts is not None]
    unlabelled = sum(int(count[-1]) for count in counts) / max(1, sum(int(count.sum()) for count in counts))
    if unlabelled > MOSTLY_UNLABELLED:
        what = f"{unlabelled:.0%} of the pixels are not labelled"
        yield _said("warning", "mostly-unlabelled", what, where, split, "are the ids in classes.json right?")


def _of_zero(values: set[int], labels: LabelMap, classes: Classes, where: str, split: str) -> Iterator[Finding]:
    """Do the ids begin at 1, with 0 for "not labelled", while the map begins at 0?"""
    count = len(classes)
    if labels.ids.get(0) != 0 or labels.ids.get(count - 1) != count - 1:
        return
    mend = 'if 0 means "not labelled" and 1 the first class, say "reduce_zero_label": true in classes.json'
    if count in values and labels.ids.get(count) is None:
        what = f"ids reach {count} where the last of {count} classes is {count - 1}: do they begin at 1?"
        yield _said("error", "reduce-zero", what, where, split, mend)
    elif 0 not in values and values & set(range(1, count)) and split == "source":
        what = f"no label holds 0, the class {classes.names[0]!r}: do the ids begin at 1?"
        yield _said("warning", "reduce-zero", what, where, split, mend)
    elif classes.names[0].casefold() in _NOTHING:
        what = f"the class of id 0 is {classes.names[0]!r}, and it is learned like any other"
        yield _said("note", "reduce-zero", what, where, split, mend)


def _of_palette(label: LabelFile, classes: Classes, split: str) -> Iterator[Finding]:
    """Does a palette image colour its ids in another order than classes.json?"""
    try:
        with Image.open(label.path) as image:
            stored = image.getpalette("RGB") if image.mode == "P" else None
    except (OSError, ValueError, SyntaxError):
        return
    if not stored or not label.labels.colours:
        return
    for value, train_id in sorted(label.labels.ids.items()):
        if train_id == IGNORE or 3 * value + 3 > len(stored):
            continue
        red, green, blue = stored[3 * value : 3 * value + 3]
        meant = label.labels.colours.get((red, green, blue))
        if meant not in (None, IGNORE, train_id):
            what = (
                f"id {value} is {classes.names[train_id]!r} in classes.json, and coloured as {classes.names[meant]!r}"
            )
            mend = "the index counts, not the colour: are ids and palette in one order?"
            yield _said("warning", "palette-order", what, label.where, split, mend)
            return


# --- of classes -------------------------------------------------------------------------------------------------------


def _of_classes(source: Sequence[Look], gap: Gap | None, classes: Classes) -> Iterator[Finding]:
    """What the source cannot teach."""
    counts = [look.counts for look in source if look.counts is not None]
    if not counts:
        return
    stacked = np.stack(counts)
    pixels, total = stacked[:, :-1].sum(axis=0), stacked.sum(axis=1)
    target = None if gap is None else gap.target.shares
    for index, name in enumerate(classes.names):
        if not pixels[index] and target is not None and target[index]:
            what = f"{name!r} is in the target ({target[index]:.2%} of it) and not in the source: it cannot be learned"
            yield _said("warning", "target-only", what, None, "source train", "label it in the source")
        elif not pixels[index]:
            what = f"no label of the source has {name!r}: it cannot be learned"
            yield _said("warning", "absent", what, None, "source train", "correct classes.json, or leave the class out")
        elif not (stacked[:, index] > IMAGE_SHARE * total).any():
            most = int(stacked[:, index].max())
            what = f"no image has more than {most} pixels of {name!r}: rare class sampling cannot draw it"
            mend = f"set its image_pixels below {most}, or switch it off"
            yield _said("warning", "too-rare", what, None, "source train", mend)
