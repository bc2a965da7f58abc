"""The border of the compiled module: whatever it is handed, it answers with an exception and not with a crash."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

from focus import _C, ops
from focus.ops._native import to_dlpack


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

MEMORY = torch.zeros(64)
KEPT: list[Any] = []  # what the capsules point to


def _capsule(name: bytes = b"dltensor", shape: tuple[int, ...] = (1, 3, 3), **fields: Any) -> object:
    """A capsule of float32 normals [1, 3, 3] on the CPU, but for `fields`."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    tensor = _DLTensor(MEMORY.data_ptr(), 1, 0, len(shape), 2, 32, 1, sizes, None, 0, None, None)
    for field, value in fields.items():
        setattr(tensor, field, value)
    KEPT.append((tensor, sizes, name))
    return _new_capsule(ctypes.addressof(tensor), name, None)


def _shade(normals: object) -> None:
    """Calls the module with good arguments but one."""
    others = torch.zeros(1, 3, 3), torch.zeros(1, 3, 9), torch.zeros(1, 3, 3)
    _C.sh_shading(normals, *(to_dlpack(t) for t in others), 1, 0)


def test_a_made_up_capsule_is_taken() -> None:
    _shade(_capsule())
    _shade(_capsule(strides=(ctypes.c_int64 * 3)(9, 3, 1)))
    _shade(_capsule(byte_offset=4))


STRIDES = (ctypes.c_int64 * 3)(9, 1, 3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: None, TypeError, 'sh_shading: normals expected a DLPack capsule named "dltensor", got .*NoneType'),
        (lambda: MEMORY, TypeError, "expected a DLPack capsule"),
        (lambda: _capsule(b"used_dltensor"), TypeError, "expected a DLPack capsule"),
        (lambda: _capsule(code=0), TypeError, "normals expected float32, got int32"),
        (lambda: _capsule(bits=16), TypeError, "normals expected float32, got float16"),
        (lambda: _capsule(code=77, bits=255), TypeError, "normals expected float32, got type255"),
        (lambda: _capsule(lanes=4), TypeError, "normals expected float32"),
        (lambda: _capsule(rank=-1), ValueError, "normals is a damaged DLPack tensor"),
        (lambda: _capsule(rank=2**30), ValueError, "normals is a damaged DLPack tensor"),
        (lambda: _capsule(sizes=None), ValueError, "normals is a damaged DLPack tensor"),
        (lambda: _capsule(shape=()), ValueError, r"normals expected shape \[any, any, 3\], got \[\]"),
        (lambda: _capsule(shape=(9,)), ValueError, r"normals expected shape \[any, any, 3\], got \[9\]"),
        (lambda: _capsule(shape=(-1, 3, 3)), ValueError, "normals expected shape"),
        (lambda: _capsule(shape=(2**62, 2**62, 3)), ValueError, "normals has more bytes than a 64-bit count holds"),
        (lambda: _capsule(shape=(2**61, 1, 3)), ValueError, "normals has more bytes than a 64-bit count holds"),
        (lambda: _capsule(shape=(1, 4, 3)), ValueError, r"albedo expected shape \[1, 4, 3\], got \[1, 3, 3\]"),
        (lambda: _capsule(data=None), ValueError, "normals has no memory"),
        (lambda: _capsule(byte_offset=2), ValueError, "normals is not aligned to its elements"),
        (lambda: _capsule(strides=STRIDES), ValueError, "normals expected a contiguous tensor"),
        (lambda: _capsule(device_type=7), ValueError, "normals lies on DLPack device type 7"),
        (lambda: _capsule(device_type=2, device_index=3), ValueError, r"albedo lies on another device \(CPU\)"),
    ],
)
def test_damaged_capsules(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _shade(make())


def _triangle() -> dict[str, torch.Tensor]:
    return {
        "vertices": torch.rand(1, 3, 3),
        "faces": torch.tensor([[0, 1, 2]], dtype=torch.int32),
        "offsets": torch.tensor([0, 1, 2, 3], dtype=torch.int32),
        "corners": torch.tensor([0, 1, 2], dtype=torch.int32),
        "normals": torch.empty(1, 3, 3),
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("faces", [[0, 1, 3]], r"vertex_normals: faces has 1 of 3 entries outside \[0, 2\]"),
        ("faces", [[-1, 1, -2]], r"faces has 2 of 3 entries outside \[0, 2\]"),
        ("offsets", [0, 1, 2, 4], r"offsets has 1 of 4 entries outside \[0, 3\]"),
        ("offsets", [0, 1, 3], r"offsets expected shape \[4\], got \[3\]"),
        ("corners", [0, 1, 3], r"corners has 1 of 3 entries outside \[0, 2\]"),
    ],
)
def test_lists_of_a_mesh_are_checked_by_the_module_itself(name: str, value: list[Any], message: str) -> None:
    """Also for callers who go past `ops.Topology`; on CUDA it would cost a synchronisation."""
    arguments = {**_triangle(), name: torch.tensor(value, dtype=torch.int32)}
    with pytest.raises(ValueError, match=message):
        _C.vertex_normals(*(to_dlpack(t) for t in arguments.values()), 1, 0)
    vertices, faces, offsets, corners, _ = arguments.values()
    with pytest.raises(ValueError, match=message):
        torch.ops.focus.vertex_normals(vertices, faces, offsets, corners)


