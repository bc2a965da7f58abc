"""A photo and its landmarks to a face: on renderings whose truth is known, on bad input, and on real photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from focus import Reconstruction, fit_photo
from focus.data.landmarks import five_from_68, read_landmarks
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.face.lighting import directional_lighting
from focus.fit import FitSettings, PhotoFitter
from focus.fit.landmarks import LandmarkObservation
from focus.fit.photometric import PhotometricFit, lip_and_lid_gaps
from focus.fit.results import landmark_error

SIZE = 128
QUICK = FitSettings(image_size=96, coarse_steps=24, fine_steps=24, mask_every=8)


@dataclass
class Scene:
    """A rendered face on a grey wall, and the truth about it."""

    photo: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    parameters: FaceParameters
    face: NDArray[np.bool_]

    def with_occluder(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A striped cup before mouth and chin, and the face that it hides."""
        y, x = np.mgrid[:SIZE, :SIZE]
        cup = (y > 80) & (x > 52) & (x < 98)
        stripes = np.where((y // 4 % 2 == 0)[..., None], (40, 70, 150), (60, 110, 170))
        return np.where(cup[..., None], stripes, self.photo).astype(np.uint8), cup & self.face


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=15, expression=10, albedo=10)


@pytest.fixture(scope="module")
def scene(model: MorphableModel) -> Scene:
    generator = torch.Generator().manual_seed(5)
    parameters = FaceParameters.mean(model)
    parameters.identity[:] = 0.8 * torch.randn(1, model.identity_count, generator=generator)
    parameters.expression[:] = 0.4 * torch.randn(1, model.expression_count, generator=generator)
    parameters.albedo[:] = 0.8 * torch.randn(1, model.albedo_count, generator=generator)
    parameters.rotation[:] = torch.tensor([0.1, -0.35, 0.15])
    parameters.translation[:] = torch.tensor([5.0, -8.0, 350.0])
    parameters.lighting = directional_lighting(
        torch.tensor([[0.5, -0.5, -1.0]]), torch.full((1, 3), 0.6), torch.full((1, 3), 0.45)
    )
    rendering = Renderer(model, SIZE)(parameters)
    locator = LandmarkLocator(model)
    landmarks = locator(rendering.vertices, parameters.rotation, rendering.screen_vertices[..., :2])[0]
    wall = 0.35 + 0.02 * torch.randn(1, 3, SIZE, SIZE, generator=generator)
    image = torch.where(rendering.mask > 0, rendering.image, wall)[0].clamp(0, 1)
    return Scene(
        (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy(),
        landmarks.double().numpy(),
        parameters,
        rendering.mask[0, 0].numpy() > 0,
    )


@pytest.fixture(scope="module")
def fitter(model: MorphableModel) -> PhotoFitter:
    return PhotoFitter(model, QUICK)


@pytest.fixture(scope="module")
def fitted(scene: Scene, fitter: PhotoFitter) -> Reconstruction:
    return fitter(scene.photo, scene.landmarks, name="scene.png")


def neutral_error(model: MorphableModel, found: FaceParameters, truth: FaceParameters) -> float:
    """RMS distance of neutral shapes after removing scale and place, relative to the size of the face."""
    shapes = [model.neutral_shape(parameters.identity)[0] for parameters in (found, truth)]
    first, second = ((shape - shape.mean(0)) / (shape - shape.mean(0)).norm() for shape in shapes)
    return float((first - second).norm())


def test_recovers_a_rendered_face(model: MorphableModel, scene: Scene, fitted: Reconstruction) -> None:
    assert landmark_error(scene.landmarks, fitted.landmarks_68) < 1.5
    truth = np.rad2deg(scene.parameters.rotation[0].numpy())
    np.testing.assert_allclose(fitted.pose["rotation_degrees"], truth, atol=3)
    assert neutral_error(model, fitted.parameters, scene.parameters) < 0.8 * neutral_error(
        model, FaceParameters.mean(model), scene.parameters
    )
    difference = ((fitted.rendering - fitted.image).abs() * fitted.face).sum() / (3 * fitted.face.sum())
    assert difference < 0.03
    assert fitted.occluded_fraction < 0.03


def test_masks_an_occluder(scene: Scene, fitter: PhotoFitter) -> None:
    photo, hidden = scene.with_occluder()
    result = fitter(photo, scene.landmarks)
    visible = result.mask_in_photo() > 0.5
    drawn = result.alignment.to_photo_image(result.face[0].numpy(), photo.shape[:2]) > 0.5
    found = drawn & ~visible
    truth = drawn & hidden
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    assert result.occluded_fraction == pytest.approx(truth.sum() / drawn.sum(), abs=0.05)
    # The face behind the cup is still a face: its colours are near those of the face without it.
    plain = fitter(scene.photo, scene.landmarks)
    assert float((result.colors - plain.colors).abs().mean()) < 0.06
    assert landmark_error(scene.landmarks, result.landmarks_68) < 2.5


def test_five_landmarks(scene: Scene, fitter: PhotoFitter) -> None:
    five = five_from_68(scene.landmarks)
    result = fitter(scene.photo, five)
    assert landmark_error(five, result.landmarks_68) < 3
    assert landmark_error(scene.landmarks, result.landmarks_68) < 6
    np.testing.assert_allclose(
        result.pose["rotation_degrees"], np.rad2deg(scene.parameters.rotation[0].numpy()), atol=10
    )


def test_lips_do_not_pass_each_other(scene: Scene, model: MorphableModel) -> None:
    """Blend shapes that close an open mouth lift the lower lip, also of a mouth that is closed already."""
    mean = model.mean_shape
    below = mean - mean[model.landmarks68[66]]
    lift = torch.zeros_like(mean)
    lift[:, 1] = 25 * torch.exp(-0.5 * (below[:, :2] / 14).square().sum(dim=1)) * (below[:, 1] < -0.5)
    lift[model.landmarks68[65:68], 1] = 25  # where the upper lip is, too
    closing = model._replaced(expression_basis=lift[None], expression_prior="unit_interval")
    start = FaceParameters.mean(closing)
    start.expression[:] = 0.5
    start.rotation, start.translation = scene.parameters.rotation, scene.parameters.translation
    assert float(lip_and_lid_gaps(closing, closing.shape(start.identity, start.expression)).min()) < -12
    assert float(lip_and_lid_gaps(closing, mean[None]).min()) > -0.1
    size = 48
    target = torch.from_numpy(scene.photo).permute(2, 0, 1)[None, :, :size, :size].float() / 255
    five = LandmarkObservation.from_points(torch.from_numpy(five_from_68(scene.landmarks)), 2.0, 3.0)
    # Neither colours nor prior have a say (Adam makes much of the smallest slope).
    settings = replace(QUICK, pixel_weight=1e-30)
    fit = PhotometricFit(closing, LandmarkLocator(closing), target, five.resized(SIZE, size), float("inf"), settings)
    found = fit.descend(start, 60, torch.ones(1, 1, size, size)).parameters
    assert float(lip_and_lid_gaps(closing, closing.shape(found.identity, found.expression)).min()) > -4


def test_same_again(scene: Scene, fitter: PhotoFitter, fitted: Reconstruction) -> None:
    again = fitter(scene.photo, scene.landmarks)
    for name, value in again.parameters.items():
        assert torch.equal(value, getattr(fitted.parameters, name)), name
    assert torch.equal(again.mask, fitted.mask)


def test_counts_its_steps(scene: Scene, model: MorphableModel) -> None:
    fitter = PhotoFitter(model, replace(QUICK, coarse_steps=2, fine_steps=3))
    steps = []
    fitter(scene.photo, scene.landmarks, notify=lambda: steps.append(1))
    assert len(steps) == fitter.steps == 5


def test_landmarks_only(scene: Scene, model: MorphableModel) -> None:
    result = fit_photo(scene.photo, scene.landmarks, model, replace(QUICK, coarse_steps=0, fine_steps=0))
    assert landmark_error(scene.landmarks, result.landmarks_68) < 1.5
    assert not result.parameters.albedo.any()


def test_reads_files_and_lists(scene: Scene, model: MorphableModel, tmp_path: Path) -> None:
    Image.fromarray(scene.photo).save(tmp_path / "face.png")
    settings = replace(QUICK, coarse_steps=0, fine_steps=1)
    result = fit_photo(tmp_path / "face.png", scene.landmarks.tolist(), model, settings)
    assert result.name == "face.png"
    assert np.array_equal(result.photo, scene.photo)


def test_model_without_albedo_gets_one(scene: Scene, model: MorphableModel) -> None:
    grey = model.truncated(albedo=0)
    result = fit_photo(scene.photo, scene.landmarks, grey, replace(QUICK, coarse_steps=0, fine_steps=1))
    assert result.model.albedo_count > 0
    assert result.parameters.albedo.shape[1] == result.model.albedo_count


def test_on_a_device(scene: Scene, device: torch.device) -> None:
    model = MorphableModel.procedural("small", identity=8, expression=6, albedo=6).to(device)
    result = fit_photo(scene.photo, scene.landmarks, model, replace(QUICK, coarse_steps=4, fine_steps=4))
    assert result.mask.device.type == device.type
    assert landmark_error(scene.landmarks, result.landmarks_68) < 3
    assert result.to_dict()["occluded_fraction"] < 0.2


def test_upside_down_photo(scene: Scene, model: MorphableModel) -> None:
    """Rolled by 180 degrees is no mirror image."""
    settings = replace(QUICK, coarse_steps=0, fine_steps=1)
    result = fit_photo(scene.photo[::-1, ::-1].copy(), SIZE - 1 - scene.landmarks, model, settings)
    assert landmark_error(SIZE - 1 - scene.landmarks, result.landmarks_68) < 2
    assert abs(result.pose["rotation_degrees"][2]) > 150


def nan_at(points: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    points = points.copy()
    points[index] = np.nan
    return points


def shuffled(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """In a wrong order, but those that tell a mirrored face."""
    points = points.copy()
    others = np.setdiff1d(np.arange(68), (30, 36, 39, 42, 45, 48, 54))
    points[others] = np.random.default_rng(0).permutation(points[others])
    return points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: nan_at(points, 7), r"finite numbers, got NaN or infinity at points \[7\]"),
        (lambda points: points[:67], r"\[68, 2\] or \[5, 2\], got \[67, 2\]"),
        (lambda points: np.c_[points, points[:, :1]], r"got \[68, 3\]"),
        (lambda points: points + 500, "68 of 68 points .* lie outside of the photo of 128 x 128 pixels"),
        (lambda points: 0 * points + 40, "crop of only .* photo pixels"),
        (lambda points: points * (-1, 1) + (SIZE - 1, 0), "those of a mirrored face"),
        (lambda points: five_from_68(points)[[1, 0, 2, 4, 3]], "those of a mirrored face"),
        (lambda points: points * (1, -1) + (0, SIZE - 1), "those of a mirrored face"),
        (shuffled, "no face fits them: .* order of iBUG"),
        (lambda points: "everywhere", "expected numbers"),
        (lambda points: points + 0j, "expected real numbers"),
        (lambda points: torch.from_numpy(points + 0j), "expected real numbers"),
        (lambda points: np.ma.array(points, mask=np.arange(136).reshape(68, 2) == 9), r"masked ones at points \[4\]"),
        (lambda points: [[1, 2], [3]], "expected numbers"),
    ],
)
def test_bad_landmarks(scene: Scene, fitter: PhotoFitter, change: object, message: str) -> None:
    with pytest.raises(FocusError, match=message):
        fitter(scene.photo, change(scene.landmarks))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 20), np.uint8), r"uint8 \[H, W, 3\], got uint8 \[20, 20\]"),
        (np.zeros((20, 20, 3), np.float32), "got float32"),
        (np.zeros((0, 20, 3), np.uint8), r"got uint8 \[0, 20, 3\]"),
        ("no such file.png", "no such file"),
    ],
)
def test_bad_images(scene: Scene, fitter: PhotoFitter, image: object, message: str) -> None:
    with pytest.raises(FocusError, match=message):
        fitter(image, scene.landmarks)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, "procedural"])
