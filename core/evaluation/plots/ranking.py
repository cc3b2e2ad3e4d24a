"""The critical-difference picture (Demšar, JMLR 7, 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.evaluation.plots.style import COLOURS, INK, MUTED, distinct, single
from core.evaluation.ranks import cliques

_STEP = 0.34  # inches between two names


def plot_critical_difference(ranks: Float[np.ndarray, "M"], names: Sequence[object], cd: float) -> Figure:
    """Mean ranks on a line, the best on the left; a bar joins methods that the test cannot tell apart.

    Args:
        ranks: mean rank of each method.
        names: of the methods.
        cd: the critical difference, see `core.evaluation.ranks.critical_difference`.
    """
    order = np.argsort(ranks, kind="stable")
    labels = [distinct(names, 26)[i] for i in order]
    values = np.asarray(ranks, dtype=np.float64)[order]
    groups = cliques(values, cd)
    left = (len(values) + 1) // 2
    depth = 0.45 + 0.16 * len(groups)
    height = depth + _STEP * left
    drawn, axes = single(height=height + 1.0)
    lowest, highest = 1, max(int(np.ceil(values.max())), 2, int(np.ceil(1 + cd)))
    span = highest - lowest
    axes.set(xlim=(lowest - 0.42 * span, highest + 0.42 * span), ylim=(height, -0.85))
    axes.axis("off")
    _scale(axes, lowest, highest, cd)
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        on_left = index < left
        row = index if on_left else len(values) - 1 - index
        y, end = depth + _STEP * row, (lowest - 0.04 * span if on_left else highest + 0.04 * span)
        axes.plot([value, value, end], [0, y, y], color=MUTED, linewidth=1, solid_joinstyle="miter")
        text = f"{label}  {value:.2f}" if on_left else f"{value:.2f}  {label}"
        axes.text(end, y, f" {text} ", ha="right" if on_left else "left", va="center", fontsize=10, color=INK)
    for level, (first, last) in enumerate(groups):
        ends, y = (values[first] - 0.02 * span, values[last] + 0.02 * span), 0.2 + 0.16 * level
        axes.plot(ends, (y, y), color=COLOURS[1], linewidth=4.5, solid_capstyle="butt", zorder=3)
    return drawn


def _scale(axes: Axes, lowest: int, highest: int, cd: float) -> None:
    axes.plot([lowest, highest], [0, 0], color=INK, linewidth=1.4)
    for tick in range(lowest, highest + 1):
        axes.plot([tick, tick], [-0.07, 0], color=INK, linewidth=1.2)
        axes.text(tick, -0.12, str(tick), ha="center", va="bottom", fontsize=9.5, color=INK)
    axes.plot([lowest, lowest + cd], [-0.58, -0.58], color=INK, linewidth=1.8)
    for end in (lowest, lowest + cd):
        axes.plot([end, end], [-0.64, -0.52], color=INK, linewidth=1.2)
    axes.text(
        lowest + cd / 2, -0.66, f"critical difference {cd:.2f}", ha="center", va="bottom", fontsize=9.5, color=INK
    )
    axes.text(highest, -0.5, "mean rank (1 is best)", ha="right", va="center", fontsize=9.5, color=MUTED)
