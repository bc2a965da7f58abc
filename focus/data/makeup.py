"""Pigment that no morphable model holds (moles, freckles, stubble, make-up), and face paint, which is an occluder.

The rule of the true masks: pigment through which the face's own shading and structure still show is face, however
unlike the model (`draw_pigment`); paint that covers them is an outlier (`face_paint`). The paper counts all make-up
among the outliers since the model cannot explain it; the pixels of light make-up are few, and no annotator would cut a
mole out of a face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focus.data.drawing import (
    Array,
    Layer,
    Relief,
    coverage,
    noise,
    polygon_distance,
    random_color,
    smooth_polygon,
    window,
)
from focus.data.scene import Scene


def draw_pigment(scene: Scene, rng: np.random.Generator) -> Array:
    """A factor [S, S, 3] on the face's albedo, near 1; some of the kinds, each by its own chance."""
    factor = np.ones((scene.size, scene.size, 3), dtype=np.float32)
    chances = rng.random(7)
    if chances[0] < 0.35:
        _moles(scene, rng, factor)
    if chances[1] < 0.2:
        _freckles(scene, rng, factor)
    if chances[2] < 0.25:
        _stubble(scene, rng, factor)
    if chances[3] < 0.3:
        _lipstick(scene, rng, factor)
    if chances[4] < 0.25:
        _eye_shadow(scene, rng, factor)
    if chances[5] < 0.3:
        _blush(scene, rng, factor)
    if chances[6] < 0.3:  # uneven skin
        factor *= 1 + 0.08 * (noise(rng, scene.size, int(rng.integers(4, 12)), 2)[..., None] - 0.5)
    return factor


def _stain(
    factor: Array, center: NDArray[np.floating], radii: tuple[float, float], color: Array, strength: float
) -> None:
    """Multiplies a soft round spot in: `color` is the factor at full strength."""
    area = window(len(factor), *np.asarray(center) - 2.5 * np.array(radii), *np.asarray(center) + 2.5 * np.array(radii))
    if area is not None:
        u, v = (
            (area.x - np.float32(center[0])) / np.float32(radii[0]),
            (area.y - np.float32(center[1])) / np.float32(radii[1]),
        )
        weight = np.float32(strength) * np.exp(-0.5 * (u * u + v * v))
        factor[area.slices] *= 1 + weight[..., None] * (color - 1)


