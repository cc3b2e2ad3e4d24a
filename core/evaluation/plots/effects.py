"""What a model listens to: importance with intervals, and partial dependence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from core.evaluation.plots.style import COLOURS, INK, MUTED, WIDTH, distinct, figure, plain, single


def importance(
    names: Sequence[object],
    values: Float[np.ndarray, "M"],
    low: Float[np.ndarray, "M"] | None = None,
    high: Float[np.ndarray, "M"] | None = None,
    *,
    label: str = "Importance",
    top: int = 20,
) -> Figure:
    """Horizontal bars, the largest first, with intervals; bars whose interval holds zero are pale.

    Args:
        names: of the features.
        values: their importance.
        low, high: ends of the intervals.
        label: what the bars measure, with its unit, such as ``Loss of AUC when shuffled``.
        top: show so many.
    """
    order = np.argsort(-np.asarray(values), kind="stable")[:top]
    drawn, axes = single(height=1.1 + 0.3 * len(order))
    sure = np.ones(len(order), bool) if low is None or high is None else (low[order] > 0) | (high[order] < 0)
    place = np.arange(len(order))
    axes.barh(place, values[order], height=0.66, color=[COLOURS[0] if s else "#a9cbe0" for s in sure])
    if low is not None and high is not None:
        error = np.clip(np.stack([values[order] - low[order], high[order] - values[order]]), 0, None)
        axes.errorbar(values[order], place, xerr=error, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set_yticks(place, distinct([names[i] for i in order]))
    axes.set(xlabel=plain(label, 70), ylim=(len(order) - 0.4, -0.6))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return drawn


@dataclass(frozen=True)
class Dependence:
    """The mean prediction as one feature is set to each value of a grid.

    Attributes:
        name: of the feature, with its unit.
        grid: values ``(G,)``: numbers, or names of categories.
        mean: mean prediction there ``(G,)``.
        low, high: its interval ``(G,)``, if there is one.
        sample: the feature's values in the data, drawn as a rug (numbers only).
    """

    name: str
    grid: Shaped[np.ndarray, "G"]
    mean: Float[np.ndarray, "G"]
    low: Float[np.ndarray, "G"] | None = None
    high: Float[np.ndarray, "G"] | None = None
    sample: Shaped[np.ndarray, "N"] | None = None


def partial_dependence(panels: Sequence[Dependence], *, label: str = "Mean prediction") -> Figure:
    """Small multiples on one vertical scale: a line for numbers, points for categories.

    Args:
        panels: one a feature.
        label: the prediction's name with its unit.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    drawn, grid = figure(max(WIDTH * columns / 3, 4.2), 0.5 + 2.3 * rows, rows, columns, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        if np.issubdtype(np.asarray(panel.grid).dtype, np.number):
            _numeric(axes, panel)
        else:
            _categorical(axes, panel)
        axes.set_xlabel(plain(panel.name, 28))
        axes.margins(y=0.12)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    drawn.supylabel(plain(label, 60), fontsize=10.5)
    return drawn


def _numeric(axes: Axes, panel: Dependence) -> None:
    axes.plot(panel.grid, panel.mean, color=COLOURS[0])
    if panel.low is not None and panel.high is not None:
        axes.fill_between(panel.grid, panel.low, panel.high, color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.locator_params(axis="x", nbins=4)
    if np.abs(panel.grid).max() >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.sample is not None:
        inside = panel.sample[(panel.sample >= panel.grid.min()) & (panel.sample <= panel.grid.max())]
        shown = np.quantile(inside, np.linspace(0, 1, min(60, len(inside)))) if len(inside) else inside
        axes.vlines(shown, 0, 0.045, transform=axes.get_xaxis_transform(), color=MUTED, linewidth=0.8, alpha=0.7)


def _categorical(axes: Axes, panel: Dependence) -> None:
    place = np.arange(len(panel.grid))
    if panel.low is not None and panel.high is not None:
        axes.vlines(place, panel.low, panel.high, color=COLOURS[0], linewidth=5, alpha=0.25)
    axes.plot(place, panel.mean, "o", color=COLOURS[0], markersize=6)
    axes.set_xticks(place, distinct(panel.grid.tolist(), 12), rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(place) - 0.4)
