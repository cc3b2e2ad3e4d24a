"""How a run learned, for its page: curves, the quality of pseudo-labels, and the choice of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.vision.segmentation.choice import Choice, choice_of
from apps.vision.segmentation.config import SegmentationConfig
from core.command import RunDirectory, read_history
from core.evaluation import plots
from core.evaluation.report import Report

_PANELS = {
    "Loss": ["train_loss", "train_source", "train_mixed"],
    "Source mIoU, %": ["source_miou"],
    "Target mIoU, %": ["target_miou"],
    "Agreement with teacher, %": ["target_agreement"],
    "Nats": ["target_entropy", "target_information"],
}
_CONFIDENT = {"confident": "pseudo_confident", "right where confident": "pseudo_accuracy", "right": "teacher_accuracy"}
_IN_TRAINING = "confident in training"
_MIOU = {"teacher": "teacher_miou", "student": "target_miou"}
_RANDOM, _BEST = "an epoch at random", "labels of the target"

History = Sequence[Mapping[str, Any]]


def learning_sections(report: Report, run: Path, config: SegmentationConfig) -> None:
    """As many sections as the run's history has something to say in.

    Raises:
        InputError: the history is damaged.
    """
    history = read_history(RunDirectory(run).metrics)
    panels = _present(history, _PANELS)
    if not panels:
        return  # a run that was out of time before its first epoch ended
    shown = " Labels of the target were shown, and picked nothing." if "Target mIoU, %" in panels else ""
    caption = f"Epoch by epoch, on images that were watched while it trained.{shown}"
    report.section("Learning").figure(plots.learning_curves(history, panels), alt="Learning curves", caption=caption)
    _pseudo_labels(report, history, config)
    found = choice_of(run, config)
    if found is not None:
        _checkpoints(report, found, config)


def _present(history: History, panels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Panels with the keys that some record has a number for; those without any are left out."""
    kept = {
        title: [key for key in keys if any(record.get(key) is not None for record in history)]
        for title, keys in panels.items()
    }
    return {title: keys for title, keys in kept.items() if keys}


def _pseudo_labels(report: Report, history: History, config: SegmentationConfig) -> None:
    """How many of the teacher's labels are confident, and how many of those are right."""
    records = [_told(record) for record in history]
    panels = {"Pixels, %": [*_CONFIDENT, _IN_TRAINING], "Target mIoU, %": [*_MIOU]}
    panels = _present(records, panels)
    if "Pixels, %" not in panels:
        return  # nothing was taught
    if not any(record.get("teacher_miou") is not None for record in history):
        panels.pop("Target mIoU, %", None)  # the student alone is in the section above
    caption = (
        f"Confident: the teacher gives its class a probability of {config.adaptation.threshold:g} or more. In "
        "training: on crops of the images that it learned from, with the statistics of their batches."
    )
    if "right" in panels["Pixels, %"]:
        caption += (
            " All else: on the target's valid images as a whole, whose labels were shown and taught nothing; right "
            "where confident is of the confident pixels, right of all with a label."
        )
    figure = plots.learning_curves(records, panels)
    report.section("Pseudo-labels").figure(figure, alt="Quality of pseudo-labels by epoch", caption=caption)


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Under names for a legend; all in percent."""
    share = record.get("train_confident")
    names = {**_CONFIDENT, **_MIOU}
    numbers = {name: record.get(key) for name, key in names.items()}
    return {"epoch": record["epoch"], **numbers, _IN_TRAINING: None if share is None else 100.0 * share}


def _checkpoints(report: Report, found: Choice, config: SegmentationConfig) -> None:
    """Rules that see no label of the target, against the labels."""
    section = report.section("Choice of the weights")
    rows: list[Sequence[str | int | float | None]] = [
        (
            f"{each.rule} (picked these weights)" if each.rule == config.watch else each.rule,
            each.epoch,
            each.target_miou,
            each.regret,
            each.correlation,
        )
        for each in found.picked
    ]
    rows.append((_RANDOM, None, found.chance, found.best - found.chance, None))
    rows.append((_BEST, found.best_epoch, found.best, 0.0, None))
    caption = (
        "The epoch that each rule would have picked without a label of the target, the target's mIoU there on its "
        f"valid images, and what that is short of the best of {found.epochs} epochs, in points. Rank correlation: "
        "Spearman's, over epochs, of the rule with the target's mIoU; 1 is the same order. It is one training."
    )
    columns = ("Picked by", "Epoch", "Target mIoU, %", "Regret", "Rank correlation")
    section.table(columns, rows, caption=caption)
