"""What the caller has set in torch changes no result, spoils nothing for later, and is as before afterwards."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import focus
from focus import Reconstructor, data, face, fit, fit_photo, fit_photos, losses, nets, ops
from focus.data import AugmentationSettings, PhotoFolder, SyntheticFaces, SyntheticSettings, estimate_alignment
from focus.data.patches import patched
from focus.face import Camera, FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.fit import FitSettings, PhotoFitter
from focus.losses import ReconstructionWeights, SegmentationWeights
from focus.nets import FilterBank
from focus.train import Header, Networks, Settings, save_checkpoint

SIZE = 32
FIT = FitSettings(image_size=48, coarse_steps=2, fine_steps=2)


@contextlib.contextmanager
def _set(change: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled(False)": lambda: _set(torch.set_grad_enabled, False, True),
    "set_default_dtype(float64)": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    "set_default_device(meta)": lambda: _set(torch.set_default_device, "meta", None),
    "device(meta)": lambda: torch.device("meta"),
    "use_deterministic_algorithms": lambda: _set(torch.use_deterministic_algorithms, True, False),
}


@dataclass
class World:
    """What entries are called with: made in torch's defaults, and fresh for each call."""

    model: MorphableModel
    other: MorphableModel
    """Without colour."""
    parameters: FaceParameters
    photo: np.ndarray
    points: np.ndarray
    folder: Path
    checkpoint: Path

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def rand(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator)

        self.target, self.image, self.mask = rand(2, 3, SIZE, SIZE), rand(2, 3, SIZE, SIZE), rand(2, 1, SIZE, SIZE)
        self.screen = rand(2, 9, 3) * torch.tensor([20.0, 20, 1]) + torch.tensor([0.0, 0, 5])
        self.faces = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 5, 7], [0, 2, 8]])
        self.values, self.unit = rand(2, 9, 3), torch.nn.functional.normalize(rand(2, 9, 3), dim=-1)
        self.light = rand(2, 3, 9)
        self.index = ops.rasterize(self.screen, self.faces, (20, 24)).face_index
        self.landmarks = rand(2, 68, 2) * SIZE
        self.rendering = Renderer(copy.deepcopy(self.model), SIZE)(self.parameters)


def _operators(module: Any) -> dict[str, Callable[[World], Any]]:
    """Of `focus.ops` or its twins."""
    size = (20, 24)
    return {
        "rasterize": lambda w: module.rasterize(w.screen, w.faces, size),
        "interpolate": lambda w: module.interpolate(w.values, w.faces, ops.rasterize(w.screen, w.faces, size)),
        "render": lambda w: module.render(w.screen, w.values, w.faces, size),
        "antialias": lambda w: module.antialias(w.target[..., :20, :24], w.screen, w.faces, w.index),
        "vertex_normals": lambda w: module.vertex_normals(w.screen, w.faces),
        "sh_shading": lambda w: module.sh_shading(w.unit, w.values, w.light),
        "neighbor_min": lambda w: module.neighbor_min(w.target, w.image, w.mask),
        "neighbor_min_loss": lambda w: module.neighbor_min_loss(w.target, w.image),
        "masked_photometric_loss": lambda w: module.masked_photometric_loss(w.target, w.image, w.mask),
        "outlier_robust_loss": lambda w: module.outlier_robust_loss(w.target, w.image, w.mask),
    }


def _topology(world: World) -> Any:
    topology = ops.Topology(world.faces, 9)
    return topology.offsets, topology.corners, topology.neighbors, topology.to("cpu").faces


def _reconstructed(world: World) -> Any:
    reconstructor = Reconstructor.load(world.checkpoint, model=world.model)
    crops = torch.nn.functional.interpolate(world.target, size=(reconstructor.image_size,) * 2)
    return [_parts(result) for result in reconstructor(crops)]


def _parts(result: Any) -> Any:
    return result.parameters, result.vertices, result.colors, result.mask, result.landmarks_68, result.render(40)


