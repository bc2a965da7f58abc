"""Arguments that are odd in type, kind or size: right, or refused by name before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from focus import ops
from focus.face import Camera, FaceParameters, MorphableModel, Renderer

GENERATOR = torch.Generator().manual_seed(0)
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
VERTICES = torch.rand(2, 4, 3, generator=GENERATOR) * torch.tensor([7.0, 7, 1]) + torch.tensor([0.0, 0, 5])
LIGHT = torch.rand(2, 3, 9, generator=GENERATOR)
IMAGES = tuple(torch.rand(2, channels, 8, 8, generator=GENERATOR) for channels in (3, 3, 1))
INDEX = ops.rasterize(VERTICES, FACES, (8, 8)).face_index

CALLS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "rasterize": (lambda v: ops.rasterize(v, FACES, (8, 8)).depth, (VERTICES,)),
    "render": (lambda v, a: ops.render(v, a, FACES, (8, 8))[0], (VERTICES, VERTICES)),
    "interpolate": (lambda a: ops.interpolate(a, FACES, ops.rasterize(VERTICES, FACES, (8, 8))), (VERTICES,)),
    "antialias": (lambda i, v: ops.antialias(i, v, FACES, INDEX), (IMAGES[0], VERTICES)),
    "vertex_normals": (lambda v: ops.vertex_normals(v, FACES), (VERTICES,)),
    "sh_shading": (ops.sh_shading, (VERTICES, VERTICES, LIGHT)),
    "neighbor_min": (ops.neighbor_min, IMAGES),
    "neighbor_min_loss": (ops.neighbor_min_loss, IMAGES),
    "masked_photometric_loss": (ops.masked_photometric_loss, IMAGES),
    "outlier_robust_loss": (lambda *images: ops.outlier_robust_loss(*images, sigma=0.3)[0], IMAGES),
}
ARGUMENTS = [(name, position) for name, (_, inputs) in CALLS.items() for position in range(len(inputs))]

every_call = pytest.mark.parametrize("name", CALLS)
every_argument = pytest.mark.parametrize(("name", "position"), ARGUMENTS)


def test_every_operator_is_tried() -> None:
    assert set(CALLS) == {name for name in ops.__all__ if name[0].islower()} - {"reference"}


def _with(name: str, position: int, value: Any) -> Any:
    call, inputs = CALLS[name]
    return call(*inputs[:position], value, *inputs[position + 1 :])


STRANGERS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "a sparse tensor": (lambda t: t.to_sparse(), "expected a dense tensor, got torch.sparse_coo; use .to_dense"),
    "a nested tensor": (
        lambda t: torch.nested.nested_tensor(list(t), layout=torch.jagged),
        "expected a dense tensor, got a nested tensor; use .to_padded_tensor",
    ),
    "a complex tensor": (lambda t: t.to(torch.complex64), "expected a floating dtype, got torch.complex64; take its"),
    "integers": (lambda t: t.int(), "expected a floating dtype, got torch.int32; convert it with .float"),
    "8-bit floats": (lambda t: t.to(torch.float8_e5m2), "expected a floating dtype, got torch.float8_e5m2"),
    "an array": (lambda t: t.numpy(), "expected a torch.Tensor, got ndarray"),
    "None": (lambda t: None, "expected a torch.Tensor, got NoneType"),
}


@every_argument
@pytest.mark.parametrize("stranger", STRANGERS)
def test_other_kinds_of_tensors_are_refused_by_name(name: str, position: int, stranger: str) -> None:
    make, message = STRANGERS[stranger]
    value = make(CALLS[name][1][position])
    if value is None and name.startswith("neighbor_min") and position == 2:
        return  # the optional mask
    with pytest.raises(TypeError, match=rf"focus\.ops\.{name}: \w+ {message}"):
        _with(name, position, value)


@pytest.mark.filterwarnings("ignore:.*quantiz.*")  # of newer torch: quantised tensors are on their way out
def test_quantised_tensors_are_refused_by_name() -> None:
    quantised = torch.quantize_per_tensor(IMAGES[0], 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match=r"target expected plain numbers, got torch.quint8; use .dequantize"):
        ops.masked_photometric_loss(quantised, *IMAGES[1:])


@every_argument
def test_views_with_pending_operations_are_resolved(name: str, position: int) -> None:
    """A view that negates when it is read; and the real and imaginary parts of a conjugate, with odd strides."""
    value = CALLS[name][1][position]
    expected = _with(name, position, value)
    negated = torch._neg_view((-value).contiguous())
    conjugate = torch.complex(value, -value).conj()
    assert negated.is_neg()
    assert conjugate.imag.is_neg()
    for view in (negated, conjugate.imag, conjugate.real):
        assert torch.equal(_with(name, position, view), expected)


@every_argument
def test_subclasses_of_tensors(name: str, position: int) -> None:
    class Subclass(torch.Tensor):
        pass

    value = CALLS[name][1][position]
    expected = _with(name, position, value)
    for other in (value.as_subclass(Subclass), torch.nn.Parameter(value)):
        assert torch.equal(_with(name, position, other), expected)


@every_call
def test_subclasses_that_take_over_dispatch(name: str) -> None:
    call, inputs = CALLS[name]
    result = call(*(TwoTensor(value, value.clone()) for value in inputs))
    assert torch.equal(result.a, call(*inputs))
    assert torch.equal(result.b, call(*inputs))


@pytest.mark.parametrize("name", ["sh_shading", "neighbor_min", "neighbor_min_loss", "masked_photometric_loss"])
def test_tensors_without_memory_have_results_without_memory(name: str) -> None:
    call, inputs = CALLS[name]
    result = call(*(value.to("meta") for value in inputs))
    assert result.is_meta
    assert result.shape == call(*inputs).shape
    with pytest.raises(ValueError, match=r"is on (cpu|meta) and .* on (cpu|meta); move them to one device"):
        call(inputs[0].to("meta"), *inputs[1:])


def test_meshes_without_memory_have_results_without_memory() -> None:
    faces, vertices, image = ops.Topology(FACES, 4).to("meta"), VERTICES.to("meta"), IMAGES[0].to("meta")
    fragments = ops.rasterize(vertices, faces, (8, 8))
    for result in (
        fragments.depth,
        ops.interpolate(vertices, faces, fragments),
        ops.render(vertices, vertices, faces, (8, 8))[0],
        ops.antialias(image, vertices, faces, fragments.face_index),
        ops.vertex_normals(vertices, faces),
    ):
        assert result.is_meta


@every_argument
def test_zeros_that_exist_in_name_only(name: str, position: int) -> None:
    """Torch's own for gradients that nobody has asked for."""
    shape = CALLS[name][1][position].shape
    expected = _with(name, position, torch.zeros(shape))
    assert torch.equal(_with(name, position, torch._efficientzerotensor(shape)), expected)


