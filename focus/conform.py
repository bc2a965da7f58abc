"""Values of settings against the types that their dataclasses declare, before anything is computed with them."""

from __future__ import annotations

import math
import numbers
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from focus.errors import FocusError


def hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


_HINTS: dict[Any, dict[str, Any]] = {}


def conform(settings: Any, name: str) -> None:
    """That all fields of a dataclass have the declared types, and all numbers are finite; groups in it, too.

    Numbers of numpy become those of Python, integers among floating point numbers stay. A text is a path where one is
    expected.

    Args:
        settings: an instance; frozen ones may be handed in by their ``__post_init__``.
        name: what it is, for messages.

    Raises:
        FocusError: a value that does not fit, with the name of its field.
    """
    for item in fields(settings):
        before = getattr(settings, item.name)
        after = _conform(hints(type(settings))[item.name], before, f"{name}.{item.name}" if name else item.name)
        if after is not before:
            object.__setattr__(settings, item.name, after)


def numbers_of(settings: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    """All numbers of settings with the dotted names of their fields; those of a tuple have the same name."""
    for item in fields(settings):
        value, full = getattr(settings, item.name), f"{name}.{item.name}" if name else item.name
        if is_dataclass(value):
            yield from numbers_of(value, full)
        else:
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, (int, float)) and not isinstance(part, bool):
                    yield full, part


def _conform(kind: Any, value: Any, name: str) -> Any:
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(part for part in choices if part is not type(None))
        return None if value is None else _conform(inner, value, name)
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
        raise FocusError(f"settings: {name}: expected {' or '.join(map(repr, choices))}, got {value!r}")
    if origin is tuple:
        kinds = choices[:1] * len(value) if isinstance(value, tuple) and choices[1:] == (...,) else choices
        if not isinstance(value, tuple) or len(kinds) != len(value):
            expected = "a tuple" if choices[1:] == (...,) else f"a tuple of {len(choices)}"
            raise FocusError(f"settings: {name}: expected {expected}, got {value!r}")
        parts = tuple(_conform(part, item, name) for part, item in zip(kinds, value, strict=True))
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    if is_dataclass(kind):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            raise FocusError(f"settings: {name}: expected a group of settings, got {value!r}")
        conform(value, name)
        return value
    if kind is float or kind is int:
        return _number(kind, value, name)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind):
        raise FocusError(f"settings: {name}: expected {_WORDS.get(kind, kind.__name__)}, got {value!r}")
    return value


_WORDS: dict[type, str] = {bool: "true or false", str: "a text", Path: "a path"}


def _number(kind: type, value: Any, name: str) -> int | float:
    if not isinstance(value, bool):
        if isinstance(value, numbers.Integral):
            return int(value)
        if kind is float and isinstance(value, numbers.Real) and math.isfinite(value):
            return float(value)
    expected = "a whole number" if kind is int else "a finite number"
    raise FocusError(f"settings: {name}: expected {expected}, got {value!r}")
