"""The page of an evaluation: scores, classes, frames with what was seen in them, and how it learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from apps.vision.segmentation.abreast import beside_section
from apps.vision.segmentation.application import box_of
from apps.vision.segmentation.frames import Frame, frames_figure
from apps.vision.segmentation.learned import learning_sections
from apps.vision.segmentation.metrics import class_ious
from apps.vision.segmentation.segmenter import Segmenter
from core.evaluation import plots
from core.evaluation.report import Report, Section, Tile, number
from core.evaluation.results import notes

if TYPE_CHECKING:
    from apps.vision.segmentation.evaluate import Evaluation

_TITLES = {"miou": "Mean IoU, %", "pixel_accuracy": "Pixel accuracy, %"}
_SEEN = {
    "valid": " of the target",
    "test": " of the target, new to it",
    "source-train": ": it was trained on them",
    "source-valid": ": they may have chosen its weights",
}
_FRAMES = 6


def write_report(evaluation: Evaluation, run: Path, path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        InputError: it cannot be written there, or the run's history is damaged.
    """
    result = evaluation.result
    report = Report(
        "Semantic segmentation",
        f"DAFormer on {result.n:,} images of {result.split}{_SEEN.get(result.split, '')}",
        facts=_facts(evaluation),
        footer=f"manyformer segmentation evaluate {run} --split {result.split}",
    )
    kind = "Synthetic images: the scores say that the program works, not how well it sees streets. "
    _quality(report.section("Quality", kind if evaluation.data.synthetic else ""), evaluation)
    _classes(report.section("Classes"), evaluation)
    if evaluation.beside is not None:
        beside_section(report, evaluation, evaluation.beside, _TITLES)
    _frames(report.section("Frames"), evaluation)
    learning_sections(report, run, evaluation.segmenter.config)
    return report.write(path)


def _facts(evaluation: Evaluation) -> dict[str, str | int | float]:
    segmenter, speed = evaluation.segmenter, evaluation.result.speed
    return {
        "Data": f"{evaluation.data.name}{' (synthetic)' if evaluation.data.synthetic else ''}",
        "Learned by": segmenter.config.adaptation.kind,
        "Classes": len(segmenter.classes),
        "Parameters": sum(parameter.numel() for parameter in segmenter.model.parameters()),
        "Images a second": speed["images_per_second"],
        "Threads": speed["threads"],
    }


def _quality(section: Section, evaluation: Evaluation) -> None:
    result = evaluation.result
    assert result.baseline is not None
    floor = result.baseline.metrics
    section.tiles(Tile.of(title, result.metrics[name], floor.get(name), "floor") for name, title in _TITLES.items())
    rows = [
        (title, result.metrics[name], floor.get(name), evaluation.differences.get(name))
        for name, title in _TITLES.items()
    ]
    caption = (
        "Greater is better; the mean is over classes with a labelled pixel in the split. 95 % bootstrap intervals "
        f"over images. Floor: {result.baseline.name}."
    )
    section.table(("Metric", "DAFormer", "Floor", "Difference"), rows, caption=caption)
    for text in notes(result.metrics):
        section.text(f"Note: {text}.")


def _classes(section: Section, evaluation: Evaluation) -> None:
    """IoU, and how much of the split each class is."""
    found, names = evaluation.scores, evaluation.data.classes.names
    assert evaluation.result.baseline is not None
    floor = evaluation.result.baseline.metrics
    estimates = {name: found.metrics[f"iou/{name}"] for name in names if name not in found.without_support}
    pixels = dict(zip(names, found.matrix.sum(axis=1).tolist(), strict=True))
    within = dict(zip(names, (evaluation.matrices.sum(axis=2) > 0).sum(axis=0).tolist(), strict=True))
    section.figure(
        plots.rates_by_group(estimates, label="IoU, %", whole=found.metrics["miou"].value),
        alt="IoU of each class",
        caption="IoU of each class with 95 % intervals over images; dotted the mean over classes.",
    )
    rows = [
        (name, estimate, floor.get(f"iou/{name}"), f"{100 * pixels[name] / found.matrix.sum():.2f} %", within[name])
        for name, estimate in estimates.items()
    ]
    caption = "Pixels: share of the labelled ones that are truly of the class; images: how many hold one."
    section.table(("Class", "IoU, %", "Floor", "Pixels", "Images"), rows, caption=caption)
    if found.without_support:
        section.text(f"Without a labelled pixel, and not in the mean: {', '.join(found.without_support)}.")


def _frames(section: Section, evaluation: Evaluation) -> None:
    """From the image that fits worst to the one that fits best, by every run."""
    data, split, shown = evaluation.data, evaluation.result.split, _shown(evaluation)
    ious = {name: _image_ious(confusions) for name, (_, confusions) in shown.items()}
    own = _image_ious(evaluation.matrices)
    order = sorted(np.flatnonzero(np.isfinite(own)).tolist(), key=lambda index: own[index])
    places = sorted({round(place) for place in np.linspace(0, len(order) - 1, min(_FRAMES, len(order)))})
    chosen = [order[place] for place in places]
    items = [data.split(split)[index] for index in chosen]
    said = [
        segmenter.predict((item.image for item in items), evaluation.inference, box=box_of(segmenter, split))
        for segmenter, _ in shown.values()
    ]
    frames = [
        Frame(
            title=item.key,
            image=item.image.read(),
            truth=item.label.read(),
            said=tuple(prediction.labels for prediction in predictions),
            notes=tuple(f"{number(each[index])} %" for each in ious.values()),
        ).smaller()
        for item, index, predictions in zip(items, chosen, zip(*said, strict=True), strict=True)
    ]
    kind = ", synthetic" if data.synthetic else ""
    what = "the prediction" if evaluation.beside is None else "what each run predicted"
    section.figure(
        frames_figure(frames, data.classes, list(shown), "image (synthetic)" if data.synthetic else "image"),
        alt="Images, their truth, and what was predicted",
        caption=f"{len(frames)} of {len(order):,} images{kind}, from the one with the smallest mean IoU to the one "
        f"with the greatest: what the camera saw, the truth, and {what}, with its mean IoU on the image.",
    )


def _shown(evaluation: Evaluation) -> dict[str, tuple[Segmenter, Int64[np.ndarray, "N C C"]]]:
    """A column each: the run, between those that it is compared with."""
    own, beside = (evaluation.segmenter, evaluation.matrices), evaluation.beside
    if beside is None:
        return {"prediction": own}
    others = [(each.name, (each.run.segmenter, each.matrices)) for each in beside.companions]
    return dict([others[0], (beside.name, own), *others[1:]])


def _image_ious(matrices: Int64[np.ndarray, "N C C"]) -> Float64[np.ndarray, "N"]:
    """Mean IoU of each image; nan where nothing is labelled."""
    ious, labelled = class_ious(matrices), matrices.sum(axis=(1, 2)) > 0
    return np.array([np.nanmean(each) if some else np.nan for each, some in zip(ious, labelled, strict=True)])
