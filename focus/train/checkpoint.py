"""Checkpoints: one safetensors file, tensors plus a JSON header; nothing in it can run.

Tensors are named ``reconstruction.*`` and ``segmentation.*``, the state dicts of the networks, and
``optimiser.<network>.<state>.<number of the parameter>``. The metadata hold one entry, ``focus``: JSON with the fields
of `Header` and a checksum over the whole file (`focus.sealed`).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

from focus import limits
from focus._version import __version__
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel
from focus.files import read_input, write_files
from focus.isolation import own_state
from focus.nets import (
    ReconstructionNetwork,
    SegmentationNetwork,
    build_reconstruction_network,
    build_segmentation_network,
    load_weights,
)
from focus.sealed import DamagedError, open_tensors, seal_tensors
from focus.train.config import Settings
from focus.train.methods import METHODS
from focus.train.schedule import Network, plan

FORMAT = 2
"""Of the files that are written. Format 1 is read, too: its checksum, CRC-32, covers the tensors alone."""
NETWORKS = ("reconstruction", "segmentation")


@dataclass
class Networks:
    """The two networks of FOCUS."""

    reconstruction: ReconstructionNetwork
    segmentation: SegmentationNetwork

    @classmethod
    def build(cls, settings: Settings, model: MorphableModel) -> Networks:
        """Untrained networks, from torch's random numbers."""
        return cls(build_reconstruction_network(settings.network, model), build_segmentation_network(settings.network))

    through: dict[Network, Callable[..., Any]] = field(default_factory=dict)
    """In place of the network that learns: what calls it and exchanges its gradients with other processes."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "through": {}}

    def encode(self, images: Tensor) -> FaceParameters:
        """The faces of photos ``[B, 3, S, S]``."""
        found: FaceParameters = self.through.get("reconstruction", self.reconstruction)(images)
        return found

    def logits(self, rendered: Tensor, target: Tensor, face: Tensor) -> Tensor:
        """See `SegmentationNetwork.logits`."""
        found: Tensor = self.through.get("segmentation", self.segmentation.logits)(rendered, target, face)
        return found

    def items(self) -> tuple[tuple[Network, nn.Module], ...]:
        """(name, network), in the order of their names."""
        return ("reconstruction", self.reconstruction), ("segmentation", self.segmentation)

    def of(self, name: Network) -> nn.Module:
        """The network of this name."""
        return self.reconstruction if name == "reconstruction" else self.segmentation

    def to(self, device: torch.device | str) -> Networks:
        """Moves both, in place."""
        for _, network in self.items():
            network.to(device)
        return self

    def eval(self) -> Networks:
        """Switches both to evaluation."""
        for _, network in self.items():
            network.eval()
        return self


@dataclass
class Header:
    """What a checkpoint says about itself. Plain JSON values."""

    settings: dict[str, Any]
    """`Settings.to_dict` of the run."""
    model_name: str
    """Name of the morphable model."""
    model_fingerprint: str
    """`MorphableModel.fingerprint`: coefficients mean nothing in another model."""
    kind: Literal["training", "inference"] = "training"
    """A training checkpoint also holds what the run needs to go on."""
    step: int = 0
    """Iterations done."""
    optimiser: dict[str, dict[str, float]] = field(default_factory=dict)
    """Numbers of the optimisers that are no tensors, by network and name."""
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    """Last and best validation: ``{"last": {name: value}, "best": {name: value}}``, each with its ``step``; and
    ``"stopped"`` where networks that made each other worse were put back, ``"kept"`` where `Settings.keep` was heeded.
    """
    data: dict[str, str] | None = None
    """What the run read, `focus.train.record.Inputs.digests`; None: a file of before, which does not say it."""
    machine: dict[str, str] = field(default_factory=dict)
    """What may change the last bits of a result: threads, processes, device, version of torch."""
    version: str = __version__
    """Version of FOCUS that wrote the file."""
    format: int = FORMAT
    """See `FORMAT`."""


@dataclass
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    header: Header
    tensors: dict[str, Tensor]
    path: Path

    @property
    def settings(self) -> Settings:
        """The settings of the run. Raises `FocusError` where one is unknown to this version, or out of range."""
        try:
            return Settings.from_dict(self.header.settings)
        except FocusError as error:
            raise FocusError(f"checkpoint: {self.path}: {error}") from error

    @property
    def segments(self) -> bool:
        """See `Trained.segments`."""
        done, settings = self.header.step, self.settings
        learned = settings.start is not None or any(
            turn.network == "segmentation" and turn.start < done for turn in plan(settings.stages, settings.method)
        )
        return METHODS[settings.method].segments and bool(self.state("segmentation")) and learned

    def state(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix, which is cut off."""
        prefix = f"{prefix}."
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def check_model(self, model: MorphableModel) -> None:
        """Raises `FocusError` if the checkpoint was trained with another morphable model."""
        if model.fingerprint() != self.header.model_fingerprint:
            raise FocusError(
                f"{self.path}: trained with the face model {self.header.model_name!r} (fingerprint "
                f"{self.header.model_fingerprint[:12]}), got {model.name!r} ({model.fingerprint()[:12]}), in which its "
                "coefficients mean other faces. Use the same model file and the same numbers of components."
            )

    def load_networks(self, networks: Networks) -> None:
        """Copies the weights into `networks`; a segmentation network that the file lacks stays as it is.

        Raises:
            FocusError: weights are missing, unknown, of another shape or not finite.
        """
        for name, network in networks.items():
            state = self.state(name)
            if state or name == "reconstruction":
                load_weights(network, state, source=f"{self.path}, {name}")


