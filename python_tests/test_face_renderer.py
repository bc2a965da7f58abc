"""The renderer as a part of somebody's network, and a model that changes after it was drawn."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from focus import ops
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.fit import FitSettings, PhotoFitter

SIZE = 48


@pytest.fixture
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=4, expression=3, albedo=3)


def _drawn(model: MorphableModel, renderer: Renderer | None = None) -> torch.Tensor:
    renderer = Renderer(model, SIZE) if renderer is None else renderer
    return renderer(FaceParameters.mean(model)).face_index


def _cut(model: MorphableModel) -> torch.Tensor:
    """The faces of a half of the head, the others degenerate: as many as before."""
    faces = model.faces.clone()
    faces[model.mean_shape[faces.long(), 0].mean(1) > 0] = faces[0].clone()
    return faces


def _assign(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces = faces


def _assign_fewer(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces = faces[:300]


def _assign_wide(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces = faces.long()


def _load(model: MorphableModel, faces: torch.Tensor) -> None:
    model.load_state_dict({**model.state_dict(), "faces": faces})


def _load_assigned(model: MorphableModel, faces: torch.Tensor) -> None:
    model.load_state_dict({**model.state_dict(), "faces": faces}, assign=True)


def _edit(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces[:] = faces


def _edit_in_inference_mode(model: MorphableModel, faces: torch.Tensor) -> None:
    with torch.inference_mode():
        model.faces.copy_(faces)


def _edit_data(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces.data.copy_(faces)


def _replace_data(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces.data = faces


def _edit_array(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces.numpy()[:] = faces.numpy()


def _assign_and_convert(model: MorphableModel, faces: torch.Tensor) -> None:
    model.faces = faces
    model.double().float()


def _assign_of_inference_mode(model: MorphableModel, faces: torch.Tensor) -> None:
    with torch.inference_mode():
        model.faces = faces * 1
        _drawn(model)
        model.faces += 0


CHANGES = [
    value for name, value in list(globals().items()) if name.startswith(("_assign", "_load", "_edit", "_replace"))
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_faces_are_drawn(model: MorphableModel, change: Callable[[MorphableModel, torch.Tensor], None]) -> None:
    renderer, faces = Renderer(model, SIZE), _cut(model)
    before = _drawn(model, renderer)
    assert _drawn(model, renderer).equal(before)
    change(model, faces)
    arrays = {key: value.clone() for key, value in model.state_dict().items()}
    expected = _drawn(MorphableModel(**arrays))
    assert _drawn(model, renderer).equal(expected)
    assert not before.equal(expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_their_own_faces(
    model: MorphableModel, duplicate: Callable[[MorphableModel], MorphableModel]
) -> None:
    before, faces = _drawn(model), _cut(model)
    model.faces[:] = faces  # drawn before, and not since
    other = duplicate(model)
    expected = _drawn(MorphableModel(**{key: value.clone() for key, value in model.state_dict().items()}))
    assert _drawn(other).equal(expected)
    other.faces[:] = MorphableModel.procedural("small").faces
    assert _drawn(other).equal(before)
    assert _drawn(model).equal(expected)


def test_faces_that_name_no_vertex_are_refused(model: MorphableModel) -> None:
    _drawn(model)
    model.faces[7, 1] = model.vertex_count
    with pytest.raises(ValueError, match=r"1 of .* entries of faces lie outside"):
        _drawn(model)


def test_the_next_procedural_face_does_not_know_what_was_done_to_the_last(model: MorphableModel) -> None:
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.zero_()
    again = MorphableModel.procedural("small", identity=4, expression=3, albedo=3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.items())


def test_the_topology_is_built_once_while_nothing_changes(model: MorphableModel) -> None:
    first = model.topology
    _drawn(model)
    with torch.inference_mode():
        assert model.topology is first


def test_a_fitter_follows_its_model(model: MorphableModel) -> None:
    settings = FitSettings(image_size=48, coarse_steps=1, fine_steps=1)
    rendering = Renderer(model, 96)(FaceParameters.mean(model))
    photo = (rendering.image[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
    points = rendering.landmarks[0].double().numpy()
    fitter = PhotoFitter(model, settings)
    fitter(photo, points)
    model.identity_basis.mul_(0.5)
    expected = PhotoFitter(model, settings)(photo, points)
    assert torch.equal(fitter(photo, points).vertices, expected.vertices)


class _Network(torch.nn.Module):
    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.renderer = Renderer(model, SIZE)


def test_a_network_does_not_save_the_model_of_its_renderer(model: MorphableModel) -> None:
    network = _Network(model)
    assert set(network.state_dict()) == {"layer.weight", "layer.bias"}
    assert list(network.buffers()) == []  # DistributedDataParallel would send them all in every step
    network.load_state_dict(network.state_dict())
    network.renderer.model = model  # a new one, too
    assert set(network.state_dict()) == {"layer.weight", "layer.bias"}


def test_the_model_moves_with_the_network(model: MorphableModel) -> None:
    network = _Network(model)
    expected = _drawn(model)
    network.double()
    assert model.mean_shape.dtype == torch.float64
    assert model.faces.dtype == torch.int32
    assert _drawn(model, network.renderer).equal(expected)
    network.float().to("meta")
    assert model.mean_shape.device.type == model.faces.device.type == "meta"


def test_renderers_are_copied_and_pickled_with_their_model(model: MorphableModel) -> None:
    network = _Network(model)
    expected = _drawn(model)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.renderer.model is not model
        assert _drawn(other.renderer.model, other.renderer).equal(expected)


def test_files_from_when_the_model_was_saved_are_read(model: MorphableModel) -> None:
    network = _Network(model)
    arrays = {f"renderer.model.{key}": value.clone() for key, value in model.state_dict().items()}
    arrays["renderer.model.mean_shape"] += 1
    before = model.mean_shape.clone()
    network.load_state_dict({**network.state_dict(), **arrays})
    assert torch.equal(model.mean_shape, before + 1)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*renderer.else"):
        network.load_state_dict({**network.state_dict(), **arrays, "renderer.else": before})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*renderer.model.else"):
        network.load_state_dict({**network.state_dict(), **arrays, "renderer.model.else": before})


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # of torch itself, in jvp
def test_a_renderer_works_in_a_function_of_functorch(model: MorphableModel) -> None:
    """First used there: what it keeps is of no transform."""
    renderer, parameters = Renderer(model, SIZE, antialias=True), FaceParameters.mean(model)

    def loss(identity: torch.Tensor) -> torch.Tensor:
        faces = FaceParameters(**{**dict(parameters.items()), "identity": identity})
        rendering = renderer(faces)
        return rendering.image.square().sum() + rendering.mask.sum()

    gradient = torch.func.grad(loss)(parameters.identity)
    leaf = parameters.identity.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert torch.equal(gradient, expected)
    assert bool((gradient != 0).any())
    direction = parameters.identity + 1
    _, tangent = torch.func.jvp(loss, (parameters.identity,), (direction,))
    torch.testing.assert_close(
        tangent, (expected * direction).sum(), rtol=1e-3, atol=1e-3 * float(expected.abs().sum())
    )
    assert isinstance(model.topology, ops.Topology)
