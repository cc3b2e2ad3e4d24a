"""Recordings as pictures: what the network reads, and the words where it heard them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.asr.decoding import Word
from core.evaluation.plots.style import COLOURS, INK, MUTED, WIDTH, figure, plain

FRAME = 0.01
"""Seconds between two feature frames."""
_SURE = 0.8
"""Words of less confidence are drawn in another colour."""


def spectrogram(features: Float[np.ndarray, "T F"], words: Sequence[Word]) -> Figure:
    """Log-mel features with the words above them, each over the stretch that it was heard in.

    Args:
        features: frames of 10 ms.
        words: with their times in seconds.
    """
    seconds = len(features) * FRAME
    drawn, grid = figure(WIDTH, 2.7, rows=2, sharex=True, gridspec_kw={"height_ratios": [1, 3.2], "hspace": 0.02})
    above, below = grid[:, 0]
    low, high = np.percentile(features, [2, 99.5])
    below.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, features.shape[1]),
        cmap="magma",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    below.set(xlabel="Seconds", ylabel="Mel bin", xlim=(0, seconds))
    below.grid(False)
    _words(above, words, seconds)
    return drawn


def _words(axes: Axes, words: Sequence[Word], seconds: float) -> None:
    """A bar for each word, and the word itself: level where they fit, slanted where they crowd."""
    axes.set(ylim=(0, 1), yticks=[])
    axes.grid(False)
    axes.tick_params(axis="x", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    room = seconds / 62  # seconds that a letter takes in a picture of this width
    crowded = any(one.start + room * len(one.text) > two.start for one, two in itertools.pairwise(words))
    slant = {"rotation": 35, "rotation_mode": "anchor", "fontsize": 8} if crowded else {"fontsize": 9}
    for word in words:
        colour = COLOURS[0] if word.confidence >= _SURE else COLOURS[1]
        stop = max(word.stop, word.start + 0.3 * room)
        axes.plot([word.start, stop], [0.06, 0.06], color=colour, linewidth=4, solid_capstyle="butt")
        axes.text(word.start, 0.18, plain(word.text, 24), ha="left", va="bottom", color=INK, **slant)
    if not words:
        axes.text(0, 0.2, "nothing was recognised", ha="left", va="bottom", fontsize=9, color=MUTED, style="italic")