@dataclass
class Trained:
    """Trained networks, ready for use: on a device, in evaluation mode."""

    settings: Settings
    model: MorphableModel
    networks: Networks
    checkpoint: Checkpoint

    @property
    def segments(self) -> bool:
        """Whether it has a segmentation network that has learnt, and that its method asks for masks."""
        return self.checkpoint.segments


def save_checkpoint(path: str | os.PathLike[str], header: Header, tensors: Mapping[str, Tensor]) -> Path:
    """Writes a checkpoint; at any moment, the file of this name is the old one or the new one, complete.

    Args:
        path: the file. Its folder is made if need be.
        header: what it says about itself.
        tensors: on any device.

    Raises:
        FocusError: the file system refused (full, read-only, ...); the old file is still there.
    """
    path = Path(path)
    held = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    content = seal_tensors(held, "focus", asdict(replace(header, format=FORMAT, version=__version__)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: content})
    except OSError as error:
        raise FocusError(
            f"checkpoint: {path} ({len(content) / 2**20:.1f} MiB) cannot be written: {error.strerror or error}. An "
            "older file of that name is unchanged. Make room or choose another folder, then resume."
        ) from error
    return path


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint of training or for inference.

    Raises:
        FocusError: no such file; damaged or cut short; not a checkpoint of FOCUS; of a newer format; a value of its
            header is of another type or out of range.
    """
    path = Path(path)
    if not path.exists():
        raise FocusError(f"checkpoint: expected a file, found none at {path}. Check the path.")
    try:
        values, tensors = open_tensors(read_input(path, limits.WEIGHTS_FILE), "focus")
    except DamagedError as error:
        raise FocusError(
            f"checkpoint: {path} cannot be read ({error}): its header or contents are damaged or cut short, or it is "
            "no checkpoint. FOCUS writes .safetensors files; copy this one again."
        ) from error
    except KeyError as error:
        raise FocusError(
            f"checkpoint: {path} is a safetensors file, but not one that FOCUS wrote: its metadata have no entry "
            "'focus'. Weights of single networks go elsewhere (settings.imagenet, settings.arcface)."
        ) from error
    return Checkpoint(_read_header(path, values, tensors), tensors, path)


@own_state(grad=True)
def load_trained(
    path: str | os.PathLike[str], *, model: MorphableModel | None = None, device: torch.device | str = "cpu"
) -> Trained:
    """Networks for use, with their settings and face model.

    Args:
        path: a checkpoint of training or for inference.
        model: the face model, of which as many components are used as the settings say; None: the one that they name.
        device: where all of it goes.

    Raises:
        FocusError: as `load_checkpoint`, or the face model is another one.
    """
    checkpoint = load_checkpoint(path)
    settings = checkpoint.settings
    model = settings.face.build(model)
    checkpoint.check_model(model)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not for weights that are replaced
        networks = Networks.build(settings, model)
    checkpoint.load_networks(networks)
    return Trained(settings, model.to(device), networks.to(device).eval(), checkpoint)


def export(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], *, segmentation: bool = True
) -> tuple[Path, int]:
    """Writes the networks of a checkpoint alone, in half precision, for inference or as the start of other runs.

    Vectors (biases, normalisation) stay in single precision: they are small in size and wide in range. Of the places of
    files on this machine it names none but that of the face model, which a reader needs.

    Args:
        source: a checkpoint of training.
        destination: the file to write.
        segmentation: include the segmentation network.

    Returns:
        The file and its size in bytes.

    Raises:
        FocusError: as `load_checkpoint` and `save_checkpoint`, or a weight does not fit into half precision.
    """
    checkpoint = load_checkpoint(source)
    wanted = NETWORKS if segmentation else NETWORKS[:1]
    tensors = {}
    for name, value in checkpoint.tensors.items():
        if name.split(".")[0] in wanted:
            matrix = value.is_floating_point() and value.dim() >= 2
            tensors[name] = value.to(torch.float16) if matrix else value
            if not bool(torch.isfinite(tensors[name]).all()):
                raise FocusError(f"checkpoint: {source}: {name} is not finite, or too large for half precision")
    settings = {**checkpoint.header.settings, **dict.fromkeys(("start", "imagenet", "arcface"))}
    settings["data"] = {
        **settings.get("data", {}),
        **dict.fromkeys(("photos", "landmarks", "adapt_photos", "adapt_landmarks")),
        "shards": (),
    }
    header = replace(checkpoint.header, settings=settings, kind="inference", optimiser={}, data=None, machine={})
    path = save_checkpoint(destination, header, tensors)
    return path, path.stat().st_size


def _read_header(path: Path, values: dict[str, Any], tensors: Mapping[str, Tensor]) -> Header:
    """The values as a header, each of them looked at: a checksum says that they are as written, not that they are
    right.
    """
    found, checksum = values.get("format"), values.pop("checksum", None)
    if not _is_count(found):
        raise FocusError(f"checkpoint: {path}: header: format: expected a whole number >= 0, got {found!r}")
    if found > FORMAT:
        raise FocusError(
            f"checkpoint: {path} has format {found}; FOCUS {__version__} reads formats up to {FORMAT}: update it"
        )
    if (found >= 2 and not isinstance(checksum, str)) or (found < 2 and checksum != _crc32(tensors)):
        raise FocusError(f"checkpoint: {path} is damaged: its contents do not match their checksum. Copy it again.")
    for item in fields(Header):
        if item.name not in values and not (found < 2 and item.name in ("data", "machine")):
            raise FocusError(f"checkpoint: {path}: header: {item.name}: expected a value, got none")
    unknown = sorted(set(values) - {item.name for item in fields(Header)})
    if unknown:
        raise FocusError(f"checkpoint: {path}: header: unknown: {', '.join(unknown)}")
    for name, (good, expected) in _FIELDS.items():
        if name in values and not good(values[name]):
            shown = repr(values[name])
            shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
            raise FocusError(f"checkpoint: {path}: header: {name}: expected {expected}, got {shown}")
    return Header(**values)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 53


def _is_number(value: object) -> bool:
    return type(value) in (int, float)  # and finite, as all numbers of the JSON


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _maps(names: Callable[[str], bool], good: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(names(name) and good(entry) for name, entry in value.items())


def _any(value: object) -> bool:
    return True


def _is_validation(item: tuple[str, object]) -> bool:
    name, value = item
    needed = {"last": "loss", "best": "loss", "stopped": "loss", "kept": "step"}.get(name)
    return isinstance(value, dict) and needed in value and _maps(_any, _is_number)(value)


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "settings": (_maps(_any, _any), "a group of settings"),
    "model_name": (_is_text, "a text"),
    "model_fingerprint": (_is_text, "a text"),
    "kind": (lambda value: value in ("training", "inference"), "'training' or 'inference'"),
    "step": (_is_count, "a whole number >= 0"),
    "optimiser": (
        _maps(NETWORKS.__contains__, _maps(lambda name: bool(re.fullmatch(r"\w+\.\d{1,9}", name)), _is_number)),
        f"numbers by network ({', '.join(NETWORKS)}) and name",
    ),
    "validation": (
        lambda value: isinstance(value, dict) and all(map(_is_validation, value.items())),
        "numbers of the 'last' and the 'best' validation and of the one that ended the run, 'loss' among them, and the "
        "'step' of what was 'kept'",
    ),
    "data": (lambda value: value is None or _maps(_any, _is_text)(value), "digests by name, or null"),
    "machine": (_maps(_any, _is_text), "texts by name"),
    "version": (_is_text, "a text"),
}


def _crc32(tensors: Mapping[str, Tensor]) -> int:
    """The checksum of format 1."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def shipped_checkpoint(name: Literal["initial_small", "photos"] = "initial_small") -> Path | None:
    """A checkpoint of the package, if this build has it.

    Args:
        name: ``initial_small``, from which the demo starts, or ``photos``, which `focus reconstruct` takes by itself.
            Both have seen synthetic faces alone.
    """
    path = Path(str(files("focus") / "assets" / f"{name}.safetensors"))
    return path if path.is_file() else None
