"""Pictures of a comparison: effects with their intervals, and quality against cost."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from core.evaluation.effects import Verdict
from core.evaluation.plots.style import COLOURS, INK, MUTED, distinct, plain, single

_LOOKS: dict[Verdict, tuple[str, str, str]] = {  # colour, marker, its filling: read in grey print too
    "better": (COLOURS[0], "o", COLOURS[0]),
    "worse": (COLOURS[1], "s", COLOURS[1]),
    "no effect seen": (MUTED, "D", "white"),
    "not comparable": (MUTED, "x", MUTED),
}
_SHADE = "#efefef"


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One effect.

    Attributes:
        name: what is compared.
        value, low, high: the effect with its own interval; nan where there is none.
        wide_low, wide_high: its interval among all that are shown.
        smallest: the smallest effect that would have been seen.
        verdict: decides colour and marker.
        beside: what stands to the right, such as the verdict with its p-value; may have two lines.
    """

    name: str
    value: float
    low: float
    high: float
    wide_low: float
    wide_high: float
    smallest: float
    verdict: Verdict
    beside: str = ""


def forest(rows: Sequence[ForestRow], *, label: str, greater_is_better: bool = True) -> Figure:
    """Effects one below the other, better to the right; what the test could not have seen is shaded.

    Args:
        rows: from top to bottom.
        label: what is measured, with its unit.
        greater_is_better: where not, the axis is reversed.

    >>> row = ForestRow(
    ...     name="rmsnorm", value=0.1, low=0, high=0.2, wide_low=-0.1, wide_high=0.3, smallest=0.2, verdict="better"
    ... )
    >>> len(forest([row], label="AUC").axes)
    1
    """
    names = [_wrapped(name) for name in _distinct([row.name for row in rows])]
    drawn, axes = single(height=1.35 + sum(0.36 + 0.14 * name.count("\n") for name in names))
    for place, row in enumerate(rows):
        _effect(axes, place, row)
    axes.axvline(0, color=INK, linewidth=1, zorder=2)
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=_limits(rows, greater_is_better))
    reversed_axis = "" if greater_is_better else " (less is better: the axis is reversed)"
    axes.set_xlabel(f"Difference of {plain(label, 40)}{reversed_axis}")
    axes.xaxis.set_major_formatter(FuncFormatter(_signed))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    for x, text, side in ((1.0, "better →", "right"), (0.0, "← worse", "left")):
        axes.annotate(
            text, (x, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", ha=side, color=MUTED, fontsize=9
        )
    return drawn


def _effect(axes: Axes, place: int, row: ForestRow) -> None:
    colour, marker, filling = _LOOKS[row.verdict]
    if math.isfinite(row.smallest):
        corner = (-row.smallest, place - 0.44)
        axes.add_patch(Rectangle(corner, 2 * row.smallest, 0.88, facecolor=_SHADE, edgecolor="none", zorder=1))
    for low, high, width in ((row.wide_low, row.wide_high, 1.2), (row.low, row.high, 4.5)):
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place, place], color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
    if math.isfinite(row.value):
        axes.plot([row.value], [place], marker, color=colour, markerfacecolor=filling, markersize=7, zorder=4)
    axes.annotate(
        "\n".join(plain(line, 60) for line in row.beside.splitlines()),
        (1.02, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9,
        color=colour,
        annotation_clip=False,
    )


def _limits(rows: Sequence[ForestRow], greater_is_better: bool) -> tuple[float, float]:
    """Room for every plain interval and every shade; thin lines may run out of a picture they would make unreadable."""
    inner = [abs(x) for row in rows for x in (row.low, row.high, row.value, row.smallest) if math.isfinite(x)]
    outer = [abs(x) for row in rows for x in (row.wide_low, row.wide_high) if math.isfinite(x)]
    reach = max(max(inner, default=1.0), min(max(outer, default=0.0), 2 * max(inner, default=1.0))) * 1.06 or 1.0
    return (-reach, reach) if greater_is_better else (reach, -reach)


def _signed(value: float, _: object) -> str:
    return "0" if value == 0 else f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def _distinct(names: Sequence[str]) -> list[str]:
    return distinct(names, 90)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 34, break_long_words=True)) or name


