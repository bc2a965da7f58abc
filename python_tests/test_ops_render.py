"""Rendering: rasterization and interpolation in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from focus import ops

NAN = float("nan")
POINTS = [(0.0, 0.0, 5.0), (9.0, 1.0, 6.0), (8.0, 9.0, 7.0), (1.0, 8.0, 8.0)]
FACES = [[0, 1, 2], [0, 2, 3]]


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _scene(device: torch.device, size: tuple[int, int] = (40, 24)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images of two crumpled 5x5 sheets, one before the other, that reach beyond all sides; the faces and a weight
    of each pixel."""
    y, x = torch.meshgrid(torch.linspace(-0.1, 1.1, 5), torch.linspace(-0.1, 1.1, 5), indexing="ij")
    flat = torch.stack([x * size[1], y * size[0], torch.full_like(x, 9.0)], -1).reshape(1, 1, 25, 3)
    noise = _random(2, 2, 25, 3, seed=0) * torch.tensor([6.0, 6.0, 2.0])
    vertices = (flat + noise).reshape(2, 50, 3)
    first = torch.tensor([25 * s + 5 * i + j for s in range(2) for i in range(4) for j in range(4) if i + j != 3])
    faces = torch.cat([first[:, None] + torch.tensor(corners) for corners in ([0, 1, 5], [1, 5, 6])])  # both windings
    return vertices.to(device), faces.to(device), _random(2, 3, *size, seed=1).to(device)