def _folder(world: World) -> Any:
    photos = PhotoFolder(world.folder, world.folder / "landmarks.csv", SIZE, augmentation=AugmentationSettings())
    return photos.batch([0]), photos.batch([0], augment_seed=3)


def _locator(world: World) -> Any:
    locator = LandmarkLocator(world.model)
    vertices = world.model.shape(world.parameters.identity, world.parameters.expression)
    return locator.ends, locator.fractions, locator(vertices, world.parameters.rotation)


def _joined_pixels(world: World) -> Any:
    joined = losses.JoinedPixels(1)
    with joined.counted():
        losses.pixel(world.target, world.image, world.mask)
    with joined.learnt():
        return losses.pixel(world.target, world.image, world.mask)


ENTRIES: dict[str, Callable[[World], Any]] = {
    **{f"ops.{name}": call for name, call in _operators(ops).items()},
    **{f"ops.reference.{name}": call for name, call in _operators(ops.reference).items()},
    "ops.reference.sh_basis": lambda w: ops.reference.sh_basis(w.unit),
    "ops.Topology": _topology,
    "face.MorphableModel": lambda w: MorphableModel.procedural(
        "small", identity=3, expression=2, albedo=2
    ).state_dict(),
    "face.MorphableModel.load": lambda w: MorphableModel.load(w.folder / "face.focusmodel").state_dict(),
    "face.MorphableModel.procedural": lambda w: MorphableModel.procedural("small").identity_basis,
    "face.MorphableModel.save": lambda w: (w.model.save(w.folder / "x.focusmodel"), w.model.fingerprint())[1],
    "face.MorphableModel.fingerprint": lambda w: w.model.fingerprint(),
    "face.MorphableModel.topology": lambda w: (w.model.topology.corners, w.model.topology.neighbors),
    "face.MorphableModel.shape": lambda w: w.model.shape(w.parameters.identity, w.parameters.expression),
    "face.MorphableModel.neutral_shape": lambda w: w.model.neutral_shape(w.parameters.identity),
    "face.MorphableModel.albedo": lambda w: w.model.albedo(w.parameters.albedo),
    "face.MorphableModel.truncated": lambda w: w.model.truncated(identity=2).state_dict(),
    "face.MorphableModel.with_gaussian_process_albedo": lambda w: w.other.with_gaussian_process_albedo(4).state_dict(),
    "face.Camera": lambda w: Camera(SIZE).project(
        Camera.transform(w.model.mean_shape[None], w.parameters.rotation, w.parameters.translation)
    ),
    "face.FaceParameters": lambda w: (FaceParameters.mean(w.model, 2), FaceParameters.cat([w.parameters] * 2)[1]),
    "face.Renderer": lambda w: Renderer(w.model, SIZE)(w.parameters),
    "face.Renderer, antialiased": lambda w: Renderer(w.model, SIZE, antialias=True)(w.parameters),
    "face.contour.LandmarkLocator": _locator,
    "fit.fit_photo": lambda w: _parts(fit_photo(w.photo, w.points, w.model, FIT)),
    "fit.fit_photos": lambda w: [_parts(found) for found in fit_photos(2 * [(w.photo, w.points)], w.model, FIT)],
    "fit.fit_photo, without colour": lambda w: _parts(fit_photo(w.photo, w.points, w.other, FIT)),
    "fit.PhotoFitter": lambda w: _parts(PhotoFitter(w.model, FIT)(w.photo, w.points)),
    "fit.run": lambda w: fit.run([w.folder], w.folder / "landmarks.csv", w.model, w.folder / "out", FIT).skipped,
    "fit.run_person": lambda w: (
        fit.run_person([w.folder], w.folder / "landmarks.csv", w.model, w.folder / "person", FIT).skipped
    ),
    "focus.Reconstructor": _reconstructed,
    "losses.pixel": lambda w: losses.pixel(w.target, w.image, w.mask),
    "losses.JoinedPixels": _joined_pixels,
    "losses.robust": lambda w: losses.robust(w.target, w.image, w.mask),
    "losses.annealed_sigma": lambda w: losses.annealed_sigma(0.3),
    "losses.perceptual": lambda w: losses.perceptual(w.values[0], w.unit[0]),
    "losses.landmark": lambda w: losses.landmark(w.landmarks, w.landmarks.flip(0), image_size=SIZE),
    "losses.teaching_loss": lambda w: losses.teaching_loss(
        target=w.target[:1],
        rendering=w.rendering,
        parameters=w.parameters,
        model=w.model,
        expected=w.parameters.to("cpu"),
        seen=w.mask[:1],
        weight=w.mask[:1, 0, 0, 0],
        weights=losses.TeachingWeights(),
    ),
    "losses.regularisation": lambda w: losses.regularisation(w.parameters),
    "losses.neighbor": lambda w: losses.neighbor(w.target, w.image, w.mask, swapped=True),
    "losses.distance": lambda w: losses.distance(w.image, w.target, w.mask),
    "losses.preserve": lambda w: losses.preserve(w.image, w.target, w.mask, w.mask),
    "losses.area": lambda w: losses.area(w.mask, w.mask),
    "losses.binary": lambda w: losses.binary(w.mask),
    "losses.mask_cross_entropy": lambda w: losses.mask_cross_entropy(w.mask, w.mask, w.mask),
    "losses.hiding_threshold": lambda w: losses.hiding_threshold(SegmentationWeights(), 0.3),
    "losses.reconstruction_loss": lambda w: losses.reconstruction_loss(
        target=w.target[:1],
        target_landmarks=w.landmarks[:1],
        rendering=w.rendering,
        parameters=w.parameters,
        mask=w.mask[:1],
        features=FilterBank(),
        weights=ReconstructionWeights(),
    ),
    "losses.segmentation_loss": lambda w: losses.segmentation_loss(
        target=w.target[:1],
        rendering=w.rendering,
        mask=w.mask[:1],
        features=FilterBank(),
        weights=SegmentationWeights(),
    ),
    "data.SyntheticFaces": lambda w: SyntheticFaces(w.model, SIZE, 1, SyntheticSettings()).batch(3, 2),
    "data.PhotoFolder": _folder,
    "data.patched": lambda w: patched(w.target, "cutmix", seed=1, first_index=0),
    "data.estimate_alignment": lambda w: estimate_alignment(data.five_from_68(w.points), SIZE),
    "nets.FilterBank": lambda w: (
        FilterBank().feature_map(w.target),
        FilterBank().feature_support(w.mask),
        FilterBank().embed(w.target, w.landmarks),
    ),
    "nets.align_faces": lambda w: nets.align_faces(w.target, w.landmarks, 16),
    "nets.estimate_similarity": lambda w: nets.estimate_similarity(w.landmarks, w.landmarks.flip(1)),
    "nets.five_from_68": lambda w: nets.five_from_68(w.landmarks),
}