FACE_LIMIT = (2**31 - 1) // 3


@pytest.mark.parametrize(("vertex_count", "face_count"), [(9, FACE_LIMIT + 1), (9, 2**31), (2**31 - 1, 1), (-1, 1)])
def test_topologies_beyond_int32_are_refused_before_memory_is_read(vertex_count: int, face_count: int) -> None:
    sizes = [(face_count, 3), (vertex_count + 1,), (3 * face_count,)]
    capsules = [_capsule(shape=size, code=0) for size in sizes]
    with pytest.raises(
        ValueError, match=r"faces has more than 2\^31 / 3 rows|vertex_count must lie in \[0, 2\^31 - 1\)"
    ):
        _C.build_topology(capsules[0], vertex_count, *capsules[1:])


@pytest.mark.parametrize("face_count", [FACE_LIMIT + 1, 2**31, 2**59])
def test_faces_beyond_int32_are_refused_before_memory_is_read(face_count: int) -> None:
    """3 F overflows the corners, and F the face index of a pixel."""
    faces = _capsule(shape=(face_count, 3), code=0)
    with pytest.raises(ValueError, match=r"rasterize: faces has more than 2\^31 / 3 rows"):
        _C.rasterize(_capsule(), faces, 0, False, *[None] * 5, 1, 0)


@pytest.mark.parametrize(("height", "width"), [(2**31, 1), (1, 2**31), (2**31, 2**28), (2**40, 0)])
def test_sides_beyond_int32_are_refused_before_memory_is_written(height: int, width: int) -> None:
    faces = to_dlpack(torch.tensor([[0, 1, 2]], dtype=torch.int32))
    outputs = _capsule(shape=(1, height, width, 3)), _capsule(shape=(1, height, width))
    index = _capsule(shape=(1, height, width), code=0)
    with pytest.raises(ValueError, match=r"rasterize: depth has a side beyond 2\^31 - 1 pixels"):
        _C.rasterize(_capsule(), faces, 0, False, *outputs, index, None, None, 1, 0)
    values = _capsule(shape=(1, 3, height, width))
    with pytest.raises(ValueError, match=r"interpolate: face_index has a side beyond 2\^31 - 1 pixels"):
        _C.interpolate(_capsule(), faces, index, outputs[0], values, 1, 0)


@pytest.mark.parametrize("shape", [(2**31, 3, 3), (1, 2**31, 3), (1, 2**58, 3)])
def test_huge_sizes_that_disagree_are_refused_before_memory_is_read(shape: tuple[int, ...]) -> None:
    normals = _capsule(shape=shape)
    with pytest.raises(ValueError, match="albedo expected shape"):
        _shade(normals)
    triangle = {name: to_dlpack(tensor) for name, tensor in _triangle().items()}
    with pytest.raises(ValueError, match="expected shape"):
        _C.vertex_normals(*{**triangle, "vertices": normals}.values(), 1, 0)


@pytest.mark.parametrize("sides", [(2**16, 2**16), (2**31, 1), (1, 2**40)])
def test_huge_images_that_disagree_are_refused_before_memory_is_read(sides: tuple[int, int]) -> None:
    huge, mask, small = _capsule(shape=(1, 3, *sides)), _capsule(shape=(1, 1, *sides)), _capsule(shape=(1, 3, 3, 1))
    one, sums = _capsule(shape=(1,)), _capsule(shape=(1, 1), bits=64)
    with pytest.raises(ValueError, match="reconstruction expected shape"):
        _C.masked_photometric(huge, small, mask, one, one, sums, 1, 0)
    with pytest.raises(ValueError, match="inlier expected shape"):
        _C.outlier_robust(huge, huge, mask, 0.1, 3.0, one, small, sums, 1, 0)
    with pytest.raises(TypeError, match="argmin expected uint8"):
        _C.neighbor_min(huge, huge, mask, 3, 2, True, small, None, one, sums, 1, 0)


