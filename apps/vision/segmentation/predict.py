"""``manyformer segmentation predict``: images and videos to labels, as files and as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.jobs import LABELS, OVERLAYS, UNCERTAINTY, Job, jobs
from apps.vision.segmentation.records import records
from apps.vision.segmentation.segmenter import PLAIN, load_run
from core.command import parse_arguments, run, say
from core.errors import InputError

_NAMED = 3
"""Classes that a line names."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Label the pixels of images and videos with a trained segmentor. Of each image OUT/labels gets a PNG whose index
    is the class, and OUT/overlays one to look at; of each video OUT/overlays gets a video."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    input: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="INPUT [INPUT ...]", help_behavior_hint="(required)"),
    ]
    """Images of any size, videos, or folders of them."""
    out: Path
    """Folder to write into; what lies below a folder that is read lies below it in the same way."""
    overwrite: bool = False
    """Replace files that are there."""
    uncertainty: bool = False
    """Also OUT/uncertainty: 8-bit grey PNGs of the entropy of the classes' probabilities; 0 is certain, 255 is log K,
    all K classes alike."""
    every: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Of a video also labels (and uncertainty) as PNGs, of frames 0, N, 2 N, ...; none unless given."""
    inference: Annotated[Inference, tyro.conf.arg(name="")] = PLAIN
    json: bool = False
    """Write JSON to standard output, a line for each image, for each frame of a video and for the whole video: files,
    size, mean certainty, share of each class."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation predict")
    if not arguments.input:
        raise InputError("no image", mend="manyformer segmentation predict RUN IMAGE --out FOLDER")
    if arguments.every is not None and arguments.every < 1:
        raise InputError(f"every {arguments.every} frames are none", where="--every")
    todo = jobs(
        arguments.input,
        arguments.out,
        overwrite=arguments.overwrite,
        uncertainty=arguments.uncertainty,
        every=arguments.every,
    )
    segmenter = load_run(arguments.run)
    # A folder of images takes its time: what is done is written, and said, at once.
    shown = not arguments.json
    for facts in records(todo, segmenter, arguments.inference, every=arguments.every, bar=shown):
        if arguments.json:
            say(json.dumps(facts, ensure_ascii=False))
        elif "frame" not in facts:
            say(_line(facts))
    if shown:
        say(_written(todo, arguments.out))


def _line(facts: dict[str, Any]) -> str:
    shares = [f"{name} {100 * share:.0f} %" for name, share in list(facts["classes"].items())[:_NAMED]]
    frames = [f"{facts['frames']:,} frames"] if "frames" in facts else []
    return f"{facts['file']}\t{', '.join([*frames, *shares])}"


def _written(todo: Sequence[Job], out: Path) -> str:
    """How many of what, and in which folders."""
    videos = sum(job.clip is not None for job in todo)
    counts = {"image": len(todo) - videos, "video": videos}
    what = " and ".join(f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items() if count)
    wrote = {
        LABELS: any(job.label for job in todo),
        UNCERTAINTY: any(job.uncertainty for job in todo),
        OVERLAYS: True,
    }
    folders = [name for name, any_written in wrote.items() if any_written]
    listed = f"{', '.join(folders[:-1])} and {folders[-1]}" if len(folders) > 1 else folders[-1]
    return f"{what}: {listed} are in {out}"


if __name__ == "__main__":
    raise SystemExit(main())
