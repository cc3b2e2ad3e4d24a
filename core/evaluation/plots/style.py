"""The one style: sizes, colours, labels, and a figure as text.

Colours are those of Okabe and Ito (Color universal design, 2008) without the yellow, which white paper swallows; lines
also differ in their dashes, so that a grey print can be read. A figure is drawn 7.2 inches wide, 900 pixels at 125
dots an inch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
WIDTH = 7.2
# bundled DejaVu draws European, Cyrillic, Greek and Arabic names; for the others, what the machine has
_OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
)

_STYLE: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10.5,
    "figure.dpi": 125,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


def figure(
    width: float = WIDTH, height: float = 4.6, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray[Any, np.dtype[Any]]]:
    """An empty figure in the style and its axes ``(rows, columns)``; ``options`` go to ``Figure.subplots``."""
    with mpl.rc_context({**_STYLE, "font.family": _families()}):  # type: ignore[dict-item]
        drawn = Figure(figsize=(width, height), layout="constrained")
        axes = drawn.subplots(rows, columns, squeeze=False, **options)
        drawn.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    return drawn, axes


@cache
def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]


def single(width: float = WIDTH, height: float = 4.6) -> tuple[Figure, Axes]:
    """A figure of one picture."""
    drawn, axes = figure(width, height)
    return drawn, axes[0, 0]


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th line; no two of the first twenty-eight are alike."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def plain(text: object, limit: int = 32) -> str:
    """A name from data as a label: one line, at most ``limit`` characters, dollars shown and not read as mathematics.

    >>> plain("cost in $ or $A")
    'cost in \\\\$ or \\\\$A'
    >>> plain("a name that goes on and on", limit=10)
    'a name th…'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def legend(axes: Axes, **options: Any) -> None:
    """A frameless legend in the style, where there is something to explain."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, handlelength=2.6, **options)


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 1, equally long."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)
    axes.set_aspect("equal")


def distinct(names: Sequence[object], limit: int = 32) -> list[str]:
    """`plain` names that stay distinct after shortening."""
    short = [plain(name, limit) for name in names]
    return [s if short.count(s) == 1 else f"{s} ({i + 1})" for i, s in enumerate(short)]


def svg(drawn: Figure) -> str:
    """The figure as SVG text: letters as outlines (no font needed), the same bytes for the same figure."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "manyformer", "svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # a script that no font here can draw
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
