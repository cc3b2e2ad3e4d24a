"""Pictures of regression: predicted against true, and what is left over."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.evaluation.plots.style import COLOURS, MUTED, WIDTH, figure, legend, plain, single

_RASTER = 2000  # points from which a scatter is stored as pixels, or the page would weigh megabytes


def predicted_against_true(
    truth: Shaped[np.ndarray, "N"],
    predicted: Shaped[np.ndarray, "N"],
    *,
    target: str = "target",
    interval: tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]] | None = None,
    coverage: float | None = None,
) -> Figure:
    """True values over predicted ones; on the diagonal the prediction is right.

    Args:
        truth: true values.
        predicted: predictions.
        target: name with its unit, such as ``price (USD)``.
        interval: lower and upper ends for each row, drawn as a band around the predictions in their order. The truth
        is on
            the vertical axis, so that a point within the band is a row within its interval.
        coverage: nominal coverage of the interval, said in the legend beside the one observed.
    """
    drawn, axes = single(height=5.4)
    order = np.argsort(predicted, kind="stable")
    truth, predicted = np.asarray(truth)[order], np.asarray(predicted)[order]
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1.2, zorder=3, label="prediction = truth")
    if interval is not None and np.isfinite(interval).all():
        ends = [np.asarray(end)[order] for end in interval]
        inside = float(np.mean((ends[0] <= truth) & (truth <= ends[1])))
        name = f"interval, {inside:.0%} of rows inside" + (f" (nominal {coverage:.0%})" if coverage else "")
        axes.fill_between(predicted, ends[0], ends[1], color=COLOURS[5], alpha=0.28, linewidth=0, label=name)
    _points(axes, predicted, truth)
    axes.set(xlabel=f"Predicted {plain(target, 60)}", ylabel=f"True {plain(target, 48)}")
    legend(axes, loc="upper left")
    return drawn


def residuals(truth: Shaped[np.ndarray, "N"], predicted: Shaped[np.ndarray, "N"], *, target: str = "target") -> Figure:
    """True minus predicted over the prediction, the mean of each tenth of the rows, and the histogram beside it."""
    drawn, grid = figure(WIDTH, 4.4, columns=2, sharey=True, gridspec_kw={"width_ratios": [4, 1]})
    main, side = grid[0]
    rest = np.asarray(truth, dtype=np.float64) - predicted
    main.axhline(0, color=MUTED, linewidth=1.2)
    _points(main, predicted, rest)
    bins = np.array_split(np.argsort(predicted, kind="stable"), min(10, len(rest)))
    centres = [float(np.mean(np.asarray(predicted)[b])) for b in bins]
    main.plot(
        centres,
        [float(rest[b].mean()) for b in bins],
        color=COLOURS[1],
        marker="o",
        markersize=4.5,
        label="mean of a tenth of the rows",
    )
    main.set(xlabel=f"Predicted {plain(target, 60)}", ylabel=f"True \N{MINUS SIGN} predicted {plain(target, 36)}")
    legend(main, loc="best")
    # edges of our own around zero: automatic ones fail where all residuals are equal but for rounding
    edges = np.linspace(-1, 1, 2 * int(np.clip(np.sqrt(len(rest)), 5, 30)) + 1) * (np.abs(rest).max() or 1.0)
    side.hist(rest, bins=list(edges), orientation="horizontal", color=COLOURS[0], alpha=0.7)
    side.axhline(0, color=MUTED, linewidth=1.2)
    side.set(xlabel="Rows")
    return drawn


def _points(axes: Axes, x: Shaped[np.ndarray, "N"], y: Shaped[np.ndarray, "N"]) -> None:
    opacity = float(np.clip(60 / np.sqrt(len(x)) / 3, 0.12, 0.75))
    size = 22 if len(x) < 500 else 10
    axes.scatter(x, y, s=size, color=COLOURS[0], alpha=opacity, linewidths=0, rasterized=len(x) > _RASTER, zorder=2)