_VALUES = "a record of settings or results, or a protocol: nothing is computed"
_FILES = "numbers and files without torch"
_MODULES = "a module with weights, which is made where and as torch makes modules; focus.Reconstructor loads them"
ELSEWHERE = {
    **dict.fromkeys(["ops.Fragments", "ops.reference", "face.Rendering", "nets.FeatureExtractor"], _VALUES),
    **dict.fromkeys([f"fit.{name}" for name in ("FitReport", "FitSettings", "Progress", "Written")], _VALUES),
    **dict.fromkeys(
        [f"nets.{name}" for name in ("EncoderSettings", "NetworkSettings", "SegmentationSettings")], _VALUES
    ),
    **dict.fromkeys(
        [
            f"data.{name}"
            for name in (
                *("Alignment", "AugmentationSettings", "FaceBatch", "LandmarkTable", "PatchSettings", "PhotoItem"),
                *("PoseSettings", "Skip", "SyntheticSettings"),
            )
        ],
        _VALUES,
    ),
    "data.SyntheticPool": "draws `data.SyntheticFaces` in processes of its own",
    **dict.fromkeys(
        [
            f"data.{name}"
            for name in ("expand_to_68", "five_from_68", "image_size", "read_image", "read_landmarks", "write_image")
        ],
        _FILES,
    ),
    **dict.fromkeys(
        [
            f"nets.{name}"
            for name in (
                *("ArcFaceFeatures", "ReconstructionNetwork", "ResNet", "SegmentationNetwork"),
                *("build_reconstruction_network", "build_segmentation_network", "load_weights", "read_weights"),
            )
        ],
        _MODULES,
    ),
    **dict.fromkeys(["focus.FocusError", "focus.__version__", "focus.Reconstruction"], _VALUES),
    **dict.fromkeys([f"losses.{name}Weights" for name in ("Reconstruction", "Segmentation", "Teaching")], _VALUES),
    "face.MorphableModel.extra_repr": _VALUES,
    "face.MorphableModel.has_changed": _VALUES,
    "face.MorphableModel.valid_recipe": _VALUES,
    "face.MorphableModel.versions": _VALUES,
    "face.MorphableModel.albedo_count": _VALUES,
    "face.MorphableModel.expression_count": _VALUES,
    "face.MorphableModel.identity_count": _VALUES,
    "face.MorphableModel.vertex_count": _VALUES,
}


