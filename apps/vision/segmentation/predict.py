"""``manyformer segmentation predict``: images to labels, as files and as pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from apps.vision.segmentation.colours import label_png, overlaid, rgb_png
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.pictures import SUFFIXES, read_header, read_image, refuse_form
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.segmenter import Prediction, load_run
from core.artefact import replace_file
from core.command import parse_arguments, run, say
from core.errors import InputError

LABELS, OVERLAYS = "labels", "overlays"
"""Folders within the one that is written to."""
_NAMED = 3
"""Classes that a line names."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Label the pixels of images with a trained segmentor. Of each image OUT/labels gets a PNG whose index is the
    class, and OUT/overlays one to look at."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    input: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="INPUT [INPUT ...]", help_behavior_hint="(required)"),
    ]
    """Images of any size, or folders of them."""
    out: Path
    """Folder to write into; what lies below a folder of images lies below it in the same way."""
    overwrite: bool = False
    """Replace files that are there."""
    window: tuple[int, int] | None = None
    """Height and width of sliding windows; images are taken whole unless given."""
    flip: bool = False
    """Also mirrored, and averaged."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the image that are averaged."""
    json: bool = False
    """Write JSON to standard output, a line for each image: files, size, mean certainty, share of each class."""


@dataclass(frozen=True)
class Job:
    """An image and the files that are made of it."""

    image: Path
    label: Path
    overlay: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation predict")
    if not arguments.input:
        raise InputError("no image", mend="manyformer segmentation predict RUN IMAGE --out FOLDER")
    inference = Inference(window=arguments.window, flip=arguments.flip, scales=arguments.scales)
    todo = jobs(arguments.input, arguments.out, overwrite=arguments.overwrite)
    segmenter = load_run(arguments.run)
    # A folder of images takes its time: what is done is written, and said, at once.
    for job, prediction in zip(todo, segmenter.predict((job.image for job in todo), inference), strict=True):
        replace_file(job.label, label_png(prediction.labels, segmenter.classes))
        replace_file(job.overlay, rgb_png(overlaid(read_image(job.image), prediction.labels, segmenter.classes)))
        facts = record(job, prediction, segmenter.classes)
        say(json.dumps(facts, ensure_ascii=False) if arguments.json else _line(facts))
    if not arguments.json:
        say(f"{len(todo):,} image{'s' * (len(todo) != 1)}: {LABELS} and {OVERLAYS} are in {arguments.out}")


def jobs(inputs: Iterable[Path], out: Path, *, overwrite: bool = False) -> list[Job]:
    """What is to be done; every image is looked at by its header, and nothing is written.

    Raises:
        InputError: no image, one of a form that is not read, two images of one name, or a file that is there already.
    """
    found: list[Job] = []
    taken: dict[Path, Path] = {}
    for image, name in _images(inputs, out):
        refuse_form(read_header(image), str(image))
        job = Job(image, out / LABELS / name, out / OVERLAYS / name)
        if job.label in taken:
            what = f"{taken[job.label]} and {image} would both be written there"
            raise InputError(what, where=str(job.label), mend="predict them in two calls, with two folders")
        for target in (job.label, job.overlay):
            _refuse_target(target, out, overwrite)
        taken[job.label] = image
        found.append(job)
    return found


def _images(inputs: Iterable[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Images and the names of what is made of them; what an earlier call made is no image to take from a folder."""
    made = [(out / name).resolve() for name in (LABELS, OVERLAYS)]
    for path in inputs:
        if not path.is_dir():
            yield path, Path(f"{path.stem}.png")
            continue
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        files = [file for file in files if not any(file.resolve().is_relative_to(folder) for folder in made)]
        if not files:
            raise InputError("a folder without images", where=str(path), mend=f"looked for {', '.join(SUFFIXES)}")
        for file in files:
            yield file, file.relative_to(path).with_suffix(".png")


def _refuse_target(target: Path, out: Path, overwrite: bool) -> None:
    if not target.resolve().is_relative_to(out.resolve()):
        mend = "remove the link, or name another folder"
        raise InputError(f"a link leads out of {out}", where=str(target), mend=mend)
    if target.exists() and not overwrite:
        raise InputError("is there already", where=str(target), mend="give --overwrite, or another folder")


def record(job: Job, prediction: Prediction, classes: Classes) -> dict[str, Any]:
    """A prediction as plain data; shares of pixels by class, the greatest first, without classes that have none."""
    height, width = prediction.labels.shape
    counts = np.bincount(prediction.labels.ravel(), minlength=len(classes))
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    return {
        "file": str(job.image),
        "label": str(job.label),
        "overlay": str(job.overlay),
        "height": height,
        "width": width,
        "certainty": round(float(prediction.certainty.mean()), 4),
        "classes": {classes.names[index]: round(int(counts[index]) / (height * width), 6) for index in order},
    }


def _line(facts: dict[str, Any]) -> str:
    shares = [f"{name} {100 * share:.0f} %" for name, share in list(facts["classes"].items())[:_NAMED]]
    return f"{facts['file']}\t{', '.join(shares)}"


if __name__ == "__main__":
    raise SystemExit(main())
