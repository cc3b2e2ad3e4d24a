"""What stands in the street of :mod:`.streets`, painted from far to near: ground, houses, then everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from apps.vision.segmentation.data.canvas import Canvas, Paint
from apps.vision.segmentation.data.classes import Classes

_NAMES = ("road", "sidewalk", "building", "fence", "pole", "sign", "vegetation", "sky", "person", "car")
ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = range(len(_NAMES))
CLASSES = Classes(
    names=_NAMES,
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (190, 153, 153),
        (153, 153, 153),
        (220, 220, 0),
        (107, 142, 35),
        (70, 130, 180),
        (220, 20, 60),
        (0, 0, 142),
    ),
    things=frozenset({SIGN, PERSON, CAR}),
)
"""Ten classes; those that Cityscapes has bear its names and colours."""

STEP = 3.0
"""Metres that the camera moves from frame to frame."""
REACH = 75.0
"""Metres ahead that the street is furnished for."""
NEAREST = 3.0
_CARS: tuple[Paint, ...] = (
    (0.75, 0.75, 0.78),
    (0.10, 0.10, 0.12),
    (0.55, 0.08, 0.08),
    (0.12, 0.22, 0.50),
    (0.85, 0.85, 0.82),
    (0.35, 0.37, 0.38),
)
_CLOTHES: tuple[Paint, ...] = ((0.7, 0.2, 0.2), (0.15, 0.2, 0.45), (0.2, 0.2, 0.2), (0.75, 0.7, 0.3), (0.3, 0.5, 0.35))
_SIGNS: tuple[Paint, ...] = ((0.8, 0.08, 0.08), (0.1, 0.25, 0.75), (0.9, 0.75, 0.1))
_BRICK, _PLASTER = np.array((0.55, 0.30, 0.24)), np.array((0.72, 0.68, 0.60))
_LAMP: Paint = (1.0, 0.78, 0.45)


class Strokes:
    """What is to be painted, and how far away it is."""

    def __init__(self) -> None:
        self._all: list[tuple[float, Callable[[], None]]] = []

    def add(self, z: float, reach: float, stroke: Callable[[], None]) -> None:
        """Paint it, unless it is behind the camera or farther than ``reach``."""
        if NEAREST < z < reach:
            self._all.append((z, stroke))

    def paint(self) -> None:
        """All of it, the farthest first."""
        for _, stroke in sorted(self._all, key=lambda one: -one[0]):
            stroke()


@dataclass(frozen=True)
class Scene:
    """What decides a street: its random numbers, which frame, and what belongs to the domain."""

    layout: np.random.Generator
    frame: int
    tint: float
    lamps: float

    def ahead(self, z: float, speed: float = 0.0) -> float:
        """Distance of what began at z and moves at ``speed`` metres a frame."""
        return z + self.frame * (speed - STEP)


@dataclass(frozen=True)
class _Street:
    """Half the road, the pavement's width, and where the houses begin."""

    road: float
    pavement: float

    @property
    def front(self) -> float:
        return self.road + self.pavement


def draw_scene(canvas: Canvas, scene: Scene) -> None:
    """Paint a street over the sky of a canvas. The numbers that ``scene.layout`` gives do not depend on the frame."""
    layout = scene.layout
    street = _Street(layout.uniform(4.0, 5.2), layout.uniform(2.0, 3.2))
    rough = layout.normal(0.0, 0.7, (32, 32)).astype(np.float32)
    lamps = [(side * (street.road + 0.5), float(z)) for side in (-1, 1) for z in _row(layout, 9.0 + side, 26.0)]
    _ground(canvas, scene, street, lamps, layout)
    canvas.slab(0.0, REACH + 5.0, (0.0, layout.uniform(3.0, 6.0)), (200.0, 200.0), (0.22, 0.34, 0.16), VEGETATION)
    for side in (-1, 1):
        _house_row(canvas, scene, street, side, layout)
    strokes = Strokes()
    _furnish(canvas, scene, street, lamps, rough, strokes)
    _populate(canvas, scene, street, strokes)
    strokes.paint()


def _row(layout: np.random.Generator, first: float, gap: float, length: float = REACH + 40.0) -> NDArray[np.float64]:
    places = np.arange(first, length, gap)
    return places + layout.uniform(-0.2, 0.2, len(places)) * gap


