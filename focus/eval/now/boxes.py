"""The face boxes of the NoW challenge, and the crop that one of them means."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.arrays import read_array, read_array_header
from focus.data.landmarks import five_from_68
from focus.errors import FocusError
from focus.eval.now.pickles import Value, parse_numbers
from focus.face import MorphableModel
from focus.files import read_input

Array = NDArray[np.float64]

_SIDES = ("left", "top", "right", "bottom")


def read_box(path: Path) -> Array:
    """Reads a box of ``detected_face/SUBJECT/CHALLENGE/IMAGE.npy``.

    The dataset has each as a dictionary of left, top, right and bottom that numpy pickled. Nothing is unpickled: the
    opcodes of plain values and of numpy's numbers are followed, into plain values; any other is refused
    (`focus.eval.now.pickles`). Four plain numbers in this order are read, too.

    Returns:
        ``[4]``: left, top, right, bottom, pixels of the image (x right, y down).

    Raises:
        FocusError: missing, damaged, something else, not finite, or without an area.
    """
    if not path.exists():
        raise FocusError(f"{path}: no such file; expected the box of a face")
    data = read_input(path, limits.BOX_FILE)
    try:
        content = _load(data)
        sides = [content[side] for side in _SIDES] if isinstance(content, dict) else content
        box = np.array(_numbers(sides), dtype=np.float64)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise FocusError(f"{path}: cannot be read as the box of a face ({reason})") from error
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise FocusError(
            f"{path}: expected left < right and top < bottom, four finite numbers, got {str(box.tolist())[:200]}"
        )
    return box


def points_in_box(box: Array, model: MorphableModel) -> Array:
    """Where the five points of a crop lie if a box is that of a face: ``[5, 2]`` pixels, for `estimate_alignment`.

    The box is taken as that of the 68 landmarks of the mean face, seen from the front: its centre is theirs, its mean
    side that of theirs.

    Args:
        box: ``[4]`` left, top, right, bottom, pixels.
        model: the face.
    """
    points = model.mean_shape[model.landmarks68].double().cpu().numpy()[:, :2] * (1, -1)  # y down
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (box[2:] - box[:2]).mean() / (high - low).mean()
    centred: Array = (five_from_68(points) - (low + high) / 2) * scale
    return centred + (box[:2] + box[2:]) / 2


def _load(data: bytes) -> Value:
    """What a .npy file holds: the numbers of an array, or the object in one of no dimensions."""
    file = io.BytesIO(data)
    if read_array_header(file).dtype.hasobject:
        content = parse_numbers(file)
        # The one object of an array of no dimensions.
        return content[0] if isinstance(content, list) and len(content) == 1 else content
    numbers = read_array(io.BytesIO(data), len(data))
    if numbers.dtype.kind not in "fiu" or numbers.ndim > 2:
        raise ValueError(f"an array {list(numbers.shape)} of {numbers.dtype}")
    plain: list[Value] = numbers.ravel().tolist()
    return plain


def _numbers(sides: Value) -> list[float]:
    """Each side alone, or as an array of one number."""
    if not isinstance(sides, list | tuple):
        raise ValueError(f"expected four numbers, got {type(sides).__name__}")
    single = [side[0] if isinstance(side, list) and len(side) == 1 else side for side in sides]
    if any(type(side) not in (int, float) for side in single):
        raise ValueError("a side is no number")
    return [float(side) for side in single]  # type: ignore[arg-type]