def _moles(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    for _ in range(int(rng.integers(1, 5))):
        jaw, nose = scene.landmarks[rng.integers(17)], scene.landmarks[30]
        spot = nose + rng.uniform(0.2, 0.95) * (jaw - nose)
        radius = rng.uniform(1.2, 3.0) * scene.pixels_per_mm
        _stain(factor, spot, (radius, radius), np.array([0.35, 0.25, 0.22], np.float32), rng.uniform(0.6, 1))


def _freckles(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    spots = np.clip(noise(rng, scene.size, max(int(20 * scene.size / 72), 8)) * 6 - 4, 0, 1)
    weight = np.ones_like(factor)
    for anchor in ("left_cheek", "right_cheek", "nose"):
        spread = 26 * scene.pixels_per_mm
        _stain(weight, scene.at(anchor), (spread, spread * 0.7), np.zeros(3, np.float32), 1.0)
    factor *= 1 - rng.uniform(0.2, 0.5) * (spots[..., None] * (1 - weight)) * np.array([0.4, 0.6, 0.7], np.float32)


def _stubble(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    outline = np.concatenate([scene.landmarks[3:14], scene.landmarks[[35, 33, 31]]])
    area = window(scene.size, *outline.min(axis=0) - 8, *outline.max(axis=0) + 8)
    if area is None:
        return
    distance = polygon_distance(area, outline)
    weight = np.clip(0.5 - distance / np.float32(12 * scene.pixels_per_mm), 0, 1) * (
        0.7 + 0.5 * noise(rng, scene.size, 30)[area.slices]
    )
    factor[area.slices] *= 1 - rng.uniform(0.1, 0.35) * weight[..., None] * np.array([1.0, 0.95, 0.85], np.float32)


def _lipstick(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    outline = smooth_polygon(scene.landmarks[48:60], 1)
    area = window(scene.size, *outline.min(axis=0), *outline.max(axis=0))
    if area is None:
        return
    alpha = coverage(polygon_distance(area, outline)) * rng.uniform(0.4, 1)
    reds = np.array(
        [[1.05, 0.45, 0.5], [0.85, 0.35, 0.4], [1.1, 0.6, 0.75], [0.6, 0.3, 0.35], [1.15, 0.7, 0.6]], np.float32
    )
    factor[area.slices] *= 1 + alpha[..., None] * (reds[rng.integers(5)] - 1)


def _eye_shadow(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    color = np.array([rng.uniform(0.4, 0.9), rng.uniform(0.35, 0.85), rng.uniform(0.4, 1.0)], np.float32)
    strength = rng.uniform(0.3, 0.8)
    for eye, brow in ((slice(36, 42), slice(17, 22)), (slice(42, 48), slice(22, 27))):
        center = 0.65 * scene.landmarks[eye].mean(axis=0) + 0.35 * scene.landmarks[brow].mean(axis=0)
        _stain(factor, center, (14 * scene.pixels_per_mm, 5 * scene.pixels_per_mm), color, strength)


def _blush(scene: Scene, rng: np.random.Generator, factor: Array) -> None:
    strength, radius = rng.uniform(0.1, 0.3), rng.uniform(12, 20) * scene.pixels_per_mm
    for anchor in ("left_cheek", "right_cheek"):
        _stain(factor, scene.at(anchor), (radius, radius), np.array([1.1, 0.6, 0.6], np.float32), strength)


def face_paint(scene: Scene, rng: np.random.Generator) -> Layer:
    """Opaque paint: strokes over the cheeks, a half-painted face, a mask round the eyes, a clown's mouth or a flag."""
    size, scale = scene.size, scene.pixels_per_mm
    color = random_color(rng)
    kind = rng.integers(5)
    picture = np.broadcast_to(color, (size, size, 3)).astype(np.float32)
    if kind == 0:  # strokes
        relief = Relief(size)
        slope = rng.normal(0, 0.4)
        for side in (1.0, -1.0):
            for number in range(int(rng.integers(2, 5))):
                start = scene.offset(scene.at("left_cheek" if side < 0 else "right_cheek"), side * 18, 13 * number - 16)
                end = scene.offset(start, -side * rng.uniform(28, 45), 30 * slope)
                paint = color if rng.random() < 0.6 else random_color(rng)
                relief.capsule(start, end, 5 * scale, 3.5 * scale, paint)
        alpha, picture = relief.alpha, relief.albedo
    else:
        outlines = {
            1: np.concatenate(
                [
                    scene.landmarks[:9],
                    scene.landmarks[[57, 33, 30, 27]],
                    scene.offset(scene.landmarks[27], 0, -60)[None],
                    scene.offset(scene.landmarks[0], 0, -60)[None],
                ]
            ),
            2: np.concatenate(
                [scene.landmarks[17:27], scene.landmarks[[15, 14]], scene.landmarks[[29]], scene.landmarks[[2, 1]]]
            ),
            3: scene.landmarks[48:60].mean(axis=0)
            + rng.uniform(1.5, 2.0) * (scene.landmarks[48:60] - scene.landmarks[48:60].mean(axis=0)),
            4: np.concatenate([scene.landmarks[1:16], scene.landmarks[[29]]]),
        }
        outline = smooth_polygon(outlines[int(kind)], 1)
        if kind == 1 and rng.random() < 0.5:
            picture = np.where(
                (np.arange(size) // max(int(12 * scale), 1) % 2 == 0)[:, None, None], picture, random_color(rng)
            )
        alpha = np.zeros((size, size), np.float32)
        area = window(size, *outline.min(axis=0), *outline.max(axis=0))
        if area is not None:
            alpha[area.slices] = coverage(polygon_distance(area, outline) * np.float32(0.7))
    # Paint lies on the skin: it takes the light of the face, read from the rendering's brightness.
    light = (
        scene.face.mean(axis=2) / max(float(scene.face[scene.face_mask].mean()), 0.05)
        if scene.face_area
        else np.ones((size, size))
    )
    return Layer(
        (picture * (0.4 + 0.6 * light[..., None])).astype(np.float32), (alpha * rng.uniform(0.8, 1)).astype(np.float32)
    )
