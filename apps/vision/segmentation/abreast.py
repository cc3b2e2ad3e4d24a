"""The part of an evaluation's page that holds a run against others on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from apps.vision.segmentation.beside import Beside, Companion, differences
from apps.vision.segmentation.share import UNSEEN
from core.evaluation import plots
from core.evaluation.bootstrap import Difference, decimals, holm
from core.evaluation.effects import Verdict
from core.evaluation.plots import ForestRow
from core.evaluation.report import Cell, Report, Section, Tile

if TYPE_CHECKING:
    from apps.vision.segmentation.evaluate import Evaluation

_LEVEL = 0.05


def beside_section(report: Report, evaluation: Evaluation, beside: Beside, titles: Mapping[str, str]) -> None:
    """What is gained, class by class, and how much of the gap is closed.

    Args:
        report: to which it is added.
        evaluation: of the run itself.
        beside: the others.
        titles: of the metrics of all classes.
    """
    called = ", ".join(f"{each.name}: {each.run.path}" for each in beside.companions)
    section = report.section("Beside other runs", f"Scored on the same images, in the same way. {called}.")
    section.tiles(_tiles(beside, titles))
    rows, columns = _table(evaluation, beside, titles)
    section.table(columns, rows, caption=_caption(beside))
    _picture(section, evaluation, beside)


def _tiles(beside: Beside, titles: Mapping[str, str]) -> list[Tile]:
    tiles = []
    for name, title in titles.items():
        difference = beside.lower.differences[name]
        low, high = (_signed(end, difference) for end in (difference.low, difference.high))
        label = f"{title.removesuffix(', %')}, points more than {beside.lower.name}"
        interval = f"95 % CI {low} to {high}, p = {difference.p:.2g}"
        tiles.append(Tile(label, _signed(difference.value, difference), interval, note=difference.note))
    for name, found in beside.closed.items():
        if name in titles:
            label = f"{titles[name].removesuffix(', %')}, share of the gap closed, %"
            none = Tile(label, "\N{EN DASH}", note=UNSEEN)
            tiles.append(none if found.share is None else Tile.of(label, found.share))
    return tiles


def _table(
    evaluation: Evaluation, beside: Beside, titles: Mapping[str, str]
) -> tuple[list[Sequence[Cell]], Sequence[str]]:
    upper = beside.upper
    columns = ["Metric", beside.lower.name, beside.name, f"{beside.name} \N{MINUS SIGN} {beside.lower.name}"]
    columns[3:3] = [] if upper is None else [upper.name]
    columns += [] if upper is None else ["Gap closed, %"]
    rows: list[Sequence[Cell]] = []
    for name, own in evaluation.result.metrics.items():
        ends = [beside.lower.scores.metrics[name].value, own.value]
        ends += [] if upper is None else [upper.scores.metrics[name].value]
        shares = [] if upper is None else [beside.closed[name].share]
        label = titles.get(name) or f"IoU {name.removeprefix('iou/')}, %"
        rows.append((label, *ends, beside.lower.differences[name], *shares))
    return rows, columns


def _caption(beside: Beside) -> str:
    said = (
        f"Difference: {beside.name} less {beside.lower.name}, with its 95 % interval and p-value from resampling "
        "images, both runs on the same ones. They are of these trainings: other seeds may turn them, which manyformer "
        "compare counts."
    )
    if beside.upper is None:
        return said
    return (
        f"{said} Gap closed: that difference as a share of {beside.upper.name} less {beside.lower.name}, with the "
        f"interval of the ratio; \N{EN DASH} stands for: {UNSEEN}."
    )


def _picture(section: Section, evaluation: Evaluation, beside: Beside) -> None:
    """Differences by class, alone and together."""
    lower, classes = beside.lower, evaluation.data.classes.names
    names = [name for name in evaluation.result.metrics if name.startswith("iou/")]
    adjusted = holm([lower.differences[name].p for name in names])
    sure = 1 - _LEVEL / len(names)
    wide = differences(evaluation.matrices, lower.matrices, classes, names, confidence=sure)
    rows = [_row(name, lower, wide[name], float(p)) for name, p in zip(names, adjusted, strict=True)]
    caption = (
        f"Of each class {beside.name} less {lower.name}. Thick: the 95 % interval of each class alone. Thin: those of "
        "all classes hold together with 95 %. Shaded: differences too small to be found four times in five. Colour "
        "and marker follow the p-value adjusted for the number of classes: a filled circle is better, a square worse, "
        "an open diamond neither."
    )
    figure = plots.forest(rows, label="IoU, points")
    section.figure(figure, alt=f"Differences of IoU to {lower.name} by class", caption=caption)


def _row(name: str, lower: Companion, wide: Difference, p: float) -> ForestRow:
    own = lower.differences[name]
    verdict: Verdict = "not comparable"
    if math.isfinite(p):
        verdict = "no effect seen" if p >= _LEVEL else "better" if own.value > 0 else "worse"
    return ForestRow(
        name=name.removeprefix("iou/"),
        value=own.value,
        low=own.low,
        high=own.high,
        wide_low=wide.low,
        wide_high=wide.high,
        smallest=own.smallest_effect,
        verdict=verdict,
        beside=f"{_signed(own.value, own)}, p = {p:.2g}" if math.isfinite(p) else "",
    )


def _signed(value: float, of: Difference) -> str:
    """With as many decimals as the interval has a use for."""
    return decimals(of.low, of.high, "+,")(value).replace("-", "\N{MINUS SIGN}")
