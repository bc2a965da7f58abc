"""The state of optimisers as the tensors and numbers of a checkpoint, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from focus.errors import FocusError
from focus.train.checkpoint import Checkpoint
from focus.train.schedule import Network

Optimisers = Mapping[Network, torch.optim.Optimizer]

_ENTRIES = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Adadelta: ("step", "square_avg", "acc_delta"),
}
"""What torch keeps of each parameter."""


def optimiser_state(optimisers: Optimisers) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Tensors by their name in a checkpoint, and the numbers that are no tensors by network and name."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for name, optimiser in optimisers.items():
        numbers[name] = {}
        for index, entries in optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser.{name}.{key}.{index}"] = value
                else:
                    numbers[name][f"{key}.{index}"] = value
    return tensors, numbers


def restore_optimisers(optimisers: Optimisers, checkpoint: Checkpoint) -> None:
    """Puts the state of a checkpoint into optimisers.

    Raises:
        FocusError: an entry that is missing, unknown, of another shape or not finite.
    """
    for name in {name.split(".")[1] for name in checkpoint.tensors if name.startswith("optimiser.")} | set(
        checkpoint.header.optimiser
    ):
        if name not in optimisers:
            raise FocusError(f"{checkpoint.path}: optimiser.{name}: expected no state of this network in this stage")
    for name, optimiser in optimisers.items():
        entries: dict[str, Tensor | float] = {
            **checkpoint.state(f"optimiser.{name}"),
            **checkpoint.header.optimiser.get(name, {}),
        }
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        known = _ENTRIES[type(optimiser)]
        state: dict[int, dict[str, Any]] = {}
        for entry, value in entries.items():
            key, _, digits = entry.rpartition(".")
            index = int(digits) if re.fullmatch("[0-9]{1,9}", digits) else len(parameters)
            if key not in known or index >= len(parameters):
                problem: str | None = f"expected one of {', '.join(known)} of one of {len(parameters)} parameters"
            else:
                problem = _problem(key, value, parameters[index])
                state.setdefault(index, {})[key] = value
            if problem:
                raise FocusError(f"{checkpoint.path}: optimiser.{name}.{entry}: {problem}")
        for index, found in state.items():
            missing = [key for key in known if key not in found]
            if missing:
                raise FocusError(
                    f"{checkpoint.path}: optimiser.{name}.{missing[0]}.{index}: expected a value, got none"
                )
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _problem(key: str, value: Tensor | float, parameter: Tensor) -> str | None:
    """What is wrong with an entry of a parameter."""
    tensor = torch.as_tensor(value)
    shape = () if key == "step" else tuple(parameter.shape)
    if tuple(tensor.shape) != shape:
        return f"expected the shape {list(shape)}, got {list(tensor.shape)}"
    if isinstance(value, Tensor) and not value.is_floating_point():
        return f"expected floating point numbers, got {value.dtype}"
    if not bool(torch.isfinite(tensor).all()):
        return "expected finite numbers"
    if key != "exp_avg" and bool((tensor < 0).any()):
        return "expected numbers >= 0"
    return None
