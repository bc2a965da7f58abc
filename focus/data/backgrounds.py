"""What is behind a synthetic face: a place, and the head, hair, neck and shoulders that the face belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from focus.data.drawing import Array, Relief, blur, box_distance, coverage, mix, noise, random_color, streaks, window
from focus.data.scene import HEAD_CENTER, HEAD_RADII, Scene

_HAIR_COLORS = np.array(
    [
        [0.05, 0.04, 0.04],
        [0.12, 0.07, 0.05],
        [0.25, 0.15, 0.09],
        [0.45, 0.31, 0.18],
        [0.68, 0.52, 0.32],
        [0.45, 0.18, 0.09],
        [0.62, 0.60, 0.58],
    ]
)


def hair_color(rng: np.random.Generator) -> Array:
    """An RGB albedo of natural hair; now and then a dyed one."""
    if rng.random() < 0.05:
        return random_color(rng)
    first, second = rng.integers(len(_HAIR_COLORS), size=2)
    mixed = _HAIR_COLORS[first] + rng.random() * 0.5 * (_HAIR_COLORS[second] - _HAIR_COLORS[first])
    albedo: Array = np.clip(mixed * rng.uniform(0.8, 1.2), 0.01, 1).astype(np.float32)
    return albedo


def _color(rng: np.random.Generator) -> Array:
    """Of a wall, a meadow, a shelf: few are saturated."""
    return random_color(rng, float(rng.random() ** 1.5 * 0.8))


def draw_background(rng: np.random.Generator, size: int) -> Array:
    """A place [S, S, 3], RGB in [0, 1]: plain, gradient, room, landscape, lights at night, or pattern."""
    kinds = (_studio, _gradient, _texture, _room, _landscape, _lights, _pattern)
    kind = kinds[rng.choice(len(kinds), p=(0.14, 0.12, 0.14, 0.22, 0.2, 0.1, 0.08))]
    picture: Array = np.clip(kind(rng, size) * rng.uniform(0.6, 1.15), 0, 1).astype(np.float32)
    return picture


def _grid(size: int) -> tuple[Array, Array]:
    """Coordinates x [1, S] and y [S, 1] from -1 to 1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[None, :], line[:, None]


def _studio(rng: np.random.Generator, size: int) -> Array:
    x, y = _grid(size)
    center_x, center_y = rng.uniform(-0.5, 0.5, 2)
    falloff = np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / rng.uniform(0.8, 3))
    color = random_color(rng, rng.random())
    return mix(color * rng.uniform(0.4, 0.9), color, falloff)


def _gradient(rng: np.random.Generator, size: int) -> Array:
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    return mix(_color(rng), _color(rng), 0.5 + 0.35 * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y))


def _texture(rng: np.random.Generator, size: int) -> Array:
    picture = mix(_color(rng), _color(rng), noise(rng, size, int(rng.integers(2, 9)), octaves=3))
    return picture * (0.8 + 0.4 * noise(rng, size, 12)[..., None])


def _room(rng: np.random.Generator, size: int) -> Array:
    """A wall with windows, pictures, shelves and doors, out of focus."""
    picture = (
        _gradient(rng, size)
        if rng.random() < 0.3
        else mix(_color(rng), _color(rng), _grid(size)[1] * 0.3 + 0.5 + 0 * _grid(size)[0])
    )
    for _ in range(int(rng.integers(2, 8))):
        center = rng.uniform(-0.1, 1.1, 2) * size
        half = (rng.uniform(0.03, 0.35) * size, rng.uniform(0.05, 0.5) * size)
        area = window(size, center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1])
        if area is None:
            continue
        distance, _, v = box_distance(area, center, half, 0.0)
        color = np.array([1.2, 1.2, 1.15], np.float32) if rng.random() < 0.15 else _color(rng)
        shaded = color * (1 + 0.2 * np.sin(v * rng.uniform(0.05, 0.6))[..., None])
        alpha = coverage(distance)[..., None]
        picture[area.slices] += alpha * (shaded - picture[area.slices])
    return blur(picture, size * rng.uniform(0.003, 0.05))


def _landscape(rng: np.random.Generator, size: int) -> Array:
    """Sky, hills or trees, and ground."""
    x, y = _grid(size)
    sky_colors = ([0.45, 0.65, 0.95], [0.75, 0.8, 0.85], [0.95, 0.7, 0.5], [0.3, 0.4, 0.6])
    sky = (
        mix(sky_colors[rng.integers(4)], [0.95, 0.95, 0.95], np.float32(0.5) * (y + 1) + 0 * x)
        + 0.12 * noise(rng, size, (3, 2), 3)[..., None]
    )
    greens = np.array([[0.12, 0.25, 0.08], [0.25, 0.35, 0.12], [0.35, 0.25, 0.12], [0.1, 0.18, 0.12], [0.4, 0.38, 0.3]])
    leaves = mix(
        greens[rng.integers(5)] * 0.5, greens[rng.integers(5)] * 1.6, noise(rng, size, int(rng.integers(6, 16)), 3)
    )
    ground = mix(greens[rng.integers(5)], greens[rng.integers(5)] * 1.4, noise(rng, size, 8, 2))
    tree_line = rng.uniform(-1.0, 0.6) + 0.5 * (noise(rng, size, 5, 3)[0][None, :] - 0.5)
    horizon = rng.uniform(0.0, 1.0)
    softness = np.float32(size * 0.15)
    picture = sky + np.clip((y - tree_line) * softness, 0, 1)[..., None] * (leaves - sky)
    picture = picture + np.clip((y - horizon) * softness, 0, 1)[..., None] * (ground - picture)
    return blur(picture, size * rng.uniform(0.0, 0.04))


