"""The distance of the camera, from the perspective of a face; crops beside the middle of their photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus import fit_photo
from focus.face import Camera, FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.face.lighting import directional_lighting
from focus.fit import FitSettings
from focus.fit.distance import _vertex, fit_with_distance
from focus.fit.landmarks import LandmarkObservation

SIZE = 224
SCALE = 1.0
"""Pixels per mm at the face."""


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=12, expression=6, albedo=4)


def seen_from(
    model: MorphableModel, distance: float, offset: tuple[float, float] = (0, 0)
) -> tuple[FaceParameters, Camera]:
    """A face in the middle of the crop, at a distance."""
    generator = torch.Generator().manual_seed(4)
    face = FaceParameters.mean(model)
    face.identity[:] = 0.6 * torch.randn(1, 12, generator=generator)
    face.rotation[:] = torch.tensor([0.05, 0.3, -0.1])
    face.translation[:] = torch.tensor([-offset[0] / SCALE, -offset[1] / SCALE, distance - 1000])
    face.lighting = directional_lighting(
        torch.tensor([[0.4, -0.5, -1.0]]), torch.full((1, 3), 0.6), torch.full((1, 3), 0.5)
    )
    return face, Camera(SIZE, SCALE * distance, offset)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (120.0, -60.0)])
@pytest.mark.parametrize("distance", [350.0, 700.0, 1600.0])
def test_the_distance_is_found(model: MorphableModel, distance: float, offset: tuple[float, float]) -> None:
    face, camera = seen_from(model, distance, offset)
    locator = LandmarkLocator(model)
    points = locator(model.shape(face.identity, face.expression), face.rotation, translation=face.translation)
    screen = camera.project(camera.transform(points, face.rotation, face.translation))[0, :, :2]
    observation = LandmarkObservation.from_points(screen, 0.5, 0.7)
    found, seen = fit_with_distance(model, locator, observation, 1.0, Camera(SIZE, offset=offset))
    reached = 1000 + float(found.translation[0, 2])
    assert abs(np.log(reached / distance)) < 0.25  # perspective fades with the distance, and the prior pulls
    assert seen.focal / reached == pytest.approx(SCALE, rel=0.05)
    assert seen.offset == offset
    torch.testing.assert_close(found.rotation, face.rotation, atol=0.04, rtol=0)
    fixed, same = fit_with_distance(model, locator, observation, 1.0, Camera(SIZE, offset=offset), ())
    assert same.focal == Camera(SIZE).focal
    assert abs(float(fixed.translation[0, 2]) + 1000 - distance) > 5 * abs(reached - distance) or distance > 700


def test_the_lowest_point_of_a_parabola() -> None:
    assert _vertex((0, 5), (1, 2), (3, 2)) == pytest.approx(2)
    assert _vertex((0, 1), (1, 4), (3, 9)) == 0  # to the left of all
    assert _vertex((0, 0), (1, 5), (2, 1)) == 0  # a hill


def test_a_selfie_is_drawn_where_it_is(model: MorphableModel) -> None:
    """The camera is part of the result: its picture, landmarks and numbers are those of the photo."""
    face, camera = seen_from(model, 350)
    rendering = Renderer(model, SIZE, camera=camera)(face)
    photo = torch.where(rendering.mask > 0, rendering.image, 0.3)[0].clamp(0, 1).permute(1, 2, 0)
    locator = LandmarkLocator(model)
    points = (
        locator(rendering.vertices, face.rotation, rendering.screen_vertices[..., :2], face.translation)[0]
        .double()
        .numpy()
    )
    settings = FitSettings(image_size=112, coarse_steps=2, fine_steps=2, landmark_sigma=0.7, jaw_sigma=1)
    found = fit_photo((photo * 255).round().byte().numpy(), points, model, settings)
    assert np.abs(found.landmarks_68 - points).mean() < 1
    content = found.to_dict()
    assert content["camera"]["focal_pixels"] == pytest.approx(350, rel=0.3)
    assert content["camera"]["principal_pixels"] == pytest.approx([111.5, 111.5])
    assert content["pose"]["translation_mm"][2] == pytest.approx(content["camera"]["focal_pixels"], rel=0.05)
    drawn, _ = found.render(112)
    inside = found.face[0] > 0
    assert float((drawn - found.rendering).abs().mean(dim=0)[inside].median()) < 0.01
