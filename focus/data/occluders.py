"""Chooses and draws what is in front of a face, until it hides as much as asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from focus.data import hands, makeup, objects, wearables
from focus.data.drawing import Layer
from focus.data.scene import Scene

OCCLUDERS: dict[str, Callable[[Scene, np.random.Generator], Layer]] = {
    "hand": hands.hand,
    "hair_fringe": wearables.fringe,
    "hair_long": wearables.long_hair,
    "glasses": wearables.glasses,
    "sunglasses": wearables.sunglasses,
    "surgical_mask": wearables.surgical_mask,
    "scarf": wearables.scarf,
    "cap": wearables.cap,
    "beard": wearables.beard,
    "mug": objects.mug,
    "phone": objects.phone,
    "microphone": objects.microphone,
    "ball": objects.ball,
    "book": objects.book,
    "leaves": objects.leaves,
    "patch": objects.patch,
    "text": objects.text,
    "skin_patch": objects.skin_patch,
    "face_patch": objects.face_patch,
    "face_paint": makeup.face_paint,
}
"""Name -> function that draws one in front of a scene."""

_WEIGHTS = {"hand": 3.0, "skin_patch": 1.2, "leaves": 0.5, "text": 0.7, "face_paint": 0.7, "cap": 0.8, "beard": 0.8}
_TRIES = 6
_PAIR_PROBABILITY = 0.12


def draw_occluder(
    scene: Scene, kinds: Sequence[str], coverage: tuple[float, float], rng: np.random.Generator
) -> tuple[Layer, str]:
    """One occluder, now and then two, that hides a fraction of the face within `coverage`.

    The kind is drawn first and kept through half of the tries, so that kinds that often miss the range are not pushed
    out; then others are tried. When all tries miss, the one nearest to the range is taken.

    Returns:
        (layer, name); names of two are joined with "+".
    """
    weights = np.array([_WEIGHTS.get(kind, 1.0) for kind in kinds])

    def draw_kind() -> str:
        return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]

    candidates: list[tuple[float, Layer, str]] = []
    for number in range(_TRIES):
        if number % (_TRIES // 2) == 0:
            name = draw_kind()
        layer, shown = OCCLUDERS[name](scene, rng), name
        if rng.random() < _PAIR_PROBABILITY and (other := draw_kind()) != name:
            layer, shown = OCCLUDERS[other](scene, rng).on(layer), f"{name}+{other}"
        fraction = hidden_fraction(layer, scene.face_mask)
        candidates.append((max(coverage[0] - fraction, fraction - coverage[1], 0.0), layer, shown))
        if candidates[-1][0] == 0:
            break
    _, layer, shown = min(candidates, key=lambda candidate: candidate[0])
    return layer, shown


def hidden_fraction(layer: Layer, face_mask: NDArray[np.bool_]) -> float:
    """Share of the face's pixels that the layer hides (alpha of at least one half)."""
    return float((layer.alpha[face_mask] >= 0.5).mean()) if face_mask.any() else 0.0
