"""The score of every training, a row of dots an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from core.evaluation.plots.style import COLOURS, FAINT, INK, MUTED, distinct, plain, single


def seed_scores(
    scores: Mapping[str, Sequence[float]], *, label: str, greater_is_better: bool = True, beside: Sequence[str] = ()
) -> Figure:
    """One dot a training, in a row an arm, with the arm's mean; the mean of the first arm is a line through all rows.

    Args:
        scores: arm -> scores; nan of a training that did not end is not drawn.
        label: the metric, with its unit.
        greater_is_better: where not, the axis is reversed.
        beside: what stands to the right of each row.

    >>> drawn = seed_scores({"one": [0.8, 0.9], "two": [0.7, float("nan")]}, label="AUC")
    >>> [line.get_xdata().tolist() for line in drawn.axes[0].lines if line.get_marker() == "o"]
    [[0.8, 0.9], [0.7]]
    """
    drawn, axes = single(height=1.3 + 0.36 * len(scores))
    for place, values in enumerate(scores.values()):
        ended = np.array([value for value in values if math.isfinite(value)])
        colour = MUTED if place == 0 else COLOURS[0]
        axes.axhline(place, color=FAINT, linewidth=0.8, zorder=1)
        axes.plot(ended, np.full(len(ended), place), "o", color=colour, alpha=0.65, markersize=7, markeredgewidth=0)
        if len(ended):
            axes.plot([ended.mean()] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=2, zorder=4)
        if place == 0 and len(ended):
            axes.axvline(ended.mean(), color=MUTED, linewidth=1.2, linestyle=":", zorder=2)
    for place, text in enumerate(beside):
        where = ("axes fraction", "data")
        axes.annotate(plain(text, 60), (1.02, place), xycoords=where, va="center", fontsize=9, color=COLOURS[1])
    axes.set_yticks(range(len(scores)), distinct(list(scores), 60), fontsize=9)
    axes.set(xlabel=f"{plain(label, 60)} (better →)", ylim=(len(scores) - 0.4, -0.6))
    if not greater_is_better:
        axes.invert_xaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return drawn
