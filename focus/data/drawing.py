"""Small raster drawing with soft edges: shaded solids in a depth buffer, flat signed-distance shapes, and textures.

Everything is float32 numpy in pixel coordinates (x right, y down, pixel centres at integers) and works on the window
that a shape touches. Depth is in pixels and grows away from the viewer, normals are in camera axes (x right, y down, z
away), as in the renderer: what is drawn here is lit by the same spherical harmonics as the face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from focus.face.lighting import harmonics

Array = NDArray[np.float32]
Point = NDArray[np.floating] | Sequence[float]


@dataclass
class Layer:
    """Something to lay over a picture."""

    color: Array
    """[S, S, 3], RGB, 0 or more; highlights may exceed 1."""
    alpha: Array
    """[S, S], 1 = opaque."""

    def over(self, image: Array) -> Array:
        """The picture [S, S, 3] with this layer on top."""
        return image + self.alpha[..., None] * (self.color - image)

    def on(self, below: Layer) -> Layer:
        """This layer and the one below it as one."""
        alpha = self.alpha + below.alpha * (1 - self.alpha)
        weight = np.divide(self.alpha, alpha, out=np.zeros_like(alpha), where=alpha > 0)
        return Layer(below.color + weight[..., None] * (self.color - below.color), alpha)


@dataclass(frozen=True)
class Window:
    """The part of a picture that a shape touches."""

    rows: slice
    columns: slice
    x: Array
    """[1, w] pixel coordinates."""
    y: Array
    """[h, 1] pixel coordinates."""

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in a picture."""
        return self.rows, self.columns


def window(size: int, left: float, top: float, right: float, bottom: float) -> Window | None:
    """The pixels of a box, one pixel wider on each side; None where the box misses the picture."""
    if not math.isfinite(left + top + right + bottom):
        return None
    first_column, last_column = max(math.floor(left) - 1, 0), min(math.ceil(right) + 2, size)
    first_row, last_row = max(math.floor(top) - 1, 0), min(math.ceil(bottom) + 2, size)
    if first_column >= last_column or first_row >= last_row:
        return None
    return Window(
        slice(first_row, last_row),
        slice(first_column, last_column),
        np.arange(first_column, last_column, dtype=np.float32)[None, :],
        np.arange(first_row, last_row, dtype=np.float32)[:, None],
    )


def saturate(values: Array) -> Array:
    """Clipped to [0, 1]; np.clip spends more time in its wrappers than on arrays of this size."""
    return np.minimum(np.maximum(values, 0), 1)


def whole(size: int) -> Window:
    """The window of a whole picture."""
    line = np.arange(size, dtype=np.float32)
    return Window(slice(0, size), slice(0, size), line[None, :], line[:, None])


def coverage(distance: Array) -> Array:
    """Signed distance in pixels (negative inside) -> alpha with a soft edge one pixel wide."""
    return saturate(0.5 - distance)


def _monomials(x: Array, y: Array, z: Array) -> Array:
    """[9, N] functions that span the nine harmonics."""
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, x * z, z * z, x * x - y * y])


