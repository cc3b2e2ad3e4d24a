"""``manyformer segmentation evaluate``: IoU with intervals by image, beside a floor and other runs on the same ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import tyro
from jaxtyping import Int64

from apps.vision.segmentation.application import APPLICATION, matrices, predicted
from apps.vision.segmentation.baseline import NAME, RowMajority
from apps.vision.segmentation.beside import Beside, Opened, compared, differences, opened
from apps.vision.segmentation.choice import Choice, choice_of
from apps.vision.segmentation.data.items import Adaptation
from apps.vision.segmentation.data.sources import Source
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.metrics import Scores, scores
from apps.vision.segmentation.report import write_report
from apps.vision.segmentation.segmenter import PLAIN, TASK, Segmenter, load_run
from core.artefact import replace_file
from core.command import EvaluateArguments, RunDirectory, data_facts, parse_arguments, run, say, source_from
from core.command.environment import environment
from core.errors import InputError
from core.evaluation.bootstrap import Difference
from core.evaluation.results import Baseline, Result, notes, score_lines

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Arguments(EvaluateArguments):
    """Score a trained segmentor on labelled images of the target (or source-valid, source-test), with 95 % intervals
    by image and a floor beside it."""

    target: str | None = None
    """Folder of another target; that of the run unless given."""
    target_domain: str | None = None
    """Which domain of it."""
    inference: Annotated[Inference, tyro.conf.arg(name="")] = PLAIN
    beside: Path | None = None
    """Folder of another finished run, such as the source-only one, to score on the same images and compare with."""
    upper: Path | None = None
    """Folder of a run that learned from the target's labels: how much of the gap from --beside to it is closed."""


@dataclass(frozen=True)
class Evaluation:
    """What was found: the record, and what it was found from.

    Attributes:
        result: the record.
        data, segmenter, inference: what was scored.
        matrices: ``(N, C, C)`` confusions of each image.
        scores: of them.
        differences: of ``miou`` and ``pixel_accuracy`` to the floor.
        beside: other runs on the same images.
        choice: which epoch other rules would have kept, of a run that was made with ``show_target``.
    """

    result: Result
    data: Adaptation
    segmenter: Segmenter
    inference: Inference
    matrices: Int64[np.ndarray, "N C C"]
    scores: Scores
    differences: dict[str, Difference]
    beside: Beside | None = None
    choice: Choice | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation evaluate")
    segmenter = load_run(arguments.run)
    data = APPLICATION.load(_source(arguments), segmenter.config)
    if data.classes.names != segmenter.classes.names:
        what = f"its classes ({', '.join(data.classes.names[:4])}, …) are not those of the model"
        raise InputError(what, where=data.name, mend=f"the model says {', '.join(segmenter.classes.names[:4])}, …")
    others = _others(arguments)
    evaluation = evaluate(segmenter, data, arguments.split, arguments.inference)
    beside = compared(others, data, arguments.split, arguments.inference, evaluation.matrices) if others else None
    evaluation = with_more(evaluation, beside, choice_of(arguments.run, segmenter.config))
    say(_lines(evaluation))
    if arguments.json is not None:
        replace_file(arguments.json, evaluation.result.json())
    if arguments.report is not None:
        say(f"report: {write_report(evaluation, arguments.run, arguments.report / 'index.html')}")


def _others(arguments: Arguments) -> Sequence[Opened]:
    """The run and those that it is compared with; none where none is named."""
    if arguments.beside is None:
        if arguments.upper is not None:
            mend = "give --beside too, the run that learned from the source alone"
            raise InputError("there is no lower end of the gap", where="--upper", mend=mend)
        return ()
    elsewhere = any(word is not None for word in (arguments.data, arguments.target, arguments.target_domain))
    return opened(arguments.run, arguments.beside, arguments.upper, split=arguments.split, elsewhere=elsewhere)


def _source(arguments: Arguments) -> Source:
    """The data of the run, with what the line says otherwise."""
    known = source_from(data_facts(RunDirectory.open(arguments.run, task=TASK)), Source)
    changes: dict[str, Any] = {}
    if arguments.data is not None:
        changes = {"data": arguments.data, "layout": "auto"}
    if arguments.target is not None:
        changes |= {"target": arguments.target, "target_layout": "auto", "target_domain": None}
    if arguments.target_domain is not None:
        changes["target_domain"] = arguments.target_domain
    return replace(known, **changes)


def evaluate(segmenter: Segmenter, data: Adaptation, split: str, inference: Inference = PLAIN) -> Evaluation:
    """Score a segmentor on a labelled split.

    Raises:
        InputError: no such split, or an image that cannot be read.
    """
    items, names = data.split(split), data.classes.names
    clock = Stopwatch()
    # One after the other: what is kept of a prediction is its matrix.
    ours = matrices(items, clock.timed(predicted(segmenter, data, split, inference)), len(names))
    wall = clock.seconds
    floor = RowMajority.learned(data.source["train"], len(names))
    theirs = matrices(items, (floor.predict(item.image.size) for item in items), len(names))
    found, plain = scores(ours, names), scores(theirs, names)
    result = Result(
        task=TASK,
        model=APPLICATION.model_name,
        split=split,
        n=len(items),
        metrics=found.metrics,
        baseline=Baseline(name=NAME, metrics=plain.metrics),
        speed={
            "images_per_second": len(items) / wall,
            "seconds": wall,
            "threads": torch.get_num_threads(),
        },
        environment=environment(),
    )
    to_floor = differences(ours, theirs, names, ("miou", "pixel_accuracy"))
    return Evaluation(result, data, segmenter, inference, ours, found, to_floor)


def with_more(evaluation: Evaluation, beside: Beside | None, choice: Choice | None) -> Evaluation:
    """With other runs and other choices of its weights, in the record too."""
    details = {} if beside is None else beside.details()
    if choice is not None:
        details["checkpoints"] = choice.to_dict()
    return replace(evaluation, result=replace(evaluation.result, details=details), beside=beside, choice=choice)


class Stopwatch:
    """The seconds that things take to come, without what is done with them in between."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, things: Iterable[T]) -> Iterator[T]:
        """The same things; none is held."""
        source = iter(things)
        while True:
            started = time.perf_counter()
            try:
                thing = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield thing


def _lines(evaluation: Evaluation) -> str:
    """The scores for a terminal."""
    result, data, found = evaluation.result, evaluation.data, evaluation.scores
    kind = " (synthetic)" if data.synthetic else ""
    lines = [f"{result.model} on {result.n:,} images of {result.split}, {data.name}{kind}, in %, with 95 % intervals"]
    lines += score_lines(result, evaluation.differences)
    if evaluation.beside is not None:
        lines += evaluation.beside.lines()
    if found.without_support:
        lines.append(f"  without a labelled pixel, and not in miou: {', '.join(found.without_support)}")
    assert result.baseline is not None
    lines.append(f"  intervals: from resampling images; baseline: {result.baseline.name}; p: of no difference to it")
    speed = result.speed
    threads = f"{speed['threads']} thread{'s' * (speed['threads'] != 1)}"
    lines.append(f"  {speed['images_per_second']:.3g} images a second, read and scored at their own size, {threads}")
    return "\n".join([*lines, *(f"  note: {note}" for note in notes(result.metrics))])


if __name__ == "__main__":
    raise SystemExit(main())
