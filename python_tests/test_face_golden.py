"""Our camera, lighting, shading and rasterizer against renders (and gradients) of the original FOCUS renderer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focus import ops
from focus.face.camera import Camera, rigid_transform, rotation_matrix
from focus.face.renderer import draw, shade

CASES = ("render_a", "render_ict_front")


@pytest.fixture(scope="module", params=CASES)
def golden(request: pytest.FixtureRequest, shared_dir: Path) -> dict[str, Tensor]:
    with np.load(shared_dir / "golden" / f"{request.param}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """Distance of two tensors as vectors, relative to the second."""
    return float((ours - theirs).norm() / theirs.norm())


def _project(
    golden: dict[str, Tensor], vertices: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor]:
    camera = Camera(golden["image"].shape[-1])
    points = rigid_transform(vertices, rotation, translation[:, :, 0])
    return points, camera.project(points)


def test_camera_matrix_is_that_of_the_original(golden: dict[str, Tensor]) -> None:
    camera = Camera(golden["image"].shape[-1])
    ours = torch.tensor([[camera.focal, 0, camera.principal], [0, camera.focal, camera.principal], [0, 0, 1]])
    torch.testing.assert_close(ours, golden["A"][0])


def test_rotation_and_projection(golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(rotation_matrix(golden["camera_param"][:, :3]), golden["R"], rtol=0, atol=1e-6)
    _, screen = _project(golden, golden["vertices"], golden["R"], golden["T"])
    torch.testing.assert_close(screen, golden["projected"], rtol=0, atol=5e-4)  # pixels and mm, float32 at 1000 mm


def test_translation_is_relative_to_the_default_distance(golden: dict[str, Tensor]) -> None:
    angles, translation = golden["camera_param"].split(3, dim=1)
    ours = Camera.transform(golden["vertices"], angles, translation)
    theirs = rigid_transform(golden["vertices"], golden["R"], golden["T"][:, :, 0])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-4)


def test_image_mask_and_gradients(golden: dict[str, Tensor]) -> None:
    size = golden["image"].shape[-1]
    inputs = {
        "vertices": golden["vertices"],
        "albedo": golden["albedo"],
        "sh": golden["sh"],
        "R": golden["R"],
        "T": golden["T"],
    }
    inputs = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    topology = ops.Topology(golden["faces"], golden["vertices"].shape[1])
    points, screen = _project(golden, inputs["vertices"], inputs["R"], inputs["T"])
    _, colors = shade(points, inputs["albedo"], inputs["sh"].view(-1, 3, 9), topology)
    torch.testing.assert_close(colors, golden["shaded"], rtol=1e-5, atol=1e-6)
    image, mask, _ = draw(screen, colors, topology, (size, size))

    differs = (mask[:, 0] != golden["mask"]) | ((image - golden["image"]).abs() > 2e-3).any(1)
    assert float(differs.float().mean()) <= 1e-3

    (image * golden["weight"]).sum().backward()
    # The original computes in single precision; thin triangles amplify its rounding in the gradient of the vertices.
    for key, tolerance in (("albedo", 1e-4), ("R", 1e-3), ("T", 1e-3), ("vertices", 3e-2)):
        gradient = inputs[key].grad
        assert gradient is not None
        assert _relative(gradient, golden[f"grad_{key}"]) <= tolerance, key


def _normals_of_the_original(golden: dict[str, Tensor]) -> Tensor:
    """Unit normals in camera space as the original reads its unnormalised ones: z is the cosine of the polar angle."""
    normals = golden["vertex_normals"] @ golden["R"].transpose(1, 2)
    cosine = normals[..., 2:].clamp(-1, 1)
    around = torch.nn.functional.normalize(normals[..., :2], dim=-1)
    return torch.cat((around * (1 - cosine**2).sqrt(), cosine), dim=-1)


def test_shading_and_gradient_of_the_light(golden: dict[str, Tensor]) -> None:
    size = golden["image"].shape[-1]
    topology = ops.Topology(golden["faces"], golden["vertices"].shape[1])
    normals = _normals_of_the_original(golden)
    colors = ops.sh_shading(normals, golden["albedo"], golden["sh_full"].view(-1, 3, 9))
    assert _relative(colors, golden["shaded_full"]) <= 1e-5

    light = golden["sh"].clone().requires_grad_()
    colors = ops.sh_shading(normals, golden["albedo"], light.view(-1, 3, 9))
    image, _, _ = draw(golden["projected"], colors, topology, (size, size))
    (image * golden["weight"]).sum().backward()
    assert light.grad is not None
    assert _relative(light.grad, golden["grad_sh"]) <= 1e-4


def test_normals_and_all_nine_bands(golden: dict[str, Tensor]) -> None:
    topology = ops.Topology(golden["faces"], golden["vertices"].shape[1])
    theirs = torch.nn.functional.normalize(golden["vertex_normals"], dim=-1)  # the original leaves them unnormalised
    ours = ops.vertex_normals(golden["vertices"], topology)
    assert _relative(ours, theirs) <= 1e-6
    points = rigid_transform(golden["vertices"], golden["R"], golden["T"][:, :, 0])
    _, colors = shade(points, golden["albedo"], golden["sh_full"].view(-1, 3, 9), topology)
    assert _relative(colors, golden["shaded_full"]) <= 1e-2
