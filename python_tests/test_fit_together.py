"""Several photos of one person share identity and albedo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focus import fit_photo, fit_photos
from focus.errors import FocusError
from focus.eval.shape import shape_error
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.face.lighting import directional_lighting
from focus.fit import FitSettings, PhotoFitter

SIZE = 112
SETTINGS = FitSettings(image_size=SIZE, coarse_steps=3, fine_steps=3)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=12, expression=6, albedo=6)


def photos_of(model: MorphableModel) -> tuple[list[tuple[NDArray[np.uint8], NDArray[np.float64]]], FaceParameters]:
    """One person from three sides, with other expressions and light; the landmarks are off by a few pixels."""
    generator = torch.Generator().manual_seed(7)
    person = FaceParameters.mean(model)
    person.identity[:] = torch.randn(1, 12, generator=generator)
    person.albedo[:] = 0.7 * torch.randn(1, 6, generator=generator)
    photos = []
    for yaw in (-0.6, 0.0, 0.5):
        face = person.clone()
        face.expression[:] = 0.5 * torch.randn(1, 6, generator=generator)
        face.rotation[:] = torch.tensor([0.05, yaw, 0.0])
        face.lighting = directional_lighting(
            torch.tensor([[yaw, -0.5, -1.0]]), torch.full((1, 3), 0.6), torch.full((1, 3), 0.5)
        )
        rendering = Renderer(model, SIZE)(face)
        picture = torch.where(rendering.mask > 0, rendering.image, 0.3)[0].clamp(0, 1).permute(1, 2, 0)
        points = LandmarkLocator(model)(
            rendering.vertices, face.rotation, rendering.screen_vertices[..., :2], face.translation
        )[0]
        points = points + 0.7 * torch.randn(68, 2, generator=generator)
        photos.append(((picture * 255).round().byte().numpy(), points.double().numpy()))
    return photos, person


def test_together_is_better_than_each_alone(model: MorphableModel) -> None:
    photos, person = photos_of(model)
    truth = model.neutral_shape(person.identity)
    together = fit_photos(photos, model, SETTINGS, names=["left.png", "front.png", "right.png"])
    alone = [fit_photo(photo, points, model, SETTINGS) for photo, points in photos]
    assert [found.name for found in together] == ["left.png", "front.png", "right.png"]
    for found in together[1:]:
        assert torch.equal(found.parameters.identity, together[0].parameters.identity)
        assert torch.equal(found.parameters.albedo, together[0].parameters.albedo)
        assert not torch.equal(found.parameters.expression, together[0].parameters.expression)

    def error(vertices: torch.Tensor) -> float:
        return float(shape_error(vertices[None], truth).mean())

    errors = [error(found.neutral_vertices) for found in alone]
    assert error(together[0].neutral_vertices) < 0.9 * np.mean(errors)
    assert error(together[0].neutral_vertices) < 0.6 * error(model.mean_shape)
    for found, (_, points) in zip(together, photos, strict=True):
        assert np.abs(found.landmarks_68 - points).mean() < 1.5
        assert found.occluded_fraction < 0.1
        difference = ((found.rendering - found.image).abs() * found.face).sum() / (3 * found.face.sum())
        assert float(difference) < 0.03


def test_one_photo_together_is_the_photo_alone(model: MorphableModel) -> None:
    photos, _ = photos_of(model)
    calls: list[int] = []
    fitter = PhotoFitter(model, SETTINGS)
    (together,) = fitter.together(photos[:1], notify=lambda: calls.append(1))
    alone = fitter(*photos[0])
    for (name, value), (_, other) in zip(together.parameters.items(), alone.parameters.items(), strict=True):
        assert torch.equal(value, other), name
    assert len(calls) == fitter.steps
    calls.clear()
    fitter.together(photos[:2], notify=lambda: calls.append(1))
    assert len(calls) == 2 * fitter.steps


def test_expressions_stay_in_their_bounds_and_outlines_may_move(model: MorphableModel) -> None:
    bounded = model._replaced(expression_prior="unit_interval")
    photos, _ = photos_of(model)
    settings = FitSettings(image_size=64, coarse_steps=0, fine_steps=2, antialias=True)
    for found in fit_photos(photos[:2], bounded, settings):
        assert 0 <= float(found.parameters.expression.min()) <= float(found.parameters.expression.max()) <= 1


def test_wrong_photos_are_refused(model: MorphableModel, tmp_path: Path) -> None:
    photos, _ = photos_of(model)
    with pytest.raises(FocusError, match="fit_photos: expected at least one photo"):
        fit_photos([], model)
    with pytest.raises(FocusError, match="landmarks: expected shape"):
        fit_photos([photos[0], (photos[1][0], photos[1][1][:7])], model, SETTINGS)
    with pytest.raises(FocusError, match=r"nothing\.png"):
        fit_photos([(tmp_path / "nothing.png", photos[0][1])], model, SETTINGS)
    with pytest.raises(FocusError, match="fit_photos: names: expected 2, got 1"):
        fit_photos(photos[:2], model, SETTINGS, names=["a"])
