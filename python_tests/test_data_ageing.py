"""What years leave on a synthetic face: lit as the rest of it, and face in the true mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from focus.data import SyntheticFaces, SyntheticSettings
from focus.data.ageing import LEFT, RIGHT, Heights, draw_age, greyed
from focus.data.scene import Scene
from focus.face import MorphableModel
from focus.face.lighting import directional_lighting

SIZE = 96
PLAIN = SyntheticSettings(occluded_fraction=0.0, pigment=False, degradation=0.0, extreme_light_fraction=0.0)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    model = MorphableModel.procedural(detail="small").truncated(identity=10, expression=6, albedo=8)
    return SyntheticFaces(model, SIZE, 7, replace(PLAIN, aged_fraction=1.0))


@pytest.fixture(scope="module")
def scene(faces: SyntheticFaces) -> Scene:
    """A face that looks at the camera."""
    found = faces.scenes(range(40))
    return min(found, key=lambda scene: abs(scene.rotation[2, 0]) + abs(scene.rotation[2, 1]))


def lit_from(scene: Scene, *direction: float, age: float = 1.0) -> Scene:
    """The scene in white light from one side; camera axes: x right, y down, z away."""
    half = torch.full((1, 3), 0.5)
    lighting = directional_lighting(torch.tensor([direction]), half, half)[0]
    return replace(scene, lighting=lighting.double().numpy(), age=age)


def test_only_colours_change(faces: SyntheticFaces) -> None:
    young = SyntheticFaces(faces.model, SIZE, faces.seed, PLAIN).batch(0, 12)
    old = faces.batch(0, 12)
    for name in ("visible_mask", "face_mask", "landmarks", "unoccluded", "vertices"):
        assert np.array_equal(getattr(young, name), getattr(old, name)), name
    change = (young.image - old.image).abs().mean(dim=1, keepdim=True)
    assert (change * old.face_mask).flatten(1).max(dim=1).values.min() > 0.02  # each of them has aged
    assert (change * old.face_mask).sum() / old.face_mask.sum() < 0.08  # and can still be recognised


def test_who_is_aged_is_a_share(faces: SyntheticFaces) -> None:
    some = SyntheticFaces(faces.model, SIZE, 3, replace(PLAIN, aged_fraction=0.4))
    ages = np.array([scene.age for scene in some.scenes(range(150))])
    assert 0.25 < (ages > 0).mean() < 0.55
    assert ages.min() == 0
    assert 0.1 <= ages[ages > 0].min() < 0.3
    assert 0.8 < ages.max() <= 1


def test_without_age_nothing_is_drawn(scene: Scene) -> None:
    assert (draw_age(replace(scene, age=0.0), np.random.default_rng(0)) == 1).all()


def test_more_years_leave_more(scene: Scene) -> None:
    def strength(age: float) -> float:
        factors = [draw_age(replace(scene, age=age), np.random.default_rng(seed)) for seed in range(8)]
        return float(np.mean([np.abs(factor - 1)[scene.face_mask].mean() for factor in factors]))

    assert strength(0.2) < 0.6 * strength(0.6) < 0.6 * strength(1.0) * 0.9


@pytest.mark.parametrize(("up", "bright"), [(-1.0, "below"), (1.0, "above")])
def test_a_groove_takes_the_light_of_the_picture(scene: Scene, up: float, bright: str) -> None:
    """Light from above meets the wall below the groove's floor, which looks up, and misses the one above it."""
    heights = Heights(lit_from(scene, 0.0, up, -0.6), np.random.default_rng(0))
    middle = scene.landmarks[29]
    heights.furrow([scene.offset(middle, right, 0) for right in (-20.0, 0.0, 20.0)], depth=2.0, width=3.0)
    factor = heights.lit().mean(axis=2)
    above, below = (factor[tuple(np.rint(scene.offset(middle, 0, down)).astype(int)[::-1])] for down in (-3.0, 3.0))
    assert (below > above + 0.1) == (bright == "below")
    assert (above > below + 0.1) == (bright == "above")


def test_the_floor_of_a_groove_is_dark_and_red(scene: Scene) -> None:
    heights = Heights(lit_from(scene, 0.0, 0.0, -1.0), np.random.default_rng(0))
    middle = scene.landmarks[29]
    heights.furrow([scene.offset(middle, right, 0) for right in (-20.0, 0.0, 20.0)], depth=2.0, width=3.0)
    red, _, blue = heights.lit()[tuple(np.rint(middle).astype(int)[::-1])]
    assert red < 0.9
    assert blue < 0.95 * red


def test_the_skin_swells_on_one_side_of_a_fold(scene: Scene) -> None:
    heights = Heights(replace(scene, age=1.0), np.random.default_rng(0))
    middle = scene.landmarks[30]
    line = [scene.offset(middle, right, 0) for right in (-20.0, 0.0, 20.0)]  # to the right: its left is above
    heights.furrow(line, depth=0.0, width=2.0, ridge=1.5)
    x, above, below = (round(value) for value in (middle[0], middle[1] - 3, middle[1] + 3))
    assert abs(scene.roll) < 0.2
    assert heights.field[above, x] > 0.2
    assert heights.field[below, x] == 0


def test_it_is_well_formed_at_any_place(faces: SyntheticFaces) -> None:
    """Faces that are turned, small, large, or half out of the picture."""
    rng = np.random.default_rng(5)
    for index in range(30):
        scene = replace(faces.scenes([index])[0], age=1.0)
        moved = scene.landmarks + rng.normal(0, SIZE / 2, 2)
        other = replace(scene, landmarks=moved, pixels_per_mm=scene.pixels_per_mm * rng.uniform(0.1, 4))
        for changed in (scene, other):
            factor = draw_age(changed, np.random.default_rng(index))
            assert factor.shape == (SIZE, SIZE, 3)
            assert factor.dtype == np.float32
            assert np.isfinite(factor).all()
            assert factor.min() > 0.05
            assert factor.max() < 5


def test_nothing_is_drawn_on_the_side_that_is_turned_away(faces: SyntheticFaces) -> None:
    """The far cheek's folds would lie on the near one."""
    for index in range(60):
        scene = replace(faces.scenes([index])[0], age=1.0)
        yaw = np.degrees(np.arctan2(scene.rotation[2, 0], -scene.rotation[2, 2]))
        heights = Heights(scene, np.random.default_rng(0))
        if abs(yaw) > 50:
            assert heights.faces_camera(LEFT) != heights.faces_camera(RIGHT)
        if abs(yaw) < 20:
            assert heights.faces_camera(LEFT)
            assert heights.faces_camera(RIGHT)


def test_hair_turns_grey() -> None:
    dark = np.array([0.1, 0.06, 0.05], np.float32)

    def mean(age: float) -> np.ndarray:
        return np.mean([greyed(dark, age, np.random.default_rng(seed)) for seed in range(60)], axis=0)

    assert np.allclose(mean(0.05), dark, atol=0.03)
    assert mean(1.0).min() > 0.5
    assert np.ptp(mean(1.0)) < 0.05
