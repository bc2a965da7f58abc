"""Things held or hanging in front of a face, from cups to captions."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from focus.data.drawing import (
    Array,
    Layer,
    Relief,
    Window,
    box_distance,
    coverage,
    mix,
    noise,
    polygon_distance,
    random_color,
    smooth_polygon,
    window,
)
from focus.data.hands import draw_grip
from focus.data.scene import ANCHORS, Scene


def _place(scene: Scene, rng: np.random.Generator, spread: float = 8.0) -> NDArray[np.float64]:
    """A random place in the face."""
    return scene.at(ANCHORS[rng.integers(len(ANCHORS))]) + spread * scene.pixels_per_mm * rng.standard_normal(2)


def _texture(rng: np.random.Generator, size: int, scale: float) -> Array:
    """A printed or natural surface [S, S, 3]."""
    kind = rng.integers(5)
    first, second = random_color(rng), random_color(rng)
    if kind == 0:
        return np.broadcast_to(first, (size, size, 3))
    line = np.arange(size, dtype=np.float32) / np.float32(scale)  # mm
    angle = rng.uniform(0, np.pi)
    u = np.float32(np.cos(angle)) * line[None, :] + np.float32(np.sin(angle)) * line[:, None]
    if kind == 1:
        return mix(first, second, (np.sin(u * np.float32(2 * np.pi / rng.uniform(6, 30))) > 0).astype(np.float32))
    if kind == 2:
        v = np.float32(np.cos(angle)) * line[:, None] - np.float32(np.sin(angle)) * line[None, :]
        period = np.float32(rng.uniform(8, 25))
        return mix(first, second, ((np.floor(u / period) + np.floor(v / period)) % 2).astype(np.float32))
    if kind == 3:
        return mix(first, second, noise(rng, size, int(rng.integers(4, 20)), 3))
    return mix(first, second, (noise(rng, size, int(rng.integers(8, 20)), 2) > 0.5).astype(np.float32))


def mug(scene: Scene, rng: np.random.Generator) -> Layer:
    """A cup, mug or can at the mouth, held by a hand or not."""
    size = scene.size
    scale = scene.pixels_per_mm * rng.uniform(0.95, 1.3)
    half_width, half_height = rng.uniform(30, 44) * scale, rng.uniform(38, 60) * scale
    tilt = scene.roll + rng.normal(0, 0.25)
    center = scene.offset(scene.at("mouth" if rng.random() < 0.75 else "nose"), rng.normal(0, 14), rng.uniform(10, 45))
    reach = half_width + half_height
    area = window(size, center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach)
    relief = Relief(size)
    if area is None:
        return relief.lit(scene.lighting)
    distance, u, v = box_distance(area, center, (half_width, half_height), tilt, 5 * scale)
    color = random_color(rng)
    albedo = np.broadcast_to(color, (*distance.shape, 3)).copy()
    decoration = rng.integers(4)
    band = np.abs(v / half_height - rng.uniform(-0.3, 0.3))
    if decoration == 1:
        np.copyto(albedo, random_color(rng), where=(band < rng.uniform(0.1, 0.35))[..., None])
    elif decoration == 2:
        mark = (u / half_width - 0.1) ** 2 + (v / half_height) ** 2 < 0.12
        np.copyto(albedo, random_color(rng), where=mark[..., None])
    elif decoration == 3:
        np.copyto(albedo, _texture(rng, size, scene.pixels_per_mm)[area.slices], where=(band < 0.6)[..., None])
    np.copyto(albedo, albedo * 0.75, where=(v < -half_height + 2.5 * scale)[..., None])
    lean = np.clip(u / half_width, -0.97, 0.97)
    steep = lean / np.sqrt(1 - lean * lean)  # a cylinder
    slopes = (steep * np.float32(np.cos(tilt)), steep * np.float32(np.sin(tilt)))
    relief.slab(area, distance, albedo, depth=-50 * scale, slopes=slopes)
    side = 1.0 if rng.random() < 0.5 else -1.0
    along, down = np.array([np.cos(tilt), np.sin(tilt)]), np.array([-np.sin(tilt), np.cos(tilt)])
    if rng.random() < 0.6:  # the handle: a bent tube
        arc = np.linspace(-np.pi / 2, np.pi / 2, 7)
        handle = [
            center + side * along * (half_width + 22 * scale * np.cos(a)) + down * 26 * scale * np.sin(a) for a in arc
        ]
        for start, end in itertools.pairwise(handle):
            relief.capsule(start, end, 5 * scale, 5 * scale, color, depth=-20 * scale)
    if rng.random() < 0.5:
        draw_grip(
            relief,
            center + down * 8 * scale,
            tilt,
            half_width,
            scale,
            side < 0,
            scene.skin_like(rng),
            rng,
            depth=-55 * scale,
        )
    return relief.lit(scene.lighting, edge=0.3, gloss=float(rng.uniform(0, 0.4)))


def phone(scene: Scene, rng: np.random.Generator) -> Layer:
    """A phone seen from its back (a selfie in a mirror) or with a lit screen, mostly held by a hand."""
    size = scene.size
    scale = scene.pixels_per_mm * rng.uniform(0.9, 1.15)
    half = (rng.uniform(34, 40) * scale, rng.uniform(68, 78) * scale)
    tilt = rng.normal(0, 0.4) + (np.pi / 2 if rng.random() < 0.2 else 0)
    center = _place(scene, rng, 14)
    reach = half[0] + half[1]
    area = window(size, center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach)
    relief = Relief(size)
    if area is None:
        return relief.lit(scene.lighting)
    distance, u, v = box_distance(area, center, half, tilt, 9 * scale)
    case = random_color(rng, 0.7) * rng.uniform(0.15, 1)
    albedo = np.broadcast_to(case.astype(np.float32), (*distance.shape, 3)).copy()
    if rng.random() < 0.6:  # its back: a camera block with lenses
        block_u, block_v = u + half[0] * 0.45, v + half[1] * 0.72
        block = np.maximum(np.abs(block_u) - 13 * scale, np.abs(block_v) - 13 * scale) < 0
        np.copyto(albedo, case * 0.6, where=block[..., None])
        for lens_u, lens_v in ((-5.5, -5.5), (5.5, 5.5), (-5.5, 5.5)):
            lens = (block_u - lens_u * scale) ** 2 + (block_v - lens_v * scale) ** 2 < (4.5 * scale) ** 2
            np.copyto(albedo, np.float32(0.02), where=lens[..., None])
        logo = u**2 + v**2 < (8 * scale) ** 2
        np.copyto(albedo, np.clip(case + 0.25, 0, 1), where=logo[..., None])
    else:
        screen = np.maximum(np.abs(u) - half[0] + 3 * scale, np.abs(v) - half[1] + 4 * scale) < 0
        rows = (np.floor(v / (9 * scale)).astype(int) + 64) % 16
        tiles = rng.random((16, 3)).astype(np.float32)
        np.copyto(albedo, 0.15 + 0.85 * tiles[rows], where=screen[..., None])
    relief.slab(
        area,
        distance,
        albedo,
        depth=-50 * scale,
        bevel=2.5 * scale,
        tilt=(float(rng.normal(0, 0.15)), float(rng.normal(0, 0.15))),
    )
    if rng.random() < 0.75:
        down = np.array([-np.sin(tilt), np.cos(tilt)])
        draw_grip(
            relief,
            center + down * rng.uniform(0.1, 0.5) * half[1],
            tilt,
            half[0],
            scale,
            bool(rng.random() < 0.5),
            scene.skin_like(rng),
            rng,
            depth=-55 * scale,
        )
    return relief.lit(scene.lighting, gloss=float(rng.uniform(0, 0.3)))


def microphone(scene: Scene, rng: np.random.Generator) -> Layer:
    """A microphone at the mouth: a ball of mesh on a tapered handle, held by a hand or on a stand."""
    size = scene.size
    scale = scene.pixels_per_mm * rng.uniform(1.1, 1.6)
    head = scene.offset(scene.at("mouth"), rng.normal(0, 14), rng.uniform(0, 22))
    angle = rng.uniform(-0.9, 0.9)
    away = np.array([np.sin(angle), np.cos(angle)])
    relief = Relief(size)
    handle = random_color(rng, 0.3) * 0.4
    relief.capsule(
        head + away * 24 * scale, head + away * 210 * scale, 15 * scale, 10 * scale, handle, depth=-40 * scale
    )
    line = np.arange(size, dtype=np.float32) / np.float32(2.2 * scale)
    mesh = 0.25 + 0.2 * (np.sin(2 * np.pi * line[None, :]) * np.sin(2 * np.pi * line[:, None]))
    tone = np.ones(3, np.float32) if rng.random() < 0.7 else random_color(rng)
    radii = (rng.uniform(24, 32) * scale, rng.uniform(24, 32) * scale)
    relief.ellipse(head, radii, angle, mesh[..., None] * tone * rng.uniform(0.5, 2.0), depth=-40 * scale)
    ring = head + away * 25 * scale
    across = np.array([away[1], -away[0]])
    relief.capsule(
        ring - across * 16 * scale,
        ring + across * 16 * scale,
        4 * scale,
        4 * scale,
        [0.6, 0.6, 0.62],
        depth=-55 * scale,
    )
    if rng.random() < 0.7:
        draw_grip(
            relief,
            head + away * rng.uniform(65, 95) * scale,
            -angle,
            14 * scale,
            scale,
            bool(rng.random() < 0.5),
            scene.skin_like(rng),
            rng,
            depth=-50 * scale,
        )
    return relief.lit(scene.lighting, gloss=0.35)


def ball(scene: Scene, rng: np.random.Generator) -> Layer:
    """A round thing: fruit, ball, balloon, ice cream."""
    relief = Relief(scene.size)
    radius = rng.uniform(24, 48) * scene.pixels_per_mm
    albedo = _texture(rng, scene.size, scene.pixels_per_mm)
    relief.ellipse(_place(scene, rng), (radius, radius * rng.uniform(0.75, 1)), rng.uniform(0, np.pi), albedo)
    return relief.lit(scene.lighting, edge=0.4, gloss=float(rng.uniform(0, 0.5)))


def book(scene: Scene, rng: np.random.Generator) -> Layer:
    """A sheet, card or book with lines of print or a picture on it."""
    size, scale = scene.size, scene.pixels_per_mm
    half = (rng.uniform(35, 90) * scale, rng.uniform(35, 100) * scale)
    tilt = rng.normal(0, 0.5)
    side = rng.normal(0, 35)
    center = scene.offset(scene.at("mouth"), side, rng.uniform(-10, 60))
    reach = half[0] + half[1]
    area = window(size, center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach)
    relief = Relief(size)
    if area is None:
        return relief.lit(scene.lighting)
    distance, u, v = box_distance(area, center, half, tilt, 1.5 * scale)
    paper = random_color(rng, 0.3) if rng.random() < 0.5 else np.array([0.9, 0.88, 0.84], np.float32)
    albedo = np.broadcast_to(paper, (*distance.shape, 3)).copy()
    if rng.random() < 0.6:
        words = noise(rng, size, (4, 16))[area.slices]
        printed = (
            (np.sin(v / scale * np.float32(2 * np.pi / rng.uniform(7, 12))) > 0.3)
            & (words > 0.35)
            & (distance < -6 * scale)
        )
        np.copyto(albedo, paper * 0.2, where=printed[..., None])
    else:
        np.copyto(albedo, _texture(rng, size, scale)[area.slices], where=(distance < -8 * scale)[..., None])
    relief.slab(
        area,
        distance,
        albedo,
        tilt=(float(rng.normal(0, 0.3)), float(rng.normal(0, 0.3))),
        slopes=(u / half[0] * 0.15, 0 * v),
    )
    return relief.lit(scene.lighting)


def patch(scene: Scene, rng: np.random.Generator) -> Layer:
    """A textured polygon or blob: any thing that no other kind covers."""
    size = scene.size
    center = _place(scene, rng)
    count = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count)) if rng.random() < 0.5 else np.arange(count) * 2 * np.pi / count
    radii = rng.uniform(18, 62) * scene.pixels_per_mm * rng.uniform(0.5, 1.2, count)
    outline = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    soft = rng.random() < 0.5
    return _flat(
        scene, rng, smooth_polygon(outline, 2) if soft else outline, _texture(rng, size, scene.pixels_per_mm), soft
    )


def skin_patch(scene: Scene, rng: np.random.Generator) -> Layer:
    """Something of the colour of this skin: a shoulder, a knee, a cheek against the face."""
    relief = Relief(scene.size)
    scale = scene.pixels_per_mm
    skin = scene.skin * rng.uniform(0.9, 1.1)
    albedo = skin * (0.92 + 0.16 * noise(rng, scene.size, 8, 2)[..., None])
    if rng.random() < 0.5:
        center, angle = _place(scene, rng), rng.uniform(0, np.pi)
        relief.ellipse(center, (rng.uniform(28, 70) * scale, rng.uniform(25, 50) * scale), angle, albedo)
    else:  # an arm across the face
        heading = np.array([np.cos(t := rng.normal(0, 0.5)), np.sin(t)]) * 300 * scale
        center, radius = _place(scene, rng), rng.uniform(22, 38) * scale
        relief.capsule(center - heading, center + heading * rng.uniform(0.1, 1), radius * 1.2, radius * 0.9, albedo)
    return relief.lit(scene.lighting, edge=0.3)


def face_patch(scene: Scene, rng: np.random.Generator) -> Layer:
    """A piece of this very face, mirrored and moved to another place: only its structure is wrong."""
    size, scale = scene.size, scene.pixels_per_mm
    target, source_place = _place(scene, rng), _place(scene, rng)
    source, known = scene.face, scene.face_mask
    if rng.random() < 0.5:
        source, known = source[:, ::-1], known[:, ::-1]
        source_place = np.array([size - 1 - source_place[0], source_place[1]])
    shift = np.rint(target - source_place).astype(int)
    if np.abs(shift).max() < 12 * scale:  # it would show nearly what it hides
        shift[rng.integers(2)] += int(np.rint(25 * scale))
    source, known = np.roll(source, shift[::-1], axis=(0, 1)), np.roll(known, shift[::-1], axis=(0, 1))
    color = np.where(known[..., None], source, scene.skin * 0.9).astype(np.float32)
    radii = (rng.uniform(25, 50) * scale, rng.uniform(20, 42) * scale)
    x, y = np.arange(size, dtype=np.float32)[None, :], np.arange(size, dtype=np.float32)[:, None]
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = ((x - target[0]) * cos + (y - target[1]) * sin) / np.float32(radii[0])
    v = ((y - target[1]) * cos - (x - target[0]) * sin) / np.float32(radii[1])
    return Layer(color, coverage((np.sqrt(u * u + v * v) - 1).astype(np.float32) * np.float32(min(radii))))


_GLYPHS = {
    "A": (0b01110, 0b10001, 0b11111, 0b10001, 0b10001),
    "B": (0b11110, 0b10001, 0b11110, 0b10001, 0b11110),
    "C": (0b01111, 0b10000, 0b10000, 0b10000, 0b01111),
    "E": (0b11111, 0b10000, 0b11110, 0b10000, 0b11111),
    "H": (0b10001, 0b10001, 0b11111, 0b10001, 0b10001),
    "I": (0b01110, 0b00100, 0b00100, 0b00100, 0b01110),
    "K": (0b10010, 0b10100, 0b11000, 0b10100, 0b10010),
    "L": (0b10000, 0b10000, 0b10000, 0b10000, 0b11111),
    "N": (0b10001, 0b11001, 0b10101, 0b10011, 0b10001),
    "O": (0b01110, 0b10001, 0b10001, 0b10001, 0b01110),
    "S": (0b01111, 0b10000, 0b01110, 0b00001, 0b11110),
    "T": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100),
    "X": (0b10001, 0b01010, 0b00100, 0b01010, 0b10001),
    "Z": (0b11111, 0b00010, 0b00100, 0b01000, 0b11111),
}
"""Five rows of five bits."""


def text(scene: Scene, rng: np.random.Generator) -> Layer:
    """A caption, watermark or sticker: bold letters, mostly on a plate."""
    size = scene.size
    letters = np.array(list(_GLYPHS.values()))[rng.integers(len(_GLYPHS), size=int(rng.integers(2, 8)))]  # [n, 5]
    bits = (letters[:, :, None] >> np.arange(4, -1, -1)) & 1  # [n, 5, 5]
    bitmap = np.pad(np.concatenate(list(np.pad(bits, ((0, 0), (1, 1), (1, 0)))), axis=1), ((0, 0), (0, 1))).astype(
        np.float32
    )
    height = rng.uniform(18, 45) * scene.pixels_per_mm
    half = (height / 2 * bitmap.shape[1] / bitmap.shape[0] * 1.2, height / 2)
    center, tilt = _place(scene, rng), rng.normal(0, 0.25)
    reach = half[0] + half[1]
    area = window(size, center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach)
    alpha, color = np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.float32)
    if area is None:
        return Layer(color, alpha)
    distance, u, v = box_distance(area, center, half, tilt)
    column = np.clip((u / half[0] * 0.5 + 0.5) * bitmap.shape[1], 0, bitmap.shape[1] - 1).astype(int)
    row = np.clip((v / half[1] * 0.5 + 0.5) * bitmap.shape[0], 0, bitmap.shape[0] - 1).astype(int)
    ink = bitmap[row, column]
    plate = rng.random() < 0.7
    color[area.slices] = mix(random_color(rng), random_color(rng), ink)
    alpha[area.slices] = coverage(distance) * (1.0 if plate else ink)
    return Layer(color, alpha)


def leaves(scene: Scene, rng: np.random.Generator) -> Layer:
    """A twig with leaves in the foreground."""
    relief = Relief(scene.size)
    scale = scene.pixels_per_mm
    green = np.array([0.15, 0.35, 0.1], np.float32) * rng.uniform(0.6, 1.8, 3).astype(np.float32)
    center, heading = _place(scene, rng), rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(heading), np.sin(heading)])
    relief.capsule(
        center - along * 110 * scale, center + along * 60 * scale, 2.5 * scale, 1.5 * scale, [0.3, 0.2, 0.12]
    )
    across = np.array([-along[1], along[0]])
    for number in range(int(rng.integers(4, 10))):
        side = 1 if number % 2 else -1
        base = center + along * scale * rng.uniform(-60, 60)
        length = rng.uniform(18, 34) * scale
        middle = base + (across * side + 0.7 * along) * length * 0.8
        angle = float(np.arctan2(*(middle - base)[::-1]))
        relief.ellipse(
            middle,
            (length, length * rng.uniform(0.3, 0.5)),
            angle,
            np.clip(green * rng.uniform(0.7, 1.3), 0, 1),
            depth=-number,
        )
    return relief.lit(scene.lighting, edge=0.4)


def _flat(scene: Scene, rng: np.random.Generator, outline: NDArray[np.floating], albedo: Array, rounded: bool) -> Layer:
    """A flat or cushioned polygon."""
    relief = Relief(scene.size)
    area: Window | None = window(scene.size, *outline.min(axis=0), *outline.max(axis=0))
    if area is not None:
        tilt = (float(rng.normal(0, 0.3)), float(rng.normal(0, 0.3)))
        bevel = 12 * scene.pixels_per_mm if rounded else 0.0
        relief.slab(area, polygon_distance(area, outline), albedo[area.slices], tilt=tilt, bevel=bevel)
    return relief.lit(scene.lighting)
