"""Network weights in files: read without running code from them, checked before any of them is used."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from focus.errors import FocusError

_SHOWN_NAMES = 6


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a state dict from a ``.safetensors`` file, or from any other file with `torch.load(weights_only=True)`.

    A dict of tensors nested under ``"state_dict"`` or ``"model"`` is unwrapped, and the prefix ``"module."`` that
    `DataParallel` leaves is taken off.

    Args:
        path: the file.

    Returns:
        Parameter name -> tensor, on the CPU.

    Raises:
        FocusError: the file is missing, damaged, needs unpickling of code, or is not a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FocusError(f"network weights: expected a file, found none at {path}. Check the path.")
    try:
        content: Any
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
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
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str, keep: Collection[str] = ()) -> None:
    """Copies `weights` into `module`, all or nothing, converted to its dtype and device.

    Args:
        module: receives the weights.
        weights: parameter name -> tensor. BatchNorm's ``num_batches_tracked``, absent from old files, may be missing.
        source: what the weights are, for messages: a path.
        keep: names whose value in `module` stays, whatever `weights` holds.

    Raises:
        FocusError: names that are missing, unknown or of another shape, and tensors with values that are not finite.
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
        "not finite": [name for name, value in given.items() if not bool(torch.isfinite(value).all())],
    }
    found = [f"{len(names)} {kind}: {_listing(names)}" for kind, names in problems.items() if names]
    if found:
        raise FocusError(
            f"network weights: {source} does not fit {type(module).__name__}: {'; '.join(found)}. "
            "Hand in weights of the same architecture, or change the network's settings."
        )
    module.load_state_dict(given, strict=False)


def _listing(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
