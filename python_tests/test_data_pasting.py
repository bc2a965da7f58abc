"""Occluders before the faces of photos: where they are known to be, in the light and with the skin of the face."""

from __future__ import annotations

import numpy as np
import pytest

from focus.data.drawing import Layer
from focus.data.pasting import paste, photo_scene
from focus.data.scene import Scene
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.face import Camera, MorphableModel

SIZE = 96


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return SyntheticFaces(MorphableModel.procedural("small", identity=4, expression=2, albedo=4), SIZE, seed=5)


@pytest.fixture(scope="module")
def scene(faces: SyntheticFaces) -> Scene:
    return photo_scene(faces.model, faces.parameters(0), Camera(SIZE), np.random.default_rng(0))


@pytest.fixture(scope="module")
def photo(faces: SyntheticFaces) -> np.ndarray:
    return faces.samples([0], occluded=False)[0].image


def test_a_fitted_face_has_the_scene_of_the_drawn_one(faces: SyntheticFaces, scene: Scene) -> None:
    drawn = faces.scenes([0])[0]
    for name in ("landmarks", "rotation", "head", "lighting", "face", "face_mask"):
        np.testing.assert_allclose(getattr(scene, name), getattr(drawn, name), err_msg=name)
    np.testing.assert_allclose(scene.skin, drawn.skin, atol=0.03)
    np.testing.assert_allclose(scene.average_landmarks(), drawn.average_landmarks())


@pytest.mark.parametrize("kind", ["hand", "surgical_mask", "glasses", "mug"])
def test_only_the_hidden_pixels_and_their_rim_change(photo: np.ndarray, scene: Scene, kind: str) -> None:
    pasted = paste(photo, scene, np.random.default_rng(1), (kind,))
    assert pasted.occluder.startswith(kind)
    assert pasted.image.dtype == np.uint8
    assert pasted.hidden[scene.face_mask].any()
    change = np.abs(pasted.image.astype(int) - photo).max(axis=2)
    near = np.zeros_like(pasted.hidden)
    for y in range(-4, 5):
        for x in range(-4, 5):
            near |= np.roll(pasted.hidden, (y, x), (0, 1))
    if kind in ("hand", "mug"):  # lenses and thin straps are drawn, and hide nothing
        assert change[~near].max() <= 1
    assert (change[pasted.hidden] > 3).mean() > 0.6
    assert (change > 3).mean() < 0.7


def test_as_much_is_hidden_as_is_asked_for(photo: np.ndarray, scene: Scene) -> None:
    parts = [
        paste(photo, scene, np.random.default_rng(seed), ("hand",), (0.2, 0.5)).hidden[scene.face_mask].mean()
        for seed in range(8)
    ]
    assert all(0.1 < part < 0.6 for part in parts)


def test_same_numbers_same_picture(photo: np.ndarray, scene: Scene) -> None:
    one, same, other = (paste(photo, scene, np.random.default_rng(seed), ("hand",)) for seed in (3, 3, 4))
    assert (one.image == same.image).all()
    assert (one.hidden == same.hidden).all()
    assert (one.image != other.image).any()


def test_hands_have_the_grain_of_the_photo(photo: np.ndarray, scene: Scene) -> None:
    """Drawn on a noisy photo, a hand is as noisy: what is smooth must not tell what is drawn."""
    noise = np.random.default_rng(0).normal(0, 12, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)

    def roughness(image: np.ndarray, where: np.ndarray) -> float:
        steps = np.diff(image.astype(float).mean(axis=2), axis=1)
        return float(np.median(np.abs(steps[where[:, 1:] & where[:, :-1]])))

    plain = paste(photo, scene, np.random.default_rng(2), ("skin_patch",))
    rough = paste(noisy, scene, np.random.default_rng(2), ("skin_patch",))
    seen = scene.face_mask & ~rough.hidden
    assert roughness(rough.image, rough.hidden) > 1.3 * roughness(plain.image, plain.hidden)
    assert roughness(rough.image, rough.hidden) == pytest.approx(roughness(rough.image, seen), rel=0.6)


def test_masks_may_have_the_colors_of_the_face(photo: np.ndarray, scene: Scene) -> None:
    own = []
    for seed in range(12):
        pasted = paste(photo, scene, np.random.default_rng(seed), ("surgical_mask",))
        tint = pasted.image[pasted.hidden & scene.face_mask].mean(axis=0) / 255
        face = scene.face[pasted.hidden & scene.face_mask].mean(axis=0)
        off = np.abs(tint / tint.mean() - face / face.mean()).max()
        if "in colors of the face" in pasted.occluder:
            own.append(off)
    assert 1 <= len(own) <= 11
    assert max(own) < 0.15


def test_wrong_sizes_and_kinds_are_refused(photo: np.ndarray, scene: Scene) -> None:
    with pytest.raises(FocusError, match=r"expected \[96, 96, 3\], the scene's size, got \(96, 96\)"):
        paste(photo[..., 0], scene, np.random.default_rng(0))
    with pytest.raises(FocusError, match="kinds: expected some of"):
        paste(photo, scene, np.random.default_rng(0), ("horse",))
    with pytest.raises(FocusError, match="got none"):
        paste(photo, scene, np.random.default_rng(0), ())


def test_cloth_that_hides_nothing_stays_as_it_is(scene: Scene) -> None:
    from focus.data.pasting import _in_colors_of_face

    layer = Layer(np.zeros((SIZE, SIZE, 3), dtype=np.float32), np.zeros((SIZE, SIZE), dtype=np.float32))
    assert _in_colors_of_face(layer, scene, np.random.default_rng(0)) is layer
