"""What every operator promises: gradients, torch's registration rules, memory layouts, determinism."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from focus import ops
from focus.ops import _native, reference

Tensors = tuple[torch.Tensor, ...]

FACES = [[0, 1, 3], [1, 4, 3], [1, 2, 4], [2, 5, 4], [3, 4, 6], [4, 7, 6], [4, 5, 7], [5, 8, 7]]


def _sheet(seed: int = 0) -> torch.Tensor:
    """[2, 9, 3] screen vertices of a crumpled 3x3 sheet over a 10x8 image, in double precision."""
    y, x = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    flat = torch.stack([1 + 2.6 * x, 0.8 + 3.7 * y, torch.full((3, 3), 10.0)], -1).reshape(1, 9, 3).double()
    return flat + torch.rand(2, 9, 3, dtype=torch.double, generator=torch.Generator().manual_seed(seed)) * 1.3


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed)) * 2 - 1


CPU = torch.device("cpu")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
TOPOLOGY = {device: ops.Topology(torch.tensor(FACES, device=device), 9) for device in DEVICES}
FOUND = {device: ops.rasterize(_sheet().to(device, torch.float32), TOPOLOGY[device], (10, 8)) for device in DEVICES}


def _rasterize(perspective_correct: bool) -> Callable[..., Tensors]:
    def call(module: Any, vertices: torch.Tensor) -> Tensors:
        topology = TOPOLOGY[vertices.device.type]
        fragments = module.rasterize(vertices, topology, (10, 8), perspective_correct=perspective_correct)
        return fragments.barycentric, fragments.depth

    return call


def _interpolate(module: Any, attributes: torch.Tensor, barycentric: torch.Tensor) -> Tensors:
    device = attributes.device.type
    face_index = FOUND[device].face_index[: len(barycentric)]
    fragments = ops.Fragments(face_index, barycentric, FOUND[device].depth)
    return (module.interpolate(attributes, TOPOLOGY[device], fragments),)


def _antialias(module: Any, image: torch.Tensor, vertices: torch.Tensor) -> Tensors:
    device = vertices.device.type
    return (module.antialias(image, vertices, TOPOLOGY[device], FOUND[device].face_index[: len(image)]),)


def _render(perspective_correct: bool) -> Callable[..., Tensors]:
    def call(module: Any, vertices: torch.Tensor, attributes: torch.Tensor) -> Tensors:
        topology = TOPOLOGY[vertices.device.type]
        return (module.render(vertices, attributes, topology, (10, 8), perspective_correct=perspective_correct)[0],)

    return call


def _vertex_normals(module: Any, vertices: torch.Tensor) -> Tensors:
    return (module.vertex_normals(vertices, TOPOLOGY[vertices.device.type]),)


def _sh_shading(module: Any, normals: torch.Tensor, albedo: torch.Tensor, coefficients: torch.Tensor) -> Tensors:
    return (module.sh_shading(normals, albedo, coefficients),)


def _neighbor_min(module: Any, *images: torch.Tensor) -> Tensors:
    return (module.neighbor_min(*images),)


def _neighbor_min_loss(module: Any, *images: torch.Tensor) -> Tensors:
    return module.neighbor_min_loss(*images, window=5, power=1, reduction="sum"), module.neighbor_min_loss(*images)


def _masked_photometric_loss(module: Any, *images: torch.Tensor) -> Tensors:
    return (module.masked_photometric_loss(*images),)


def _outlier_robust_loss(module: Any, *images: torch.Tensor) -> Tensors:
    return (module.outlier_robust_loss(*images, sigma=0.2)[0],)


def _images(channels: int = 3) -> Tensors:
    """Target, reconstruction and mask in [0, 1], of pixels in two tiles."""
    target, reconstruction = (_random(2, channels, 9, 7, seed=seed) for seed in (6, 7))
    mask = _random(2, 1, 9, 7, seed=8)
    return (target + 1) / 2, (reconstruction + 1) / 2, (mask + 1) / 2


@dataclass(frozen=True)
class Case:
    """One operator with made-up inputs.

    `call(module, *inputs)` calls it in `ops` or in `ops.reference`; `inputs()` are its differentiable inputs in double
    precision.
    """

    name: str
    call: Callable[..., Tensors]
    inputs: Callable[[], Tensors]

    def at(self, device: torch.device, dtype: torch.dtype, requires_grad: bool = False) -> Tensors:
        return tuple(t.to(device, dtype).detach().requires_grad_(requires_grad) for t in self.inputs())


CASES = [
    Case("rasterize", _rasterize(False), lambda: (_sheet(),)),
    Case("rasterize_perspective", _rasterize(True), lambda: (_sheet(),)),
    Case("interpolate", _interpolate, lambda: (_random(2, 9, 2, seed=1), FOUND["cpu"].barycentric)),
    Case("interpolate_shared", _interpolate, lambda: (_random(1, 9, 3, seed=2), FOUND["cpu"].barycentric)),
    Case("antialias", _antialias, lambda: (_random(2, 2, 10, 8, seed=1), _sheet())),
    Case("render", _render(False), lambda: (_sheet(), _random(2, 9, 3, seed=1))),
    Case("render_perspective", _render(True), lambda: (_sheet(), _random(2, 9, 3, seed=1))),
    Case("render_shared", _render(False), lambda: (_sheet(), _random(1, 9, 3, seed=2))),
    Case("render_five_channels", _render(True), lambda: (_sheet(), _random(1, 9, 5, seed=2))),
    Case("vertex_normals", _vertex_normals, lambda: (_sheet(),)),
    Case(
        "sh_shading",
        _sh_shading,
        lambda: (_random(2, 9, 3, seed=3), _random(2, 9, 3, seed=4), _random(2, 3, 9, seed=5)),
    ),
    Case("neighbor_min", _neighbor_min, _images),
    Case("neighbor_min_unmasked", _neighbor_min, lambda: _images()[:2]),
    Case("neighbor_min_loss", _neighbor_min_loss, _images),
    Case("neighbor_min_loss_grey", _neighbor_min_loss, lambda: _images(channels=1)),
    Case("masked_photometric_loss", _masked_photometric_loss, _images),
    Case("masked_photometric_loss_grey", _masked_photometric_loss, lambda: _images(channels=1)),
    Case("outlier_robust_loss", _outlier_robust_loss, _images),
    Case("outlier_robust_loss_grey", _outlier_robust_loss, lambda: _images(channels=1)),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


ON_CPU = {case.name: case.call(ops, *case.at(CPU, torch.float32)) for case in CASES}


def _loss(outputs: Tensors) -> torch.Tensor:
    """A scalar whose gradient reaches every output element with another weight."""
    return sum((_random(*t.shape, seed=9).to(t) * t).sum() for t in outputs)


def _gradients(case: Case, module: Any, inputs: Tensors) -> Tensors:
    return torch.autograd.grad(_loss(case.call(module, *inputs)), inputs)


def _tangents(case: Case, module: Any, inputs: Tensors) -> Tensors:
    """Of the outputs, where all inputs move."""
    directions = tuple(_random(*t.shape, seed=10).to(t) for t in inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script")  # of torch itself, in its first jvp
        tangents: Tensors = torch.func.jvp(lambda *moved: case.call(module, *moved), inputs, directions)[1]
    return tangents


ON_CPU_TANGENTS = {case.name: _tangents(case, ops, case.at(CPU, torch.float32)) for case in CASES}


def _assert_close_as_vectors(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert expected.norm() > 0
    assert (actual - expected).norm() <= tolerance * expected.norm()


@every_case
def test_gradients_in_double_precision(case: Case) -> None:
    inputs = case.at(CPU, torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *tensors: case.call(ops, *tensors), inputs, check_forward_ad=True)


@every_case
def test_values_and_gradients_equal_the_twin(case: Case, kernel_device: torch.device) -> None:
    """In single precision: a few roundings of 2^-24 of the largest terms."""
    inputs = case.at(kernel_device, torch.float32, requires_grad=True)
    for actual, expected in zip(case.call(ops, *inputs), case.call(reference, *inputs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6)
    for actual, expected in zip(_gradients(case, ops, inputs), _gradients(case, reference, inputs), strict=True):
        _assert_close_as_vectors(actual, expected, 1e-5)


@every_case
def test_tangents_equal_the_twin_and_have_the_bits_of_the_cpu(case: Case, kernel_device: torch.device) -> None:
    inputs = case.at(kernel_device, torch.float32)
    tangents = _tangents(case, ops, inputs)
    of_twin = _tangents(case, reference, inputs)
    for actual, expected, on_cpu in zip(tangents, of_twin, ON_CPU_TANGENTS[case.name], strict=True):
        if actual.dim() == 0:  # of a loss: gradients times tangents, of either sign, added by torch
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=5e-6)
            torch.testing.assert_close(actual.cpu(), on_cpu, rtol=1e-5, atol=5e-6)
        else:
            _assert_close_as_vectors(actual, expected, 1e-5)
            assert torch.equal(actual.cpu(), on_cpu)


@every_case
def test_emulated_and_cuda_kernels_have_the_bits_of_the_cpu(case: Case, kernel_device: torch.device) -> None:
    """But for losses, which the CPU adds in double precision, and CUDA in single precision within a block."""
    inputs = case.at(CPU, torch.float32)
    there = case.call(ops, *(t.to(kernel_device) for t in inputs))
    for actual, expected in zip(there, ON_CPU[case.name], strict=True):
        if actual.dim() == 0:
            torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=0)
        else:
            assert torch.equal(actual.cpu(), expected)


@every_case
def test_gradients_have_the_same_bits_again(case: Case, kernel_device: torch.device) -> None:
    inputs = case.at(kernel_device, torch.float32, requires_grad=True)
    first = _gradients(case, ops, inputs)
    for again in (_gradients(case, ops, inputs) for _ in range(3)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@every_case
@pytest.mark.usefixtures("restored_threads")
def test_thread_count_does_not_change_a_bit(case: Case) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        inputs = case.at(CPU, torch.float32, requires_grad=True)
        results.append((*case.call(ops, *inputs), *_gradients(case, ops, inputs), *_tangents(case, ops, inputs)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@every_case
def test_layouts_of_memory_do_not_matter(case: Case, kernel_device: torch.device) -> None:
    plain = case.at(kernel_device, torch.float32, requires_grad=True)
    values, gradients = case.call(ops, *plain), _gradients(case, ops, plain)
    for position in range(len(plain)):
        storage = plain[position].detach().transpose(0, 1).contiguous().requires_grad_()
        inputs = (*plain[:position], storage.transpose(0, 1), *plain[position + 1 :])
        assert not inputs[position].is_contiguous() or 1 in storage.shape
        outputs = case.call(ops, *inputs)
        assert all(torch.equal(a, b) for a, b in zip(outputs, values, strict=True))
        (gradient,) = torch.autograd.grad(_loss(outputs), storage)
        assert torch.equal(gradient.transpose(0, 1), gradients[position])


@every_case
def test_expanded_inputs_and_gradients(case: Case, kernel_device: torch.device) -> None:
    """One item expanded over the batch, and a gradient that is one number expanded over the outputs."""
    for position, tensor in enumerate(case.at(kernel_device, torch.float32)):
        item = tensor[:1].detach().requires_grad_()
        inputs = list(case.at(kernel_device, torch.float32))
        inputs[position] = item.expand(tensor.shape)
        sum(output.sum() for output in case.call(ops, *inputs)).backward()
        copied = item.detach().expand(tensor.shape).clone().requires_grad_()
        inputs[position] = copied
        sum((output * torch.ones_like(output)).sum() for output in case.call(ops, *inputs)).backward()
        assert item.grad is not None
        assert copied.grad is not None
        torch.testing.assert_close(item.grad, copied.grad.sum_to_size(item.shape))


@every_case
def test_gradients_for_every_subset_of_inputs(case: Case, kernel_device: torch.device) -> None:
    inputs = case.at(kernel_device, torch.float32)
    everything = _gradients(case, ops, case.at(kernel_device, torch.float32, requires_grad=True))
    for wanted in itertools.product([False, True], repeat=len(inputs)):
        leaves = tuple(t.detach().requires_grad_(want) for t, want in zip(inputs, wanted, strict=True))
        loss = _loss(case.call(ops, *leaves))
        assert loss.requires_grad == any(wanted)
        if any(wanted):
            loss.backward()
        for leaf, want, expected in zip(leaves, wanted, everything, strict=True):
            assert (leaf.grad is not None) == want
            assert not want or torch.equal(leaf.grad, expected)


@every_case
def test_each_output_alone_has_its_gradient(case: Case) -> None:
    inputs = case.at(CPU, torch.float32, requires_grad=True)
    for position in range(len(case.call(ops, *inputs))):
        actual = torch.autograd.grad(_loss(case.call(ops, *inputs)[position : position + 1]), inputs)
        expected = torch.autograd.grad(_loss(case.call(reference, *inputs)[position : position + 1]), inputs)
        for a, b in zip(actual, expected, strict=True):
            _assert_close_as_vectors(a, b, 1e-5)


@every_case
def test_without_gradients(case: Case) -> None:
    inputs = case.at(CPU, torch.float32, requires_grad=True)
    with torch.no_grad():
        outputs = case.call(ops, *inputs)
    assert not any(output.requires_grad for output in outputs)
    with torch.inference_mode():
        inferred = case.call(ops, *inputs)
    assert all(torch.equal(a, b) for a, b in zip(outputs, inferred, strict=True))


@every_case
def test_second_derivatives_are_refused(case: Case) -> None:
    inputs = case.at(CPU, torch.float32, requires_grad=True)
    gradients = torch.autograd.grad(_loss(case.call(ops, *inputs)), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradients[0].square().sum().backward()


@every_case
def test_edits_of_saved_tensors_are_noticed(case: Case) -> None:
    for position in range(len(case.inputs())):
        inputs = list(case.at(CPU, torch.float32, requires_grad=True))
        edited = inputs[position] = inputs[position] * 1
        loss = _loss(case.call(ops, *inputs))
        edited.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@every_case
def test_outputs_are_the_callers_to_change(case: Case) -> None:
    inputs = case.at(CPU, torch.float32, requires_grad=True)
    changed = tuple(output.mul_(0.25) for output in case.call(ops, *inputs))
    for a, b in zip(torch.autograd.grad(_loss(changed), inputs), _gradients(case, ops, inputs), strict=True):
        assert torch.equal(a, 0.25 * b)


@every_case
def test_gradients_for_several_weights_at_once(case: Case) -> None:
    inputs = case.at(CPU, torch.float32, requires_grad=True)
    output = case.call(ops, *inputs)[0]
    weights = _random(2, *output.shape, seed=11).float()
    several = torch.autograd.grad(output, inputs, weights, is_grads_batched=True, retain_graph=True)
    for i, one in enumerate(weights):
        gradients = torch.autograd.grad(output, inputs, one, retain_graph=True)
        assert all(torch.equal(a[i], b) for a, b in zip(several, gradients, strict=True))


@every_case
def test_plain_calls_do_without_the_dispatcher(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: from the public function, or torch's engine, to the compiled module."""
    through: list[set[str]] = []

    def call(name: str, *arguments: Any, run: Callable[..., None] = _native.call) -> None:
        frame, names = inspect.currentframe(), set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        through.append(names)
        run(name, *arguments)

    monkeypatch.setattr(_native, "call", call)
    case.call(ops, *case.at(CPU, torch.float32))
    _gradients(case, ops, case.at(CPU, torch.float32, requires_grad=True))
    assert len(through) >= 3
    for names in through:
        assert "direct" in names
        assert not names & {"dispatched", "compute"}