# --- quality against cost ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm.

    Attributes:
        name: beside the point.
        cost: such as seconds.
        value, low, high: the metric with its interval.
        front: whether no other is better at the same cost or less.
        hollow: whether some of its trainings did not end.
    """

    name: str
    cost: float
    value: float
    low: float
    high: float
    front: bool
    hollow: bool = False


def pareto(points: Sequence[Point], *, label: str, cost: str, greater_is_better: bool = True) -> Figure:
    """Quality against cost, better upwards, with the front joined.

    Args:
        points: those that are not finite are left out.
        label: the metric, with its unit.
        cost: with its unit.
        greater_is_better: where not, the axis is reversed.

    >>> points = [Point(name=n, cost=c, value=0.8, low=0.7, high=0.9, front=c < 2) for n, c in (("a", 1.0), ("b", 2.0))]
    >>> [
    ...     text.get_text()
    ...     for text in pareto(points, label="AUC", cost="Seconds").axes[0].texts
    ...     if text.get_text() in "ab"
    ... ]
    ['a', 'b']
    """
    known = [point for point in points if math.isfinite(point.cost) and math.isfinite(point.value)]
    drawn, axes = single(height=4.6)
    for point in known:
        colour = COLOURS[0] if point.front else MUTED
        if math.isfinite(point.low) and math.isfinite(point.high):
            axes.plot([point.cost] * 2, [point.low, point.high], color=colour, linewidth=1.4, alpha=0.55)
        filling = "white" if point.hollow else colour
        axes.plot([point.cost], [point.value], "o", color=colour, markerfacecolor=filling, markersize=7, zorder=4)
    front = sorted((point.cost, point.value) for point in known if point.front)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=COLOURS[0], linewidth=1.2, drawstyle="steps-post", zorder=2)
    axes.margins(x=0.18, y=0.1)
    axes.set(xlabel=f"{plain(cost, 60)}  (← cheaper)", ylabel=f"{plain(label, 40)}  (better →)")
    if not greater_is_better:
        axes.invert_yaxis()
    if max((point.cost for point in known), default=0.0) >= 1e4:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # a script that no font here can draw
        _label(drawn, axes, known, front)
    return drawn


def _label(drawn: Figure, axes: Axes, points: Sequence[Point], front: Sequence[tuple[float, float]]) -> None:
    """Names beside their points, where they cover no other name or point, and as few lines as can be."""
    drawn.draw_without_rendering()
    inside = axes.get_window_extent()
    taken: list[Bbox] = []
    spots = [(point.cost, point.value) for point in points]  # a name stands at a distance from others' points
    lines = [_around(axes, (p.cost, p.low), (p.cost, p.high), 2) for p in points if math.isfinite(p.low + p.high)]
    for (x, y), (next_x, next_y) in pairwise(front):
        lines += [_around(axes, (x, y), (next_x, y), 2), _around(axes, (next_x, y), (next_x, next_y), 2)]
    for point, name in zip(points, distinct([point.name for point in points], 90), strict=True):
        drawn_name = _text(axes, point, _wrapped(name))
        size = drawn_name.get_window_extent()
        place = axes.transData.transform((point.cost, point.value))
        near = [*taken, *(_around(axes, spot, spot, 14) for spot in spots if spot != (point.cost, point.value))]
        tried = []
        for rank, (offset, sides) in enumerate(_places()):
            box = _box(place + np.multiply(offset, drawn.dpi / 72), (size.width, size.height), sides)
            covered = sum(box.overlaps(other) for other in near) + (not _holds(inside, box))
            # to cross a line is as bad as to stand six places further down the list
            tried.append((covered, rank + 6 * sum(box.overlaps(line) for line in lines), offset, sides, box))
        *_, offset, sides, box = min(tried, key=lambda entry: entry[:2])
        drawn_name.remove()
        _text(axes, point, _wrapped(name), offset, sides)
        taken.append(box)


def _box(corner: Float[np.ndarray, "2"], size: tuple[float, float], sides: tuple[str, str]) -> Bbox:
    shares = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
    x, y = (float(at - shares[side] * long) for at, side, long in zip(corner, sides, size, strict=True))
    return Bbox.from_extents(x, y, x + size[0], y + size[1])


def _around(axes: Axes, one: tuple[float, float], other: tuple[float, float], margin: float) -> Bbox:
    (x0, x1), (y0, y1) = (sorted(ends) for ends in zip(*axes.transData.transform((one, other)).tolist(), strict=True))
    return Bbox.from_extents(x0 - margin, y0 - margin, x1 + margin, y1 + margin)


def _places() -> Iterator[tuple[tuple[float, float], tuple[str, str]]]:
    for distance in (9.0, 18.0, 30.0, 44.0, 64.0, 88.0):
        for angle in (0, 180, 35, 145, -35, -145, 90, -90):
            x, y = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
            sides = (
                "left" if x > 1 else "right" if x < -1 else "center",
                "bottom" if y > 1 else "top" if y < -1 else "center",
            )
            yield (x, y), sides


def _text(
    axes: Axes,
    point: Point,
    name: str,
    offset: tuple[float, float] = (0.0, 0.0),
    sides: tuple[str, str] = ("left", "bottom"),
) -> Text:
    far = np.hypot(*offset) > 12
    return axes.annotate(
        name,
        (point.cost, point.value),
        offset,
        textcoords="offset points",
        ha=sides[0],
        va=sides[1],
        fontsize=8.5,
        color=INK if point.front else MUTED,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7} if far else None,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        zorder=5,
    )


def _holds(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)
