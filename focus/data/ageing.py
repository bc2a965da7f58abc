"""Age, which morphable models smooth away: furrows, bags under the eyes, spots, grey hair.

Furrows are heights on the skin, lit by the light of the picture as everything else in it: they are face, however unlike
the model, and a network that has not seen them calls them hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focus.data.drawing import Array, blur, coverage, noise, polygon_distance, saturate, shade, smooth_polygon, window
from focus.data.scene import HEAD_CENTER, HEAD_RADII, Scene

Points = NDArray[np.floating]

_GREY = np.array([0.66, 0.65, 0.63], np.float32)


def greyed(hair: Array, age: float, rng: np.random.Generator) -> Array:
    """The albedo of hair [3] at an age of 0 (twenty years) to 1 (eighty)."""
    grey = saturate(np.float32(2.2 * (age - 0.35) + rng.normal(0, 0.25)))
    turned: Array = hair + grey * (_GREY * np.float32(rng.uniform(0.75, 1.2)) - hair)
    return turned


def draw_age(scene: Scene, rng: np.random.Generator) -> Array:
    """A factor [S, S, 3] on the lit face: what years have left on it, by `scene.age`; 1 everywhere for 0."""
    factor = np.ones((scene.size, scene.size, 3), dtype=np.float32)
    if scene.age <= 0:
        return factor
    height = Heights(scene, rng)
    chances = rng.random(7)
    if chances[0] < 0.9:
        _across_the_forehead(height)
    if chances[1] < 0.6:
        _between_the_brows(height)
    for side in (LEFT, RIGHT):
        if height.faces_camera(side):
            if chances[2] < 0.85:
                _beside_the_eye(height, side)
            if chances[3] < 0.8:
                _under_the_eye(height, side)
            if chances[4] < 0.95:
                _beside_the_nose(height, side)
            if chances[5] < 0.7:
                _below_the_mouth(height, side)
    if chances[6] < 0.6:
        _over_the_lips(height)
    coarse = noise(rng, scene.size, max(scene.size // 3, 8)) - np.float32(0.5)
    height.field += coarse * np.float32(0.5 * scene.age * rng.random())
    factor *= height.lit()
    _spots(scene, rng, factor)
    _brows(scene, rng, factor)
    return factor


@dataclass(frozen=True)
class Side:
    """One half of the face: where outwards is, and landmarks of eye, nose and mouth."""

    sign: float
    outer: int
    inner: int
    wing: int
    corner: int


LEFT, RIGHT = Side(-1.0, 36, 39, 31, 48), Side(1.0, 45, 42, 35, 54)
"""Of the picture."""


class Heights:
    """Heights of the skin in mm over the smooth face, [S, S]; all lengths are in mm."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        self.field = np.zeros((scene.size, scene.size), dtype=np.float32)
        self.depth = 1.6 * scene.age * rng.lognormal(0, 0.35)
        """Of a common furrow of this face."""

    def at(self, landmark: int, right: float, down: float) -> Points:
        """[2] pixels."""
        return self.scene.offset(self.scene.landmarks[landmark], right, down)

    def faces_camera(self, side: Side) -> bool:
        """Whether this half is not turned away."""
        outwards = self.scene.rotation @ np.array([side.sign * 0.8, 0.0, 0.6])
        return bool(outwards[2] < -0.15)

    def furrow(self, points: Sequence[Points], depth: float, width: float, ridge: float = 0.0) -> None:
        """A groove along a line; `ridge` is how high the skin beside it swells, on the side that turns to the left."""
        scale = np.float32(self.scene.pixels_per_mm)
        # A groove thinner than a pixel is seen as one of a pixel's width that is less deep.
        seen = np.float32(max(width * scale, 0.7))
        line = _smooth(np.stack(points))
        reach = float(4 * seen + 8 * scale * (ridge != 0))
        area = window(self.scene.size, *(line.min(axis=0) - reach), *(line.max(axis=0) + reach))
        if area is None:
            return
        start, step = line[:-1].astype(np.float32), np.diff(line, axis=0).astype(np.float32)
        (ax, ay), (ex, ey) = start.T[:, :, None, None], step.T[:, :, None, None]
        wx, wy = area.x - ax, area.y - ay
        t = saturate((wx * ex + wy * ey) / np.maximum(ex * ex + ey * ey, np.float32(1e-9)))
        distance2 = (wx - ex * t) ** 2 + (wy - ey * t) ** 2  # [steps, h, w]
        closest = distance2.argmin(axis=0)[None]
        nearest = np.take_along_axis(distance2, closest, axis=0)[0]
        along = (closest[0] + np.take_along_axis(t, closest, axis=0)[0]) / np.float32(len(step))
        side = np.take_along_axis(ex * wy - ey * wx, closest, axis=0)[0] if ridge else nearest
        ends = np.sqrt(np.maximum(np.sin(np.float32(np.pi) * along), 0))
        groove = -np.float32(depth * width) * scale / seen * np.exp(-0.5 * nearest / seen**2)
        if ridge:
            swell = np.float32(6 * scale)
            height = np.float32(ridge) * np.sqrt(nearest) / swell * np.exp(0.5 - 0.5 * nearest / swell**2)
            groove = groove + np.where(side < 0, height, 0)
        self.field[area.slices] += ends * groove

    def lit(self) -> Array:
        """[S, S, 3] the light on these heights over that on the smooth head, and the dark of the grooves."""
        scene, size = self.scene, self.scene.size
        slope_y, slope_x = np.gradient(self.field * np.float32(scene.pixels_per_mm))
        rows, columns = np.nonzero(scene.face_mask)
        if not len(rows):
            return np.ones((size, size, 3), dtype=np.float32)
        center = scene.project(np.array(HEAD_CENTER))[:2]
        x = ((columns - center[0]) / (HEAD_RADII[0] * scene.pixels_per_mm)).astype(np.float32)
        y = ((rows - center[1]) / (HEAD_RADII[1] * scene.pixels_per_mm)).astype(np.float32)
        z = -np.sqrt(np.maximum(1 - x * x - y * y, np.float32(0.15)))

        def light(x: Array, y: Array) -> Array:
            length = np.sqrt(x * x + y * y + z * z)
            return shade(x / length, y / length, z / length, scene.lighting)

        dx, dy = (np.clip(slope[rows, columns], -1.2, 1.2).astype(np.float32) * -z for slope in (slope_x, slope_y))
        smooth = light(x, y)
        ratio = np.clip((light(x - dx, y - dy) + 0.05) / (smooth + 0.05), 0.45, 1.6)
        # In a groove less of the sky is seen, and what light there is has met skin before: it is darker and redder.
        deep = np.clip(-self.field[rows, columns], 0, 3)
        ratio *= np.exp(-deep * np.array([[0.12], [0.17], [0.19]], np.float32))
        factor = np.ones((size, size, 3), dtype=np.float32)
        factor[rows, columns] = ratio.T
        return factor


