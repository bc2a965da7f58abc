"""Hands and arms in front of a face: fingers and palms as shaded tubes and cushions, with sleeves and nails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focus.data.drawing import Array, Layer, Relief, polygon_distance, random_color, smooth_polygon, window
from focus.data.scene import Scene

# A right hand seen from its back, millimetres: wrist at the origin, fingers along -y (up in the picture), thumb to the
# left.
_KNUCKLES = np.array([[-31.0, -88.0], [-10.0, -95.0], [11.0, -91.0], [30.0, -80.0]])
_FINGER_LENGTHS = (74.0, 82.0, 76.0, 60.0)
_FINGER_RADII = (9.2, 9.5, 9.0, 7.8)
_PALM = np.array(
    [[-24, 6], [-36, -20], [-41, -55], [-40, -90], [-12, -101], [14, -97], [40, -80], [40, -50], [30, -15], [24, 6]],
    dtype=float,
)
_THUMB_BASE = np.array([-30.0, -28.0])
_PHALANGES = (0.44, 0.31, 0.25)


@dataclass(frozen=True)
class _Pose:
    """How a hand is held."""

    curls: tuple[float, float, float, float]
    """0 = straight, 1 = folded onto the palm; index to little finger."""
    spread: float
    """Radians between neighbouring fingers."""
    contact: tuple[float, float]
    """The place of the hand, mm, that lies on the place of the face."""
    thumb: float
    """Radians that the thumb stands off."""


_POSES = (
    _Pose((0.0, 0.0, 0.0, 0.0), 0.03, (0, -85), 0.7),  # flat, fingers together
    _Pose((0.0, 0.0, 0.05, 0.1), 0.16, (0, -105), 0.9),  # flat, fingers apart
    _Pose((0.1, 0.05, 0.1, 0.15), 0.30, (0, -125), 1.1),  # spread wide, fingers over the face
    _Pose((0.95, 0.95, 0.95, 0.95), 0.02, (0, -85), 0.2),  # fist
    _Pose((0.0, 0.9, 0.95, 0.95), 0.04, (-31, -140), 0.3),  # pointing
    _Pose((0.0, 0.0, 0.95, 0.95), 0.28, (-20, -130), 0.3),  # two fingers
    _Pose((0.45, 0.35, 0.35, 0.45), 0.08, (0, -105), 0.5),  # half closed, resting
)


def draw_hand(
    relief: Relief,
    wrist: NDArray[np.float64],
    angle: float,
    scale: float,
    mirror: bool,
    pose: _Pose,
    skin: Array,
    rng: np.random.Generator,
) -> None:
    """Draws a hand and its forearm.

    Args:
        relief: where to.
        wrist: [2] pixels.
        angle: direction of the fingers, radians clockwise from straight up.
        scale: pixels per millimetre.
        mirror: a left hand.
        pose: how it is held.
        skin: [3] albedo.
        rng: small irregularities, sleeve and nails.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])

    def place(point: NDArray[np.float64]) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = wrist + matrix @ point
        return moved

    flesh = np.clip(skin * np.array([1.03, 0.95, 0.93], dtype=np.float32), 0, 1)  # hands are redder than cheeks
    palm = smooth_polygon(np.array([place(point) for point in _PALM]), 1)
    area = window(relief.size, *palm.min(axis=0), *palm.max(axis=0))
    if area is not None:
        relief.slab(area, polygon_distance(area, palm), skin, depth=-9 * scale, bevel=11 * scale)
    elbow = place(np.array([rng.uniform(-25, 25), 280.0]))
    relief.capsule(place(np.array([0.0, -12.0])), elbow, 25 * scale, 40 * scale, skin, depth=17 * scale)
    if rng.random() < 0.6:
        cuff = rng.uniform(15, 120)
        cloth = random_color(rng, 0.7)
        start = place(np.array([0.0, cuff])) + (elbow - wrist) * 0.02
        relief.capsule(start, elbow, 33 * scale, 52 * scale, cloth, depth=10 * scale)

    nail = random_color(rng) if rng.random() < 0.15 else np.clip(flesh * 1.12 + 0.05, 0, 1)
    shows_nails = rng.random() < 0.7
    for finger in range(4):
        curl = float(np.clip(pose.curls[finger] + 0.06 * rng.standard_normal(), 0, 1))
        base = _KNUCKLES[finger]
        heading = (finger - 1.5) * pose.spread + 0.04 * rng.standard_normal()
        _finger(
            relief,
            place,
            base,
            heading,
            _FINGER_LENGTHS[finger],
            _FINGER_RADII[finger],
            curl,
            scale,
            flesh,
            nail if shows_nails else None,
        )
    thumb = -pose.thumb + 0.1 * rng.standard_normal()
    middle = _THUMB_BASE + 36 * np.array([np.sin(thumb), -np.cos(thumb)])
    inward = thumb + 0.35
    tip = middle + 30 * np.array([np.sin(inward), -np.cos(inward)])
    relief.capsule(place(_THUMB_BASE), place(middle), 14 * scale, 11 * scale, skin, depth=-3 * scale)
    relief.capsule(place(middle), place(tip), 11 * scale, 9 * scale, flesh, depth=-3 * scale)
    if shows_nails and pose.thumb > 0.4:
        relief.ellipse(place(tip), (5 * scale, 6.5 * scale), angle, nail, depth=-9 * scale)


