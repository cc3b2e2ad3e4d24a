"""A rate in each of several groups, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from core.evaluation.bootstrap import Estimate
from core.evaluation.plots.style import COLOURS, MUTED, distinct, single


def rates_by_group(
    groups: Mapping[str, Estimate], *, label: str, whole: float | None = None, counts: Mapping[str, int] | None = None
) -> Figure:
    """A point and an interval for each group, one below the other in the order given.

    Args:
        groups: name -> rate; an interval that is not finite is not drawn.
        label: what is measured, with its unit.
        whole: the rate over all groups, marked by a line.
        counts: name -> how many it is of, said beside the name.

    >>> estimate = Estimate(12.0, 9.0, 15.0, 0.95, 1.5, 1000, 1000, 40)
    >>> len(rates_by_group({"one": estimate, "two": estimate}, label="Error rate, %").axes)
    1
    """
    drawn, axes = single(height=1.2 + 0.32 * len(groups))
    names = distinct(list(groups))
    if counts is not None:
        names = [f"{name}  ({counts[group]:,})" for name, group in zip(names, groups, strict=True)]
    for place, estimate in enumerate(groups.values()):
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            axes.plot([estimate.low, estimate.high], [place, place], color=COLOURS[0], linewidth=2)
        axes.plot([estimate.value], [place], "o", color=COLOURS[0], markersize=6, clip_on=False)
    if whole is not None:
        axes.axvline(whole, color=MUTED, linewidth=1.2, linestyle=":")
    axes.set_yticks(range(len(groups)), names)
    axes.set(xlabel=label, ylim=(len(groups) - 0.4, -0.6), xlim=(0, None))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return drawn
