"""The face boxes of the NoW challenge, and the crop that one of them means."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import five_from_68
from focus.errors import FocusError
from focus.face import MorphableModel

Array = NDArray[np.float64]

_SIDES = ("left", "top", "right", "bottom")


def read_box(path: Path) -> Array:
    """Reads a box of ``detected_face/SUBJECT/CHALLENGE/IMAGE.npy``.

    The dataset has each as a dictionary of left, top, right and bottom that numpy pickled. Nothing but arrays and
    numbers is unpickled: a file that names anything else is refused, and runs no code. Four plain numbers in this order
    are read, too.

    Returns:
        ``[4]``: left, top, right, bottom, pixels of the image (x right, y down).

    Raises:
        FocusError: missing, damaged, something else, not finite, or without an area.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FocusError(f"{path}: no such file; expected the box of a face") from error
    except OSError as error:
        raise FocusError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        content = _load(data)
        sides = [content[side] for side in _SIDES] if isinstance(content, dict) else content
        box = np.array(sides, dtype=np.float64)
    except Exception as error:  # damaged pickles raise nearly anything
        raise FocusError(f"{path}: cannot be read as the box of a face ({type(error).__name__}: {error})") from error
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise FocusError(f"{path}: expected left < right and top < bottom, four finite numbers, got {box.tolist()}")
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


def _load(data: bytes) -> Any:
    """What a .npy file holds: an array, or the object in one of no dimensions."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of .npy files")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(file)
    if not dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    # Python 2 wrote the dataset: its strings are bytes.
    content = _Numbers(file, encoding="latin1").load()
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


class _Numbers(pickle.Unpickler):
    """Unpickles arrays and numbers of numpy, by whatever module its versions have them in."""

    def find_class(self, module: str, name: str) -> Any:
        """The few functions that arrays and numbers are made of."""
        package = module.replace("numpy._core", "numpy.core")
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
            ("_codecs", "encode"): _encode,
        }
        if (package, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is neither an array nor a number")
        return known[package, name]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in pickles that Python 2 can read."""
    return text.encode(encoding)
