"""``manyformer tabular evaluate``: scores with intervals, beside a plain model on the same rows, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.application import digest, read_data_facts
from apps.tabular.prediction.baseline import NAME, BoostedTrees
from apps.tabular.prediction.data.sources import load_splits, open_source, to_table
from apps.tabular.prediction.data.table import Table
from apps.tabular.prediction.predictor import TASK, TabularPredictor, load_run
from apps.tabular.prediction.report import write_report
from apps.tabular.prediction.scores import compared, intervals_scored, scored, speed
from core.artefact import replace_file
from core.command import EvaluateArguments, RunDirectory, parse_arguments, run, say
from core.command.environment import environment
from core.errors import InputError, nearest
from core.evaluation.bootstrap import Difference
from core.evaluation.results import Baseline, Result, notes, score_lines

COVERAGE = 0.9
"""Of the regression intervals that are scored."""


@dataclass(frozen=True, kw_only=True)
class Arguments(EvaluateArguments):
    """Score a trained model on rows it has not seen, with 95 % intervals and a plain model beside it."""

    split: str = "test"
    """Split to score: train, valid, test, or all (every row of a plain file)."""


@dataclass(frozen=True)
class Evaluation:
    """What was found, for the page: the record, and the predictions behind it."""

    result: Result
    table: Table
    predictor: TabularPredictor
    ours: NDArray[np.float64]
    theirs: NDArray[np.float64] | None
    differences: dict[str, Difference]
    interval: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer tabular evaluate")
    predictor = load_run(arguments.run)
    facts = read_data_facts(RunDirectory(arguments.run))
    table = _rows(arguments, predictor, facts)
    evaluation = evaluate(predictor, table, arguments.split, _training_rows(predictor, facts))
    say(_lines(evaluation))
    if arguments.json is not None:
        replace_file(arguments.json, evaluation.result.json())
    if arguments.report is not None:
        say(f"report: {write_report(evaluation, arguments.run, arguments.report / 'index.html')}")


def evaluate(predictor: TabularPredictor, table: Table, split: str, train: Table | None) -> Evaluation:
    """Score a model on a table; ``train`` are the rows to fit the plain model on, None to do without."""
    regression = predictor.schema.task == "regression"
    metrics, interval = {}, None
    if regression and predictor.calibration.residuals is not None:
        ours, *ends = predictor.predict_interval(table.frame, COVERAGE)
        interval = (ends[0], ends[1])
        metrics = intervals_scored(table, *interval)
    else:
        ours = predictor.predict(table.frame) if regression else predictor.predict_proba(table.frame)
    metrics = {**scored(table, ours), **metrics}
    theirs = None if train is None else BoostedTrees(train, seed=predictor.config.seed).scores(table.frame)
    result = Result(
        task=TASK,
        model="excelformer",
        split=split,
        n=len(table),
        metrics=metrics,
        baseline=None if theirs is None else Baseline(name=NAME, metrics=scored(table, theirs)),
        speed=speed(predictor.predict, table.frame),
        environment=environment(),
    )
    differences = {} if theirs is None else compared(table, ours, theirs)
    return Evaluation(result, table, predictor, ours, theirs, differences, interval)


def _rows(arguments: Arguments, predictor: TabularPredictor, facts: dict[str, Any]) -> Table:
    data = arguments.data or facts["data"]
    if arguments.split == "all":
        source = open_source(data)
        if set(source.frames) != {"train"}:
            raise InputError("a folder of splits has no split 'all'", where=str(data), mend="name a split, or one file")
        frame, label = source.frames["train"], source.labels["train"]
        return to_table(frame, predictor.schema, group=facts["group"], where=label, trained=True)
    splits = _splits(data, predictor, facts)
    if arguments.split not in splits:
        known = [*splits, "all"]
        raise InputError(
            f"there is no split {arguments.split!r}", where=str(data), mend=nearest(arguments.split, known)
        )
    return splits[arguments.split]


def _splits(data: str, predictor: TabularPredictor, facts: dict[str, Any]) -> dict[str, Table]:
    return load_splits(data, schema=predictor.schema, group=facts["group"])


def _training_rows(predictor: TabularPredictor, facts: dict[str, Any]) -> Table | None:
    """The rows that the run was trained on, if they can still be had unchanged."""
    try:
        train = _splits(facts["data"], predictor, facts)["train"]
    except InputError:
        return None
    return train if digest(train) == facts["digest"].get("train") else None


def _lines(evaluation: Evaluation) -> str:
    """The scores for a terminal."""
    result = evaluation.result
    schema = evaluation.predictor.schema
    target = f"{schema.target} (positive: {schema.classes[1]})" if schema.task == "binary" else schema.target
    lines = [f"{result.model} predicting {target}: {result.n:,} rows of {result.split}, with 95 % intervals"]
    lines += score_lines(result, evaluation.differences)
    if result.baseline is not None:
        lines.append(f"  baseline: {result.baseline.name}; p: of no difference to it, paired over rows")
    else:
        lines.append("  no baseline: the rows that the run was trained on are not there any more")
    speed = result.speed
    lines.append(f"  {speed['rows_per_second']:,.0f} rows a second, {speed['milliseconds_one_row']:.1f} ms for one row")
    return "\n".join([*lines, *(f"  note: {note}" for note in notes(result.metrics))])


if __name__ == "__main__":
    raise SystemExit(main())