def _ground(
    canvas: Canvas, scene: Scene, street: _Street, lamps: list[tuple[float, float]], layout: np.random.Generator
) -> None:
    first, x, z = canvas.camera.ground
    texture = layout.normal(0.0, 0.03, (64, 64)).astype(np.float32)
    along = z + np.float32(STEP * scene.frame)
    grain = texture[(x * 14).astype(np.intp) & 63, (along * 9).astype(np.intp) & 63]
    shade = layout.uniform(0.30, 0.40)
    on_road = np.abs(x) < street.road
    grey = np.where(on_road, shade, layout.uniform(0.52, 0.62)).astype(np.float32) + grain
    tiles = ((x * 1.25).astype(np.intp) + (along * 1.25).astype(np.intp)) & 1
    grey -= np.where(on_road, 0.0, 0.04 * tiles).astype(np.float32)
    middle = (np.abs(x) < 0.09) & ((along % 6.0) < 3.0)
    edge = np.abs(np.abs(x) - street.road + 0.25) < 0.07
    grey = np.where((middle | edge) & (z < 60), np.float32(0.85), grey)
    grey = np.where(np.abs(np.abs(x) - street.road) < 0.12, np.float32(0.68), grey)
    canvas.colour[first:] = grey[..., None] * np.array((1.0, 0.99, 0.97), dtype=np.float32)
    canvas.glow[first:] = 0.0
    canvas.label[first:] = np.where(on_road, ROAD, SIDEWALK)
    canvas.depth[first:] = z
    if scene.lamps:
        pool = np.zeros(x.shape, dtype=np.float32)
        for place, distance in lamps:
            ahead = scene.ahead(distance)
            if 0.0 < ahead < 70.0:
                pool += np.exp(-((z - ahead) ** 2) / 24.0) * np.exp(-((x - 0.7 * place) ** 2) / 12.0)
        canvas.glow[first:] += (0.5 * scene.lamps * pool * grey)[..., None] * np.array(_LAMP, dtype=np.float32)


def _house_row(canvas: Canvas, scene: Scene, street: _Street, side: int, layout: np.random.Generator) -> None:
    """Houses, gardens behind fences, and trees behind those, along one side; the farthest first."""
    plots, z = [], -20.0
    while z < REACH + 60.0:
        length = layout.uniform(7.0, 16.0)
        garden = layout.random() < 0.22
        warm = layout.random() < scene.tint
        base = _BRICK if warm else _PLASTER
        paint = tuple((base + 0.06 * layout.standard_normal(3)).clip(0.1, 0.95).tolist())
        height = layout.uniform(5.5, 15.0)
        plots.append((z, z + length, garden, height, paint, layout.integers(1 << 16)))
        z += length
    for near, far, garden, height, paint, windows in reversed(plots):
        a, b = scene.ahead(near), scene.ahead(far)
        if b > NEAREST and a < REACH:
            if garden:
                _hedge(canvas, side, street.front + 3.0, a, b, height / 4)
                _wall(canvas, side, street.front, a, b, 1.1, (0.45, 0.36, 0.28), FENCE, None, 0.0)
            else:
                _gable(canvas, side, street.front, a, height, paint)
                _wall(canvas, side, street.front, a, b, height, paint, BUILDING, int(windows), scene.lamps)


def _gable(canvas: Canvas, side: int, x: float, z: float, height: float, paint: tuple[float, ...]) -> None:
    """The wall of a house that faces the camera."""
    if z > NEAREST:
        red, green, blue = (0.72 * part for part in paint)
        canvas.slab(side * (x + 8.0), z, (0.0, height), (8.0, 8.0), (red, green, blue), BUILDING)


def _hedge(canvas: Canvas, side: int, x: float, near: float, far: float, height: float) -> None:
    _wall(canvas, side, x, near, far, height, (0.20, 0.34, 0.14), VEGETATION, None, 0.0)


