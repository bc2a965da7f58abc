"""The unit of length of a face model: no format states it, and a face tells it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from focus.errors import FocusError

_EYE_CORNERS = (36, 45)
"""The outer ones, among the 68 landmarks."""
_PLAUSIBLE = (60.0, 140.0)
"""Millimetres between them. In grown-ups and their models it is 80 to 110, in small children 65 and more."""
_UNITS = {1.0: "millimetres", 10.0: "centimetres", 1e3: "metres", 1e-3: "micrometres"}


def millimetres_per_unit(
    path: Path, mean: Tensor, landmarks68: Sequence[int] | Tensor, expected: float = 1.0
) -> tuple[float, tuple[str, ...]]:
    """What a model must be multiplied by, and notes for its user where that is not what its format expects.

    Args:
        path: of the model, for messages.
        mean: ``[V, 3]`` in the unit of the file.
        landmarks68: ``[68]`` vertices.
        expected: millimetres per unit of this format.

    Raises:
        FocusError: in no unit that is known the eyes are as far apart as those of people.
    """
    first, second = (int(landmarks68[number]) for number in _EYE_CORNERS)
    distance = float((mean[first].double() - mean[second].double()).norm())
    if not math.isfinite(distance):
        return expected, ()  # refused by the model, which names the array
    low, high = _PLAUSIBLE
    factor = next((factor for factor in _UNITS if low <= factor * distance <= high), None)
    if factor == expected:
        return factor, ()
    apart = (
        f"the outer corners of its eyes (landmarks {_EYE_CORNERS[0]} and {_EYE_CORNERS[1]}) are {distance:.4g} apart"
    )
    if factor is None:
        raise FocusError(
            f"{path}: in which unit is this face? {apart[0].upper()}{apart[1:]}; expected about 90 mm "
            f"({low:.0f} to {high:.0f}), or as much in centimetres, metres or micrometres. Scale the model to "
            "millimetres; or, if it is in one of these units, give the landmarks68 of iBUG"
        )
    note = (
        f"{path}: the model is in {_UNITS[factor]}, not {_UNITS[expected]} ({apart}); "
        f"it was converted to millimetres, in which they are {factor * distance:.1f} apart"
    )
    return factor, (note,)