SIZES: list[tuple[Any, type[Exception], str]] = [
    ((True, 8), TypeError, "expected two integers"),
    ((8.0, 8), TypeError, "expected two integers"),
    ((np.float32(8), 8), TypeError, "expected two integers"),
    ((math.nan, 8), TypeError, "expected two integers"),
    ((torch.tensor(8), 8), TypeError, "expected two integers"),
    (("8", 8), TypeError, "expected two integers"),
    ((8,), TypeError, "expected two integers"),
    (8, TypeError, "expected two integers"),
    (None, TypeError, "expected two integers"),
    ((-1, 8), ValueError, r"expected \(H, W\) >= 0"),
    ((2**31, 1), ValueError, r"expected sides below 2\^31"),
    ((1, 2**70), ValueError, r"expected sides below 2\^31"),
    ((2**20, 2**20), ValueError, r"\(1048576, 1048576\): an image .* has \d+ GiB, and the memory of cpu"),
    ((2**31 - 1, 2**31 - 1), ValueError, "GiB, and the memory of cpu"),
]


@pytest.mark.parametrize(("size", "error", "message"), SIZES)
def test_image_sizes_are_refused_by_name(size: Any, error: type[Exception], message: str) -> None:
    for call in (
        lambda: ops.rasterize(VERTICES, FACES, size),
        lambda: ops.render(VERTICES, VERTICES, FACES, size),
    ):
        with pytest.raises(
            error, match=rf"focus\.ops\.\w+: image_size.*{message}" if "GiB" not in message else message
        ):
            call()


