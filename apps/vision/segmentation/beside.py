"""Other runs on the same images: what a run gains on them, and how much of the gap between two of them it closes.

What is compared differs in how it learned, and in nothing else: the same images, classes and size of images, the same
windows and views. Runs that contradict each other are refused before anything is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from apps.vision.segmentation.application import box_of, matrices, predicted
from apps.vision.segmentation.data.items import Adaptation
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.metrics import Scores, measured, scores
from apps.vision.segmentation.segmenter import TASK, Segmenter, load_run
from apps.vision.segmentation.share import Closed, gap_closed
from core.command import RunDirectory, data_facts
from core.errors import InputError
from core.evaluation.bootstrap import Difference, paired
from core.evaluation.report import number

_CALLED = {"none": "source-only", "adapt": "adapted", "target": "oracle"}
"""Kinds of adaptation, as the field calls what comes of them."""
_TRAIN = "source-train"


@dataclass(frozen=True)
class Opened:
    """A finished run.

    Attributes:
        path: its folder.
        segmenter: its model.
        digest: of each split that it knows.
    """

    path: Path
    segmenter: Segmenter
    digest: Mapping[str, str]

    @property
    def kind(self) -> str:
        """What it learned from."""
        return self.segmenter.config.adaptation.kind


@dataclass(frozen=True)
class Companion:
    """One of the other runs, scored.

    Attributes:
        name: how it learned, for a column's head.
        run: which.
        matrices: ``(N, C, C)`` confusions of each image.
        scores: what it reaches.
        differences: of the metrics with support: the evaluated run minus this one, on the same images.
    """

    name: str
    run: Opened
    matrices: Int64[np.ndarray, "N C C"]
    scores: Scores
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Beside:
    """The other runs beside the one that is evaluated.

    Attributes:
        name: how that one learned.
        lower: what it is compared with.
        upper: the other end of the gap, if one is named.
        closed: of the metrics with support, what it closes of the gap; empty without ``upper``.
    """

    name: str
    lower: Companion
    upper: Companion | None
    closed: Mapping[str, Closed]

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The others, the lower one first."""
        return (self.lower,) if self.upper is None else (self.lower, self.upper)

    def details(self) -> dict[str, Any]:
        """For the record: ``beside`` by name, and ``gap_closed`` by metric where there is an upper run."""
        beside = {
            each.name: {
                "run": str(each.run.path),
                "adaptation": each.run.kind,
                "metrics": dict(each.scores.metrics),
                "difference": dict(each.differences),
            }
            for each in self.companions
        }
        shares = {name: {"gap": found.gap, "share": found.share} for name, found in self.closed.items()}
        return {"beside": beside, **({"gap_closed": shares} if shares else {})}

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = []
        for each in self.companions:
            lines.append(f"  beside {each.name} ({each.run.path}), on the same images: {self.name} minus {each.name}")
            for name, difference in each.differences.items():
                lines.append(f"    {name:<18} {number(each.scores.metrics[name].value):>8}   {difference}")
        if self.upper is not None:
            lines.append(f"  of the gap between {self.lower.name} and {self.upper.name}, {self.name} closes, in %")
            for name, found in self.closed.items():
                lines.append(f"    {name:<18} {found if found.share is None else found.share}")
        lines.append("  of these trainings: other seeds may turn differences, which manyformer compare counts")
        return lines


def opened(run: Path, lower: Path, upper: Path | None, *, split: str, elsewhere: bool = False) -> tuple[Opened, ...]:
    """The run itself and those beside it, which contradict it in nothing.

    Args:
        run: that is evaluated.
        lower: that it is compared with.
        upper: the other end of the gap.
        split: to be scored.
        elsewhere: on other data than those of the run.

    Raises:
        InputError: no finished run, or one that cannot be compared.
    """
    own, *others = (_opened(path) for path in (run, lower, upper) if path is not None)
    for option, other in zip(("--beside", "--upper"), others, strict=False):
        if other.path.resolve() == own.path.resolve():
            raise InputError("is the run that is evaluated", where=f"{option} {other.path}")
        _agree(own, other, split=split, elsewhere=elsewhere)
    if upper is not None:
        for option, other, kind in zip(("--beside", "--upper"), others, ("none", "target"), strict=True):
            if other.kind != kind:
                what = f"learned with adaptation.kind={other.kind}, which is no end of a gap"
                mend = f"with --upper, {option} is a run with adaptation.kind={kind}"
                raise InputError(what, where=f"{option} {other.path}", mend=mend)
    return (own, *others)


