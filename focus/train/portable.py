"""The networks of a checkpoint for programs without FOCUS: ONNX, or programs of `torch.export`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from focus._optional import require
from focus._version import __version__
from focus.errors import FocusError
from focus.face.camera import DEFAULT_DISTANCE, FOCAL_FACTOR
from focus.files import write_files
from focus.train.checkpoint import Trained

Format = Literal["onnx", "torch"]

LARGEST_DIFFERENCE = 1e-4
"""Between what comes out of an exported network and of the network itself."""
_SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
_OUTPUTS = ("identity", "expression", "albedo", "rotation", "translation", "lighting")


class _Reconstruction(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        face = self.network(images)
        return tuple(getattr(face, name) for name in _OUTPUTS)


class _Segmentation(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rendered: Tensor, photo: Tensor, face: Tensor) -> Tensor:
        mask: Tensor = self.network(rendered, photo, face)
        return mask


def export_portable(trained: Trained, folder: str | os.PathLike[str], kind: Format = "onnx") -> list[Path]:
    """Writes both networks, and what a program needs beside them, each checked against the network itself.

    - ``reconstruction.onnx``: ``images [B, 3, S, S]``, RGB in [0, 1] -> ``identity``, ``expression``, ``albedo``,
      ``rotation``, ``translation``, ``lighting``, as in `FaceParameters`;
    - ``segmentation.onnx``: ``rendered [B, 3, S, S]``, 0 outside of the face, ``photo [B, 3, S, S]``,
      ``face [B, 1, S, S]`` -> ``mask [B, 1, S, S]``; left out where it has not learnt;
    - ``face.npz``: ``mean_shape``, ``identity_basis``, ``expression_basis``, ``mean_albedo``, ``albedo_basis``,
      ``faces`` and ``landmarks68`` of the face model, whose licence they have;
    - ``about.json``: sizes, camera, licence, version.

    Args:
        trained: networks, on the CPU.
        folder: made if need be.
        kind: onnx, or torch for ``.pt2`` files of `torch.export`, which need this version of torch or a newer one.

    Raises:
        FocusError: packages of the extra ``export`` are missing; an exported network says something else; the disk is
            full, and nothing was written.
    """
    folder, networks, settings = Path(folder), trained.networks, trained.settings
    if kind == "onnx":
        for package in ("onnxscript", "onnxruntime"):
            require(package, extra="export", purpose="write networks as ONNX and to check them")
    size = settings.image_size
    generator = torch.Generator("cpu").manual_seed(0)

    def example(batch: int, *channels: int) -> tuple[Tensor, ...]:
        shapes = ((batch, count, size, size) for count in channels)
        return tuple(torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for shape in shapes)

    networks.eval()
    layout = (networks.reconstruction.channels_last, networks.segmentation.channels_last)
    networks.reconstruction.channels_last = networks.segmentation.channels_last = False  # a hint for this machine
    files: dict[Path, bytes] = {}
    try:
        parts: dict[str, tuple[nn.Module, tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
            "reconstruction": (_Reconstruction(networks.reconstruction), ("images",), _OUTPUTS, (3,))
        }
        if trained.segments:
            looks_at = ("rendered", "photo", "face")
            parts["segmentation"] = (_Segmentation(networks.segmentation), looks_at, ("mask",), (3, 3, 1))
        for name, (module, inputs, outputs, channels) in parts.items():
            data, run = _exported(module.eval(), example(2, *channels), inputs, outputs, kind)
            _check(name, module, run, example(3, *channels))
            files[folder / f"{name}{_SUFFIX[kind]}"] = data
    finally:
        networks.reconstruction.channels_last, networks.segmentation.channels_last = layout
    files[folder / "face.npz"] = _face(trained)
    files[folder / "about.json"] = (json.dumps(_about(trained), indent=1) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(files)
    except OSError as error:
        raise FocusError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return list(files)


Run = Callable[..., list[np.ndarray]]


def _exported(
    module: nn.Module, inputs: tuple[Tensor, ...], names: tuple[str, ...], outputs: tuple[str, ...], kind: Format
) -> tuple[bytes, Run]:
    """The file of a network, and what runs it as its readers do."""
    batch = torch.export.Dim("batch", min=1, max=65_536)
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
        if kind == "torch":
            file = io.BytesIO()
            torch.export.save(program, file)
            again = torch.export.load(io.BytesIO(file.getvalue())).module()

            def run_program(*values: Tensor) -> list[np.ndarray]:
                found = again(*values)
                return [value.detach().numpy() for value in (found if isinstance(found, tuple) else (found,))]

            return file.getvalue(), run_program
        # Its optimiser folds normalisation into convolutions, and loses their bias (onnxscript 0.7.2).
        made = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=outputs, optimize=False, verbose=False
        )
    if made is None:
        raise FocusError("torch.onnx made nothing of a network")
    data: bytes = made.model_proto.SerializeToString()
    session = require("onnxruntime", extra="export", purpose="check networks as ONNX").InferenceSession(
        data, providers=["CPUExecutionProvider"]
    )

    def run_session(*values: Tensor) -> list[np.ndarray]:
        given = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        known = {item.name for item in session.get_inputs()}  # a network that does not look at the face has no such
        found: list[np.ndarray] = session.run(None, {name: value for name, value in given.items() if name in known})
        return found

    return data, run_session


def _check(name: str, module: nn.Module, run: Run, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        expected = module(*inputs)
    for value, found in zip(expected if isinstance(expected, tuple) else (expected,), run(*inputs), strict=True):
        difference = float(np.abs(found - value.numpy()).max(initial=0.0))
        if found.shape != tuple(value.shape) or not difference <= LARGEST_DIFFERENCE:
            raise FocusError(
                f"{name}: the exported network says something else than the network itself: shapes {list(found.shape)} "
                f"and {list(value.shape)}, a difference of {difference:.2g} where at most {LARGEST_DIFFERENCE:g} is "
                "expected. Nothing was written; other versions of torch or onnxscript may do better"
            )


def _face(trained: Trained) -> bytes:
    model, file = trained.model, io.BytesIO()
    names = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "faces", "landmarks68")
    np.savez_compressed(file, **{name: getattr(model, name).detach().cpu().numpy() for name in names})
    return file.getvalue()


def _about(trained: Trained) -> Mapping[str, Any]:
    size = trained.settings.image_size
    return {
        "focus": __version__,
        "image_size": size,
        "pixels": "RGB in [0, 1]; pixel centres at integers; faces aligned as `focus prepare` aligns them",
        "camera": {
            "focal": FOCAL_FACTOR * size / 2,
            "center": (size - 1) / 2,
            "distance_mm": DEFAULT_DISTANCE,
            "rotation": "diag(1, -1, -1) Rx(a) Ry(b) Rz(c)",
        },
        "model": trained.model.name,
        "licence": trained.model.licence,
        "relight": trained.settings.relight,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
