"""The page of an evaluation: scores, classes, frames with what was seen in them, and how it learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from apps.vision.segmentation.application import box_of
from apps.vision.segmentation.colours import UNLABELLED, coloured
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.metrics import class_ious
from core.command import RunDirectory, read_history
from core.evaluation import plots
from core.evaluation.plots.style import INK, MUTED, WIDTH, figure, plain
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
_SIDE = 480
"""Pixels that the longer side of a frame has on the page at most."""
_PANELS = {
    "Loss": ["train_loss", "train_source", "train_mixed"],
    "Source mIoU, %": ["source_miou"],
    "Target mIoU, %": ["target_miou"],
    "Agreement with teacher, %": ["target_agreement"],
    "Nats": ["target_entropy", "target_information"],
}
_Frame = tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]
"""Image, truth and prediction."""


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
    _frames(report.section("Frames"), evaluation)
    _learning(report, run)
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
    """From the image that fits worst to the one that fits best."""
    data, segmenter, split = evaluation.data, evaluation.segmenter, evaluation.result.split
    order, ious = _by_iou(evaluation)
    places = sorted({round(place) for place in np.linspace(0, len(order) - 1, min(_FRAMES, len(order)))})
    chosen = [order[place] for place in places]
    items = [data.split(split)[index] for index in chosen]
    images = (item.image for item in items)
    said = segmenter.predict(images, evaluation.inference, box=box_of(segmenter, split))
    shown = [
        _smaller(item.image.read(), item.label.read(), prediction.labels)
        for item, prediction in zip(items, said, strict=True)
    ]
    titles = [f"{item.key}: {number(ious[index])} %" for item, index in zip(items, chosen, strict=True)]
    kind = ", synthetic" if data.synthetic else ""
    section.figure(
        frames_figure(shown, titles, data.classes, "image (synthetic)" if data.synthetic else "image"),
        alt="Images, their truth, and what was predicted",
        caption=f"{len(shown)} of {len(order):,} images{kind}, from the one with the smallest mean IoU to the one with "
        "the greatest: what the camera saw, the truth, and the prediction.",
    )


def _by_iou(evaluation: Evaluation) -> tuple[list[int], list[float]]:
    """Images with a label from the smallest mean IoU to the greatest, and that of each image."""
    labelled = evaluation.matrices.sum(axis=(1, 2)) > 0
    each = [
        float(np.nanmean(class_ious(matrix))) if some else float("nan")
        for matrix, some in zip(evaluation.matrices, labelled, strict=True)
    ]
    return sorted(np.flatnonzero(labelled).tolist(), key=lambda index: each[index]), each


def _smaller(
    image: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W"], said: UInt8[np.ndarray, "H W"]
) -> _Frame:
    """Small enough for a page; labels by their nearest pixel."""
    height, width = truth.shape
    share = min(1.0, _SIDE / max(height, width))
    size = max(1, round(share * width)), max(1, round(share * height))
    nearest = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.NEAREST)) for one in (truth, said)]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), nearest[0], nearest[1]


def frames_figure(frames: Sequence[_Frame], titles: Sequence[str], classes: Classes, image: str = "image") -> Figure:
    """Image, truth and prediction side by side, a row each, and the colours of the classes that are in them.

    Args:
        frames: image ``(H,W,3)``, true and predicted train ids ``(H,W)``.
        titles: of each.
        classes: with their palette.
        image: heads the column of the images.
    """
    there = sorted({int(one) for _, truth, said in frames for part in (truth, said) for one in np.unique(part)})
    legend_rows = -(-len(there) // 5)
    ratio = max(truth.shape[0] / truth.shape[1] for _, truth, _ in frames)
    height = len(frames) * (WIDTH / 3 * ratio + 0.3) + 0.25 * legend_rows + 0.4
    drawn, grid = figure(WIDTH, height, rows=len(frames), columns=3)
    for axes in grid.flat:
        axes.set_axis_off()
    heads = (image, "truth", "prediction")
    for index, (row, (pixels, truth, said)) in enumerate(zip(grid, frames, strict=True)):
        for place, picture in enumerate((pixels, coloured(truth, classes), coloured(said, classes))):
            row[place].imshow(picture, interpolation="nearest")
            above = [heads[place]] if index == 0 else []
            above.append(plain(titles[index]) if place == 0 else "")
            row[place].set_title("\n".join(above), loc="left", fontsize=8.5, color=INK, pad=3, fontweight="normal")
    patches = [_patch(index, classes) for index in there]
    drawn.legend(handles=patches, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5, labelcolor=INK)
    return drawn


def _patch(index: int, classes: Classes) -> Patch:
    known = index < len(classes)
    colour, name = (classes.palette[index], classes.names[index]) if known else (UNLABELLED, "not labelled")
    red, green, blue = (part / 255 for part in colour)
    return Patch(facecolor=(red, green, blue), edgecolor=MUTED, linewidth=0.5, label=plain(name, 24))


def _learning(report: Report, run: Path) -> None:
    history = read_history(RunDirectory(run).metrics)
    kept = {title: [key for key in keys if any(key in record for record in history)] for title, keys in _PANELS.items()}
    panels = {title: keys for title, keys in kept.items() if keys}
    if not panels:
        return  # a run that was out of time before its first epoch ended
    shown = " Labels of the target were shown, and picked nothing." if "Target mIoU, %" in panels else ""
    caption = f"Epoch by epoch, on images that were watched while it trained.{shown}"
    report.section("Learning").figure(plots.learning_curves(history, panels), alt="Learning curves", caption=caption)