def _finger(
    relief: Relief,
    place: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    base: NDArray[np.float64],
    heading: float,
    length: float,
    radius: float,
    curl: float,
    scale: float,
    skin: Array,
    nail: Array | None,
) -> None:
    """Three tapering phalanges from a knuckle; `heading` in radians from the hand's own axis, lengths in mm."""
    forward = np.array([np.sin(heading), -np.cos(heading)])
    folded = curl > 0.6
    joints, depths = [base], [-2.0]
    for number, share in enumerate(_PHALANGES):
        if folded:  # the first phalanx comes towards the viewer, the others lie back on the palm
            step, depth = (0.32 * length, -16.0) if number == 0 else (-0.8 * share * length, -20.0)
        else:
            step, depth = share * length * (1 - 0.55 * curl), -4.0 - 16 * curl * (number + 1) / 3
        joints.append(joints[-1] + step * forward)
        depths.append(depth)
    for number in range(3):
        start_radius = radius * (1.08 - 0.08 * number) * scale
        end_radius = radius * (1.0 - 0.09 * number) * scale
        depth = 0.5 * (depths[number] + depths[number + 1]) * scale
        relief.capsule(place(joints[number]), place(joints[number + 1]), start_radius, end_radius, skin, depth)
    if nail is not None and not folded:
        angle = np.arctan2(*(place(joints[3]) - place(joints[2]))[::-1]) + np.pi / 2
        relief.ellipse(
            place(joints[3] + 1.5 * forward),
            (0.62 * radius * scale, 0.85 * radius * scale),
            angle,
            nail,
            (depths[3] - 7) * scale,
        )


def hand(scene: Scene, rng: np.random.Generator) -> Layer:
    """A hand with this or another skin: flat over the mouth, spread over an eye, a fist, a pointing finger."""
    relief = Relief(scene.size)
    pose = _POSES[rng.integers(len(_POSES))]
    anchor = ("mouth", "left_cheek", "right_cheek", "left_eye", "right_eye", "chin", "nose", "forehead")[
        rng.choice(8, p=(0.22, 0.14, 0.14, 0.12, 0.12, 0.1, 0.1, 0.06))
    ]
    target = scene.at(anchor) + 8 * scene.pixels_per_mm * rng.standard_normal(2)
    # Arms come from below and from the sides; a hand on the image's left half comes from the left more often.
    side = float(np.sign((target - scene.head[:2]) @ scene.axes[0]) or 1.0)
    lean = rng.normal(0.55, 0.5) if rng.random() < 0.75 else rng.normal(-0.4, 0.4)
    angle = -side * float(np.clip(lean, -1.2, 1.9)) + 0.5 * scene.roll
    scale = scene.pixels_per_mm * rng.uniform(0.92, 1.15)
    mirror = bool(rng.random() < 0.5)
    cos, sin = np.cos(angle), np.sin(angle)
    contact = np.array(pose.contact) * np.array([-1.0 if mirror else 1.0, 1.0])
    wrist = target - scale * np.array([[cos, -sin], [sin, cos]]) @ contact
    draw_hand(relief, wrist, angle, scale, mirror, pose, scene.skin_like(rng), rng)
    return relief.lit(scene.lighting, edge=0.45)


def draw_grip(
    relief: Relief,
    center: NDArray[np.float64],
    tilt: float,
    half_width: float,
    scale: float,
    mirror: bool,
    skin: Array,
    rng: np.random.Generator,
    depth: float,
) -> None:
    """Fingers that come round one side of a held thing, with the back of the hand and the forearm beside it.

    Args:
        relief: where to; the thing is drawn already.
        center: [2] pixels, where the fingers lie.
        tilt: of the thing, radians clockwise.
        half_width: of the thing, pixels.
        scale: pixels per millimetre.
        mirror: the hand comes from the image's right.
        skin: [3] albedo.
        rng: small irregularities.
        depth: of the front of the thing, pixels.
    """
    side = 1.0 if mirror else -1.0
    along = side * np.array([np.cos(tilt), np.sin(tilt)])
    down = np.array([-np.sin(tilt), np.cos(tilt)])
    edge = center + along * half_width
    wrist = edge + scale * (along * 22 + down * 62)
    elbow = wrist + scale * (along * rng.uniform(20, 110) + down * 230)
    relief.capsule(wrist, elbow, 26 * scale, 38 * scale, skin, depth + 35 * scale)
    if rng.random() < 0.6:
        relief.capsule(
            wrist + 0.15 * (elbow - wrist), elbow, 34 * scale, 50 * scale, random_color(rng, 0.7), depth + 25 * scale
        )
    relief.capsule(edge + scale * (along * 8 - down * 18), wrist, 22 * scale, 26 * scale, skin, depth + 28 * scale)
    for finger in range(4):
        start = edge + scale * (along * 8 + down * (17.5 * finger - 28))
        reach = min(_FINGER_LENGTHS[finger] * 0.75 * scale, 1.7 * half_width + 10 * scale)
        end = start - along * reach * rng.uniform(0.85, 1.0) + down * scale * rng.uniform(-3, 3)
        relief.capsule(start, end, 9.5 * scale, 8 * scale, skin * np.array([1.02, 0.96, 0.95]), depth - 8 * scale)
        relief.ellipse(end, (5.5 * scale, 4.8 * scale), tilt, np.clip(skin * 1.12 + 0.04, 0, 1), depth - 14 * scale)
