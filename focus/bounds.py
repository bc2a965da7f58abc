"""Numbers that users set: the range of each is declared beside it, and all are checked here, before the work."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from focus.errors import FocusError


@dataclass(frozen=True)
class Within:
    """``Annotated[int, Within(low, high)]``: a field of a dataclass whose numbers lie in [low, high].

    For ``int``, ``float``, tuples of them, and optional ones; whole where the type says so, always finite.
    """

    low: float
    high: float


SEED = Within(0, (1 << 32) - 1)
"""Of everything random."""
COUNT = Within(1, 1_000_000)
"""Of faces, pictures or points that a run draws or reads."""
WORKERS = Within(1, 1024)
"""Processes at a time."""
SCALE = Within(1e-6, 1e4)
"""Factor on iterations."""
IMAGE_SIZE = Within(32, 4096)
"""Side of a crop, pixels."""
STEPS = Within(0, 1_000_000)
"""Of an optimiser."""
COMPONENTS = Within(0, 1_000_000)
"""Of a face model; how many there are, the model knows."""


def bounded_fields(kind: type[Any]) -> dict[str, tuple[Within, bool]]:
    """Name -> range, and whether numbers are whole, of the fields that declare one."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            within = [value for value in hint.__metadata__ if isinstance(value, Within)]
            if within:
                found[field.name] = (within[0], not _mentions(get_args(hint)[0], float))
    return found


def _mentions(hint: Any, kind: type[Any]) -> bool:
    return hint is kind or any(_mentions(part, kind) for part in get_args(hint))


def check_fields(owner: Any, label: Callable[[str], str]) -> None:
    """Refuses numbers that are out of their range, not finite or not whole, and switches that are neither True nor
    False; numpy's become Python's.

    Args:
        owner: a dataclass.
        label: name of a field -> how messages call it.

    Raises:
        FocusError: names the field, its range and what came.
    """
    hints = get_type_hints(type(owner))
    for field in dataclasses.fields(owner):
        if hints[field.name] is bool:
            object.__setattr__(owner, field.name, check_switch(label(field.name), getattr(owner, field.name)))
    for name, (within, whole) in bounded_fields(type(owner)).items():
        value = getattr(owner, name)
        if value is None and _mentions(hints[name], type(None)):
            continue
        if isinstance(value, (tuple, list)):
            checked: Any = tuple(check_number(label(name), item, within, whole=whole) for item in value)
        else:
            checked = check_number(label(name), value, within, whole=whole)
        object.__setattr__(owner, name, checked)  # dataclasses may be frozen


def check_switch(label: str, value: Any) -> bool:
    """True or False: itself, as Python's own.

    Raises:
        FocusError: it is neither.
    """
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise FocusError(f"{label}: expected True or False, got {value!r}")
    return plain


def check_number(label: str, value: Any, within: Within, *, whole: bool) -> int | float:
    """One number: itself, as Python's own.

    Raises:
        FocusError: it is out of range, not finite, not whole where it must be, or no number.
    """
    kind = numbers.Integral if whole else numbers.Real
    plain = _plain(value)
    good = isinstance(plain, kind) and not isinstance(plain, bool)
    if not good or not within.low <= plain <= within.high:
        what = "a whole number" if whole else "a number"
        raise FocusError(f"{label}: expected {what} from {_text(within.low)} to {_text(within.high)}, got {value!r}")
    return int(plain) if whole else float(plain)


def _plain(value: Any) -> Any:
    """Python's own of a number of numpy or torch."""
    number = getattr(value, "item", None)
    return number() if callable(number) and getattr(value, "ndim", None) == 0 else value


def _text(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