def test_more_channels_than_memory_are_refused() -> None:
    attributes = torch.ones(1, 4, 1).expand(1, 4, 2**33)
    with pytest.raises(ValueError, match=r"render: image_size .* GiB"):
        ops.render(VERTICES[:1], attributes, FACES, (1000, 1000))


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint16])
def test_integers_of_numpy_are_integers(kind: Callable[[int], Any]) -> None:
    size = (kind(8), kind(9))
    assert torch.equal(ops.rasterize(VERTICES, FACES, size).depth, ops.rasterize(VERTICES, FACES, (8, 9)).depth)
    assert torch.equal(ops.render(VERTICES, VERTICES, FACES, size)[0], ops.render(VERTICES, VERTICES, FACES, (8, 9))[0])
    assert torch.equal(ops.neighbor_min(*IMAGES, window=kind(5)), ops.neighbor_min(*IMAGES, window=5))
    loss = ops.neighbor_min_loss(*IMAGES, window=kind(5), power=kind(1))  # type: ignore[arg-type]
    assert torch.equal(loss, ops.neighbor_min_loss(*IMAGES, window=5, power=1))
    topology = ops.Topology(FACES, kind(4))
    assert type(topology.vertex_count) is int
    assert torch.equal(ops.vertex_normals(VERTICES, topology), ops.vertex_normals(VERTICES, FACES))
    assert Camera(kind(64)).principal == 31.5
    model = MorphableModel.procedural("small", identity=kind(2), expression=kind(1), albedo=kind(1))
    assert Renderer(model, kind(16))(FaceParameters.mean(model)).image.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("value", [3.0, True, "3", None, 2, 17, -1, torch.tensor(3), np.float64(3)])
def test_windows_and_powers_are_integers(value: Any) -> None:
    for call in (ops.neighbor_min, ops.neighbor_min_loss):
        with pytest.raises(ValueError, match="window expected one of 1, 3, 5"):
            call(*IMAGES, window=value)
    if value != 2:
        with pytest.raises(ValueError, match="power expected one of 1, 2"):
            ops.neighbor_min_loss(*IMAGES, power=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, -1.0, True, "1", None, 1e-200, 1e200, np.nan])
def test_scales_are_finite_and_positive(value: Any) -> None:
    for name in ("sigma", "cutoff"):
        with pytest.raises(ValueError, match=f"outlier_robust_loss: {name} expected a finite number > 0, got"):
            ops.outlier_robust_loss(*IMAGES, **{name: value})
    with pytest.raises(ValueError, match=r"cutoff \* sigma expected a finite number > 0"):
        ops.outlier_robust_loss(*IMAGES, sigma=1e-100, cutoff=1e-100)


def test_scales_of_numpy() -> None:
    loss, _ = ops.outlier_robust_loss(*IMAGES, sigma=np.float64(0.25), cutoff=np.int32(3))
    assert torch.equal(loss, ops.outlier_robust_loss(*IMAGES, sigma=0.25, cutoff=3)[0])
    loss, _ = ops.outlier_robust_loss(*IMAGES, sigma=np.float32(0.25))  # type: ignore[arg-type]
    assert torch.equal(loss, ops.outlier_robust_loss(*IMAGES, sigma=0.25)[0])


@pytest.mark.parametrize(
    ("faces", "count", "error", "message"),
    [
        (FACES.to_sparse(), 4, TypeError, "faces expected a dense tensor, got torch.sparse_coo"),
        (FACES.bool(), 4, TypeError, "faces expected int32 or int64, got torch.bool"),
        (FACES.float(), 4, TypeError, "faces expected int32 or int64, got torch.float32"),
        (FACES.numpy(), 4, TypeError, "faces expected a torch.Tensor, got ndarray"),
        (FACES, True, ValueError, "vertex_count expected an integer >= 0, got True"),
        (FACES, math.nan, ValueError, "vertex_count expected an integer >= 0, got nan"),
        (FACES, 2**31 - 1, ValueError, r"vertex_count expected less than 2\^31 - 1"),
        (FACES, 2**70, ValueError, r"vertex_count expected less than 2\^31 - 1"),
    ],
)
def test_topologies_are_refused_by_name(faces: Any, count: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"focus\.ops\.Topology: {message}"):
        ops.Topology(faces, count)


def test_raw_operators_refuse_what_the_public_ones_do() -> None:
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        torch.ops.focus.sh_shading(VERTICES.to_sparse(), VERTICES, LIGHT)
    with pytest.raises(TypeError, match="normals expected float32, got int32"):
        torch.ops.focus.sh_shading(VERTICES.int(), VERTICES, LIGHT)
    with pytest.raises(ValueError, match="coefficients expected shape"):
        torch.ops.focus.sh_shading(VERTICES, VERTICES, VERTICES)
    expected = ops.sh_shading(VERTICES, VERTICES, LIGHT)
    assert torch.equal(torch.ops.focus.sh_shading(torch._neg_view(-VERTICES), VERTICES, LIGHT), expected)
