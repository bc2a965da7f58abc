"""Model files: which formats there are, and our own.

Nothing here unpickles: a model file may come from a stranger, and a pickle can run any code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from focus.errors import FocusError
from focus.face.model import LANDMARK_COUNT, ExpressionPrior, MorphableModel
from focus.files import write_files

OWN_SUFFIXES = (".focusmodel", ".safetensors")
_FORMAT = "focus-morphable-model-1"
_REQUIRED = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "faces", "landmarks68")
_OPTIONAL = ("landmarks7", "uv")
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
    """
    from focus.face import foreign_loaders as foreign
    from focus.face.ict_facekit import NEUTRAL

    kind = path.suffix.lower()
    if path.is_dir():
        kind = "folder"
        if not (path / NEUTRAL).is_file():
            raise FocusError(f"{path}: expected a model ({_FORMATS_TEXT}), got a folder without {NEUTRAL}")
    elif not path.is_file():
        raise FocusError(f"{path}: no such model file; expected one of: {_FORMATS_TEXT}")
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
        return reader()
    except FocusError:
        raise
    except ValueError as error:  # arrays that were read but do not make a model
        raise FocusError(f"{path}: not a usable face model: {error}") from error


def read_landmarks68(path: Path) -> list[int]:
    """Vertices of the 68 iBUG landmarks from a text file: whole numbers between spaces, commas or lines, or JSON.

    Raises:
        FocusError: unreadable, or something else than 68 whole numbers.
    """
    try:
        words = path.read_text(encoding="utf-8").translate(str.maketrans(",;[]", "    ")).split()
        indices = [int(word) for word in words]
    except (OSError, ValueError) as error:
        raise FocusError(
            f"{path}: expected a text file of {LANDMARK_COUNT} vertex indices, whole numbers from 0, but {error}"
        ) from error
    if len(indices) != LANDMARK_COUNT:
        raise FocusError(
            f"{path}: expected {LANDMARK_COUNT} vertex indices, in the order of the iBUG landmarks, got {len(indices)}"
        )
    return indices


def load_own(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """Reads what `save_model` wrote; `landmarks68` replaces its landmarks."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise FocusError(
            f"{path}: expected a FOCUS model (safetensors), but it is damaged or something else: {error}"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise FocusError(
            f"{path}: expected a FOCUS model (metadata format = {_FORMAT!r}), got format = {metadata.get('format')!r}; "
            "was it written by another program or version?"
        )
    missing = [key for key in _REQUIRED if key not in tensors]
    if missing:
        raise FocusError(f"{path}: expected the arrays {', '.join(_REQUIRED)}; missing: {', '.join(missing)}")
    if landmarks68 is not None:
        tensors["landmarks68"] = torch.tensor(landmarks68)
    prior = metadata.get("expression_prior", "normal")
    if prior not in get_args(ExpressionPrior):
        raise FocusError(f"{path}: expression_prior: expected one of {get_args(ExpressionPrior)}, got {prior!r}")
    return MorphableModel(
        **{key: tensors[key] for key in (*_REQUIRED, *_OPTIONAL) if key in tensors},
        name=metadata.get("name", path.stem),
        licence=metadata.get("licence", "unknown"),
        expression_prior=prior,
        recipe=metadata.get("recipe"),
    )


def save_model(model: MorphableModel, path: Path) -> None:
    """Writes a model as safetensors with metadata; the file appears complete or not at all."""
    if path.suffix.lower() not in OWN_SUFFIXES:
        raise FocusError(f"{path}: expected a name that ends in {' or '.join(OWN_SUFFIXES)}, got {path.suffix!r}")
    tensors: dict[str, torch.Tensor] = {
        key: value.detach().cpu().contiguous()
        for key in (*_REQUIRED, *_OPTIONAL)
        if (value := getattr(model, key)) is not None
    }
    metadata = {
        "format": _FORMAT,
        "name": model.name,
        "licence": model.licence,
        "expression_prior": model.expression_prior,
    }
    if model.recipe is not None:
        metadata["recipe"] = model.recipe
    content = save(tensors, metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: content})
    except OSError as error:
        raise FocusError(
            f"{path}: the model ({len(content) / 2**20:.1f} MiB) could not be written: {error.strerror or error}. "
            "Make room, or choose another folder"
        ) from error