def _wall(
    canvas: Canvas,
    side: int,
    x: float,
    near: float,
    far: float,
    height: float,
    paint: tuple[float, ...],
    label: int,
    windows: int | None,
    lit: float,
) -> None:
    """A wall along the street, in the plane X = side x, from Z = near to far; a column of the image meets it once."""
    camera = canvas.camera
    near = max(near, 1.0)
    left, right = sorted((camera.column(side * x, near), camera.column(side * x, far)))
    top = camera.row(height, near)
    rows, columns = canvas.window(left, right, min(top, camera.row(height, far)), camera.row(0.0, near))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    z = np.clip(camera.focal * (side * x - camera.aside) / camera.columns[:, columns], near, far)
    y = camera.height - camera.rows[rows] * z / camera.focal
    mask = (y >= 0.0) & (y <= height)
    shade = np.float32(1.0 if side > 0 else 0.82)  # the sun stands on one side
    cells = np.zeros((*mask.shape, 8), dtype=np.float32)
    cells[..., :3] = np.array(paint, dtype=np.float32) * shade
    if windows is not None:
        across, up = (z - near) / 2.2, (y - 0.7) / 2.8
        pane = (np.abs(across % 1.0 - 0.5) < 0.26) & (np.abs(up % 1.0 - 0.5) < 0.30) & (y > 0.9) & (y < height - 0.7)
        number = across.astype(np.intp) * 31 + up.astype(np.intp) * 17 + windows
        cells[pane, :3] = (0.20, 0.25, 0.30)
        shining = pane & ((number * 2654435761 >> 7) % 5 < 2)
        cells[shining, 3:6] = np.float32(lit) * np.array((0.75, 0.58, 0.28), dtype=np.float32)
    elif label == FENCE:
        cells[(z * 4.0 % 1.0 < 0.3) & (y < 1.0), :3] *= 0.45
    else:
        cells[..., :3] *= (0.85 + 0.3 * np.sin(9.1 * z + 4.0 * np.sin(7.3 * y)))[..., None]
    cells[..., 6], cells[..., 7] = z, label
    canvas.cells[rows, columns][mask] = cells[mask]


def _furnish(
    canvas: Canvas,
    scene: Scene,
    street: _Street,
    lamps: list[tuple[float, float]],
    rough: NDArray[np.float32],
    strokes: Strokes,
) -> None:
    """Trees, lamps and signs: what does not move."""
    layout = scene.layout
    for x, place in lamps:
        z = scene.ahead(place)
        strokes.add(z, REACH, partial(_lamp, canvas, x, z, scene.lamps))
    for side in (-1, 1):
        for place in _row(layout, 4.0, layout.uniform(12.0, 22.0)):
            x, size = side * (street.road + 1.0), float(layout.uniform(0.7, 1.3))
            leaves = (0.16 + layout.uniform(0, 0.1), 0.32 + layout.uniform(0, 0.12), 0.10)
            there, z = layout.random() < 0.7, scene.ahead(float(place))
            if there:
                strokes.add(z, REACH, partial(_tree, canvas, x, z, size, leaves, rough))
        for place in _row(layout, 8.0, 17.0):
            paint, kind = _SIGNS[layout.integers(3)], int(layout.integers(3))
            x, z = side * (street.road + 0.4), scene.ahead(float(place))
            strokes.add(z, 45.0, partial(_sign, canvas, x, z, paint, kind))


def _populate(canvas: Canvas, scene: Scene, street: _Street, strokes: Strokes) -> None:
    """Cars on both lanes and at the kerb, and people."""
    layout = scene.layout
    lanes = ((street.road - 1.1, 0.0, 13.0), (0.42 * street.road, 2.2, 34.0), (-0.42 * street.road, -2.5, 30.0))
    for x, speed, gap in (*lanes, (-street.road + 1.1, 0.0, 15.0)):
        for place in _row(layout, 7.0 + layout.uniform(0, gap), gap, REACH + 60.0):
            paint, there, tall = _CARS[layout.integers(len(_CARS))], layout.random() < 0.62, layout.uniform(1.35, 1.9)
            z = scene.ahead(float(place), speed)
            if there:
                on = scene.lamps if speed else 0.0
                strokes.add(z, 60.0, partial(_car, canvas, x, z, float(tall), paint, x < 0, on))
    for side in (-1, 1):
        for place in _row(layout, 5.0, 9.0):
            x = side * (street.road + layout.uniform(0.6, street.pavement - 0.4))
            speed, tall = layout.uniform(-1.2, 1.2), layout.uniform(1.5, 1.9)
            clothes, there = _CLOTHES[layout.integers(len(_CLOTHES))], layout.random() < 0.75
            z = scene.ahead(float(place), float(speed))
            if there:
                strokes.add(z, 45.0, partial(_person, canvas, x, z, float(tall), clothes, scene.frame))