def test_what_is_no_model_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"expected a MorphableModel .*procedural\(\)"):
        PhotoFitter(wrong)


def test_a_model_without_numbers_is_refused(model: MorphableModel) -> None:
    with pytest.raises(FocusError, match="on the device meta"):
        PhotoFitter(model.truncated(2, 2, 2).to("meta"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("antialias", "no", "True or False, got 'no'"),
        ("antialias", None, "True or False"),
        ("coarse_steps", None, "whole"),
    ],
)
def test_settings_of_other_kinds_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(FocusError, match=f"FitSettings.{field}: expected .*{message}"):
        FitSettings(**{field: value})  # type: ignore[arg-type]
    assert FitSettings(antialias=np.bool_(True)).antialias is True  # type: ignore[arg-type]


def test_a_face_off_the_crop_is_refused(scene: Scene, fitter: PhotoFitter) -> None:
    start = fitter.start(scene.photo, scene.landmarks)
    beside = replace(start.parameters, translation=start.parameters.translation + torch.tensor([[500.0, 0.0, 0.0]]))
    with pytest.raises(FocusError, match="lies off the crop"):
        fitter.finish_together([replace(start, parameters=beside)])


def test_tiny_photo(scene: Scene, model: MorphableModel) -> None:
    """A face of 12 pixels gives a result, or a clear error; here there is still something to see."""
    small = np.asarray(Image.fromarray(scene.photo).resize((20, 20), Image.Resampling.BOX))
    scale = 20 / SIZE
    points = (scene.landmarks + 0.5) * scale - 0.5
    result = fit_photo(small, points, model, replace(QUICK, coarse_steps=4, fine_steps=4))
    assert landmark_error(points, result.landmarks_68) < 5
    with pytest.raises(FocusError):
        fit_photo(small[:1, :1], points, model, QUICK)


