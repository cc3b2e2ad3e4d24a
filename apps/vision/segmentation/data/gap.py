"""How far target and source are apart, as far as images show it: light, colour, and classes where there are labels.

The distance of two histograms of luminance is the earth mover's: the mean number of grey levels (of 255) that light has
to be moved by to make one the other; in one dimension that is the area between the cumulated histograms. The distance
of two sets of class shares is half the sum of absolute differences (total variation): the share of pixels that would
have to change class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.look import Look
from apps.vision.segmentation.data.rare import class_shares

SMALL, LARGE = 10.0, 30.0
"""Grey levels between which a shift of light is moderate. CamVid's dusk lies beyond them, two of its days within."""


@dataclass(frozen=True)
class Side:
    """One domain in numbers.

    Attributes:
        images: how many could be read.
        luminance: mean, 0 to 255.
        spread: standard deviation of the luminance of its pixels.
        colour: mean red, green, blue.
        light: ``(256,)`` share of pixels by luminance.
        shares: ``(C,)`` share of each class among labelled pixels; None without labels.
    """

    images: int
    luminance: float
    spread: float
    colour: tuple[float, ...]
    light: Float64[np.ndarray, "256"]
    shares: Float64[np.ndarray, "C"] | None


@dataclass(frozen=True)
class Gap:
    """Source and target side by side."""

    classes: Classes
    source: Side
    target: Side

    @property
    def light(self) -> float:
        """Grey levels between the two histograms of luminance."""
        return float(np.abs(np.cumsum(self.source.light) - np.cumsum(self.target.light)).sum())

    @property
    def scene(self) -> float | None:
        """Share of pixels that would have to change class; None without labels in the target."""
        if self.source.shares is None or self.target.shares is None:
            return None
        return float(0.5 * np.abs(self.source.shares - self.target.shares).sum())

    def head_room(self) -> str:
        """What may be gained, in words; only a trained source-only model can put a number to it."""
        darker = "darker" if self.target.luminance < self.source.luminance else "brighter"
        if self.light < SMALL:
            light = "light hardly differs: what there is of a gap lies in scenes, camera or texture"
        elif self.light < LARGE:
            light = (
                f"the target is moderately {darker}: photometric augmentation of the source closes part of such a gap"
            )
        else:
            light = (
                f"the target is much {darker}: expect source-only to lose much, and augmentation to close part of it"
            )
        scene = self.scene
        if scene is None:
            return f"{light}; without target labels nothing says how classes differ, or how far adaptation got"
        shift = "little" if scene < 0.1 else "clearly" if scene < 0.25 else "strongly"
        return f"{light}; class shares differ {shift} ({scene:.0%} of the pixels)"

    def lines(self) -> list[str]:
        """A table, and what it means."""
        rows = [("", "source", "target"), ("images", f"{self.source.images:,}", f"{self.target.images:,}")]
        for name, value in (
            ("luminance", lambda s: f"{s.luminance:.0f} ± {s.spread:.0f}"),
            ("colour (R G B)", _colour),
        ):
            rows.append((name, value(self.source), value(self.target)))
        for index, name in enumerate(self.classes.names):
            rows.append((name, _share(self.source, index), _share(self.target, index)))
        widths = [max(len(row[place]) for row in rows) for place in range(3)]
        table = [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        return [*table, f"distance of luminance: {self.light:.0f} of 255 grey levels", f"head-room: {self.head_room()}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        sides = {
            name: _to_dict(side, self.classes) for name, side in (("source", self.source), ("target", self.target))
        }
        return {**sides, "luminance_distance": self.light, "class_distance": self.scene, "head_room": self.head_room()}


def gap_between(source: Sequence[Look], target: Sequence[Look], classes: Classes) -> Gap | None:
    """The gap between images that were looked at; None where one side has none that can be read."""
    sides = [side_of(looks) for looks in (source, target)]
    return None if sides[0] is None or sides[1] is None else Gap(classes, sides[0], sides[1])


def side_of(looks: Sequence[Look]) -> Side | None:
    """One domain in numbers; every pixel counts alike. None without a readable image."""
    seen = [look for look in looks if look.size is not None]
    if not seen:
        return None
    light: Int64[np.ndarray, "256"] = np.sum([look.light for look in seen], axis=0)
    share = light / light.sum()
    levels = np.arange(256)
    mean = float(share @ levels)
    pixels = np.array([look.light.sum() for look in seen], dtype=np.float64)
    colour = np.average([look.colour for look in seen], axis=0, weights=pixels)
    counted = [look.counts for look in seen if look.counts is not None]
    shares = class_shares(np.stack(counted)) if counted else None
    spread = float(np.sqrt(share @ (levels - mean) ** 2))
    return Side(len(seen), mean, spread, tuple(colour.tolist()), share, shares)


def _colour(side: Side) -> str:
    return " ".join(f"{value:.0f}" for value in side.colour)


def _share(side: Side, index: int) -> str:
    return "-" if side.shares is None else f"{100 * side.shares[index]:.2f} %"


def _to_dict(side: Side, classes: Classes) -> dict[str, Any]:
    shares = None if side.shares is None else dict(zip(classes.names, side.shares.tolist(), strict=True))
    return {
        "images": side.images,
        "luminance": side.luminance,
        "luminance_spread": side.spread,
        "colour": list(side.colour),
        "class_shares": shares,
    }
