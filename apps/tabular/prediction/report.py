"""The page of an evaluation: scores, pictures of the errors, what the model looks at, and how it learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.explain import dependence, permutation_importance
from apps.tabular.prediction.scores import ECE_BINS, PRIMARY, positive
from core.command import RunDirectory, read_history
from core.evaluation import plots
from core.evaluation.calibration import reliability, top_label
from core.evaluation.report import Report, Section, Tile, number
from core.evaluation.results import notes

if TYPE_CHECKING:
    from apps.tabular.prediction.evaluate import Evaluation

_EXPLAINED_ROWS = 1000
_PANELS = 6
_BARS = 20
_TITLES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss, nats",
    "brier": "Brier score",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "auc_macro": "AUC, mean over classes",
    "ece": "Calibration error (ECE)",
    "rmse": "RMSE",
    "mae": "Mean absolute error",
    "r2": "R²",
    "nrmse": "RMSE over standard deviation",
    "interval_coverage": "Coverage of the 90 % intervals",
    "interval_width": "Mean width of the 90 % intervals",
}
_SMALLER = {"log_loss", "brier", "ece", "rmse", "mae", "nrmse", "interval_width"}
_DIRECTION = {"interval_coverage": ", to be 90 %"}


def write_report(evaluation: Evaluation, run: Path, path: Path) -> Path:
    """Write the page and return its path."""
    schema, result = evaluation.predictor.schema, evaluation.result
    seen = {"train": ": it was trained on them", "valid": ": they stopped its training", "test": ", new to it"}
    report = Report(
        f"Predicting {schema.target}",
        f"ExcelFormer on {result.n:,} rows of {result.split}{seen.get(result.split, '')}",
        facts=_facts(evaluation),
        footer=f"manyformer tabular evaluate {run} --split {result.split}",
    )
    _quality(report, evaluation)
    if schema.task == "regression":
        _values(report, evaluation)
    else:
        _classes(report, evaluation)
    _explanation(report, evaluation)
    _learning(report, evaluation, run)
    return report.write(path)


def _facts(evaluation: Evaluation) -> dict[str, str | int | float]:
    schema, speed, members = evaluation.predictor.schema, evaluation.result.speed, evaluation.predictor.members
    positive_class = {"Positive class": str(schema.classes[1])} if schema.task == "binary" else {}
    classes = {"Classes": schema.n_classes} if schema.task == "multiclass" else {}
    return {
        "Task": schema.task,
        **positive_class,
        **classes,
        "Columns": len(schema.names),
        "Networks": len(members),
        "Parameters of each" if len(members) > 1 else "Parameters": sum(p.numel() for p in members[0].parameters()),
        "Rows a second": round(speed["rows_per_second"]),
        "Milliseconds for one row": speed["milliseconds_one_row"],
    }


def _quality(report: Report, evaluation: Evaluation) -> None:
    result, task = evaluation.result, evaluation.predictor.schema.task
    baseline = {} if result.baseline is None else dict(result.baseline.metrics)
    section = report.section("Quality")
    first = [PRIMARY[task], *(("interval_coverage",) if evaluation.interval else ("log_loss", "ece"))]
    section.tiles(
        Tile.of(_TITLES[name], result.metrics[name], baseline.get(name), "trees")
        for name in first
        if name in result.metrics
    )
    rows = [
        (
            _TITLES[name] + _DIRECTION.get(name, " ↓" if name in _SMALLER else " ↑"),
            estimate,
            baseline.get(name),
            evaluation.differences.get(name),
        )
        for name, estimate in result.metrics.items()
    ]
    columns = ("Metric", "ExcelFormer", "Trees", "Difference")
    note = "No plain model: the training rows are gone" if result.baseline is None else f"Trees: {result.baseline.name}"
    units = "rows" if evaluation.table.groups is None else "groups of rows"
    caption = f"↑ greater is better, ↓ smaller. With 95 % bootstrap intervals over {units}. {note}."
    section.table(columns, rows, caption=caption)
    for text in notes(result.metrics):
        section.text(f"Note: {text}.")
    difference = evaluation.differences.get(PRIMARY[task])
    if difference is not None:
        section.text(
            f"With this many rows, a true difference in {_TITLES[PRIMARY[task]]} below "
            f"{number(difference.smallest_effect)} would probably not have been seen."
        )


def _classes(report: Report, evaluation: Evaluation) -> None:
    table, ours, theirs = evaluation.table, evaluation.ours, evaluation.theirs
    classes = [str(label) for label in evaluation.predictor.schema.classes]
    section = report.section("Errors")
    if len(classes) == 2 and len(np.unique(table.target)) == 2:
        curves = {"ExcelFormer": (table.target, positive(ours))}
        if theirs is not None:
            curves["Trees"] = (table.target, positive(theirs))
        section.figure(plots.roc(curves), alt="ROC curves", caption=f"Ranking of rows by probability of {classes[1]}.")
        section.figure(
            plots.precision_recall(curves),
            alt="Precision and recall",
            caption=f"Finding the rows of class {classes[1]}.",
        )
    confusion = plots.confusion_matrix(table.target, ours.argmax(1), classes)
    section.figure(confusion, alt="Confusion matrix", caption="True class by row, most probable class by column.")
    reliable = report.section("Calibration", _calibration_text(evaluation))
    curves_of = {"ExcelFormer": _reliability(table.target, ours)}
    if theirs is not None:
        curves_of["Trees"] = _reliability(table.target, theirs)
    what = "of the most probable class" if len(classes) > 2 else f"of {classes[1]}"
    caption = (
        f"Predicted probability {what}, in {ECE_BINS} groups of equally many rows, and how often it came true, with "
        "95 % intervals: a point on the diagonal means what it says."
    )
    reliable.figure(plots.reliability_diagram(curves_of), alt="Reliability diagram", caption=caption)


def _reliability(target: NDArray[Any], probabilities: NDArray[np.float64]) -> Any:
    if probabilities.shape[1] == 2:
        return reliability(target, positive(probabilities), bins=ECE_BINS)
    right, probability = top_label(target, probabilities)
    return reliability(right, probability, bins=ECE_BINS)


def _calibration_text(evaluation: Evaluation) -> str:
    temperature = evaluation.predictor.calibration.temperature
    word = "too sure of itself" if temperature > 1 else "not sure enough of itself"
    return f"On the validation rows the model was {word}; its log-probabilities are divided by {temperature:.3g}."


def _values(report: Report, evaluation: Evaluation) -> None:
    target, truth, ours = evaluation.predictor.schema.target, evaluation.table.target, evaluation.ours
    section = report.section("Errors")
    coverage = None if evaluation.interval is None else 0.9
    section.figure(
        plots.predicted_against_true(truth, ours, target=target, interval=evaluation.interval, coverage=coverage),
        alt="Predicted against true values",
        caption="Points on the diagonal are right; the band is the 90 % prediction interval.",
    )
    section.figure(
        plots.residuals(truth, ours, target=target), alt="Residuals", caption="What is left after the prediction."
    )


def _explanation(report: Report, evaluation: Evaluation) -> None:
    schema, predictor = evaluation.predictor.schema, evaluation.predictor
    regression = schema.task == "regression"
    scores = predictor.predict if regression else predictor.predict_proba
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(evaluation.table))[:_EXPLAINED_ROWS])
    table = evaluation.table.take(rows)
    importance = permutation_importance(scores, table)
    section = report.section("What the model looks at")
    unit = "squared error / variance" if regression else "log loss, nats"
    section.figure(
        plots.importance(
            importance.names,
            importance.values,
            importance.low,
            importance.high,
            label=f"Increase of {unit} when shuffled",
            top=_BARS,
        ),
        alt="Permutation importance of columns",
        caption=f"How much worse predictions get when one column is shuffled, on {len(table):,} rows of this split; "
        f"with 95 % intervals over rows, pale where they hold zero{_shown(len(importance.names))}.",
    )
    output = None if regression else int(np.bincount(evaluation.table.target).argmax()) if schema.n_classes > 2 else 1
    panels = [dependence(scores, table, name, output=output) for name in importance.names[:_PANELS]]
    what = schema.target if output is None else f"probability of {schema.classes[output]}"
    section.figure(
        plots.partial_dependence(panels, label=f"Mean {what}"),
        alt="Partial dependence",
        caption=f"Mean {what} when one column is set to a value in every row; the band is its 95 % interval over rows.",
    )
    _information(section, evaluation)


def _shown(columns: int) -> str:
    return f"; the first {_BARS} of {columns} columns" if columns > _BARS else ""


def _information(section: Section, evaluation: Evaluation) -> None:
    encoder = evaluation.predictor.encoder
    pairs = list(zip(encoder.feature_names, (float(value) for value in encoder.importance), strict=True))[:15]
    section.table(
        ("Feature", "Mutual information, nats"),
        pairs,
        caption="The order of information, from the training rows: a feature reads those above it, never those below.",
    )


def _learning(report: Report, evaluation: Evaluation, run: Path) -> None:
    first = [record for record in read_history(RunDirectory(run).metrics) if record.get("member") == 0]
    if not first:
        return  # a run that was out of time before its first epoch ended
    section = report.section("Learning")
    renamed = {"train_loss": "training", "loss": "validation"}
    records = [{renamed.get(key, key): value for key, value in record.items()} for record in first]
    watched = [key for key in ("auc", "accuracy", "rmse") if key in first[0]]
    panels: dict[str, list[str]] = {"Loss": ["training", "validation"], **{_TITLES[key]: [key] for key in watched}}
    which = "The network" if len(evaluation.predictor.members) == 1 else "The first network"
    unit = ", of the standardised target" if "rmse" in watched else ""
    caption = f"{which}, epoch by epoch; {', '.join(_TITLES[key] for key in watched)} of the validation rows{unit}."
    section.figure(plots.learning_curves(records, panels), alt="Learning curves", caption=caption)
