"""Checks of what users hand to the ops. Each error names op, argument, what was expected and what came."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Collection
from typing import TypeVar, cast

import numpy as np
import torch

Choice = TypeVar("Choice")

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def floating(op: str, name: str, value: object, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Returns `value` when it is a floating tensor of `shape`, where a letter stands for any size.

    Raises:
        TypeError: not a tensor, or not floating.
        ValueError: another rank, or another size in an axis given as a number.
    """
    tensor = tensor_of(op, name, value, shape)
    if tensor.dtype not in FLOATING:
        cure = "take its .real or .abs()" if tensor.dtype.is_complex else "convert it with .float()"
        raise TypeError(f"focus.ops.{op}: {name} expected a floating dtype, got {tensor.dtype}; {cure}")
    return tensor


def tensor_of(op: str, name: str, value: object, shape: tuple[int | str, ...]) -> torch.Tensor:
    """As `floating`, for any dtype."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"focus.ops.{op}: {name} expected a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        kind = "a nested tensor; use .to_padded_tensor(0)" if value.is_nested else f"{value.layout}; use .to_dense()"
        raise TypeError(f"focus.ops.{op}: {name} expected a dense tensor, got {kind}")
    if value.is_quantized:
        raise TypeError(f"focus.ops.{op}: {name} expected plain numbers, got {value.dtype}; use .dequantize()")
    if not _matches(value.shape, shape):
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"focus.ops.{op}: {name} expected shape [{expected}], got {list(value.shape)}")
    return value


def _matches(have: torch.Size, want: tuple[int | str, ...]) -> bool:
    if len(have) != len(want):
        return False
    for size, wanted in zip(have, want):  # noqa: B905, SIM110  (each would take as long again)
        if type(wanted) is not str and size != wanted:
            return False
    return True


def choice(op: str, name: str, value: object, choices: Collection[Choice]) -> Choice:
    """That of `choices` which is `value`, in type too: the schemas of torch take no 3.0 for 3. An integer of numpy
    counts as one of Python.

    Raises:
        ValueError: there is none.
    """
    plain = as_integer(value)
    wanted = value if plain is None else plain
    for one in choices:
        if type(wanted) is type(one) and wanted == one:
            return one
    raise ValueError(f"focus.ops.{op}: {name} expected one of {', '.join(map(str, choices))}, got {value!r}")


def as_integer(value: object) -> int | None:
    """An integer of Python, numpy or a trace as the operators take it; None for anything else, bool included."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return cast(int, value)
    return int(value) if isinstance(value, np.integer) else None


def positive(op: str, name: str, value: object) -> float:
    """A number > 0 whose square is neither 0 nor infinite.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, bool) and isinstance(value, (int, float, np.integer, np.floating)):
        number = float(value)
        if number > 0 and 0 < number * number < math.inf:
            return number
    raise ValueError(f"focus.ops.{op}: {name} expected a finite number > 0, got {value!r}")


_SMALL = 1 << 24
"""Numbers in an image that any machine holds: 64 MiB."""


def image_fits(op: str, batch: int, channels: int, sides: tuple[int, int], like: torch.Tensor) -> None:
    """Refuses an image ``[batch, channels, *sides]`` that the device cannot hold, before anything is allocated.

    Raises:
        ValueError: a side beyond int32, or more bytes than the device has.
    """
    height, width = sides
    if torch.compiler.is_compiling() or type(height) is not int or type(width) is not int:
        return  # unknown yet
    if max(sides) >= 2**31:
        raise ValueError(f"focus.ops.{op}: image_size expected sides below 2^31, got ({height}, {width})")
    count = height * width * max(batch, 1) * max(channels, 1)
    if count <= _SMALL:
        return
    needed, memory = count * like.element_size(), _memory(like.device)
    if needed > memory:
        raise ValueError(
            f"focus.ops.{op}: image_size ({height}, {width}): an image [{batch}, {channels}, {height}, {width}] has "
            f"{needed / 2**30:.0f} GiB, and the memory of {like.device} {memory / 2**30:.0f}"
        )


@functools.lru_cache(maxsize=16)
def _memory(device: torch.device) -> float:
    """Bytes in all."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return math.inf


def same_device_and_dtype(op: str, **tensors: torch.Tensor | None) -> None:
    """Raises `ValueError` or `TypeError` unless all given tensors share one device and one floating dtype."""
    first: torch.Tensor | None = None
    first_name = ""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if first is None:
            first, first_name = tensor, name
        elif tensor.device != first.device:
            raise ValueError(
                f"focus.ops.{op}: {name} is on {tensor.device} and {first_name} on {first.device}; "
                "move them to one device"
            )
        elif tensor.dtype != first.dtype:
            raise TypeError(
                f"focus.ops.{op}: {name} is {tensor.dtype} and {first_name} {first.dtype}; convert them to one dtype"
            )