def _smooth(points: Points) -> Points:
    """Rounds the corners of an open line, ends kept: [N, 2] -> [M, 2]."""
    for _ in range(2):
        cut = np.stack([0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]], axis=1)
        points = np.concatenate([points[:1], cut.reshape(-1, 2), points[-1:]])
    return points


def _across_the_forehead(height: Heights) -> None:
    rng = height.rng
    for number in range(int(rng.integers(2, 5))):
        up = 12.0 + 9.0 * number + rng.normal(0, 1.5)
        bow = rng.normal(2, 2)
        middle = 0.5 * (height.scene.landmarks[21] + height.scene.landmarks[22])
        line = [
            height.scene.offset(
                middle, right + rng.normal(0, 2), -up - bow * (1 - (right / 45) ** 2) + rng.normal(0, 0.8)
            )
            for right in (-42.0, -25.0, -8.0, 8.0, 25.0, 42.0)
        ]
        first, last = sorted(rng.choice(7, size=2, replace=False)) if rng.random() < 0.3 else (0, 6)
        if last - first >= 2:
            height.furrow(line[first:last], height.depth * rng.uniform(0.4, 1.1), rng.uniform(0.8, 1.6))


def _between_the_brows(height: Heights) -> None:
    rng = height.rng
    middle = 0.5 * (height.scene.landmarks[21] + height.scene.landmarks[22])
    for side in (-1.0, 1.0)[: int(rng.integers(1, 3))]:
        line = [height.scene.offset(middle, side * width, down) for width, down in ((4.5, 8), (4.0, 0), (5.5, -9))]
        height.furrow(line, height.depth * rng.uniform(0.4, 1.1), rng.uniform(0.7, 1.3))


def _beside_the_eye(height: Heights, side: Side) -> None:
    rng = height.rng
    for angle in np.radians(np.linspace(-38, 38, int(rng.integers(3, 6))) + rng.normal(0, 5)):
        length = rng.uniform(9, 20)
        line = [
            height.at(side.outer, side.sign * (5 + t * length * np.cos(angle)), t * length * np.sin(angle) + 2 * t * t)
            for t in (0.0, 0.5, 1.0)
        ]
        height.furrow(line, height.depth * rng.uniform(0.3, 0.8), rng.uniform(0.6, 1.0))