@every_case
def test_empty_batch(case: Case, kernel_device: torch.device) -> None:
    inputs = tuple(t[:0].detach().requires_grad_() for t in case.at(kernel_device, torch.float32))
    outputs = case.call(ops, *inputs)
    assert all(output.shape[:1] == (0,) or output.item() == 0 for output in outputs)
    for gradient, tensor in zip(torch.autograd.grad(_loss(outputs), inputs), inputs, strict=True):
        assert gradient.shape == tensor.shape


@every_case
def test_narrow_inputs_are_computed_in_single_precision(case: Case, device: torch.device) -> None:
    narrow = case.at(device, torch.bfloat16, requires_grad=True)
    wide = tuple(t.detach().float() for t in narrow)
    expected = case.call(ops, *wide)
    with torch.autocast(device.type, torch.bfloat16):
        under_autocast = case.call(ops, *wide)
    for a, b, c in zip(case.call(ops, *narrow), under_autocast, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, c)
        assert torch.equal(b, c)
    assert all(gradient.dtype == torch.bfloat16 for gradient in _gradients(case, ops, narrow))


@every_case
def test_compiles_as_one_graph(case: Case, device: torch.device) -> None:
    """With the backend that traces forward and backward, and leaves out the code generation of inductor."""
    torch._dynamo.reset()  # every case compiles the same lambda, and dynamo tires after eight
    inputs = case.at(device, torch.float32, requires_grad=True)
    compiled = torch.compile(lambda *tensors: case.call(ops, *tensors), fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(*inputs), case.call(ops, *inputs), strict=True):
        assert torch.equal(a, b)
    gradients = torch.autograd.grad(_loss(compiled(*inputs)), inputs)
    for a, b in zip(gradients, _gradients(case, ops, inputs), strict=True):
        assert torch.equal(a, b)


