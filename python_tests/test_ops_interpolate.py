"""Interpolation of vertex attributes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from focus import ops

NAN = float("nan")
POINTS = [(0.0, 0.0, 5.0), (9.0, 1.0, 6.0), (8.0, 9.0, 7.0), (1.0, 8.0, 8.0)]
FACES = [[0, 1, 2], [0, 2, 3]]


def _scene(device: torch.device, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, ops.Fragments]:
    vertices = torch.tensor([POINTS], device=device).repeat(batch, 1, 1)
    faces = torch.tensor(FACES, device=device)
    return vertices, faces, ops.rasterize(vertices, faces, (10, 12))


def test_a_linear_function_of_the_screen_is_reproduced(kernel_device: torch.device) -> None:
    vertices, faces, fragments = _scene(kernel_device)
    values = ops.interpolate(vertices, faces, fragments)
    assert values.shape == (1, 3, 10, 12)
    _, y, x = (fragments.face_index >= 0).nonzero(as_tuple=True)
    assert len(x) > 50
    torch.testing.assert_close(values[0, :2, y, x], torch.stack([x, y]).float())
    torch.testing.assert_close(values[0, 2, y, x], fragments.depth[0, y, x])


def test_the_background_is_zero_whatever_the_attributes(kernel_device: torch.device) -> None:
    vertices, faces, fragments = _scene(kernel_device)
    attributes = torch.full_like(vertices, NAN)
    values = ops.interpolate(attributes, faces, fragments)
    background = (fragments.face_index < 0)[:, None].expand_as(values)
    assert (values[background] == 0).all()
    assert values[~background].isnan().all()


def test_bad_attributes_reach_the_faces_of_their_vertex_only(kernel_device: torch.device) -> None:
    vertices, faces, fragments = _scene(kernel_device)
    attributes = vertices.clone()
    attributes[0, 1] = NAN
    values = ops.interpolate(attributes, faces, fragments)
    assert torch.equal(values[:, 0].isnan(), fragments.face_index == 0)


@pytest.mark.parametrize("channels", [0, 1, 5])
def test_any_number_of_channels(kernel_device: torch.device, channels: int) -> None:
    _, faces, fragments = _scene(kernel_device)
    attributes = torch.rand(1, 4, channels, device=kernel_device, requires_grad=True)
    values = ops.interpolate(attributes, faces, fragments)
    assert values.shape == (1, channels, 10, 12)
    values.sum().backward()
    assert attributes.grad is not None
    covered = float((fragments.face_index >= 0).sum())
    torch.testing.assert_close(attributes.grad.sum(1), torch.full((1, channels), covered, device=kernel_device))


def test_shared_attributes_gather_the_gradients_of_all_images(kernel_device: torch.device) -> None:
    vertices, faces, _ = _scene(kernel_device, batch=3)
    vertices[1:, :, :2] += torch.tensor([[1.0, 0.5], [-3.0, 2.0]], device=kernel_device)[:, None]
    fragments = ops.rasterize(vertices, faces, (10, 12))
    attributes = torch.rand(1, 4, 2, device=kernel_device)
    weight = torch.rand(3, 2, 10, 12, device=kernel_device)
    gradients = []
    for leaf in (attributes.clone().requires_grad_(), attributes.repeat(3, 1, 1).requires_grad_()):
        (ops.interpolate(leaf, faces, fragments) * weight).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.sum(0))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_reach_the_vertices_through_the_fragments(kernel_device: torch.device) -> None:
    """Of sum(x), which is the pixel's own coordinate wherever the vertices are: attributes and vertices cancel."""
    vertices, faces, _ = _scene(kernel_device)
    vertices.requires_grad_()
    fragments = ops.rasterize(vertices, faces, (10, 12))
    ops.interpolate(vertices, faces, fragments)[:, :2].sum().backward()
    assert vertices.grad is not None
    covered = float((fragments.face_index >= 0).sum())
    assert float(vertices.grad[..., :2].abs().max()) < 1e-5 * covered


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (1, 1)])
def test_small_images(kernel_device: torch.device, size: tuple[int, int]) -> None:
    vertices, faces, _ = _scene(kernel_device)
    fragments = ops.rasterize(vertices, faces, size)
    attributes = vertices.clone().requires_grad_()
    values = ops.interpolate(attributes, faces, fragments)
    assert values.shape == (1, 3, *size)
    values.sum().backward()
    assert attributes.grad is not None


