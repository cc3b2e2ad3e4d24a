"""What ``predict`` is to do: images and videos, and the files that are made of each; nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apps.vision.segmentation.data import video
from apps.vision.segmentation.data.pictures import SUFFIXES, read_header, refuse_form
from core.errors import InputError

LABELS, OVERLAYS, UNCERTAINTY = "labels", "overlays", "uncertainty"
"""Folders within the one that is written to."""


@dataclass(frozen=True)
class Job:
    """An image or a video, and what is made of it.

    Attributes:
        source: the file.
        overlay: PNG, or video.
        label: PNG, of a video a folder of them; None where none is asked for.
        uncertainty: likewise.
        doubt: whether entropies are computed, for files or for the record.
        clip: what is known of a video.
    """

    source: Path
    overlay: Path
    label: Path | None
    uncertainty: Path | None
    doubt: bool = False
    clip: video.Clip | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """All that is written."""
        return tuple(path for path in (self.label, self.overlay, self.uncertainty) if path is not None)


def jobs(
    inputs: Iterable[Path], out: Path, *, overwrite: bool = False, uncertainty: bool = False, every: int | None = None
) -> list[Job]:
    """What is to be done; every image is looked at by its header, every video is measured.

    Args:
        inputs: files, and folders of them.
        out: the folder that is written to.
        overwrite: files that are there are no error.
        uncertainty: whether it is asked for.
        every: of which frames of a video labels are asked for.

    Raises:
        InputError: no image, one of a form that is not read, two of one name, or a file that is there already.
    """
    found: list[Job] = []
    taken: dict[Path, Path] = {}
    for source, name in _sources(inputs, out):
        job = _job(source, name, out, uncertainty, every)
        for target in job.targets:
            if target in taken:
                what = f"{taken[target]} and {source} would both be written there"
                raise InputError(what, where=str(target), mend="predict them in two calls, with two folders")
            _refuse_target(target, out, overwrite)
            taken[target] = source
        found.append(job)
    return found


def _job(source: Path, name: Path, out: Path, uncertainty: bool, every: int | None) -> Job:
    clip = video.read_clip(source) if video.is_video(source) else None
    if clip is None:
        refuse_form(read_header(source), str(source))
        name = name.with_suffix(".png")
    # A video's PNGs lie in a folder of its whole name, so that an image of the same stem can lie beside it.
    maps = clip is None or every is not None
    return Job(
        source,
        overlay=out / OVERLAYS / (name if clip is None else name.with_suffix(video.SUFFIX)),
        label=out / LABELS / name if maps else None,
        uncertainty=out / UNCERTAINTY / name if maps and uncertainty else None,
        doubt=uncertainty,
        clip=clip,
    )


def _sources(inputs: Iterable[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Files and their names below a folder; what an earlier call made is nothing to take from a folder."""
    made = [(out / name).resolve() for name in (LABELS, OVERLAYS, UNCERTAINTY)]
    known = (*SUFFIXES, *video.SUFFIXES)
    for path in inputs:
        if not path.is_dir():
            yield path, Path(path.name)
            continue
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
        files = [file for file in files if not any(file.resolve().is_relative_to(folder) for folder in made)]
        if not files:
            mend = f"looked for {', '.join(known)}"
            raise InputError("a folder without images or videos", where=str(path), mend=mend)
        for file in files:
            yield file, file.relative_to(path)


def _refuse_target(target: Path, out: Path, overwrite: bool) -> None:
    if not target.resolve().is_relative_to(out.resolve()):
        mend = "remove the link, or name another folder"
        raise InputError(f"a link leads out of {out}", where=str(target), mend=mend)
    if target.exists() and not overwrite:
        raise InputError("is there already", where=str(target), mend="give --overwrite, or another folder")
