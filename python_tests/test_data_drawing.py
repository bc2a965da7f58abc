"""Small drawing: shapes where they should be, light from where it comes, and textures in range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus.data.degradation import Degradation, compress
from focus.data.drawing import (
    Layer,
    Relief,
    blur,
    box_distance,
    front_light,
    noise,
    polygon_distance,
    saturate,
    shade,
    window,
)
from focus.face.lighting import directional_lighting, harmonics


def _light(*direction: float) -> np.ndarray:
    one = torch.ones(1, 3, dtype=torch.float64)
    return directional_lighting(torch.tensor([direction], dtype=torch.float64), one, 0.1 * one)[0].numpy()


def test_shading_is_that_of_the_renderer() -> None:
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((100, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lighting = rng.standard_normal((3, 9))
    expected = np.maximum(lighting @ harmonics(torch.from_numpy(normals)).numpy().T, 0)
    shaded = shade(*normals.T.astype(np.float32), lighting)
    assert np.abs(shaded - expected).max() < 1e-5
    assert np.allclose(
        front_light(_light(0, 0, -1)), 0.1 + (1 / 4 + 1 / 2 + 5 / 16), atol=1e-5
    )  # bands 0, 1, 2 of the cosine lobe


def test_a_capsule_covers_its_area_and_is_bright_towards_the_light() -> None:
    relief = Relief(64)
    relief.capsule((20, 32), (44, 32), 8, 8, [0.5, 0.5, 0.5])
    assert relief.alpha.sum() == pytest.approx(24 * 16 + np.pi * 64, rel=0.01)
    layer = relief.lit(_light(0, -1, -0.3), edge=0)
    assert layer.color[26, 32, 0] > 2 * layer.color[38, 32, 0]  # light from above: y points down
    assert layer.alpha[0].max() == 0


def test_an_ellipsoid_has_the_outline_of_its_projection() -> None:
    relief = Relief(96)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    relief.ellipsoid((48, 48, 0), (30, 12, 20), turn, [1, 1, 1])
    assert relief.alpha.sum() == pytest.approx(np.pi * 30 * 12, rel=0.02)
    tip = np.array([48, 48]) + 28 * turn[:2, 0]
    assert relief.alpha[int(tip[1]), int(tip[0])] == 1
    assert relief.depth[48, 48] == pytest.approx(-20, abs=0.1)
    half = Relief(96)
    half.ellipsoid((48, 48, 0), (30, 30, 30), np.eye(3), [1, 1, 1], keep=((0, -1, 0), 0.0))
    assert half.alpha[:48].sum() == pytest.approx(np.pi * 450, rel=0.05)
    assert half.alpha[50:].max() == 0


def test_the_nearer_of_two_solids_is_seen() -> None:
    relief = Relief(32)
    relief.ellipse((16, 16), (8, 8), 0, [1, 0, 0], depth=0)
    relief.ellipse((16, 16), (4, 4), 0, [0, 1, 0], depth=20)
    relief.ellipse((16, 16), (2, 2), 0, [0, 0, 1], depth=-20)
    assert relief.albedo[16, 16].tolist() == [0, 0, 1]
    assert relief.albedo[16, 20].tolist() == [1, 0, 0]


def test_signed_distances() -> None:
    area = window(40, 0, 0, 39, 39)
    assert area is not None
    square = np.array([[10.0, 10], [30, 10], [30, 30], [10, 30]])
    distance, (box, u, v) = polygon_distance(area, square), box_distance(area, (20, 20), (10, 10), 0.0)
    assert np.abs(distance - box).max() < 1e-4
    assert (distance[20, 20], distance[20, 5], distance[5, 20]) == (-10, 5, 5)
    assert (u[0, 25], v[25, 0]) == (5, 5)
    star = (
        np.array([[20.0, 4], [24, 16], [36, 16], [26, 24], [30, 36], [20, 28], [10, 36], [14, 24], [4, 16], [16, 16]])
        + 0.3
    )
    inside = polygon_distance(area, star) < 0
    assert inside[20, 20]
    assert not inside[34, 20]  # between two points of the star
    assert np.array_equal(inside, polygon_distance(area, star[::-1]) < 0)
    assert window(40, 50, 0, 60, 10) is None
    assert window(40, float("nan"), 0, 60, 10) is None


def test_layers_compose() -> None:
    below, above = (
        Layer(np.full((1, 1, 3), c, np.float32), np.full((1, 1), a, np.float32)) for c, a in ((0.2, 0.5), (0.8, 0.25))
    )
    picture = np.full((1, 1, 3), 1.0, np.float32)
    assert np.allclose(above.on(below).over(picture), above.over(below.over(picture)))


def test_noise_and_blur() -> None:
    values = noise(np.random.default_rng(0), 48, 5, octaves=3)
    assert values.shape == (48, 48)
    assert 0 <= values.min() < 0.4
    assert 0.6 < values.max() <= 1
    assert np.allclose(blur(np.full((20, 20, 3), 0.3, np.float32), 2.0), 0.3)
    dot = np.zeros((21, 21), np.float32)
    dot[10, 10] = 1
    spread = blur(dot, 1.5)
    assert spread.sum() == pytest.approx(1)
    columns = np.arange(21)
    assert (spread * (columns - 10) ** 2).sum() == pytest.approx(1.5**2, rel=0.15)  # the kernel ends at 2.5 sigma
    assert np.array_equal(spread, spread.T)


def test_compression_is_mild_and_blocky() -> None:
    rng = np.random.default_rng(0)
    picture = blur(rng.random((44, 44, 3), dtype=np.float32), 1.5)
    packed = compress(picture, 0.5)
    assert packed.shape == picture.shape
    assert 0.002 < np.abs(packed - picture).mean() < 0.05
    assert np.allclose(compress(np.full((16, 16, 3), 0.5, np.float32), 1e-3), 0.5, atol=1e-3)


def test_a_perfect_camera_changes_nothing() -> None:
    camera = Degradation.sample(np.random.default_rng(0), 32, 0.0)
    picture = np.random.default_rng(1).random((32, 32, 3), dtype=np.float32)
    assert np.array_equal(camera.apply(picture), picture)
    assert saturate(np.float32(-1)) == 0
