"""Model files: which formats there are, and our own.

Nothing here unpickles: a model file may come from a stranger, and a pickle can run any code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from focus import limits
from focus._version import __version__
from focus.errors import FocusError, FocusWarning
from focus.face import foreign_loaders as foreign
from focus.face.frames import frame_of, outward_faces
from focus.face.ict_facekit import NEUTRAL
from focus.face.model import LANDMARK_COUNT, ExpressionPrior, MorphableModel
from focus.files import check_input, read_input, write_files
from focus.sealed import DamagedError, open_tensors, parse_object, read_tensors, seal_tensors

OWN_SUFFIXES = (".focusmodel", ".safetensors")
_FORMAT = 2
"""Counts up when files can no longer be read as those of before."""
_KEY = "focus_model"
_FORMAT_1 = "focus-morphable-model-1"
_REQUIRED = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "faces", "landmarks68")
_OPTIONAL = ("landmarks7", "uv")
_INDICES = ("faces", "landmarks68", "landmarks7")
_TEXTS = ("name", "licence", "expression_prior", "recipe")
_FORMATS_TEXT = (
    "FOCUS (.focusmodel, .safetensors), Basel Face Model 2017 or 2019 (.h5), Basel Face Model 2009 (.mat), "
    "arrays or FLAME (.npz), ICT-FaceKit (its folder FaceXModel)"
)


def load_model(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """Reads a morphable model, recognised by its suffix and contents.

    Args:
        path: the file, or the folder of ICT-FaceKit.
        landmarks68: vertices of the 68 iBUG landmarks, for files that do not say them; replaces those of the file.

    Raises:
        FocusError: the file is missing, of an unknown format, damaged, or lacks something.

    Warns:
        FocusWarning: what `MorphableModel.notes` of the result say.
    """
    kind = path.suffix.lower()
    if path.is_dir():
        kind = "folder"
        if not (path / NEUTRAL).is_file():
            raise FocusError(f"{path}: expected a model ({_FORMATS_TEXT}), got a folder without {NEUTRAL}")
    elif not path.exists():
        raise FocusError(f"{path}: no such model file; expected one of: {_FORMATS_TEXT}")
    else:
        check_input(path, limits.MODEL_FILE)
    readers: dict[str, Callable[[], MorphableModel]] = {
        ".h5": lambda: foreign.load_basel_hdf5(path, landmarks68),
        ".hdf5": lambda: foreign.load_basel_hdf5(path, landmarks68),
        ".mat": lambda: foreign.load_basel_2009(path, landmarks68),
        ".npz": lambda: foreign.load_arrays(path, landmarks68),
        ".pkl": lambda: foreign.refuse_pickle(path),
        ".pickle": lambda: foreign.refuse_pickle(path),
        "folder": lambda: foreign.load_ict_facekit(path, landmarks68),
        **{suffix: lambda: load_own(path, landmarks68) for suffix in OWN_SUFFIXES},
    }
    reader = readers.get(kind)
    if reader is None:
        raise FocusError(f"{path}: unknown kind of model file {path.suffix!r}; expected one of: {_FORMATS_TEXT}")
    try:
        model = reader()
    except FocusError:
        raise
    except ValueError as error:  # arrays that were read but do not make a model
        raise FocusError(f"{path}: not a usable face model: {error}") from error
    for note in model.notes:
        warnings.warn(note, FocusWarning, stacklevel=3)
    return model


def read_landmarks68(path: Path) -> list[int]:
    """Vertices of the 68 iBUG landmarks from a text file: whole numbers between spaces, commas or lines, or JSON.

    Raises:
        FocusError: unreadable, or something else than 68 whole numbers.
    """
    data = read_input(path, limits.TEXT_FILE)
    try:
        words = data.decode("utf-8-sig").translate(str.maketrans(",;[]", "    ")).split()
        if strange := [word for word in words if re.fullmatch("[0-9]{1,18}", word) is None]:
            raise ValueError(f"it has {strange[0][:40]!r}")
    except ValueError as error:
        raise FocusError(
            f"{path}: expected a text file of {LANDMARK_COUNT} vertex indices, whole numbers from 0, but {error}"
        ) from error
    indices = [int(word) for word in words]
    if len(indices) != LANDMARK_COUNT:
        raise FocusError(
            f"{path}: expected {LANDMARK_COUNT} vertex indices, in the order of the iBUG landmarks, got {len(indices)}"
        )
    return indices


def load_own(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """Reads what `save_model` wrote; `landmarks68` replaces its landmarks.

    Files of format 1 have no checksum. Nothing shows that their numbers are still those of a recipe that they name, so
    the fingerprint of such a model is that of its numbers.
    """
    values, tensors = _read_own(path)
    missing = [key for key in _REQUIRED if key not in tensors]
    if missing:
        raise FocusError(f"{path}: expected the arrays {', '.join(_REQUIRED)}; missing: {', '.join(missing)}")
    for key, tensor in tensors.items():
        expected = (torch.float32,) if key not in _INDICES else (torch.int32, torch.int64)
        if tensor.dtype not in expected:
            raise FocusError(f"{path}: {key}: expected numbers of the type {expected[0]}, got {tensor.dtype}")
    landmarks = tensors["landmarks68"]
    if landmarks68 is not None:
        landmarks = foreign.checked_landmarks(path, landmarks68, tensors["mean_shape"].shape[:1].numel())
    arguments: dict[str, Any] = {**tensors, **values, "landmarks68": landmarks}
    model = MorphableModel(**arguments)
    bases = {key: getattr(model, key) for key in ("identity_basis", "expression_basis")}
    frame = frame_of(path, model.mean_shape, bases, model.landmarks68)
    faces = outward_faces(path, model.mean_shape, model.faces)
    if not frame.notes and faces is model.faces:
        return model
    for key in ("mean_shape", *bases):
        arguments[key] = frame.convert(arguments[key])
    return MorphableModel(**{**arguments, "faces": faces, "recipe": None, "notes": frame.notes})


def _read_own(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Texts and arrays, as `MorphableModel` takes them."""
    data = read_input(path, limits.MODEL_FILE)
    try:
        try:
            values, tensors = open_tensors(data, _KEY)
        except KeyError:
            values, tensors = _read_format_1(path, data)
        else:
            found, version, checksum = (values.pop(key, None) for key in ("format", "version", "checksum"))
            if type(found) is int and found > _FORMAT:
                raise FocusError(f"{path}: was written by focus {str(version)[:40]}; update this one")
            if found != _FORMAT or type(found) is not int or not isinstance(checksum, str):
                raise DamagedError(f"format {str(found)[:40]}, or no checksum")
        for key in ("name", "licence"):
            if not isinstance(values.get(key), str):
                raise DamagedError(f"{key}: expected a text")
        if not isinstance(values.get("recipe"), str | None):
            raise DamagedError("recipe: expected a text")
    except DamagedError as error:
        raise FocusError(
            f"{path}: expected a FOCUS model (safetensors), but it is damaged or something else: {error}"
        ) from error
    if values.get("expression_prior") not in get_args(ExpressionPrior):
        raise FocusError(
            f"{path}: expression_prior: expected one of {get_args(ExpressionPrior)}, "
            f"got {str(values.get('expression_prior'))[:40]!r}"
        )
    unknown = sorted({*values, *tensors} - {*_TEXTS, *_REQUIRED, *_OPTIONAL})
    if unknown:
        raise FocusError(f"{path}: unknown: {', '.join(unknown)[:200]}; was it written by a newer version?")
    return values, tensors


