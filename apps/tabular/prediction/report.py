"""The page of an evaluation: scores, pictures of the errors, what the model looks at, and how it learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.tabular.prediction.explain import dependence, permutation_importance
from apps.tabular.prediction.scores import PRIMARY, positive
from core.command import RunDirectory
from core.evaluation import plots
from core.evaluation.calibration import reliability, top_label
from core.evaluation.report import Report, Section, Tile

if TYPE_CHECKING:
    from apps.tabular.prediction.evaluate import Evaluation

_EXPLAINED_ROWS = 1000
_PANELS = 6
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


def write_report(evaluation: Evaluation, run: Path, path: Path) -> Path:
    """Write the page and return its path."""
    schema, result = evaluation.predictor.schema, evaluation.result
    report = Report(
        f"Predicting {schema.target}",
        f"ExcelFormer on {result.n:,} rows of the {result.split} split, which it was not trained on",
        facts={
            "Task": schema.task,
            "Columns": len(schema.names),
            "Networks": len(evaluation.predictor.members),
            "Parameters": sum(p.numel() for p in evaluation.predictor.members[0].parameters()),
            "Rows a second": round(result.speed["rows_per_second"]),
            "Milliseconds for one row": result.speed["milliseconds_one_row"],
        },
        footer=f"manyformer tabular evaluate {run} --split {result.split}",
    )
    _quality(report, evaluation)
    if schema.task == "regression":
        _values(report, evaluation)
    else:
        _classes(report, evaluation)
    _explanation(report, evaluation)
    _learning(report, run)
    return report.write(path)


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
            _TITLES[name],
            "smaller" if name in _SMALLER else "greater",
            estimate,
            baseline.get(name),
            evaluation.differences.get(name),
        )
        for name, estimate in result.metrics.items()
    ]
    columns = ("Metric", "Better is", "ExcelFormer", "Trees", "Difference")
    note = "no plain model: the training rows are gone" if result.baseline is None else f"Trees: {result.baseline.name}"
    section.table(columns, rows, caption=f"With 95 % bootstrap intervals over rows. {note}.")
    difference = evaluation.differences.get(PRIMARY[task])
    if difference is not None:
        section.text(
            f"A true difference in {_TITLES[PRIMARY[task]]} below {difference.smallest_effect:.2g} would probably "
            "not have been seen with this many rows."
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
    caption = "A point on the diagonal means what it says; bars are 95 % intervals of the observed frequency."
    reliable.figure(plots.reliability_diagram(curves_of), alt="Reliability diagram", caption=caption)


def _reliability(target: NDArray[Any], probabilities: NDArray[np.float64]) -> Any:
    if probabilities.shape[1] == 2:
        return reliability(target, positive(probabilities))
    right, probability = top_label(target, probabilities)
    return reliability(right, probability)


def _calibration_text(evaluation: Evaluation) -> str:
    temperature = evaluation.predictor.calibration.temperature
    word = "too sure of itself" if temperature > 1 else "not sure enough of itself"
    return f"On the validation rows the ensemble was {word}; its log-probabilities are divided by {temperature:.3g}."


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
        ),
        alt="Permutation importance of columns",
        caption=f"Measured on {len(table):,} rows of this split; bars with 95 % intervals over rows.",
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


def _information(section: Section, evaluation: Evaluation) -> None:
    encoder = evaluation.predictor.encoder
    pairs = list(zip(encoder.feature_names, (float(value) for value in encoder.importance), strict=True))[:15]
    section.table(
        ("Feature", "Mutual information, nats"),
        pairs,
        caption="The order of information, from the training rows: a feature reads those above it, never those below.",
    )


def _learning(report: Report, run: Path) -> None:
    path = RunDirectory(run).metrics
    if not path.is_file():
        return
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    section = report.section("Learning")
    first = [record for record in records if record["member"] == 0]
    watched = [key for key in first[0] if key in ("auc", "accuracy", "rmse")]
    panels = {"Loss": ["train_loss", "loss"], **{_TITLES[key]: [key] for key in watched}}
    figure = plots.learning_curves(first, panels)
    members = 1 + max(record["member"] for record in records)
    caption = (
        f"The first of {members} networks; loss is that of the validation rows." if members > 1 else "The network."
    )
    section.figure(figure, alt="Learning curves", caption=caption)