def test_face_at_the_border_of_the_photo(scene: Scene, model: MorphableModel) -> None:
    left = int(scene.landmarks[:, 0].mean())
    result = fit_photo(
        scene.photo[:, left - 10 :],
        scene.landmarks - (left - 10, 0),
        model,
        replace(QUICK, coarse_steps=4, fine_steps=4),
    )
    assert result.mask_in_photo().shape == (SIZE, SIZE - left + 10)
    assert np.isfinite(result.landmarks_68).all()


@pytest.mark.parametrize("field", ["pixel_weight", "mask_every", "landmark_sigma", "coarse_steps", "image_size"])
def test_bad_settings(field: str) -> None:
    with pytest.raises(FocusError, match=f"FitSettings.{field}"):
        FitSettings(**{field: -1})
    with pytest.raises(FocusError, match=f"FitSettings.{field}"):
        FitSettings(**{field: float("nan")})


@pytest.mark.parametrize("source", ["procedural", "ict"])
def test_real_photos(shared_dir: Path, source: str) -> None:
    if source == "ict":
        model = MorphableModel.load(shared_dir / "models" / "ict" / "ict_face.npz")
    else:
        model = MorphableModel.procedural("small", identity=40, expression=20, albedo=30)
    fitter = PhotoFitter(model, replace(FitSettings(), image_size=112, coarse_steps=30, fine_steps=15))
    table = read_landmarks(shared_dir / "photos" / "landmarks.csv").points
    for name, occluded in (("000114.jpg", True), ("015310.jpg", False)):
        result = fitter(shared_dir / "photos" / name, table[name])
        assert landmark_error(table[name], result.landmarks_68) < 4
        # Hair falls over the forehead of the first; nothing hides the second.
        assert (result.occluded_fraction > 0.1) == occluded
