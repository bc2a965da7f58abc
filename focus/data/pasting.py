"""Occluders drawn before the faces of photos, in the light and with the skin that a fit of the photo has found.

What hides a face in a photo without labels is not known; what was drawn before it is. Nothing of the photo's own is
replaced by that: what hides the face beside the occluder goes on hiding it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from focus.data.backgrounds import hair_color
from focus.data.drawing import Array, Layer, blur
from focus.data.occluders import OCCLUDERS, draw_occluder
from focus.data.scene import Scene, scene_of
from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel, Renderer

_OF_SKIN = {"hand", "skin_patch", "surgical_mask", "scarf"}
"""What may have the colours of the very face."""
_CLOTH = {"surgical_mask", "scarf"}
_OWN_COLORS = 0.4
"""How often cloth has the colours of the face."""
_SHARPNESS = (0.4, 0.8)
"""Standard deviation of the photo's own blur, pixels."""
_GRAIN_SIGMA = 3.0
_GRAIN_SIDES = (7, 9, 14)
"""Of the square of skin that grain is taken from: the crop's side over this."""
_CREASE_SIGMA, _CREASES = 0.027, 0.03
"""Width, in sides of the crop, and strength."""


@dataclass(frozen=True)
class Pasted:
    """A picture with something before the face."""

    image: NDArray[np.uint8]
    """[S, S, 3] sRGB."""
    hidden: NDArray[np.bool_]
    """[S, S], the pixels of the occluder."""
    occluder: str
    """Its name."""


def photo_scene(model: MorphableModel, parameters: FaceParameters, camera: Camera, rng: np.random.Generator) -> Scene:
    """The scene of a face that was fitted to a photo.

    Args:
        model: of the fit, on the CPU, with albedo.
        parameters: B = 1.
        camera: of the crop, S x S pixels.
        rng: chooses the colour of hair.
    """
    with torch.no_grad():
        rendering = Renderer(model, camera.image_size, camera=camera)(parameters)
        albedo = model.albedo(parameters.albedo)[0].double()
        brightness = albedo.mean(dim=1)
        skin = albedo[brightness >= brightness.median()].mean(dim=0).numpy()  # without brows, lips, pupils
    return scene_of(model, parameters, rendering, camera, skin=skin, hair=hair_color(rng))


def paste(
    image: NDArray[np.uint8],
    scene: Scene,
    rng: np.random.Generator,
    kinds: Sequence[str] = tuple(OCCLUDERS),
    coverage: tuple[float, float] = (0.1, 0.6),
) -> Pasted:
    """Draws an occluder before the face of a crop.

    Args:
        image: [S, S, 3] sRGB, the crop.
        scene: of its face.
        rng: chooses everything.
        kinds: names of `OCCLUDERS`.
        coverage: from which part of the face to which is to be hidden.

    Raises:
        FocusError: the crop has another size than the scene, or a kind is unknown.
    """
    if image.shape != (scene.size, scene.size, 3):
        raise FocusError(f"paste: image: expected [{scene.size}, {scene.size}, 3], the scene's size, got {image.shape}")
    unknown = sorted(set(kinds) - set(OCCLUDERS))
    if unknown or not kinds:
        raise FocusError(f"paste: kinds: expected some of {sorted(OCCLUDERS)}, got {unknown or 'none'}")
    photo: Array = image.astype(np.float32) / np.float32(255)
    layer, name = draw_occluder(scene, kinds, coverage, rng)
    grained = not _OF_SKIN.isdisjoint(name.split("+"))
    if name in _CLOTH and rng.random() < _OWN_COLORS:
        layer, name = _in_colors_of_face(layer, scene, rng), f"{name} in colors of the face"
    sigma = float(rng.uniform(*_SHARPNESS))
    alpha = blur(layer.alpha[..., None], sigma)
    covered: Array = blur(layer.color * layer.alpha[..., None], sigma)  # colours weighed with what they cover
    picture = photo * (1 - alpha) + covered
    if grained:
        picture += alpha * _grain(photo, scene, alpha[..., 0], rng)
    picture = np.clip(picture, 0, 1)
    return Pasted(np.rint(picture * 255).astype(np.uint8), alpha[..., 0] >= 0.5, name)


def _in_colors_of_face(layer: Layer, scene: Scene, rng: np.random.Generator) -> Layer:
    """Cloth whose folds are its own and whose colour is that of the face under it."""
    solid = layer.alpha > 0.5
    under = solid & scene.face_mask
    if not under.any():
        return layer
    grey = layer.color.mean(axis=2, keepdims=True)
    tone = scene.face[under].mean(axis=0) * rng.uniform(0.9, 1.15) * (1 + 0.03 * rng.standard_normal(3))
    color: Array = (grey / max(float(grey[solid].mean()), 1e-3) * tone).astype(np.float32)
    return Layer(color, layer.alpha)


def _grain(photo: Array, scene: Scene, alpha: Array, rng: np.random.Generator) -> Array:
    """Pores, noise and compression of the photo's own skin, and soft creases: [S, S, 3] to be added to a colour.

    What is drawn is smoother than what is photographed, and a rule or a network would learn that.
    """
    size = scene.size
    detail = photo - blur(photo, _GRAIN_SIGMA)
    best: tuple[float, Array] | None = None
    for side in (max(size // part, 4) for part in _GRAIN_SIDES):
        for anchor in ("left_cheek", "right_cheek", "forehead", "chin"):
            x, y = (round(float(value)) - side // 2 for value in scene.at(anchor))
            if not (0 <= x <= size - side and 0 <= y <= size - side):
                continue
            rows, columns = slice(y, y + side), slice(x, x + side)
            if alpha[rows, columns].max() < 0.05 and scene.face_mask[rows, columns].all():
                strength = float(detail[rows, columns].std())  # the plainest: no brow, no lips
                if best is None or strength < best[0]:
                    best = strength, detail[rows, columns]
        if best is not None:
            break
    creases = blur(rng.standard_normal((size, size, 1)).astype(np.float32), _CREASE_SIGMA * size)
    creases *= np.float32(_CREASES / max(float(creases.std()), 1e-6))
    if best is None:
        return np.broadcast_to(creases, photo.shape).astype(np.float32)
    tile = np.concatenate([best[1], best[1][:, ::-1]], axis=1)
    tile = np.concatenate([tile, tile[::-1]])
    period = tile.shape[0]
    top, left = rng.integers(0, period, 2)
    rows, columns = (np.arange(size) + top) % period, (np.arange(size) + left) % period
    grain: Array = tile[np.ix_(rows, columns)] + creases
    return grain
