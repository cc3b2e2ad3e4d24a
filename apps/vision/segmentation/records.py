"""Carrying out what :mod:`.jobs` lists: files are written as predictions come, and each gives a record of plain data.

Means and shares are over pixels; ``entropy`` is in log K, where uncertainty is asked for; ``changed`` is the share of a
frame's pixels whose class is another than in the frame before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from apps.vision.segmentation.colours import label_png, overlaid, rgb_png, share_png
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.pictures import read_image
from apps.vision.segmentation.data.video import Clip, Frame, read_frames, writing
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.jobs import Job
from apps.vision.segmentation.segmenter import Prediction, Segmenter
from core.artefact import replace_file
from core.command import counted

Record = dict[str, Any]


def records(
    todo: Sequence[Job], segmenter: Segmenter, inference: Inference, *, every: int | None = None, bar: bool = False
) -> Iterator[Record]:
    """Carry out jobs in order: a record for each image, for each frame of a video, and for the whole video after them.

    Args:
        todo: the jobs.
        segmenter: predicts.
        inference: windows, views, images at a time.
        every: of which frames of a video labels are written.
        bar: show how far a video is, on standard error.

    Raises:
        InputError: a file cannot be read or written.
    """
    # Images that follow one another go through the network together.
    for clips, group in groupby(todo, key=lambda job: job.clip is not None):
        if clips:
            for job in group:
                yield from _of_video(job, segmenter, inference, every, bar)
        else:
            yield from _of_images(list(group), segmenter, inference)


def _of_images(group: Sequence[Job], segmenter: Segmenter, inference: Inference) -> Iterator[Record]:
    doubt = any(job.doubt for job in group)
    found = segmenter.predict((job.source for job in group), inference, uncertainty=doubt)
    for job, prediction in zip(group, found, strict=True):
        written = _write_maps(prediction, segmenter.classes, job.label, job.uncertainty)
        replace_file(job.overlay, rgb_png(overlaid(read_image(job.source), prediction.labels, segmenter.classes)))
        height, width = prediction.labels.shape
        facts = {"file": str(job.source), **written, "overlay": str(job.overlay), "height": height, "width": width}
        yield facts | _Tally.of(prediction, segmenter.classes).facts(segmenter.classes)


def _of_video(job: Job, segmenter: Segmenter, inference: Inference, every: int | None, bar: bool) -> Iterator[Record]:
    assert job.clip is not None
    clip, classes = job.clip, segmenter.classes
    whole = _Tally.empty(classes)
    # Frames that were given to the network and not drawn on yet: those of a batch (tee would keep some fifty).
    waiting: deque[Frame] = deque()
    found = segmenter.predict(_passed(read_frames(clip), waiting), inference, uncertainty=job.doubt)
    before: UInt8[np.ndarray, "H W"] | None = None
    with writing(job.overlay, clip.size, clip.rate) as write, counted(clip.path.name, shown=bar) as told:
        for number, prediction in enumerate(found):
            write(overlaid(waiting.popleft(), prediction.labels, classes))
            of_frame = _Tally.of(prediction, classes, before)
            before, whole = prediction.labels, whole + of_frame
            chosen = every is not None and number % every == 0
            written = _write_frame(prediction, classes, job, number) if chosen else {}
            told(number + 1, clip.frames)
            place = {"file": str(job.source), "frame": number, "seconds": round(number / clip.rate, 3)}
            yield place | written | of_frame.facts(classes)
    yield _head(job, clip, whole.frames) | whole.facts(classes)


def _passed(frames: Iterable[Frame], waiting: deque[Frame]) -> Iterator[Frame]:
    for frame in frames:
        waiting.append(frame)
        yield frame


def _head(job: Job, clip: Clip, frames: int) -> Record:
    folders = {"label": job.label, "overlay": job.overlay, "uncertainty": job.uncertainty}
    files = {name: str(path) for name, path in folders.items() if path is not None}
    height, width = clip.size
    return {"file": str(job.source), **files, "height": height, "width": width, "frames": frames, "rate": clip.rate}


def _write_frame(prediction: Prediction, classes: Classes, job: Job, number: int) -> Record:
    name = f"{number:06d}.png"
    label, doubt = (None if folder is None else folder / name for folder in (job.label, job.uncertainty))
    return _write_maps(prediction, classes, label, doubt)


def _write_maps(prediction: Prediction, classes: Classes, label: Path | None, doubt: Path | None) -> Record:
    """Files of labels and uncertainty, and their names."""
    written = {}
    if label is not None:
        replace_file(label, label_png(prediction.labels, classes))
        written["label"] = str(label)
    if doubt is not None and prediction.entropy is not None:
        replace_file(doubt, share_png(prediction.entropy))
        written["uncertainty"] = str(doubt)
    return written


@dataclass(frozen=True)
class _Tally:
    """Sums over the pixels of frames, in which memory does not grow with their number.

    Attributes:
        counts: pixels of each class.
        certainty: sum of the frames' means.
        entropy: likewise; None where there is none.
        changed: sum of the frames' shares.
        frames: how many.
        pairs: of how many it is known what changed.
    """

    counts: Int64[np.ndarray, "K"]
    certainty: float = 0.0
    entropy: float | None = None
    changed: float = 0.0
    frames: int = 0
    pairs: int = 0

    @classmethod
    def empty(cls, classes: Classes) -> _Tally:
        return cls(np.zeros(len(classes), dtype=np.int64))

    @classmethod
    def of(cls, prediction: Prediction, classes: Classes, before: UInt8[np.ndarray, "H W"] | None = None) -> _Tally:
        return cls(
            counts=np.bincount(prediction.labels.ravel(), minlength=len(classes)),
            certainty=float(prediction.certainty.mean()),
            entropy=None if prediction.entropy is None else float(prediction.entropy.mean()),
            changed=0.0 if before is None else float(np.mean(prediction.labels != before)),
            frames=1,
            pairs=int(before is not None),
        )

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(
            self.counts + other.counts,
            self.certainty + other.certainty,
            None if other.entropy is None else (self.entropy or 0.0) + other.entropy,
            self.changed + other.changed,
            self.frames + other.frames,
            self.pairs + other.pairs,
        )

    def facts(self, classes: Classes) -> Record:
        """Means; shares of pixels by class, the greatest first, without classes that have none."""
        order = [int(index) for index in np.argsort(-self.counts, kind="stable") if self.counts[index]]
        total = int(self.counts.sum())
        return {
            "certainty": round(self.certainty / self.frames, 4),
            **({} if self.entropy is None else {"entropy": round(self.entropy / self.frames, 4)}),
            **({"changed": round(self.changed / self.pairs, 6)} if self.pairs else {}),
            "classes": {classes.names[index]: round(int(self.counts[index]) / total, 6) for index in order},
        }