def _under_the_eye(height: Heights, side: Side) -> None:
    rng = height.rng
    drop = rng.uniform(9, 15)
    line = [
        height.at(side.inner, side.sign * 1.0, 5.0),
        height.at(side.inner, side.sign * 9.0, drop),
        height.at(side.outer, -side.sign * 8.0, drop),
        height.at(side.outer, side.sign * 1.0, 8.0),
    ]
    # The bag lies above its lower edge: to the left of a line that goes to the right.
    line = line if side.sign > 0 else line[::-1]
    height.furrow(line, height.depth * rng.uniform(0.3, 0.9), rng.uniform(1.2, 2.5), height.depth * rng.uniform(0, 0.8))


def _beside_the_nose(height: Heights, side: Side) -> None:
    rng = height.rng
    out = rng.uniform(6, 11)
    line = [
        height.at(side.wing, side.sign * 4.0, -4.0),
        height.at(side.wing, side.sign * 9.0, 5.0),
        height.at(side.corner, side.sign * out, -6.0),
        height.at(side.corner, side.sign * (out + 1), rng.uniform(2, 12)),
    ]
    # The cheek swells outside of it.
    line = line if side.sign > 0 else line[::-1]
    height.furrow(line, height.depth * rng.uniform(0.6, 1.5), rng.uniform(1.3, 2.6), height.depth * rng.uniform(0, 1.2))


def _below_the_mouth(height: Heights, side: Side) -> None:
    rng = height.rng
    line = [
        height.at(side.corner, side.sign * 2.0, 4.0),
        height.at(side.corner, side.sign * 4.0, 12.0),
        height.at(side.corner, side.sign * 4.0, rng.uniform(18, 28)),
    ]
    line = line if side.sign > 0 else line[::-1]
    height.furrow(line, height.depth * rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.0), height.depth * rng.uniform(0, 0.7))


def _over_the_lips(height: Heights) -> None:
    rng = height.rng
    for number in (49, 50, 51, 52, 53):
        line = [height.at(number, rng.normal(0, 1), down) for down in (0.0, -3.0, -rng.uniform(5, 9))]
        height.furrow(line, height.depth * rng.uniform(0.1, 0.4), 0.6)


def _spots(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    """Brown spots of temples, cheeks and forehead, and skin that is no longer of one colour."""
    uneven = noise(rng, scene.size, int(rng.integers(5, 14)), 3)[..., None] - np.float32(0.5)
    factor *= 1 + np.float32(0.25 * scene.age * rng.random()) * uneven * np.array([0.6, 1.0, 1.0], np.float32)
    for _ in range(int(rng.poisson(6 * scene.age**2))):
        edge = scene.landmarks[rng.choice([0, 1, 2, 3, 13, 14, 15, 16, 17, 18, 25, 26])]
        spot = scene.landmarks[30] + rng.uniform(0.5, 0.95) * (edge - scene.landmarks[30])
        spot = scene.offset(spot, 0, -rng.uniform(0, 25))
        radius = np.float32(rng.uniform(1.5, 4.5) * scene.pixels_per_mm)
        area = window(scene.size, *(spot - 3 * radius), *(spot + 3 * radius))
        if area is not None:
            distance2 = (area.x - np.float32(spot[0])) ** 2 + (area.y - np.float32(spot[1])) ** 2
            weight = np.float32(rng.uniform(0.3, 0.9)) * np.exp(-0.5 * (distance2 / radius**2) ** 2)
            factor[area.slices] *= 1 - weight[..., None] * np.array([0.28, 0.42, 0.5], np.float32)


def _brows(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    """Brows grow pale or grey: what is darker there than the skin about it becomes less so."""
    pale = np.float32(scene.age * rng.random())
    brightness = scene.face.mean(axis=2) + np.float32(0.02)
    lift = np.clip(blur(brightness, 5 * scene.pixels_per_mm) / brightness, 1, 3) - 1
    for brow in (slice(17, 22), slice(22, 27)):
        edge = scene.landmarks[brow]
        rise = scene.offset(np.zeros(2), 0, 4.0)
        outline = smooth_polygon(np.concatenate([edge - rise, (edge + 2 * rise)[::-1]]), 1)
        area = window(scene.size, *outline.min(axis=0), *outline.max(axis=0))
        if area is not None:
            weight = coverage(polygon_distance(area, outline) / np.float32(max(2 * scene.pixels_per_mm, 1.0)))
            factor[area.slices] *= 1 + (pale * weight * lift[area.slices])[..., None]
