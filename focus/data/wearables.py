"""What people wear on their faces: glasses, masks, scarves, caps, hair, beards; placed by landmarks, so by pose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focus.data.backgrounds import hair_color
from focus.data.drawing import (
    Array,
    Layer,
    Relief,
    box_distance,
    coverage,
    front_light,
    noise,
    polygon_distance,
    random_color,
    smooth_polygon,
    streaks,
    whole,
    window,
)
from focus.data.scene import Scene


def _face_coordinates(scene: Scene, origin: NDArray[np.float64]) -> tuple[Array, Array]:
    """(right, down) in mm of every pixel, along the axes of the upright face, [S, S] each."""
    area = whole(scene.size)
    axes = (scene.axes / scene.pixels_per_mm).astype(np.float32)
    dx, dy = area.x - np.float32(origin[0]), area.y - np.float32(origin[1])
    return axes[0, 0] * dx + axes[0, 1] * dy, axes[1, 0] * dx + axes[1, 1] * dy


def glasses(scene: Scene, rng: np.random.Generator) -> Layer:
    """Clear glasses: a frame round both eyes, bridge and temples; lenses hardly tinted, some with a reflection."""
    return _glasses(
        scene,
        rng,
        tint=float(rng.uniform(0, 0.25)),
        reflection=bool(rng.random() < 0.5),
        frame=float(rng.uniform(3.0, 6.5)),
    )


def sunglasses(scene: Scene, rng: np.random.Generator) -> Layer:
    """Dark or mirrored glasses."""
    return _glasses(
        scene,
        rng,
        tint=float(rng.uniform(0.75, 1.0)),
        reflection=bool(rng.random() < 0.4),
        frame=float(rng.uniform(1.5, 5)),
    )


def _glasses(scene: Scene, rng: np.random.Generator, tint: float, reflection: bool, frame: float) -> Layer:
    size, scale = scene.size, scene.pixels_per_mm
    eyes = np.stack([scene.landmarks[36:42].mean(axis=0), scene.landmarks[42:48].mean(axis=0)])
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    narrow = float(np.clip(np.linalg.norm(across) / (63 * scale), 0.45, 1.05))  # foreshortening when the head is turned
    half_height = rng.uniform(15, 25) * scale
    half_width = rng.uniform(25, 30) * scale
    corner = rng.uniform(0.2, 1.0) * half_height
    drop = rng.uniform(-1, 6)
    lens_color = random_color(rng, 0.6) * 0.35 if rng.random() < 0.7 else random_color(rng)
    frame_color = random_color(rng, 0.8) * rng.uniform(0.1, 1)
    light = front_light(scene.lighting)
    color = np.broadcast_to((frame_color * light).astype(np.float32), (size, size, 3)).copy()
    alpha = np.zeros((size, size), dtype=np.float32)
    streak_at, streak_slope = rng.uniform(-0.6, 0.4), rng.uniform(0.2, 0.7)
    turn = float(np.sign(scene.rotation[0, 2]) or 1.0)  # which way the face looks: > 0 to the image's right
    for number, side in enumerate((-1.0, 1.0)):
        far = narrow * (0.92 if side == turn else 1.04)
        center = scene.offset(eyes[number], side * 1.5 * narrow, drop)
        half = (half_width * far, half_height)
        reach = half_width + half_height + frame * scale + 2
        area = window(size, center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach)
        if area is None:
            continue
        distance, u, v = box_distance(area, center, half, angle, corner * min(1.0, far))
        lens = coverage(distance)
        rim = coverage(np.abs(distance) - np.float32(0.5 * frame * scale))
        inside = np.float32(tint) * lens * (1 - 0.25 * np.clip(v / half_height, -1, 1))
        picture = np.broadcast_to((lens_color * light * 0.8).astype(np.float32), (*lens.shape, 3)).copy()
        if reflection:
            stripe = np.clip(1.5 - np.abs(u / half[0] + streak_slope * v / half_height - streak_at) * 6, 0, 1) * lens
            picture += stripe[..., None] * (np.float32(0.95) - picture)
            inside = np.maximum(inside, 0.8 * stripe)
        rim_weight = rim[..., None]
        picture += rim_weight * (color[area.slices] - picture)
        total = np.clip(np.maximum(inside, rim), 0, 1)
        stronger = total > alpha[area.slices]
        np.copyto(alpha[area.slices], total, where=stronger)
        np.copyto(color[area.slices], picture, where=stronger[..., None])
    relief = Relief(size)
    toward = np.array([np.cos(angle), np.sin(angle)])
    inner = [
        scene.offset(eyes[n], side * 1.5 * narrow, drop) - side * toward * half_width * narrow
        for n, side in enumerate((-1.0, 1.0))
    ]
    lift = scene.axes[1] * -0.35 * half_height
    relief.capsule(inner[0] + lift, inner[1] + lift, 0.5 * frame * scale, 0.5 * frame * scale, frame_color)
    for number, side in enumerate((-1.0, 1.0)):
        start = scene.offset(eyes[number], side * 1.5 * narrow, drop) + side * toward * half_width * narrow + lift
        ear = scene.landmarks[0 if side < 0 else 16] + scene.axes[1] * -6 * scale
        if side != turn or narrow > 0.85:  # the far temple is hidden by the face
            relief.capsule(start, ear, 0.5 * frame * scale, 0.4 * frame * scale, frame_color)
    return Layer(color, alpha).on(relief.lit(scene.lighting))


def surgical_mask(scene: Scene, rng: np.random.Generator) -> Layer:
    """A mask over mouth and nose (or worn below the nose), with pleats and ear loops."""
    points, scale, size = scene.landmarks, scene.pixels_per_mm, scene.size
    below_nose = rng.random() < 0.2
    top = points[33] if below_nose else _blend(points[27], points[29], rng.uniform(0.4, 0.9))
    first = int(rng.integers(1, 4))
    left = list(range(first, 8))
    right = list(range(9, 17 - first))
    chin = scene.offset(points[8], 0, rng.uniform(2, 10))
    outline = np.concatenate(
        [
            top[None],
            _blend(points[first], top, 0.45)[None],
            points[left],
            chin[None],
            points[right],
            _blend(points[16 - first], top, 0.45)[None],
        ]
    )
    outline = smooth_polygon(outline, 1)
    area = window(size, *outline.min(axis=0), *outline.max(axis=0))
    if area is None:
        return Relief(size).lit(scene.lighting)
    distance = polygon_distance(area, outline)
    palette = np.array(
        [[0.85, 0.88, 0.9], [0.45, 0.65, 0.85], [0.5, 0.75, 0.72], [0.06, 0.06, 0.07], [0.85, 0.6, 0.66]]
    )
    cloth = palette[rng.integers(5)] if rng.random() < 0.8 else random_color(rng)
    right_mm, down_mm = _face_coordinates(scene, points[30])
    right_mm, down_mm = right_mm[area.slices], down_mm[area.slices]
    albedo = np.broadcast_to(cloth.astype(np.float32), (*distance.shape, 3))
    if rng.random() < 0.15:
        albedo = albedo * (0.6 + 0.6 * (noise(rng, size, int(rng.integers(6, 14)))[area.slices][..., None] > 0.5))
    period, pleats = rng.uniform(11, 18), rng.uniform(0.0, 0.9) * (rng.random() < 0.75)
    phase = down_mm + right_mm**2 * np.float32(0.002)
    slopes = (
        np.float32(0.011) * right_mm,  # round like the face under it
        np.float32(0.006) * (down_mm - 20)
        + np.float32(pleats) * np.maximum(np.sin(2 * np.pi * phase / np.float32(period)), 0) ** 4,
    )
    relief = Relief(size)
    relief.slab(
        area,
        distance,
        albedo,
        depth=-30 * scale,
        tilt=(float(scene.rotation[0, 2]), float(scene.rotation[1, 2])),
        slopes=slopes,
    )
    for corner, ear in ((left[0], 0), (right[-1], 16)):
        relief.capsule(points[corner], scene.offset(points[ear], 0, -15), 0.8 * scale, 0.8 * scale, cloth)
    return relief.lit(scene.lighting, edge=0.3)


def _blend(first: NDArray[np.float64], second: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    blended: NDArray[np.float64] = first + weight * (second - first)
    return blended


def scarf(scene: Scene, rng: np.random.Generator) -> Layer:
    """A scarf or veil up to the mouth, the nose or under the eyes, with folds and a knitted or printed pattern."""
    size = scene.size
    right, down = _face_coordinates(scene, scene.landmarks[30])
    edge = rng.choice(np.array([26.0, 12.0, -6.0])) + rng.normal(0, 4)
    sag = rng.uniform(-0.002, 0.004)
    line = edge - sag * right**2 + 5 * (noise(rng, size, (1, 5))[0][None, :] - 0.5) + rng.uniform(-0.15, 0.15) * right
    distance = (line - down) * np.float32(scene.pixels_per_mm)
    color = random_color(rng, rng.uniform(0.3, 1))
    albedo: NDArray[np.floating] = np.broadcast_to(color, (size, size, 3))
    style = rng.integers(4)
    if style == 1:
        albedo = albedo * (0.7 + 0.5 * np.sign(np.sin(down * 0.35 + 0.15 * right))[..., None])
    elif style == 2:
        weave = np.sign(np.sin(right * 0.3)) + np.sign(np.sin(down * 0.3))
        albedo = albedo + 0.12 * weave[..., None] * random_color(rng)
    elif style == 3:
        albedo = albedo * (0.75 + 0.5 * noise(rng, size, 14, 2)[..., None])
    # Folds: the slopes of a few smooth waves that hang between the ears.
    fold, hang = rng.uniform(0.07, 0.16), rng.uniform(-0.006, 0.008)
    wave = 14 * noise(rng, size, 3, 2)
    phase = np.float32(fold) * (down + hang * right**2 + wave)
    slope_y = np.float32(rng.uniform(0.25, 0.6)) * (np.cos(phase) + 0.5 * np.cos(2.3 * phase + 1)).astype(np.float32)
    relief = Relief(size)
    area = whole(size)
    relief.slab(
        area,
        distance.astype(np.float32),
        np.clip(albedo, 0.02, 1),
        slopes=(0.008 * right, slope_y),
        bevel=5 * scene.pixels_per_mm,
    )
    return relief.lit(scene.lighting, edge=0.4)


def cap(scene: Scene, rng: np.random.Generator) -> Layer:
    """A cap or woollen hat pulled down over the forehead; caps have a brim."""
    scale, size = scene.pixels_per_mm, scene.size
    brow = 0.5 * (scene.landmarks[19] + scene.landmarks[24])
    low = rng.uniform(-12, 6)
    color = random_color(rng, rng.uniform(0.3, 1))
    relief = Relief(size)
    center = scene.offset(brow, 0, low - 40)
    area = whole(size)
    right, down = _face_coordinates(scene, center)
    crown = np.maximum(
        np.sqrt((right / 92) ** 2 + (np.minimum(down, 0) / 85) ** 2) * 85 - 85, down - 38 + 0.0015 * right**2
    )
    knit = rng.random() < 0.5
    albedo = color * (1 + 0.35 * np.sin(right * np.float32(rng.uniform(0.5, 1.0))) * (1 if knit else 0))[..., None]
    relief.slab(
        area,
        (crown * scale).astype(np.float32),
        np.clip(albedo, 0.02, 1),
        depth=-40 * scale,
        slopes=(0.009 * right, 0.009 * down),
        bevel=8 * scale,
    )
    if not knit or rng.random() < 0.4:  # a brim, or a turned-up edge
        look = scene.rotation[:2, 2] * scale * 55
        brim = scene.offset(center, 0, 38) + look + scene.axes[1] * scale * rng.uniform(-6, 8)
        relief.ellipse(
            brim,
            (78 * scale, rng.uniform(13, 22) * scale),
            scene.roll,
            color * rng.uniform(0.5, 0.9),
            depth=-70 * scale,
        )
    return relief.lit(scene.lighting, edge=0.35)


def fringe(scene: Scene, rng: np.random.Generator) -> Layer:
    """Hair over forehead and brows, down to the eyes or over one of them, with jagged tips."""
    size, scale = scene.size, scene.pixels_per_mm
    brow = 0.5 * (scene.landmarks[19] + scene.landmarks[24])
    right, down = _face_coordinates(scene, brow)
    slant, low = rng.normal(0, 0.35), rng.uniform(-8, 18)
    flow = right + np.float32(rng.uniform(-0.5, 0.5)) * down + 4 * noise(rng, size, 4)
    tips = 0.65 * streaks(rng, flow * scale, rng.uniform(4, 9) * scale) + 0.35 * streaks(rng, flow * scale, 2 * scale)
    edge = low + slant * right - 0.002 * right**2 + rng.uniform(10, 30) * (tips - 0.6)
    parting = rng.random() < 0.25
    if parting:
        gap = rng.uniform(-25, 25)
        edge = edge - np.float32(rng.uniform(20, 45)) * np.exp(
            -((right - gap) ** 2) / np.float32(2 * rng.uniform(8, 20) ** 2)
        )
    alpha = coverage((down - edge) * np.float32(0.7 * scale))
    alpha = alpha * coverage((np.abs(right) - 95) * np.float32(scale))
    return _hair_layer(scene, rng, flow, alpha)


def long_hair(scene: Scene, rng: np.random.Generator) -> Layer:
    """Hair that falls over one side of the face, or single strands across it."""
    size, scale = scene.size, scene.pixels_per_mm
    right, down = _face_coordinates(scene, scene.landmarks[30])
    side = 1.0 if rng.random() < 0.5 else -1.0
    bend = rng.uniform(-0.004, 0.004)
    flow = (
        right * side + np.float32(rng.uniform(-0.3, 0.3)) * down + np.float32(bend) * down**2 + 6 * noise(rng, size, 3)
    )
    if rng.random() < 0.6:
        inner = rng.uniform(5, 45)
        ragged = 14 * (streaks(rng, down * scale + 0.4 * flow * scale, 22 * scale) - 0.5)
        alpha = coverage((inner + ragged - flow) * np.float32(0.6 * scale))
    else:
        thickness = rng.uniform(0.45, 0.62)
        strand = streaks(rng, flow * scale, rng.uniform(5, 11) * scale)
        alpha = np.clip((strand - np.float32(thickness)) * 9, 0, 1) * coverage(
            (np.abs(flow - rng.uniform(0, 40)) - rng.uniform(25, 60)) * np.float32(0.3 * scale)
        )
    return _hair_layer(scene, rng, flow, alpha)


def _hair_layer(scene: Scene, rng: np.random.Generator, flow: Array, alpha: Array) -> Layer:
    """Hair along lines of constant `flow` (mm), shaded as fine streaks."""
    scale = scene.pixels_per_mm
    lock = 0.6 * streaks(rng, flow * scale, 7 * scale) + 0.4 * streaks(rng, flow * scale, 1.5 * scale)
    own = scene.hair if rng.random() < 0.85 else hair_color(rng)
    color = own * front_light(scene.lighting) * (0.45 + 0.9 * lock[..., None])
    return Layer(color.astype(np.float32), alpha.astype(np.float32))


def beard(scene: Scene, rng: np.random.Generator) -> Layer:
    """A full beard or a moustache, dense, with a soft outline."""
    points, scale, size = scene.landmarks, scene.pixels_per_mm, scene.size
    moustache_only = rng.random() < 0.25
    outer = np.concatenate([points[2:15], points[[54, 35]], points[[31, 48]]])
    outer[:13] = outer[:13] + scene.axes[1] * scale * rng.uniform(0, 12)
    if moustache_only:
        drop = scene.axes[1] * scale
        outer = np.stack(
            [
                points[31],
                points[33],
                points[35],
                points[54] + 6 * drop,
                points[52] + 2 * drop,
                points[51] + 3 * drop,
                points[50] + 2 * drop,
                points[48] + 6 * drop,
            ]
        )
    outer = smooth_polygon(outer, 1)
    area = window(size, *outer.min(axis=0) - 6 * scale, *outer.max(axis=0) + 6 * scale)
    if area is None:
        return Relief(size).lit(scene.lighting)
    distance = polygon_distance(area, outer)
    if not moustache_only:
        lips = smooth_polygon(points[48:60] + 0.12 * (points[48:60] - points[48:60].mean(axis=0)), 1)
        distance = np.maximum(distance, -polygon_distance(area, lips))
    rough = noise(rng, size, 24)[area.slices]
    right, down = _face_coordinates(scene, points[8])
    flow = (right + 0.3 * down)[area.slices] + 5 * rough
    lock = streaks(rng, flow * scale, 1.5 * scale)
    alpha = np.zeros((size, size), dtype=np.float32)
    alpha[area.slices] = np.clip(0.5 - (distance / (2.0 * scale) + 2 * (rough - 0.5)), 0, 1) * rng.uniform(0.85, 1)
    color = np.zeros((size, size, 3), dtype=np.float32)
    color[area.slices] = scene.hair * front_light(scene.lighting) * (0.4 + 1.0 * lock[..., None])
    return Layer(color, alpha)
