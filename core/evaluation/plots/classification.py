"""Pictures of classifiers: ROC, precision and recall, reliability, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sk

from core.errors import InputError
from core.evaluation.calibration import Reliability
from core.evaluation.plots.style import (
    FAINT,
    INK,
    MUTED,
    distinct,
    figure,
    legend,
    line_style,
    single,
    unit_square,
)

Scored = Mapping[str, tuple[Shaped[np.ndarray, "N"], Float[np.ndarray, "N"]]]
_TEXT_CLASSES = 12


def roc(curves: Scored) -> Figure:
    """True against false positive rate, one line a model or a class against the rest.

    Args:
        curves: name -> (truth of 0 and 1 ``(N,)``, score ``(N,)``); truth must hold both classes.

    >>> figure = roc({"model": (np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.6, 0.4]))})
    >>> figure.axes[0].get_legend().get_texts()[0].get_text()
    'model, AUC 0.750'
    """
    drawn, axes = single(height=5.2)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, zorder=1)
    axes.annotate("chance", (0.7, 0.7), xytext=(4, -4), textcoords="offset points", color=MUTED, fontsize=9, va="top")
    for index, (name, (truth, score)) in enumerate(_both_classes(curves)):
        false, true, _ = sk.roc_curve(truth, score)
        axes.plot(false, true, label=f"{name}, AUC {sk.auc(false, true):.3f}", **line_style(index))
    unit_square(axes, "False positive rate", "True positive rate")
    _key(axes, len(curves), "lower right")
    return drawn


def precision_recall(curves: Scored) -> Figure:
    """Precision against recall, with the share of positives (a guess's precision) as a thin line of the same colour.

    Arguments as in `roc`. The line falls in steps: between two thresholds there is nothing to interpolate.
    """
    drawn, axes = single(height=5.2)
    for index, (name, (truth, score)) in enumerate(_both_classes(curves)):
        precision, recall, _ = sk.precision_recall_curve(truth, score)
        area = sk.average_precision_score(truth, score)
        style = line_style(index)
        axes.step(recall, precision, where="post", label=f"{name}, AP {area:.3f}", **style)
        axes.axhline(np.mean(truth), color=style["color"], linewidth=1, alpha=0.5, linestyle=":")
    unit_square(axes, "Recall", "Precision")
    if len(curves) == 1:
        share = float(np.mean(next(iter(curves.values()))[0]))
        axes.annotate(
            f"guessing, {share:.2f}", (0.0, share), xytext=(4, 3), textcoords="offset points", color=MUTED, fontsize=9
        )
    _key(axes, len(curves), "lower left")
    return drawn


def reliability_diagram(curves: Mapping[str, Reliability]) -> Figure:
    """Observed frequency against predicted probability with binomial intervals; below, how many rows each bin holds.

    Args:
        curves: name -> curve, for instance before and after calibration.
    """
    drawn, grid = figure(height=6.2, rows=2, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    above, below = grid[0, 0], grid[1, 0]
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, zorder=1)
    above.annotate(
        "perfect", (0.08, 0.08), xytext=(6, -2), textcoords="offset points", color=MUTED, fontsize=9, va="top"
    )
    for index, (name, curve) in enumerate(zip(distinct(list(curves)), curves.values(), strict=True)):
        style = line_style(index)
        error = np.abs(np.stack([curve.low, curve.high]) - curve.observed)
        above.errorbar(
            curve.predicted, curve.observed, yerr=error, color=style["color"], linewidth=1.2, alpha=0.55, fmt="none"
        )
        above.plot(curve.predicted, curve.observed, "o", markersize=5, label=f"{name}, ECE {curve.error:.3f}", **style)
        shift = 0.008 * (index - (len(curves) - 1) / 2)
        below.vlines(curve.predicted + shift, 0, curve.count, color=style["color"], linewidth=4, alpha=0.8)
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed frequency")
    below.set(xlabel="Predicted probability", ylabel="Rows")
    below.set_ylim(bottom=0)
    legend(above, loc="upper left")
    return drawn


def confusion_matrix(truth: Int[np.ndarray, "N"], label: Int[np.ndarray, "N"], classes: Sequence[object]) -> Figure:
    """Counts, shaded by the share of the true class; above twelve classes the shade alone.

    Args:
        truth: class codes.
        label: predicted class codes.
        classes: the C names, in the order of the codes.
    """
    size = len(classes)
    counts = sk.confusion_matrix(truth, label, labels=np.arange(size))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    edge = float(np.clip(1.8 + 0.85 * size, 4.2, 8.0))
    drawn, axes = single(width=edge + 0.8, height=edge)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = distinct(classes, 18)
    axes.set_xticks(
        range(size),
        names,
        rotation=40 if max(map(len, names)) > 7 else 0,
        rotation_mode="anchor",
        ha="right" if max(map(len, names)) > 7 else "center",
        va="top",
    )
    axes.set_yticks(range(size), names)
    axes.set(xlabel="Predicted", ylabel="True")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if size <= _TEXT_CLASSES:
        _cell_texts(axes, counts, share)
    bar = drawn.colorbar(image, ax=axes, fraction=0.045, pad=0.03, label="Share of the true class")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=INK)
    return drawn


def _cell_texts(axes: Axes, counts: Int[np.ndarray, "C C"], share: Float[np.ndarray, "C C"]) -> None:
    small = len(counts) > 7
    for (row, column), count in np.ndenumerate(counts):
        value = share[row, column]
        text = f"{count:,}" if small else f"{count:,}\n{value:.0%}"
        colour = "white" if value > 0.55 else (INK if count else MUTED)
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if small else 9.5)


def _key(axes: Axes, lines: int, where: str) -> None:
    # more than six names would cover the curves: they go beside the picture
    if lines > 6:
        legend(axes, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        legend(axes, loc=where)


def _both_classes(curves: Scored) -> list[tuple[str, tuple[Any, Any]]]:
    for name, (truth, _) in curves.items():
        if len(np.unique(truth)) != 2:
            raise InputError("a curve needs rows of both classes", where=name)
    return list(zip(distinct(list(curves)), curves.values(), strict=True))