def _separately(
    vertices: torch.Tensor, attributes: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], **options: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    fragments = ops.rasterize(vertices, faces, size, **options)
    return (
        ops.interpolate(attributes, faces, fragments),
        (fragments.face_index >= 0)[:, None].to(attributes),
        fragments.face_index,
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("perspective_correct", [False, True])
@pytest.mark.parametrize("cull", ["none", "clockwise", "counterclockwise"])
def test_is_interpolate_after_rasterize(
    kernel_device: torch.device, cull: str, perspective_correct: bool, channels: int, request: pytest.FixtureRequest
) -> None:
    """The image bit for bit; the gradients but for the rounding of the coordinates to float32."""
    emulated = kernel_device.type != "cuda" and "emulated" in request.node.name
    if emulated and channels != 3 and (cull != "none" or perspective_correct):
        pytest.skip("emulation is slow, and these differ by what the others show")
    vertices, faces, weight = _scene(kernel_device)
    options: dict[str, Any] = {"cull": cull, "perspective_correct": perspective_correct}
    for batch in (2,) if emulated else (1, 2):
        attributes = _random(batch, 50, channels, seed=2).to(kernel_device)
        results = []
        for call in (ops.render, _separately):
            leaves = vertices.clone().requires_grad_(), attributes.clone().requires_grad_()
            image, *others = call(*leaves, faces, weight.shape[2:], **options)  # type: ignore[operator]
            gradients = torch.autograd.grad((image * weight[:, :1]).sum(), leaves)
            results.append((image, *others, *gradients))
        assert all(torch.equal(a, b) for a, b in zip(results[0][:3], results[1][:3], strict=True))
        assert 0 < results[0][1].mean() < 1
        for actual, expected in zip(results[0][3:], results[1][3:], strict=True):
            assert expected.norm() > 0
            assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_bits_do_not_depend_on_threads_or_vector_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """For images of several bands of rows, one image and two."""
    vertices, faces, weight = _scene(torch.device("cpu"), (70, 30))
    threads, vector = torch.get_num_threads(), ops._native.module.uses_avx2()
    try:
        for batch in (1, 2):
            results = []
            for count, wanted in ((1, vector), (2, vector), (7, vector), (3, False)):
                torch.set_num_threads(count)
                ops._native.module.set_avx2(wanted)
                leaves = vertices[:batch].clone().requires_grad_(), _random(1, 50, 3, seed=2).requires_grad_()
                image, *_ = ops.render(*leaves, faces, (70, 30))
                results.append((image, *torch.autograd.grad((image * weight[:batch]).sum(), leaves)))
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        torch.set_num_threads(threads)
        ops._native.module.set_avx2(vector)


def test_the_background_is_zero_whatever_the_attributes(kernel_device: torch.device) -> None:
    vertices, faces = torch.tensor([POINTS], device=kernel_device), torch.tensor(FACES, device=kernel_device)
    image, mask, _ = ops.render(vertices, torch.full_like(vertices, NAN), faces, (10, 12))
    background = (mask == 0).expand_as(image)
    assert (image[background] == 0).all()
    assert image[~background].isnan().all()
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_unused_vertices_have_no_gradient(kernel_device: torch.device) -> None:
    """Nor does a bad attribute of one reach the others."""
    vertices, faces = torch.tensor([POINTS], device=kernel_device), torch.tensor(FACES[:1], device=kernel_device)
    vertices.requires_grad_()
    attributes = vertices.detach().clone()
    attributes[0, 3] = NAN
    attributes.requires_grad_()
    image, *_ = ops.render(vertices, attributes, faces, (10, 12))
    for gradient in torch.autograd.grad(image[:, 2].sum(), (vertices, attributes)):
        assert (gradient[0, 3] == 0).all()
        assert gradient.isfinite().all()
        assert (gradient[0, :3] != 0).any()


def test_the_mask_is_a_constant(kernel_device: torch.device) -> None:
    vertices, faces, _ = _scene(kernel_device)
    image, mask, _ = ops.render(vertices.requires_grad_(), vertices, faces, (10, 12))
    assert image.requires_grad
    assert not mask.requires_grad


def test_memory_kept_for_the_gradient_is_the_face_of_each_pixel() -> None:
    vertices, faces, _ = _scene(torch.device("cpu"))
    vertices.requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        ops.render(vertices, vertices, ops.Topology(faces, 50), (37, 41))
    large = [t for t in kept if t.numel() >= 37 * 41]
    assert [(t.dtype, tuple(t.shape)) for t in large] == [(torch.int32, (2, 37, 41))]


@pytest.mark.parametrize(
    ("size", "channels", "face_count"),
    [((0, 3), 3, 2), ((3, 0), 3, 2), ((1, 1), 3, 2), ((10, 9), 0, 2), ((4, 4), 3, 0)],
)
def test_small_and_empty(kernel_device: torch.device, size: tuple[int, int], channels: int, face_count: int) -> None:
    vertices = torch.tensor([POINTS], device=kernel_device, requires_grad=True)
    faces = torch.tensor(FACES, dtype=torch.int32, device=kernel_device)[:face_count]
    attributes = torch.rand(1, 4, channels, device=kernel_device, requires_grad=True)
    image, mask, _ = ops.render(vertices, attributes, faces, size)
    assert image.shape == (1, channels, *size)
    assert mask.shape == (1, 1, *size)
    assert face_count > 0 or (mask == 0).all()
    gradients = torch.autograd.grad(image.sum(), (vertices, attributes))
    assert [g.shape for g in gradients] == [vertices.shape, attributes.shape]
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"screen_vertices": None}, TypeError, "render: screen_vertices expected a torch.Tensor, got NoneType"),
        (
            {"screen_vertices": torch.ones(4, 3)},
            ValueError,
            r"screen_vertices expected shape \[B, V, 3\], got \[4, 3\]",
        ),
        ({"attributes": torch.ones(1, 5, 3)}, ValueError, r"attributes expected shape \[B, 4, C\], got \[1, 5, 3\]"),
        ({"attributes": torch.ones(3, 4, 3)}, ValueError, "attributes expected a batch of 1 or 2, .* got 3"),
        ({"attributes": torch.ones(1, 4, 3).long()}, TypeError, "attributes expected a floating dtype"),
        ({"attributes": torch.ones(1, 4, 3).double()}, TypeError, "attributes is torch.float64 and screen_vertices"),
        ({"faces": torch.tensor([[0, 1, 4]])}, ValueError, r"1 of 3 entries of faces lie outside \[0, 4\)"),
        ({"image_size": (3.0, 3)}, TypeError, "render: image_size expected two integers"),
        ({"image_size": (-1, 3)}, ValueError, "render: image_size expected .* >= 0"),
        ({"cull": "back"}, ValueError, "render: cull expected one of none, clockwise, counterclockwise, got 'back'"),
        ({"perspective_correct": 1}, ValueError, "render: perspective_correct expected one of False, True, got 1"),
    ],
)
def test_errors_name_what_was_wrong(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {
        "screen_vertices": torch.ones(2, 4, 3),
        "attributes": torch.ones(1, 4, 3),
        "faces": torch.tensor(FACES),
        "image_size": (4, 4),
    }
    with pytest.raises(error, match=message):
        ops.render(**{**valid, **arguments})  # type: ignore[arg-type]