def _public() -> Iterator[str]:
    for prefix, module in (("ops", ops), ("face", face), ("fit", fit), ("data", data), ("nets", nets)):
        yield from (f"{prefix}.{name}" for name in module.__all__)
    yield from (
        f"{'fit' if name.startswith('fit_photo') else 'focus'}.{name}" for name in focus.__all__ if name != "ops"
    )
    yield from (f"losses.{name}" for name in losses.__all__ if callable(getattr(losses, name)))
    for name, value in vars(ops.reference).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == ops.reference.__name__ and callable(value):
            yield f"ops.reference.{name}"
    own = {name for name in vars(MorphableModel) if not name.startswith("_")} - set(MorphableModel.__annotations__)
    yield from (f"face.MorphableModel.{name}" for name in own)


def test_every_public_entry_is_tried() -> None:
    """A new operator, loss or method has a line in ENTRIES, or a reason in ELSEWHERE."""
    tried = {name.split(",")[0] for name in ENTRIES} | set(ELSEWHERE)
    assert set(_public()) - tried == set()
    assert set(ELSEWHERE) - set(_public()) == set()
    assert all(len(inspect.signature(call).parameters) == 1 for call in ENTRIES.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("caller")
    model = MorphableModel.procedural("small", identity=4, expression=3, albedo=3)
    model.save(folder / "face.focusmodel")
    generator = torch.Generator().manual_seed(1)
    parameters = FaceParameters.mean(model)
    parameters.identity[:] = torch.randn(1, 4, generator=generator)
    parameters.rotation[:] = torch.tensor([0.1, 0.3, -0.1])
    rendering = Renderer(model, 96)(parameters)
    photo = (rendering.image[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
    points = rendering.landmarks[0].double().numpy()
    data.write_image(folder / "face.png", photo)
    header = ",".join(["photo", *(f"{axis}{i}" for i in range(68) for axis in "xy")])
    row = ",".join(["face.png", *(f"{value:.3f}" for value in points.flatten())])
    (folder / "landmarks.csv").write_text(f"{header}\n{row}\n")
    bare = model.truncated(albedo=0)
    settings = replace(Settings.preset("small"), start=None)
    networks = Networks.build(settings, model)
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    saved = Header(settings.to_dict(), model_name=model.name, model_fingerprint=model.fingerprint(), step=15)
    checkpoint = save_checkpoint(folder / "last.safetensors", saved, tensors)
    return World(model, bare, parameters, photo, points, folder, checkpoint)


def _fresh(made: World) -> World:
    """The same with models that nobody has used."""
    return replace(made, model=copy.deepcopy(made.model), other=copy.deepcopy(made.other))


def _leaves(value: Any) -> Iterator[Any]:
    """Tensors, arrays and other values of a result, as something that compares with ==."""
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        yield plain.dtype, plain.device.type, tuple(plain.shape), plain.cpu().contiguous().numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield value.dtype, value.shape, value.tobytes()
    elif is_dataclass(value):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _random_state() -> tuple[bytes, ...]:
    numbers = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(numbers), pickle.dumps(random.getstate())


@pytest.fixture(scope="module")
def plain(made: World) -> dict[str, list[Any]]:
    return {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ENTRIES)
def test_the_state_of_the_caller_changes_no_bit(name: str, mode: str, made: World, plain: dict[str, list[Any]]) -> None:
    """Called first in that state, it also gives the same in torch's defaults afterwards, from what it may have kept."""
    call = ENTRIES[name]
    if name not in plain:
        plain[name] = list(_leaves(call(_fresh(made))))
    world = _fresh(made)
    before = _random_state()
    with MODES[mode]():
        settings = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
        got = call(world)
        assert settings == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    assert list(_leaves(got)) == plain[name]
    assert _random_state() == before
    assert list(_leaves(call(world))) == plain[name]


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_what_is_made_without_gradients_can_be_trained_with(made: World, mode: str) -> None:
    with MODES[mode]():
        world = _fresh(made)
        model = MorphableModel(**{key: value * 1 for key, value in world.model.state_dict().items()})
        renderer, bank, locator = Renderer(model, SIZE, antialias=True), FilterBank(), LandmarkLocator(model)
        renderer(world.parameters)
        model.double().float()
        topology = ops.Topology(world.faces * 1, 9)
        topology.neighbors.sum()
    parameters = replace(
        world.parameters, identity=world.parameters.identity.clone().requires_grad_(), rotation=torch.zeros(1, 3)
    )
    rendering = renderer(parameters)
    screen = world.screen.clone().requires_grad_()
    total = (
        *(rendering.image.sum(), rendering.mask.sum(), bank.feature_map(rendering.image).sum()),
        locator(rendering.vertices, parameters.rotation).sum(),
        *(
            ops.vertex_normals(screen, topology).sum(),
            ops.antialias(made.target[..., :20, :24], screen, topology, made.index).sum(),
        ),
    )
    gradients = torch.autograd.grad(sum(total), (parameters.identity, screen))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)
    tensors = [*model.state_dict().values(), *bank.buffers(), topology.faces, topology.corners, topology.neighbors]
    assert not any(tensor.is_inference() for tensor in tensors)


def test_fitting_computes_in_single_precision_under_autocast(made: World) -> None:
    expected = list(_leaves(_parts(fit_photo(made.photo, made.points, made.model, FIT))))
    with torch.autocast("cpu", torch.bfloat16):
        got = fit_photo(made.photo, made.points, made.model, FIT)
    assert list(_leaves(_parts(got))) == expected


FACTORIES = {
    *("arange", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm"),
    *("scalar_tensor", "tensor", "zeros", "as_tensor", "asarray", "range"),
}
"""Of torch: they ask the caller for what they are not told."""
OWN_SURROUNDINGS = {
    "cli": "a process of its own",
    "isolation.py": "asks what the caller has set",
    "nets/encoder.py": "a module with weights, which follows the caller as all modules do",
    "face/loaders.py": "called in `own_state`",
    "face/foreign_loaders.py": "called in `own_state`",
}


def test_new_tensors_say_their_type_and_place() -> None:
    source = Path(focus.__file__).parent
    silent = []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name in OWN_SURROUNDINGS or name.split("/")[0] in OWN_SURROUNDINGS:
            continue
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            function = ast.unparse(call.func)
            if function.startswith("torch.") and function.removeprefix("torch.") in FACTORIES:
                missing = {"dtype", "device"} - {keyword.arg for keyword in call.keywords}
                silent += [f"{name}:{call.lineno}: {function} without {word}" for word in sorted(missing)]
    assert silent == []
