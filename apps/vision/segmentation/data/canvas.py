"""A small painter for :mod:`.streets`: shapes on the ground seen by a pinhole camera, painted from far to near.

World coordinates in metres: X to the right, Y up from the ground, Z ahead of the camera. Pixel (v, u) of a camera at
height h with focal length f (pixels), centre column c and horizon row v0 sees

    X = (u - c) Z / f,    Y = h - (v - v0) Z / f,    on the ground Z = f h / (v - v0)

Whatever is painted writes colour, label and depth together, so that labels are right by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

Paint = tuple[float, float, float]
FAR = 400.0
"""Depth of the sky, metres."""


@dataclass(frozen=True)
class Camera:
    """Where from and how one looks.

    Attributes:
        height: of the camera, metres.
        view: horizontal angle of view, degrees.
        horizon: row of the horizon as a share of the image.
        aside: metres right of the middle of the road.
        size: rows and columns of the image.
    """

    height: float
    view: float
    horizon: float
    aside: float
    size: tuple[int, int]

    @cached_property
    def focal(self) -> float:
        """In pixels."""
        return float(0.5 * self.size[1] / np.tan(np.radians(self.view) / 2))

    def column(self, x: float, z: float) -> float:
        """Column of a point."""
        return 0.5 * self.size[1] + self.focal * (x - self.aside) / z

    def row(self, y: float, z: float) -> float:
        """Row of a point."""
        return self.horizon * self.size[0] + self.focal * (self.height - y) / z

    @cached_property
    def rows(self) -> Float32[np.ndarray, "H 1"]:
        """Rows below the horizon, at pixel centres."""
        return (np.arange(self.size[0], dtype=np.float32) + 0.5 - self.horizon * self.size[0])[:, None]

    @cached_property
    def columns(self) -> Float32[np.ndarray, "1 W"]:
        """Columns right of the centre, at pixel centres."""
        return (np.arange(self.size[1], dtype=np.float32) + 0.5 - 0.5 * self.size[1])[None]

    @cached_property
    def ground(self) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """First row of the ground, and X ``(G, W)`` and Z ``(G, 1)`` of its pixels."""
        first = int(np.argmax(self.rows[:, 0] >= self.focal * self.height / 150.0))
        z: NDArray[np.float32] = (self.focal * self.height / self.rows[first:]).astype(np.float32)
        x: NDArray[np.float32] = (self.columns * z / self.focal + self.aside).astype(np.float32)
        return first, x, z


@dataclass(frozen=True)
class Canvas:
    """What is painted so far.

    Attributes:
        camera: the eye.
        cells: of each pixel reflected light (3 numbers, 0 to 1, before the lighting of the scene), the light that it
            gives off itself (3), its depth in metres, its train id. In one array, as a stroke writes all of them.
    """

    camera: Camera
    cells: Float32[np.ndarray, "H W 8"] = field(repr=False)

    @classmethod
    def blank(cls, camera: Camera, label: int) -> Canvas:
        """Nothing but the far sky."""
        cells = np.zeros((*camera.size, 8), dtype=np.float32)
        cells[..., 6], cells[..., 7] = FAR, label
        return cls(camera, cells)

    @property
    def colour(self) -> NDArray[np.float32]:
        """``(H, W, 3)`` reflected light, to be written to."""
        return self.cells[..., :3]

    @property
    def glow(self) -> NDArray[np.float32]:
        """``(H, W, 3)`` light given off, to be written to."""
        return self.cells[..., 3:6]

    @property
    def depth(self) -> NDArray[np.float32]:
        """``(H, W)`` metres, to be written to."""
        return self.cells[..., 6]

    @property
    def label(self) -> NDArray[np.float32]:
        """``(H, W)`` train ids, to be written to."""
        return self.cells[..., 7]

    def window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        """The pixels whose centres lie between these columns and rows."""
        height, width = self.camera.size
        rows = slice(min(height, max(0, round(top))), max(0, min(height, round(bottom))))
        return rows, slice(min(width, max(0, round(left))), max(0, min(width, round(right))))

    def slab(
        self, x: float, z: float, y: tuple[float, float], half: tuple[float, float], paint: Paint, label: int
    ) -> None:
        """An upright trapezoid that faces the camera.

        Args:
            x: its middle.
            z: its distance.
            y: heights of its lower and upper edge.
            half: half its width below and above; at least half a pixel is painted, so that far poles remain.
            paint: its colour.
            label: its train id.
        """
        camera = self.camera
        scale = camera.focal / z
        middle, bottom, top = camera.column(x, z), camera.row(y[0], z), camera.row(y[1], z)
        widest = max(0.5, scale * max(half))
        window = self.window(middle - widest, middle + widest, top, bottom)
        rows, columns = window
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        stroke = np.array((*paint, 0.0, 0.0, 0.0, z, label), dtype=np.float32)
        if half[0] == half[1]:
            self.cells[window] = stroke
            return
        v = (np.arange(rows.start, rows.stop) + 0.5 - top) / max(bottom - top, 1e-6)
        u = np.abs(np.arange(columns.start, columns.stop) + 0.5 - middle)
        reach = np.maximum(0.5, scale * (half[1] + (half[0] - half[1]) * v))
        self.cells[window][u[None] <= reach[:, None]] = stroke

    def disc(
        self,
        x: float,
        y: float,
        z: float,
        radii: tuple[float, float],
        paint: Paint,
        label: int,
        rough: NDArray[np.float32] | None = None,
    ) -> None:
        """An ellipse that faces the camera; ``rough`` (a square of noise around 0) frays its edge and its colour."""
        camera = self.camera
        middle, centre = camera.column(x, z), camera.row(y, z)
        across, along = (max(0.7, camera.focal * radius / z) for radius in radii)
        window = self.window(middle - across, middle + across, centre - along, centre + along)
        rows, columns = window
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        v = (np.arange(rows.start, rows.stop) + 0.5 - centre)[:, None] / along
        u = (np.arange(columns.start, columns.stop) + 0.5 - middle)[None] / across
        inside = v * v + u * u
        stroke = np.array((*paint, 0.0, 0.0, 0.0, z, label), dtype=np.float32)
        if rough is None:
            self.cells[window][inside <= 1.0] = stroke
            return
        n = len(rough)
        frayed = rough[((v + 1) / 2 * n).astype(np.intp) % n, ((u + 1) / 2 * n).astype(np.intp) % n]
        mask = inside + 0.5 * frayed <= 1.0
        self.cells[window][mask] = stroke
        # Lighter above, darker below, and leaves.
        self.colour[window][mask] *= (1.0 - 0.25 * v + 0.35 * frayed)[mask][:, None].clip(0.4, 1.6)

    def shine(self, x: float, y: float, z: float, radius: float, light: Paint) -> None:
        """A halo around a lamp, over whatever is there."""
        camera = self.camera
        middle, centre, reach = camera.column(x, z), camera.row(y, z), max(1.5, camera.focal * radius / z)
        window = self.window(middle - 2 * reach, middle + 2 * reach, centre - 2 * reach, centre + 2 * reach)
        rows, columns = window
        v = (np.arange(rows.start, rows.stop) + 0.5 - centre) / reach
        u = (np.arange(columns.start, columns.stop) + 0.5 - middle) / reach
        halo = np.exp(-2.0 * v * v)[:, None] * np.exp(-2.0 * u * u)[None]
        self.glow[window] += halo[..., None].astype(np.float32) * np.array(light, dtype=np.float32)
