"""Checks of what users hand to the ops. Each error names op, argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Collection

import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def floating(op: str, name: str, value: object, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Returns `value` when it is a floating tensor of `shape`, where a letter stands for any size.

    Raises:
        TypeError: not a tensor, or not floating.
        ValueError: another rank, or another size in an axis given as a number.
    """
    tensor = tensor_of(op, name, value, shape)
    if tensor.dtype not in FLOATING:
        raise TypeError(
            f"focus.ops.{op}: {name} expected a floating dtype, got {tensor.dtype}; convert it with .float()"
        )
    return tensor


def tensor_of(op: str, name: str, value: object, shape: tuple[int | str, ...]) -> torch.Tensor:
    """As `floating`, for any dtype."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"focus.ops.{op}: {name} expected a torch.Tensor, got {type(value).__name__}")
    matches = value.dim() == len(shape) and all(
        isinstance(want, str) or have == want for have, want in zip(value.shape, shape, strict=True)
    )
    if not matches:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"focus.ops.{op}: {name} expected shape [{expected}], got {list(value.shape)}")
    if value.layout != torch.strided:
        raise TypeError(f"focus.ops.{op}: {name} expected a dense tensor, got {value.layout}; use .to_dense()")
    return value


def choice(op: str, name: str, value: object, choices: Collection[object]) -> None:
    """Raises `ValueError` unless `value` is one of `choices`, in type too: the schemas of torch take no 3.0 for 3."""
    if not any(type(value) is type(one) and value == one for one in choices):
        raise ValueError(f"focus.ops.{op}: {name} expected one of {', '.join(map(str, choices))}, got {value!r}")


def same_device_and_dtype(op: str, **tensors: torch.Tensor | None) -> None:
    """Raises `ValueError` or `TypeError` unless all given tensors share one device and one floating dtype."""
    (first_name, first), *others = [(name, t) for name, t in tensors.items() if t is not None]
    for name, tensor in others:
        if tensor.device != first.device:
            raise ValueError(
                f"focus.ops.{op}: {name} is on {tensor.device} and {first_name} on {first.device}; "
                "move them to one device"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"focus.ops.{op}: {name} is {tensor.dtype} and {first_name} {first.dtype}; convert them to one dtype"
            )