def _lights(rng: np.random.Generator, size: int) -> Array:
    """Lights out of focus on dark."""
    picture = mix(_color(rng) * 0.2, _color(rng) * 0.3, noise(rng, size, 3, 2))
    for _ in range(int(rng.integers(6, 20))):
        (cx, cy), radius = rng.uniform(0, size, 2), size * rng.uniform(0.02, 0.09)
        area = window(size, cx - radius, cy - radius, cx + radius, cy + radius)
        if area is None:
            continue
        distance = np.sqrt((area.x - np.float32(cx)) ** 2 + (area.y - np.float32(cy)) ** 2) - np.float32(radius)
        picture[area.slices] += rng.uniform(0.3, 0.9) * coverage(distance)[..., None] * random_color(rng, 0.5)
    return picture


def _pattern(rng: np.random.Generator, size: int) -> Array:
    """Bricks, tiles or stripes."""
    x, y = _grid(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.4)
    u = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) / np.float32(period)
    v = (np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x) / np.float32(period)
    kind = rng.integers(3)
    if kind == 0:
        weight = 0.5 + 0.5 * np.sin(2 * np.pi * u)
    elif kind == 1:
        weight = np.clip(0.5 + 4 * np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v), 0, 1)
    else:
        shifted = u + 0.5 * (np.floor(v * 2) % 2)
        weight = np.minimum(np.clip(np.abs(shifted % 1 - 0.5) * 16, 0, 1), np.clip(np.abs(v * 2 % 1 - 0.5) * 10, 0, 1))
    return blur(mix(_color(rng), _color(rng), weight.astype(np.float32)), size * rng.uniform(0, 0.02)) * (
        0.85 + 0.3 * noise(rng, size, 6)[..., None]
    )


def draw_surroundings(scene: Scene, background: Array, rng: np.random.Generator) -> Array:
    """Head, ears, hair, neck and shoulders over a background [S, S, 3]; the face itself comes on top later.

    Ellipsoids at the places of an average head (mm from its centre between the ears): they turn with the face and share
    its light.
    """
    size, scale = scene.size, scene.pixels_per_mm
    relief = Relief(size)

    def solid(
        center: Sequence[float],
        radii: Sequence[float],
        albedo: Array,
        keep: tuple[Sequence[float], float] | None = None,
    ) -> None:
        relief.ellipsoid(
            scene.project(np.array(center)), [radius * scale for radius in radii], scene.rotation, albedo, keep
        )

    # Shoulders and neck hang below the head and stay upright when it turns.
    neck = scene.project(np.array([0.0, -85.0, -45.0]))
    shoulders = scene.head + scale * np.array([rng.normal(0, 12), rng.uniform(250, 285), 0])
    cloth = random_color(rng, rng.uniform(0.1, 0.9)) * (0.8 + 0.4 * noise(rng, size, 10)[..., None])
    relief.capsule(neck[:2], 0.3 * neck[:2] + 0.7 * shoulders[:2], 54 * scale, 60 * scale, scene.skin * 0.9, neck[2])
    radii = (rng.uniform(190, 250) * scale, rng.uniform(95, 125) * scale, 80 * scale)
    relief.ellipsoid((*shoulders[:2], neck[2] - 15 * scale), radii, np.diag([1.0, -1.0, -1.0]), cloth)

    solid(HEAD_CENTER, HEAD_RADII, scene.skin)
    ear = np.clip(scene.skin * np.array([1.05, 0.93, 0.92], np.float32), 0, 1)
    for side in (-1, 1):
        solid((side * 73, -14, -14), (8, 31, 17), ear)
    _draw_hair(scene, relief, solid, rng)
    return relief.lit(scene.lighting, edge=0.2).over(background)


def _draw_hair(scene: Scene, relief: Relief, solid: Callable[..., None], rng: np.random.Generator) -> None:
    """Bald, short, half-long or long hair: a cap cut off at the hairline, a mass behind, and locks beside the face."""
    gone = 0.15 * scene.age  # hair falls out with the years
    style = rng.choice(4, p=(0.08 + gone, 0.42, 0.2, 0.3 - gone))
    scale, size = scene.pixels_per_mm, scene.size
    across = (
        np.arange(size, dtype=np.float32)[None, :]
        + np.float32(rng.uniform(-0.6, 0.6)) * np.arange(size, dtype=np.float32)[:, None]
    )
    lock = streaks(rng, across + 6 * scale * noise(rng, size, 4), 3 * scale)
    color = scene.hair * (0.6 + 0.8 * lock[..., None])
    volume = rng.uniform(4, 20)
    if style == 0:
        return
    hairline = (0.0, 1.0, -0.6), rng.uniform(-0.2, 0.1)
    solid((0, 24, -18), (75 + 0.6 * volume, 93 + volume, 94 + volume), color, hairline)
    if style == 1:
        return
    length = rng.uniform(60, 110) if style == 2 else rng.uniform(120, 240)
    solid((0, -25 - 0.35 * length, -50), (80 + volume, 80 + 0.6 * length, 50), color * 0.8)
    for side in (-1, 1):
        for number in range(2):
            top = scene.project(
                np.array([side * (62 + 9 * number + 0.5 * volume), 40.0 - 12 * number, -8.0 - 14 * number])
            )
            reach = np.array([side * rng.uniform(-6, 22), length * rng.uniform(0.8, 1.1) + 70])
            width = rng.uniform(11, 18) * scale
            relief.capsule(
                top[:2],
                top[:2] + scale * (reach @ scene.axes),
                width,
                width * rng.uniform(0.3, 1.2),
                color,
                top[2],
                roundness=0.45,
            )
