"""``synthetic:streets``: a small street world that we draw, for trying adaptation out in minutes. Nobody filmed it.

A straight street with pavements, houses, fences, trees, lamps, signs, cars and people, in sequences of eight frames
along which camera, cars and people move. Its two domains differ as those of real sets do:

====== ============================================================================================================
day    camera 1.5 m above the road, 62 degrees wide; sun from one side, blue sky, little noise
dusk   camera 2.1 m, 78 degrees, another horizon; orange sky, lamps, lit windows, head and tail lights, other
       paint on the houses, a soft lens and noise
====== ============================================================================================================

Labels come out of the same strokes as the colours. A frame is a function of (seed, domain, number); sequences belong to
one split. Scores on it say how a method works, and nothing about how well it sees real streets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from apps.vision.segmentation.data.canvas import FAR, Camera, Canvas, Paint
from apps.vision.segmentation.data.items import Domain, Labelled
from apps.vision.segmentation.data.pictures import Picture
from apps.vision.segmentation.data.scenery import CLASSES, SKY, Scene, draw_scene
from core.errors import InputError, nearest

NAME = "synthetic:streets"
VERSION = 1
"""Of the world: raised with every change of what it shows."""
SIZE = (128, 192)
"""Rows and columns of a frame."""
FRAMES = 8
"""Frames of a sequence."""
SEQUENCES = {"train": 24, "valid": 4, "test": 8}
"""Sequences of each split, in each domain."""
HELD = 1024
"""Frames kept in memory once drawn."""


@dataclass(frozen=True)
class Look:
    """What sets a domain apart.

    Attributes:
        camera: height, angle of view, horizon, lateral place.
        sky: colour above and at the horizon.
        ambient: light that falls on everything, by channel.
        lamps: strength of all lamps; 0 is off.
        haze: metres after which about two thirds of a colour is air.
        noise: standard deviation of the sensor's noise, of full scale.
        soft: share of its light that a pixel gives to its neighbours.
        tint: how far houses lean to brick red (1) from plaster (0).
        gain: spread of the exposure between sequences.
    """

    camera: Camera
    sky: tuple[Paint, Paint]
    ambient: Paint
    lamps: float
    haze: float
    noise: float
    soft: float
    tint: float
    gain: float


LOOKS = {
    "day": Look(
        camera=Camera(1.5, 62.0, 0.46, 1.6, SIZE),
        sky=((0.42, 0.62, 0.90), (0.86, 0.91, 0.96)),
        ambient=(1.0, 0.98, 0.93),
        lamps=0.0,
        haze=220.0,
        noise=0.012,
        soft=0.10,
        tint=0.25,
        gain=0.12,
    ),
    "dusk": Look(
        camera=Camera(2.1, 78.0, 0.41, 1.4, SIZE),
        sky=((0.10, 0.12, 0.26), (0.62, 0.36, 0.26)),
        ambient=(0.33, 0.29, 0.37),
        lamps=1.0,
        haze=120.0,
        noise=0.035,
        soft=0.30,
        tint=0.8,
        gain=0.2,
    ),
}
_NUMBER = {name: index for index, name in enumerate(LOOKS)}


@dataclass(frozen=True)
class Frame(Picture):
    """A frame of the world as :class:`.pictures.Picture`: its image or its label."""

    domain: str
    number: int
    seed: int
    what: Literal["image", "label"]

    @property
    def where(self) -> str:
        """Stands for a file in errors."""
        return f"{NAME}/{self.domain}/{self.number}/{self.what} (seed {self.seed})"

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return SIZE

    def read(self) -> UInt8[np.ndarray, "H W *C"]:
        """RGB, or train ids."""
        return draw_frame(self.domain, self.number, self.seed)[self.what == "label"]

    def digest(self) -> bytes:
        """Of what decides the frame."""
        return hashlib.sha256(repr((NAME, VERSION, self)).encode()).digest()


def street_domain(name: str, seed: int = 0) -> Domain:
    """All frames of ``day`` or ``dusk``, with labels; drawn when they are read.

    Raises:
        InputError: another name.
    """
    if name not in LOOKS:
        raise InputError(f"there is no domain {name!r}", where=NAME, mend=nearest(name, [*LOOKS]))
    splits, first = {}, 0
    for split, count in SEQUENCES.items():
        numbers = range(first * FRAMES, (first + count) * FRAMES)
        splits[split] = tuple(_item(name, number, seed) for number in numbers)
        first += count
    return Domain(name=f"{NAME}/{name}", classes=CLASSES, splits=splits, synthetic=True)


def _item(domain: str, number: int, seed: int) -> Labelled:
    image = Frame(domain, number, seed, "image")
    group = f"{domain}-{number // FRAMES:03d}"
    key = f"{group}-{number % FRAMES}"
    return Labelled(key=key, image=image, label=replace(image, what="label"), group=group)


@lru_cache(maxsize=HELD)
def draw_frame(domain: str, number: int, seed: int = 0) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Image and label of a frame, read-only; the same for the same arguments, in any order."""
    look = LOOKS[domain]
    sequence, frame = divmod(number, FRAMES)
    layout = np.random.default_rng([VERSION, seed, _NUMBER[domain], sequence])
    camera = replace(look.camera, aside=look.camera.aside + layout.normal(0.0, 0.15))
    canvas = Canvas.blank(camera, SKY)
    _paint_sky(canvas, look, layout)
    exposure = float(np.exp(layout.normal(0.0, look.gain)))
    draw_scene(canvas, Scene(layout, frame, look.tint, look.lamps))
    draw = np.random.default_rng([VERSION, seed, _NUMBER[domain], sequence, frame])
    image = _developed(canvas, look, exposure, draw)
    label = canvas.label.astype(np.uint8)
    for array in (image, label):
        array.flags.writeable = False
    return image, label