def _harmonics_of_monomials() -> NDArray[np.float64]:
    """[9, 9]: row h holds harmonic h in monomials; read off from the one place that defines the harmonics."""
    directions = np.random.default_rng(0).standard_normal((64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    monomials = _monomials(*directions.T).T
    values = harmonics(torch.from_numpy(directions)).numpy()
    matrix: NDArray[np.float64] = np.linalg.lstsq(monomials, values, rcond=None)[0].T
    return matrix


_HARMONICS_OF_MONOMIALS = _harmonics_of_monomials()


def shade(x: Array, y: Array, z: Array, lighting: NDArray[np.floating]) -> Array:
    """Light that a matt white surface returns.

    Args:
        x, y, z: [N] unit normals in camera axes.
        lighting: [3, 9] spherical-harmonics coefficients.

    Returns:
        [3, N], not negative.
    """
    polynomial = (lighting @ _HARMONICS_OF_MONOMIALS).astype(np.float32)
    light: Array = np.maximum(polynomial @ _monomials(x, y, z), 0)
    return light


def front_light(lighting: NDArray[np.floating]) -> Array:
    """[3] light on a surface that faces the camera."""
    zero = np.zeros(1, dtype=np.float32)
    return shade(zero, zero, zero - 1, lighting)[:, 0]


class Relief:
    """Solid things in a depth buffer: each is drawn with depth, normal and albedo, then all are lit at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.depth = np.full((size, size), np.inf, dtype=np.float32)
        self.normal = np.zeros((3, size, size), dtype=np.float32)
        self.normal[2] = -1
        self.albedo = np.zeros((size, size, 3), dtype=np.float32)
        self.alpha = np.zeros((size, size), dtype=np.float32)

    def put(
        self,
        area: Window,
        alpha: Array,
        depth: Array,
        normal: tuple[Array, Array, Array],
        albedo: Array | Sequence[float],
    ) -> None:
        """Draws a shape where it has coverage and is nearer than what is there.

        `albedo` is one colour, [h, w, 3] for the window, or [S, S, 3] for the picture.
        """
        albedo = np.asarray(albedo, dtype=np.float32)
        if albedo.ndim == 3 and albedo.shape[:2] != alpha.shape:
            albedo = albedo[area.slices]
        known = self.depth[area.slices]
        nearer = (alpha > 0) & (depth < known)
        np.copyto(known, depth, where=nearer)
        for axis in range(3):
            np.copyto(self.normal[axis][area.slices], normal[axis], where=nearer)
        np.copyto(self.albedo[area.slices], albedo, where=nearer[..., None])
        covered = self.alpha[area.slices]
        np.maximum(covered, alpha, out=covered)

    def capsule(
        self,
        start: Point,
        end: Point,
        radius: float,
        end_radius: float,
        albedo: Array | Sequence[float],
        depth: float = 0.0,
        roundness: float = 1.0,
    ) -> None:
        """A tube (finger, arm, stick) that may taper, its axis at `depth`; `roundness` < 1 flattens its shading."""
        ax, ay, bx, by = float(start[0]), float(start[1]), float(end[0]), float(end[1])
        reach = max(radius, end_radius)
        area = window(self.size, min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach)
        if area is None:
            return
        dx, dy = bx - ax, by - ay
        length2 = max(dx * dx + dy * dy, 1e-12)
        t = saturate((area.x - ax) * np.float32(dx / length2) + (area.y - ay) * np.float32(dy / length2))
        across_x, across_y = area.x - ax - t * dx, area.y - ay - t * dy
        r = radius + (end_radius - radius) * t
        d = np.sqrt(across_x**2 + across_y**2)
        flat = np.float32(roundness) / r
        self._round(area, d - r, across_x * flat, across_y * flat, r, depth, albedo)

    def ellipse(
        self,
        center: Point,
        radii: tuple[float, float],
        angle: float,
        albedo: Array | Sequence[float],
        depth: float = 0.0,
    ) -> None:
        """An ellipsoid whose long axes lie in the picture; its third radius is the smaller of the two."""
        reach = max(radii)
        cx, cy = float(center[0]), float(center[1])
        area = window(self.size, cx - reach, cy - reach, cx + reach, cy + reach)
        if area is None:
            return
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u = ((area.x - cx) * cos + (area.y - cy) * sin) / radii[0]
        v = ((area.y - cy) * cos - (area.x - cx) * sin) / radii[1]
        q = np.sqrt(u * u + v * v)
        nx, ny = u * cos - v * sin, u * sin + v * cos
        self._round(area, (q - 1) * min(radii), nx, ny, min(radii), depth, albedo)

    def ellipsoid(
        self,
        center: Point,
        radii: Sequence[float],
        rotation: NDArray[np.floating],
        albedo: Array | Sequence[float],
        keep: tuple[Sequence[float], float] | None = None,
    ) -> None:
        """A solid ellipsoid seen by a distant camera.

        Args:
            center: (x, y, depth) pixels.
            radii: three radii in pixels along the columns of `rotation`.
            rotation: [3, 3], from the ellipsoid's own axes to camera axes.
            keep: (direction in own axes, offset): only the part whose point p (own axes, in radii) has direction . p >
                offset is drawn.
        """
        inverse_radii = 1 / np.asarray(radii, dtype=np.float64)
        unit = (rotation * inverse_radii).T  # camera offset -> own axes in radii
        spread = np.sqrt(((rotation * np.asarray(radii)) ** 2).sum(axis=1))
        cx, cy, cz = (float(value) for value in center)
        area = window(self.size, cx - spread[0], cy - spread[1], cx + spread[0], cy + spread[1])
        if area is None:
            return
        quadric = (unit.T @ unit).astype(np.float32)
        x, y = area.x - np.float32(cx), area.y - np.float32(cy)
        a = quadric[2, 2]
        b = quadric[0, 2] * x + quadric[1, 2] * y
        c = quadric[0, 0] * x * x + 2 * quadric[0, 1] * x * y + quadric[1, 1] * y * y - 1
        discriminant = b * b - a * c
        z = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
        # discriminant / a falls from 1 at the centre to 0 at the outline; its slope there turns it into a distance.
        alpha = saturate(0.5 + discriminant * np.float32(min(spread[0], spread[1]) / 2 / a))
        if keep is not None:
            direction = np.asarray(keep[0], dtype=np.float64) @ unit
            side = (direction[0] * x + direction[1] * y + direction[2] * z - keep[1]) / (
                np.linalg.norm(direction[:2]) + 1e-6
            )
            alpha = alpha * saturate(0.5 + side).astype(np.float32)
        normal = tuple(quadric[axis, 0] * x + quadric[axis, 1] * y + quadric[axis, 2] * z for axis in range(3))
        length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + np.float32(1e-12)
        self.put(area, alpha, z + np.float32(cz), (normal[0] / length, normal[1] / length, normal[2] / length), albedo)

    def slab(
        self,
        area: Window,
        distance: Array,
        albedo: Array | Sequence[float],
        depth: float = 0.0,
        tilt: tuple[float, float] = (0.0, 0.0),
        slopes: tuple[Array, Array] | None = None,
        bevel: float = 0.0,
    ) -> None:
        """A flat or cushion-like thing (card, cloth, palm) where `distance` < 0.

        Args:
            area: the window that `distance` covers.
            distance: [h, w] signed distance in pixels.
            albedo: one colour or [h, w, 3].
            depth: of its flat part; the rim lies up to `bevel` farther.
            tilt: lateral parts of the normal of the flat part (small angles).
            slopes: [h, w] each, added to `tilt`: folds and waves.
            bevel: width in pixels of the rim that rounds off.
        """
        nx = np.full(distance.shape, tilt[0], dtype=np.float32)
        ny = np.full(distance.shape, tilt[1], dtype=np.float32)
        z = np.full(distance.shape, depth, dtype=np.float32)
        if slopes is not None:
            nx += slopes[0]
            ny += slopes[1]
        if bevel > 0 and min(distance.shape) > 1:
            rim = np.clip(1 + distance / np.float32(bevel), 0, 0.98)  # 0 on the flat part, 1 at the outline
            steep = rim / np.sqrt(1 - rim * rim)
            gradient_y, gradient_x = np.gradient(distance)
            nx += gradient_x * steep
            ny += gradient_y * steep
            z += np.float32(bevel) * (1 - np.sqrt(1 - rim * rim))
        length = np.sqrt(nx * nx + ny * ny + 1)
        self.put(area, coverage(distance), z, (nx / length, ny / length, -1 / length), albedo)

    def _round(
        self,
        area: Window,
        distance: Array,
        nx: Array,
        ny: Array,
        radius: Array | float,
        depth: float,
        albedo: Array | Sequence[float],
    ) -> None:
        """Curved like a ball across its outline: nx, ny are the lateral parts of its normal, up to 1 at the edge."""
        square = np.minimum(nx * nx + ny * ny, 1)
        shrink = np.minimum(1, 1 / np.sqrt(np.maximum(nx * nx + ny * ny, 1e-12)))
        nz = np.sqrt(1 - square)
        self.put(area, coverage(distance), depth - nz * radius, (nx * shrink, ny * shrink, -nz), albedo)

    def lit(self, lighting: NDArray[np.floating], edge: float = 0.3, gloss: float = 0.0) -> Layer:
        """Lights the solids.

        Args:
            lighting: [3, 9] spherical-harmonics coefficients.
            edge: how much surfaces darken where they turn away (light that neighbours take away): outlines fingers.
            gloss: strength of a highlight towards the viewer's upper side.
        """
        x, y, z = self.normal.reshape(3, -1)
        color = shade(x, y, z, lighting) * (1 - edge - edge * z)
        color = self.albedo * color.T.reshape(self.albedo.shape)
        if gloss > 0:
            toward = np.maximum(-0.8 * z - 0.6 * y, 0) ** 2
            color += np.float32(gloss) * (toward**8).reshape(self.size, self.size, 1)
        return Layer(color, self.alpha)


def polygon_distance(area: Window, points: NDArray[np.floating]) -> Array:
    """Signed distance in pixels to a simple polygon [N, 2], negative inside."""
    distance2 = np.full((area.y.shape[0], area.x.shape[1]), np.inf, dtype=np.float32)
    inside = np.zeros(distance2.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = area.x - np.float32(ax), area.y - np.float32(ay)
        length2 = max(ex * ex + ey * ey, 1e-12)
        t = saturate(wx * np.float32(ex / length2) + wy * np.float32(ey / length2))
        np.minimum(distance2, (wx - ex * t) ** 2 + (wy - ey * t) ** 2, out=distance2)
        if ay != by:
            crosses = ((area.y >= ay) != (area.y >= by)) & (area.x - ax < (area.y - ay) * np.float32(ex / ey))
            inside ^= crosses
    return np.where(inside, -np.sqrt(distance2), np.sqrt(distance2))


def box_distance(
    area: Window, center: Point, half: tuple[float, float], angle: float, corner: float = 0.0
) -> tuple[Array, Array, Array]:
    """Signed distance to a rotated rectangle with round corners, and the coordinates (u, v) from its centre, pixels."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = area.x - np.float32(center[0]), area.y - np.float32(center[1])
    u, v = x * cos + y * sin, y * cos - x * sin
    corner = min(corner, *half)
    qx, qy = np.abs(u) - (half[0] - corner), np.abs(v) - (half[1] - corner)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return outside + np.minimum(np.maximum(qx, qy), 0) - corner, u, v


def smooth_polygon(points: NDArray[np.floating], rounds: int = 2) -> NDArray[np.floating]:
    """Cuts the corners of a closed polygon (Chaikin): [N, 2] -> [N * 2**rounds, 2]."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


@lru_cache(maxsize=256)
def _grid_weights(size: int, cells: int) -> tuple[NDArray[np.int64], Array]:
    """For every pixel: the grid point before it, and the smooth weight of the one after it."""
    position = np.linspace(0, cells, size, endpoint=False)
    index = np.floor(position).astype(np.int64)
    t = position - index
    return index, (t * t * (3 - 2 * t)).astype(np.float32)


def noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int], octaves: int = 1) -> Array:
    """Smooth value noise [S, S] in [0, 1]: `cells` (rows, columns) of a grid; octaves get finer and weaker by 2."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    total, weight, sum_of_weights = np.zeros((size, size), dtype=np.float32), 1.0, 0.0
    for _ in range(octaves):
        grid = rng.random((rows + 1, columns + 1), dtype=np.float32)
        (row, row_weight), (column, column_weight) = _grid_weights(size, rows), _grid_weights(size, columns)
        lines = grid[row] + row_weight[:, None] * (grid[row + 1] - grid[row])
        before = lines[:, column]
        total += np.float32(weight) * (before + column_weight * (lines[:, column + 1] - before))
        sum_of_weights += weight
        weight, rows, columns = weight * 0.5, rows * 2, columns * 2
    scaled: Array = total / np.float32(sum_of_weights)
    return scaled


def streaks(rng: np.random.Generator, coordinate: Array, width: float) -> Array:
    """Hair-like streaks: two octaves of 1-D noise in [0, 1] along a coordinate in pixels; `width` pixels each."""
    table = rng.random(256, dtype=np.float32)
    fine = coordinate * np.float32(1 / max(width, 0.5))
    return 0.65 * _table_noise(table, fine) + 0.35 * _table_noise(table, fine * 2.3 + 57)


def _table_noise(table: Array, coordinate: Array) -> Array:
    floor = np.floor(coordinate)
    index = floor.astype(np.int32)
    t = coordinate - floor
    values: Array = table[index & 255] * (1 - t) + table[(index + 1) & 255] * t
    return values


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of [S, S] or [S, S, 3]; border pixels are repeated.

    Sums of shifted pictures: as fast as a matrix product at these sizes, and the same bits on every machine and thread
    count.
    """
    if sigma < 0.05:
        return image
    radius = max(int(np.ceil(2.5 * sigma)), 1)
    kernel = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma * sigma))
    kernel /= kernel[0] + 2 * kernel[1:].sum()
    for axis in (0, 1):
        padding = [(0, 0)] * image.ndim
        padding[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(image, padding, mode="edge"), axis, 0)
        size = image.shape[axis]
        total = np.float32(kernel[0]) * padded[radius : radius + size]
        for offset in range(1, radius + 1):
            total += np.float32(kernel[offset]) * (padded[radius - offset :][:size] + padded[radius + offset :][:size])
        image = np.moveaxis(total, 0, axis)
    return image


def mix(first: Point, second: Point, weight: Array) -> Array:
    """Two colours mixed by a picture of weights [S, S] -> [S, S, 3]."""
    a, b = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    return a + weight[..., None] * (b - a)


def random_color(rng: np.random.Generator, saturation: float = 1.0) -> Array:
    """An RGB albedo; `saturation` 0 is grey."""
    value, color = rng.uniform(0.08, 0.95), rng.random(3)
    color = color / max(color.max(), 1e-6)
    albedo: Array = (value * (1 - saturation * (1 - color))).astype(np.float32)
    return albedo