def _opened(path: Path) -> Opened:
    segmenter = load_run(path)
    return Opened(path, segmenter, data_facts(RunDirectory.open(path, task=TASK))["digest"])


def _agree(own: Opened, other: Opened, *, split: str, elsewhere: bool) -> None:
    """Refuse what would make a difference besides how they learned."""
    what, mend = "", f"compare runs that differ from {own.path} in how they learned alone"
    names, theirs = own.segmenter.classes.names, other.segmenter.classes.names
    boxes = [box_of(each.segmenter, split) for each in (own, other)]
    if names != theirs:
        what = f"its classes ({', '.join(theirs[:4])}, …) are not those of {own.path} ({', '.join(names[:4])}, …)"
    elif boxes[0] != boxes[1]:
        what = f"it takes images of {_size(boxes[1])}, and {own.path} of {_size(boxes[0])}"
    elif not elsewhere and own.digest.get(split) != other.digest.get(split):
        what = f"its images of {split} are not those of {own.path}"
    elif "target" not in (own.kind, other.kind) and own.digest.get(_TRAIN) != other.digest.get(_TRAIN):
        what = f"it learned from other images of the source than {own.path}"
    if what:
        raise InputError(what, where=str(other.path), mend=mend)


def _size(box: tuple[int, int] | None) -> str:
    return "their own size" if box is None else f"{box[0]} x {box[1]}"


def compared(
    runs: Sequence[Opened],
    data: Adaptation,
    split: str,
    inference: Inference,
    own: Int64[np.ndarray, "N C C"],
) -> Beside:
    """Score the other runs, and hold the first against them.

    Args:
        runs: of :func:`opened`.
        data: that the split is of.
        split: labelled images.
        inference: as for the run itself.
        own: confusions of each image by the first run.

    Raises:
        InputError: an image cannot be read.
    """
    name, *others = _named(runs)
    items, classes = data.split(split), data.classes.names
    companions = []
    for called, run in zip(others, runs[1:], strict=True):
        theirs = matrices(items, predicted(run.segmenter, data, split, inference), len(classes))
        found = scores(theirs, classes)
        companions.append(Companion(called, run, theirs, found, differences(own, theirs, classes, found.metrics)))
    lower, upper = companions[0], companions[1] if len(companions) > 1 else None
    closed: dict[str, Closed] = {}
    if upper is not None:
        measures = measured(own, classes).measures
        for metric in upper.scores.metrics:
            measure = measures[metric]
            closed[metric] = gap_closed(measure.metric, measure.truth, own, lower.matrices, upper.matrices)
    return Beside(name, lower, upper, closed)


def differences(
    a: Int64[np.ndarray, "N C C"],
    b: Int64[np.ndarray, "N C C"],
    classes: Sequence[str],
    metrics: Sequence[str] | Mapping[str, Any],
    *,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """The first minus the second on the same images, by metric.

    Args:
        a, b: confusions of each image.
        classes: their names.
        metrics: which ones.
        confidence: of the intervals.
    """
    ours, theirs = measured(a, classes).measures, measured(b, classes).measures
    return {
        name: paired(
            ours[name].metric, ours[name].truth, ours[name].prediction, theirs[name].prediction, confidence=confidence
        )
        for name in metrics
    }


def _named(runs: Sequence[Opened]) -> list[str]:
    """How each learned, and its folder where two learned alike."""
    names = [_CALLED[run.kind] for run in runs]
    for called in (lambda run: run.path.name, lambda run: str(run.path)):
        if len(set(names)) == len(names):
            break
        names = [f"{_CALLED[run.kind]} ({called(run)})" for run in runs]
    return names