def _read_format_1(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Files of before there were checksums: each text is an entry of the metadata."""
    metadata: Any = parse_object(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__")
    metadata = metadata if isinstance(metadata, dict) else {}
    found = metadata.get("format")
    if found != _FORMAT_1:
        raise FocusError(
            f"{path}: expected a FOCUS model (metadata {_KEY!r}), got format = {str(found)[:40]!r}; "
            "was it written by another program or version?"
        )
    defaults = {"name": path.stem, "licence": "unknown", "expression_prior": "normal"}
    return {key: metadata.get(key, default) for key, default in defaults.items()}, read_tensors(data)


def save_model(model: MorphableModel, path: Path) -> None:
    """Writes a model as safetensors with a checksum over all of it; the file appears complete or not at all."""
    if path.suffix.lower() not in OWN_SUFFIXES:
        raise FocusError(f"{path}: expected a name that ends in {' or '.join(OWN_SUFFIXES)}, got {path.suffix!r}")
    tensors: dict[str, Tensor] = {
        key: value.detach().cpu().contiguous()
        for key in (*_REQUIRED, *_OPTIONAL)
        if (value := getattr(model, key)) is not None
    }
    values = {
        "format": _FORMAT,
        "version": __version__,
        "name": model.name,
        "licence": model.licence,
        "expression_prior": model.expression_prior,
        "recipe": model.valid_recipe,
    }
    content = seal_tensors(tensors, _KEY, values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: content})
    except OSError as error:
        raise FocusError(
            f"{path}: the model ({len(content) / 2**20:.1f} MiB) could not be written: {error.strerror or error}. "
            "Make room, or choose another folder"
        ) from error
