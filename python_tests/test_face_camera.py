"""Camera, lighting and parameters: conventions worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.camera import rotation_matrix
from focus.face.lighting import ambient_lighting, directional_lighting, harmonics


@pytest.fixture(scope="module")
def small_model() -> MorphableModel:
    return MorphableModel.procedural("small").truncated(12, 6, 10)


def _project(camera: Camera, point: tuple[float, float, float], angles: tuple[float, float, float]) -> list[float]:
    vertices = camera.transform(torch.tensor([[point]]).float(), torch.tensor([angles]).float(), torch.zeros(1, 3))
    return camera.project(vertices)[0, 0].tolist()


def test_focal_and_principal_point() -> None:
    camera = Camera(224)
    assert camera.focal == pytest.approx(1014.72)
    assert camera.principal == 111.5


def test_a_camera_of_another_focal_length_beside_the_middle() -> None:
    camera = Camera(64, focal=100, offset=(10, -4))
    assert _project(camera, (100, 0, 0), (0, 0, 0)) == pytest.approx([31.5 + 10 + 100 * 100 / 1000, 27.5, 1000])
    twice = camera.resized(128)
    assert (twice.focal, twice.offset, twice.principal) == (200, (20, -8), 63.5)
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="Camera: focal: expected a positive number"):
            Camera(64, focal=wrong)


def test_origin_is_the_middle_of_the_image_at_one_metre() -> None:
    assert _project(Camera(64), (0, 0, 0), (0, 0, 0)) == pytest.approx([31.5, 31.5, 1000])


def test_x_is_right_y_is_up_and_z_comes_nearer() -> None:
    camera = Camera(64)  # focal 289.92: 100 mm at 1 m are 28.992 px
    assert _project(camera, (100, 0, 0), (0, 0, 0)) == pytest.approx([31.5 + 28.992, 31.5, 1000])
    assert _project(camera, (0, 100, 0), (0, 0, 0)) == pytest.approx([31.5, 31.5 - 28.992, 1000])
    assert _project(camera, (0, 0, 100), (0, 0, 0)) == pytest.approx([31.5, 31.5, 900])


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ((math.pi / 2, 0, 0), (0, 1, 0)),  # pitch: the nose (0, 0, 1) points down the image
        ((0, math.pi / 2, 0), (1, 0, 0)),  # yaw: to the image's right
        ((0, 0, math.pi / 2), (0, 0, -1)),  # roll leaves it
    ],
)
def test_quarter_turns_of_the_nose(angles: tuple[float, float, float], expected: tuple[float, float, float]) -> None:
    turned = rotation_matrix(torch.tensor([angles]))[0] @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(turned, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_roll_turns_the_image_right_axis_up() -> None:
    turned = rotation_matrix(torch.tensor([[0, 0, math.pi / 2]]))[0] @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(turned, torch.tensor([0.0, -1.0, 0.0]), rtol=0, atol=1e-6)


def test_rotation_matrix_is_the_product_of_its_turns() -> None:
    a, b, c = 0.3, -0.7, 1.1
    x = torch.tensor([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    y = torch.tensor([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    z = torch.tensor([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    expected = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ x @ y @ z
    torch.testing.assert_close(rotation_matrix(torch.tensor([[a, b, c]]))[0], expected, rtol=0, atol=1e-6)


def test_camera_is_differentiable() -> None:
    vertices = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    camera = Camera(8)
    assert torch.autograd.gradcheck(
        lambda v, r, t: camera.project(camera.transform(v, r, t)), (vertices, angles, shift)
    )


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 3)])
def test_angles_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected shape \[B, 3\]"):
        rotation_matrix(torch.zeros(shape))


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_image_size_must_be_positive_and_whole(size: float) -> None:
    with pytest.raises(ValueError, match="image_size"):
        Camera(size)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    # Gauss-Legendre in z, equal steps round: exact for products of these polynomials.
    points, weights = torch.tensor([-0.7745966692, 0.0, 0.7745966692]).double(), torch.tensor([5, 8, 5]).double() / 9
    angle = torch.arange(8).double() * math.pi / 4
    z, a = torch.meshgrid(points, angle, indexing="ij")
    r = (1 - z**2).sqrt()
    basis = harmonics(torch.stack((r * a.cos(), r * a.sin(), z), -1))
    weight = (weights[:, None] * torch.full_like(angle, math.pi / 4)).flatten()
    gram = basis.flatten(0, 1).T @ (basis.flatten(0, 1) * weight[:, None])
    torch.testing.assert_close(gram, torch.eye(9).double(), rtol=0, atol=1e-6)


def test_harmonics_agree_with_the_operator() -> None:
    from focus import ops

    normals = torch.nn.functional.normalize(torch.randn(1, 50, 3), dim=-1)
    light = torch.randn(1, 3, 9)
    shaded = ops.sh_shading(normals, torch.ones(1, 50, 3), light)
    torch.testing.assert_close(shaded, harmonics(normals) @ light.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_light_at_the_camera_shades_what_faces_it() -> None:
    one = torch.ones(1, 3)
    light = directional_lighting(torch.tensor([[0.0, 0.0, -2.0]]), one, 0.1 * one)
    normals = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    shades = harmonics(normals) @ light[0, 0]
    assert shades[0] == pytest.approx(1.0625 + 0.1, abs=1e-4)  # 1.0625: the cosine lobe in nine harmonics at its pole
    assert shades[1] == pytest.approx(0.0625 + 0.1, abs=1e-4)


def test_ambient_light_is_the_official_default(small_model: MorphableModel) -> None:
    light = FaceParameters.mean(small_model, 2).lighting
    torch.testing.assert_close(light, ambient_lighting(2))
    assert light[1, 2].tolist() == pytest.approx([0.7 * 2 * math.pi] + [0] * 8)


def test_parameters_select_join_and_map(small_model: MorphableModel) -> None:
    parameters = FaceParameters.mean(small_model, 3).map(
        lambda value: value + torch.arange(3.0).view(3, *[1] * (value.dim() - 1))
    )
    assert len(parameters) == parameters.batch_size == 3
    assert parameters[1].identity.shape == (1, 12)
    assert float(parameters[-1].rotation[0, 0]) == 2
    joined = FaceParameters.cat([parameters[:1], parameters[torch.tensor([2])]])
    assert joined.translation[:, 0].tolist() == [0, 2]
    assert [name for name, _ in joined.items()] == [
        "identity",
        "expression",
        "albedo",
        "rotation",
        "translation",
        "lighting",
    ]
    copy = parameters.clone()
    copy.identity.zero_()
    assert float(parameters.identity[2, 0]) == 2
    assert parameters.to(torch.float64).lighting.dtype == torch.float64
    with pytest.raises(IndexError, match="3 is out of range"):
        parameters[3]
    with pytest.raises(ValueError, match="at least one"):
        FaceParameters.cat([])


def test_parameters_of_a_wrong_shape(small_model: MorphableModel) -> None:
    good = dict(FaceParameters.mean(small_model, 2).items())
    with pytest.raises(ValueError, match=r"lighting: expected shape \[2, 3, 9\].*got \[2, 27\]"):
        FaceParameters(**{**good, "lighting": torch.zeros(2, 27)})
