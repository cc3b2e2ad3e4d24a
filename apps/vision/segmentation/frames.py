"""Images beside their truth and what one or several runs said of them, in the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from apps.vision.segmentation.colours import UNLABELLED, coloured
from apps.vision.segmentation.data.classes import Classes
from core.evaluation.plots.style import INK, MUTED, WIDTH, figure, plain

SIDE = 480
"""Pixels that the longer side of a frame has on the page at most."""
_TEXT, _PLAIN_COLUMNS, _LEGEND = 8.5, 3, 5


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A row of the picture.

    Attributes:
        title: names the image.
        image: ``(H,W,3)``.
        truth: ``(H,W)`` train ids.
        said: of each run, ``(H,W)`` predicted train ids.
        notes: a word above each of those; none where there are none.
    """

    title: str
    image: UInt8[np.ndarray, "H W 3"]
    truth: UInt8[np.ndarray, "H W"]
    said: tuple[UInt8[np.ndarray, "H W"], ...]
    notes: tuple[str, ...] = ()

    def smaller(self) -> Frame:
        """Small enough for a page; labels by their nearest pixel."""
        height, width = self.truth.shape
        share = min(1.0, SIDE / max(height, width))
        size = max(1, round(share * width)), max(1, round(share * height))

        def nearest(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
            return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))

        image = np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BOX))
        said = tuple(map(nearest, self.said))
        return Frame(title=self.title, image=image, truth=nearest(self.truth), said=said, notes=self.notes)


def frames_figure(
    frames: Sequence[Frame], classes: Classes, runs: Sequence[str] = ("prediction",), image: str = "image"
) -> Figure:
    """Image, truth and what each run said side by side, a row each, and the colours of the classes that are in them.

    Args:
        frames: from top to bottom.
        classes: with their palette.
        runs: head the columns of what was said.
        image: heads the column of the images.
    """
    heads = [image, "truth", *(plain(run, 24) for run in runs)]
    there = sorted({int(one) for frame in frames for part in (frame.truth, *frame.said) for one in np.unique(part)})
    scale = max(1.0, len(heads) / _PLAIN_COLUMNS)  # more columns, more pixels: a page shows all pictures at one width
    ratio = max(frame.truth.shape[0] / frame.truth.shape[1] for frame in frames)
    row_height = WIDTH * scale / len(heads) * ratio + 0.3 * scale
    height = len(frames) * row_height + (0.25 * -(-len(there) // _LEGEND) + 0.4) * scale
    drawn, grid = figure(WIDTH * scale, height, rows=len(frames), columns=len(heads))
    for axes in grid.flat:
        axes.set_axis_off()
    for index, (row, frame) in enumerate(zip(grid, frames, strict=True)):
        pictures = (frame.image, *(coloured(part, classes) for part in (frame.truth, *frame.said)))
        words = (plain(frame.title), "", *(frame.notes or [""] * len(frame.said)))
        for axes, picture, head, word in zip(row, pictures, heads, words, strict=True):
            axes.imshow(picture, interpolation="nearest")
            above = "\n".join([head, word] if index == 0 else [word])
            axes.set_title(above, loc="left", fontsize=_TEXT * scale, color=INK, pad=3 * scale, fontweight="normal")
    patches = [_patch(index, classes) for index in there]
    look = {"ncols": _LEGEND, "frameon": False, "fontsize": _TEXT * scale, "labelcolor": INK}
    drawn.legend(handles=patches, loc="outside lower center", **look)
    return drawn


def _patch(index: int, classes: Classes) -> Patch:
    known = index < len(classes)
    colour, name = (classes.palette[index], classes.names[index]) if known else (UNLABELLED, "not labelled")
    red, green, blue = (part / 255 for part in colour)
    return Patch(facecolor=(red, green, blue), edgecolor=MUTED, linewidth=0.5, label=plain(name, 24))