def _lamp(canvas: Canvas, x: float, z: float, lamps: float) -> None:
    inward = -0.55 if x > 0 else 0.55
    canvas.slab(x, z, (0.0, 5.6), (0.09, 0.06), (0.34, 0.35, 0.36), POLE)
    canvas.slab(x + inward, z, (5.5, 5.65), (0.6, 0.6), (0.34, 0.35, 0.36), POLE)
    if lamps:
        canvas.shine(x + 2 * inward, 5.5, z, 1.1, (0.9 * lamps, 0.7 * lamps, 0.4 * lamps))


def _tree(canvas: Canvas, x: float, z: float, size: float, leaves: Paint, rough: NDArray[np.float32]) -> None:
    canvas.slab(x, z, (0.0, 2.6 * size), (0.20 * size, 0.12 * size), (0.30, 0.22, 0.16), VEGETATION)
    for across, up, radius in ((-0.7, 3.0, 1.0), (0.7, 3.2, 1.05), (0.0, 4.1, 1.15), (0.1, 3.1, 1.1)):
        canvas.disc(x + across * size, up * size, z, (radius * size, 0.9 * radius * size), leaves, VEGETATION, rough)


def _sign(canvas: Canvas, x: float, z: float, paint: Paint, kind: int) -> None:
    canvas.slab(x, z, (0.0, 2.3), (0.05, 0.05), (0.45, 0.45, 0.46), POLE)
    if kind == 0:
        canvas.disc(x, 2.6, z, (0.42, 0.42), paint, SIGN)
        canvas.disc(x, 2.6, z, (0.26, 0.26), (0.9, 0.9, 0.9), SIGN)
    elif kind == 1:
        canvas.slab(x, z, (2.2, 3.0), (0.42, 0.42), paint, SIGN)
    else:
        canvas.slab(x, z, (2.2, 3.0), (0.48, 0.02), paint, SIGN)


def _car(canvas: Canvas, x: float, z: float, tall: float, paint: Paint, oncoming: bool, on: float) -> None:
    dark = (0.05, 0.05, 0.06)
    shade = canvas.window(
        canvas.camera.column(x - 1.0, z),
        canvas.camera.column(x + 1.0, z),
        canvas.camera.row(0.0, z + 4.0),
        canvas.camera.row(0.0, z) + 1,
    )
    canvas.colour[shade] *= np.where(canvas.label[shade] == ROAD, np.float32(0.45), np.float32(1.0))[..., None]
    for back in (4.0, 2.7, 1.3) if z < 25.0 else (4.0,):  # its length, as slices
        red, green, blue = (0.72 * part for part in paint)
        canvas.slab(x, z + back, (0.3, 0.62 * tall), (0.9, 0.9), (red, green, blue), CAR)
        if back < 4.0:
            canvas.slab(x, z + back, (0.6 * tall, tall), (0.78, 0.62), (red, green, blue), CAR)
    for side in (-0.62, 0.62):
        canvas.slab(x + side, z, (0.0, 0.5), (0.14, 0.14), dark, CAR)
    canvas.slab(x, z, (0.25, 0.62 * tall), (0.9, 0.88), paint, CAR)
    canvas.slab(x, z + 0.6, (0.62 * tall, tall), (0.80, 0.60), paint, CAR)
    canvas.slab(x, z + 0.6, (0.66 * tall, 0.94 * tall), (0.70, 0.54), (0.12, 0.15, 0.18), CAR)
    light: Paint = (0.95, 0.93, 0.8) if oncoming else (0.65, 0.06, 0.05)
    for side in (-0.7, 0.7):
        canvas.slab(x + side, z, (0.45 * tall, 0.55 * tall), (0.13, 0.13), light, CAR)
        if on:
            red, green, blue = (0.8 * on * part for part in light)
            canvas.shine(x + side, 0.5 * tall, z, 0.45 if oncoming else 0.28, (red, green, blue))


def _person(canvas: Canvas, x: float, z: float, tall: float, clothes: Paint, frame: int) -> None:
    stride = 0.13 if frame % 2 else 0.06
    for leg in (-stride, stride):
        canvas.slab(x + leg, z, (0.0, 0.5 * tall), (0.08, 0.1), (0.14, 0.14, 0.2), PERSON)
    canvas.slab(x, z, (0.45 * tall, 0.84 * tall), (0.2, 0.26), clothes, PERSON)
    canvas.disc(x, 0.92 * tall, z, (0.12, 0.15), (0.72, 0.55, 0.45), PERSON)