def test_lists_that_do_not_ascend_end_no_process() -> None:
    arguments = {**_triangle(), "offsets": torch.tensor([3, 0, 2, 0], dtype=torch.int32)}
    _C.vertex_normals(*(to_dlpack(t) for t in arguments.values()), 1, 0)


@pytest.mark.parametrize("threads", [-5, 0, 2**31 - 1])
def test_thread_counts_that_make_no_sense(threads: int) -> None:
    _C.sh_shading(*(to_dlpack(torch.zeros(1, 3, n)) for n in (3, 3, 9, 3)), threads, 0)
    _C.vertex_normals(*(to_dlpack(t) for t in _triangle().values()), threads, 0)


def test_images_without_channels() -> None:
    """Which the public function refuses: the module measures distances of 0 in them, and no memory beyond its own."""
    images, plane = torch.zeros(2, 0, 5, 70), torch.ones(2, 5, 70)
    argmin, loss, sums = (
        torch.full((2, 5, 70), 99, dtype=torch.uint8),
        torch.ones(1),
        torch.ones(2, 1, 3, dtype=torch.float64),
    )
    shared = [images, images, plane[:, None], 3, 1, True, argmin]
    call = [to_dlpack(a) if isinstance(a, torch.Tensor) else a for a in (*shared, plane, loss, sums)]
    _C.neighbor_min(*call, 1, 0)
    assert loss.item() == plane.abs().sum() == 0
    mask_gradient = torch.ones(2, 1, 5, 70)
    call = [to_dlpack(a) if isinstance(a, torch.Tensor) else a for a in (*shared, None, torch.ones(1), images, images)]
    _C.neighbor_min_backward(*call, to_dlpack(mask_gradient), 1, 0)
    assert not mask_gradient.any()


def test_edges_of_pairs_that_leave_the_image_count_as_none() -> None:
    mesh = _triangle()
    image, edges = torch.rand(1, 2, 2, 2), torch.full((1, 2, 2, 2), -1, dtype=torch.int32)
    edges[:, :, 0, 1] = edges[:, 1, 1] = 0  # with what lies right of the last column, and below the last row
    gradients = torch.rand_like(image), torch.ones_like(image), torch.ones_like(mesh["vertices"])
    call = [image, *(mesh[name] for name in ("vertices", "faces", "offsets", "corners")), edges, gradients[0]]
    _C.antialias_backward(*map(to_dlpack, call), *[None] * 4, *map(to_dlpack, gradients[1:]), 1, 0)
    assert torch.equal(gradients[1], gradients[0])
    assert not gradients[2].any()


def test_two_billion_rows_without_a_pixel_are_no_work() -> None:
    size, faces = (2**31 - 1, 0), torch.tensor([[0, 1, 2]])
    vertices, attributes = torch.rand(1, 3, 3).requires_grad_(), torch.rand(1, 3, 3).requires_grad_()
    image, _, _ = ops.render(vertices, attributes, faces, size)
    separate = ops.interpolate(attributes, faces, ops.rasterize(vertices, faces, size))
    for values in (image, separate):
        assert values.shape == (1, 3, *size)
        gradients = torch.autograd.grad(values, (vertices, attributes), torch.empty_like(values))
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.skipif(_C.cuda_version is not None, reason="this build has CUDA kernels")
def test_a_build_without_cuda_says_so() -> None:
    others = [_capsule(shape=shape, device_type=2) for shape in ((1, 3, 3), (1, 3, 3), (1, 3, 9), (1, 3, 3))]
    with pytest.raises(ValueError, match=r"this build of focus has no CUDA kernels. Reinstall .* FOCUS_CUDA=ON"):
        _C.sh_shading(*others, 1, 0)


def test_the_module_says_how_it_was_built() -> None:
    assert _C.cuda_version is None or isinstance(_C.cuda_version, str)
    assert isinstance(_C.cuda_architectures, str)
    assert _C.compiler