def test_compiles_with_plain_faces(device: torch.device) -> None:
    """Which are checked and listed inside the graph."""
    vertices, faces = _sheet().float().to(device), torch.tensor(FACES, device=device)
    compiled = torch.compile(lambda v, f: ops.vertex_normals(v, f), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(vertices, faces), ops.vertex_normals(vertices, faces))


@every_case
def test_nothing_synchronises_and_a_graph_captures_it(case: Case, cuda_device: torch.device) -> None:
    inputs = case.at(cuda_device, torch.float32, requires_grad=True)
    weights = [torch.rand_like(output) for output in case.call(ops, *inputs)]
    expected = torch.autograd.grad(case.call(ops, *inputs), inputs, weights)
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(case.call(ops, *inputs), inputs, weights)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.autograd.grad(case.call(ops, *inputs), inputs, weights)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def _raw_calls(device: torch.device) -> dict[str, tuple[Any, ...]]:
    """Arguments of each registered operator."""
    vertices = _sheet().float().to(device)
    topology, found = TOPOLOGY[device.type], FOUND[device.type]
    lists = topology.faces, topology.offsets, topology.corners
    attributes = _random(2, 9, 2, seed=1).float().to(device)
    light = _random(2, 3, 9, seed=5).float().to(device)
    images = tuple(image.float().to(device) for image in _images())
    nearest = torch.full((2, 9, 7), 4, dtype=torch.uint8, device=device)
    loss = torch.ones((), device=device)
    blended = torch.ones(2, 2, 10, 8, device=device), vertices, *lists
    _, edges = torch.ops.focus.antialias(*blended, topology.neighbors, found.face_index)
    return {
        "build_topology": (topology.faces, 9),
        "rasterize": (vertices, *lists, 10, 8, 0, False),
        "rasterize_tangent": (vertices, topology.faces, True, found.face_index, vertices),
        "rasterize_backward": (vertices, *lists, False, found.face_index, found.barycentric, found.depth),
        "interpolate": (attributes, *lists, found.face_index, found.barycentric),
        "interpolate_backward": (
            *(attributes, *lists, found.face_index, found.barycentric),
            *(torch.ones(2, 2, 10, 8, device=device), True, True),
        ),
        "antialias": (*blended, topology.neighbors, found.face_index),
        "antialias_tangent": (*blended[:3], edges, blended[0], vertices),
        "antialias_backward": (*blended, edges, torch.ones(2, 2, 10, 8, device=device), True, True),
        "render": (vertices, attributes, *lists, 10, 8, 0, False),
        "render_tangent": (vertices, attributes, topology.faces, True, found.face_index, vertices, None),
        "render_backward": (
            *(vertices, attributes, *lists, False, found.face_index),
            *(torch.ones(2, 2, 10, 8, device=device), True, True),
        ),
        "vertex_normals": (vertices, *lists),
        "vertex_normals_tangent": (vertices, *lists, vertices),
        "vertex_normals_backward": (vertices, *lists, vertices),
        "sh_shading": (vertices, vertices, light),
        "sh_shading_tangent": (vertices, vertices, light, vertices, None, light),
        "sh_shading_backward": (vertices, vertices, light, vertices, [True, False, True]),
        "neighbor_min": (*images, 3),
        "neighbor_min_loss": (*images[:2], None, 3, 2, True),
        "neighbor_min_backward": (*images, 3, 1, False, nearest, images[2][:, 0], [True, True, True]),
        "masked_photometric": images,
        "masked_photometric_backward": (*images, torch.ones(2), loss, [True, False, True]),
        "outlier_robust": (*images, 0.1, 3.0),
        "outlier_robust_backward": (*images, 0.1, 3.0, loss, [False, True, True]),
    }


@pytest.mark.parametrize("name", _raw_calls(CPU))
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_registration_passes_opcheck(name: str, device: torch.device) -> None:
    arguments = _raw_calls(device)[name]
    differentiable = not name.endswith(("_backward", "_tangent")) and name != "build_topology"
    if differentiable:
        arguments = tuple(
            a.detach().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in arguments
        )
    try:
        torch.library.opcheck(getattr(torch.ops.focus, name).default, arguments)
    except ModuleNotFoundError as error:  # some versions of torch need expecttest for it, one of our "dev" packages
        pytest.skip(str(error))