def _paint_sky(canvas: Canvas, look: Look, layout: np.random.Generator) -> None:
    above, below = (np.array(paint, dtype=np.float32) for paint in look.sky)
    rows = int(np.ceil(look.camera.horizon * canvas.camera.size[0]))
    down = (np.arange(rows, dtype=np.float32) / rows)[:, None, None] ** 1.5
    clouds = np.clip(_smooth(layout, rows, canvas.camera.size[1], 3, 5), 0, 1)[..., None]
    canvas.glow[:rows] = above * (1 - down) + below * (down + 0.16 * clouds * (1 - 0.6 * down))
    canvas.glow[rows:] = below


def _smooth(draw: np.random.Generator, height: int, width: int, rows: int, columns: int) -> NDArray[np.float32]:
    """Noise ``(H, W)`` of about -2 to 2 that changes slowly: a coarse grid, bilinearly refined."""
    grid = draw.standard_normal((rows + 1, columns + 1)).astype(np.float32)
    v, u = (np.linspace(0, n - 1e-3, size, dtype=np.float32) for n, size in ((rows, height), (columns, width)))
    i, j = v.astype(np.intp), u.astype(np.intp)
    a, b = (v - i.astype(np.float32))[:, None], (u - j.astype(np.float32))[None]
    upper = grid[i][:, j] * (1 - b) + grid[i][:, j + 1] * b
    lower = grid[i + 1][:, j] * (1 - b) + grid[i + 1][:, j + 1] * b
    return (upper * (1 - a) + lower * a).astype(np.float32)


def _developed(canvas: Canvas, look: Look, exposure: float, draw: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """Light, air, lens, sensor."""
    light = canvas.colour * np.array(look.ambient, dtype=np.float32) + canvas.glow
    # The sky has no air before it.
    clear = np.where(canvas.depth < FAR, np.exp(canvas.depth / np.float32(-look.haze)), np.float32(1.0))[..., None]
    horizon = np.array(look.sky[1], dtype=np.float32) * np.float32(0.9)
    light = (horizon + (light - horizon) * clear) * np.float32(255.0 * exposure)
    for seen in (light, light.swapaxes(0, 1)):  # a lens that spreads light to the neighbours on either side
        seen[1:-1] += np.float32(look.soft) * (0.5 * (seen[2:] + seen[:-2]) - seen[1:-1])
    light += draw.standard_normal(light.shape, dtype=np.float32) * np.float32(255.0 * look.noise)
    developed: NDArray[np.uint8] = np.clip(light + np.float32(0.5), 0, 255).astype(np.uint8)
    return developed
