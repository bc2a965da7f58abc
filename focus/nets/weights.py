"""Network weights in files: read without running code from them, checked before any of them is used."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from focus import limits
from focus.errors import FocusError
from focus.files import check_input

_SHOWN_NAMES = 6
_LONGEST_NAME = 80
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a state dict from a ``.safetensors`` file, or from any other file with `torch.load(weights_only=True)`.

    A dict of tensors nested under ``"state_dict"`` or ``"model"`` is unwrapped, and the prefix ``"module."`` that
    `DataParallel` leaves is taken off.

    Args:
        path: the file.

    Returns:
        Parameter name -> tensor of floating-point or whole numbers, dense, with a memory of its own, on the CPU.

    Raises:
        FocusError: the file is missing, damaged, needs unpickling of code, or is not a dict of such tensors.
    """
    path = Path(path)
    if not path.exists():
        raise FocusError(f"network weights: expected a file, found none at {path}. Check the path.")
    size = check_input(path, limits.WEIGHTS_FILE)
    try:
        content: Any
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused below
            if path.suffix == ".safetensors":
                content = safetensors.torch.load_file(path)
            else:
                _check_archive(path, size)
                content = torch.load(path, map_location="cpu", weights_only=True)
    except FocusError:
        raise
    except pickle.UnpicklingError as error:  # whose text advises to read the file without a check
        raise FocusError(
            f"network weights: {path} is damaged, or no file of plain tensors. A whole pickled module is refused, "
            "since reading it can run any code; save its state_dict() and hand in that file."
        ) from error
    except Exception as error:  # both readers raise many kinds for damaged files
        raise FocusError(
            f"network weights: {path} cannot be read ({_first_line(error)}). Expected a .safetensors file or a state "
            "dict written by torch.save; the file may be cut short: get it again."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise FocusError(
            f"network weights: {path} holds {type(content).__name__}, expected a non-empty dict of tensors."
        )
    strangers = [
        str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strangers:
        raise FocusError(f"network weights: {path}: expected tensors only; these are not: {_listing(strangers)}")
    unusable = [f"{name[:_LONGEST_NAME]} ({what})" for name, value in content.items() if (what := _unusable(value))]
    if unusable:
        raise FocusError(
            f"network weights: {path}: expected dense tensors of floating-point or whole numbers, got "
            f"{_listing(unusable)}"
        )
    total = sum(value.numel() * value.element_size() for value in content.values())
    if total > limits.WEIGHTS_FILE:
        raise FocusError(
            f"network weights: {path}: expected at most {limits.WEIGHTS_FILE} bytes of tensors, got {total}"
        )
    weights = {name.removeprefix("module."): value for name, value in content.items()}
    if len(weights) != len(content):
        raise FocusError(f"network weights: {path}: some names are there both with and without 'module.'")
    return weights


def _check_archive(path: Path, size: int) -> None:
    """That the records of an archive of `torch.save` lie in it as they are: what is compressed could be of any size."""
    if not zipfile.is_zipfile(path):
        return  # the older format, which holds nothing that is compressed
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise FocusError(f"network weights: {path} is a compressed archive; expected a file that torch.save wrote")


def _unusable(value: Tensor) -> str:
    """Why a tensor cannot be a weight, or nothing."""
    if type(value) not in (Tensor, nn.Parameter):
        return type(value).__name__
    if value.device.type != "cpu":
        return f"without numbers, on the device {value.device.type!r}"
    if value.layout != torch.strided:
        return str(value.layout).removeprefix("torch.")
    if value.is_quantized or value.is_complex() or value.dtype not in (*_FLOATS, torch.int64, torch.int32):
        return f"quantised, {value.dtype}" if value.is_quantized else str(value.dtype)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{list(value.shape)} of {value.untyped_storage().nbytes()} bytes"
    return ""


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str, keep: Collection[str] = ()) -> None:
    """Copies `weights` into `module`, all or nothing, converted to its dtype and device.

    Args:
        module: receives the weights.
        weights: parameter name -> tensor. BatchNorm's ``num_batches_tracked``, absent from old files, may be missing.
        source: what the weights are, for messages: a path.
        keep: names whose value in `module` stays, whatever `weights` holds.

    Raises:
        FocusError: names that are missing, unknown, of another shape or kind of numbers, and tensors with values that
            are not finite, here or in the module's precision.
    """
    expected = {name: value for name, value in module.state_dict().items() if name not in keep}
    given = {name: value for name, value in weights.items() if name not in keep}
    problems = {
        "missing": [name for name in expected if name not in given and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} (expected {list(expected[name].shape)}, got {list(value.shape)})"
            for name, value in given.items()
            if name in expected and value.shape != expected[name].shape
        ],
        "of another kind of numbers": [
            f"{name} (expected {expected[name].dtype}, got {value.dtype})"
            for name, value in given.items()
            if name in expected and value.is_floating_point() != expected[name].is_floating_point()
        ],
        "not finite": [
            name
            for name, value in given.items()
            if name in expected
            and value.shape == expected[name].shape
            and not bool(torch.isfinite(value.to(expected[name].dtype)).all())
        ],
    }
    found = [f"{len(names)} {kind}: {_listing(names)}" for kind, names in problems.items() if names]
    if found:
        raise FocusError(
            f"network weights: {source} does not fit {type(module).__name__}: {'; '.join(found)}. "
            "Hand in weights of the same architecture, or change the network's settings."
        )
    module.load_state_dict(given, strict=False)


def _listing(names: Iterable[str]) -> str:
    names = [name[: 2 * _LONGEST_NAME] for name in names]
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