def test_no_faces(kernel_device: torch.device) -> None:
    vertices, _, _ = _scene(kernel_device)
    none = torch.zeros(0, 3, dtype=torch.int32, device=kernel_device)
    attributes = vertices.clone().requires_grad_()
    values = ops.interpolate(attributes, none, ops.rasterize(vertices, none, (4, 4)))
    assert (values == 0).all()
    values.sum().backward()
    assert attributes.grad is not None
    assert (attributes.grad == 0).all()


def _damaged(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, ops.Fragments]:
    vertices, faces, fragments = _scene(device)
    face_index = fragments.face_index.clone()
    face_index[0, 0, -1], face_index[0, 0, 0] = 2, 2**31 - 1
    return vertices, faces, fragments._replace(face_index=face_index)


def test_faces_out_of_range_are_an_error_on_the_cpu() -> None:
    vertices, faces, fragments = _damaged(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"focus.interpolate: face_index has 2 of 120 entries outside \[-1, 1\]"):
        ops.interpolate(vertices, faces, fragments)


def test_faces_out_of_range_are_background_on_cuda(cuda_device: torch.device) -> None:
    """Where a check would cost a synchronisation. For the emulated kernels see native/exercise_interpolate.cpp."""
    vertices, faces, fragments = _damaged(cuda_device)
    vertices.requires_grad_()
    values = ops.interpolate(vertices, faces, fragments)
    values.sum().backward()
    assert (values[0, :, 0, [0, -1]] == 0).all()


_, _, FRAGMENTS = _scene(torch.device("cpu"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attributes": None}, TypeError, "interpolate: attributes expected a torch.Tensor, got NoneType"),
        ({"attributes": torch.ones(4, 3)}, ValueError, r"attributes expected shape \[B, V, C\], got \[4, 3\]"),
        ({"attributes": torch.ones(2, 4, 3)}, ValueError, "attributes expected a batch of 1 or 1, .* got 2"),
        ({"attributes": torch.ones(1, 4, 3).long()}, TypeError, "attributes expected a floating dtype"),
        (
            {"attributes": torch.ones(1, 4, 3).double()},
            TypeError,
            "barycentric is torch.float32 and attributes torch.fl",
        ),
        ({"fragments": tuple(FRAGMENTS)}, TypeError, "fragments expected what rasterize returned, got tuple"),
        ({"attributes": torch.ones(1, 4, 3).to_sparse()}, TypeError, "attributes expected a dense tensor"),
        ({"attributes": torch.ones(1, 2, 3)}, ValueError, r"3 of 6 entries of faces lie outside \[0, 2\)"),
        (
            {"fragments": FRAGMENTS._replace(face_index=FRAGMENTS.face_index.long())},
            TypeError,
            "fragments.face_index expected int32, got torch.int64",
        ),
        (
            {"fragments": FRAGMENTS._replace(face_index=FRAGMENTS.face_index[0])},
            ValueError,
            r"fragments.face_index expected shape \[B, H, W\], got \[10, 12\]",
        ),
        (
            {"fragments": FRAGMENTS._replace(barycentric=FRAGMENTS.barycentric[:, 1:])},
            ValueError,
            r"fragments.barycentric expected shape \[1, 10, 12, 3\], got \[1, 9, 12, 3\]",
        ),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"attributes": torch.ones(1, 4, 3), "faces": torch.tensor(FACES), "fragments": FRAGMENTS}
    with pytest.raises(error, match=message):
        ops.interpolate(**{**valid, **arguments})
