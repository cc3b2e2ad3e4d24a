"""Learning curves from a run's history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from core.errors import InputError
from core.evaluation.plots.style import MUTED, WIDTH, figure, legend, line_style, plain


def learning_curves(
    history: Sequence[Mapping[str, Any]],
    panels: Mapping[str, Sequence[str]],
    *,
    x: str = "epoch",
    best: int | float | None = None,
) -> Figure:
    """One panel a quantity, one line a key.

    Args:
        history: records such as the lines of ``metrics.jsonl``; a record need not hold every key, and values that are
            missing or not finite leave a gap of their own, not a zero.
        panels: axis label -> the keys drawn there, such as ``{"Log loss": ["train_loss", "valid_loss"]}``.
        x: the key of the horizontal axis.
        best: where the weights kept come from, marked by a line.

    Raises:
        InputError: if no record holds any of a panel's keys.

    >>> history = [{"epoch": e, "loss": 1 / e} for e in range(1, 6)]
    >>> len(learning_curves(history, {"Loss": ["loss"]}).axes)
    1
    """
    drawn, grid = figure(WIDTH, 0.8 + 2.6 * len(panels), rows=len(panels), sharex=True)
    for axes, (title, keys) in zip(grid[:, 0], panels.items(), strict=True):
        found = 0
        for index, key in enumerate(keys):
            points = [(r[x], r[key]) for r in history if _number(r.get(x)) and _number(r.get(key))]
            if points:
                marker = "o" if len(points) < 25 else ""
                axes.plot(
                    *zip(*points, strict=True),
                    marker=marker,
                    markersize=4,
                    label=plain(key.replace("_", " ")),
                    **line_style(index),
                )
                found += 1
        if not found:
            raise InputError(f"the history holds none of {', '.join(keys)} beside {x}")
        if best is not None:
            axes.axvline(best, color=MUTED, linewidth=1.2, linestyle=":", label="weights kept")
        axes.set_ylabel(plain(title))
        legend(axes, loc="best")
    grid[-1, 0].set_xlabel(plain(x.capitalize()))
    return drawn


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
