"""Arrays of numbers in MATLAB's files (versions 5 to 7).

Read here and not by SciPy, whose reader a single wrong bit can crash together with Python. The format is that of
"MAT-File Format" (The MathWorks), chapter 1: elements of a tag (type, bytes) and data, an array being an element of
elements: flags, dimensions, name, numbers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError
from focus.files import read_input

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
# How numbers lie in the file: whole ones in the smallest type that holds them all.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHER_CLASSES = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse matrix"}
_COMPLEX = 0x0800
_DEFLATE_RATIO = 1100
"""Deflate makes data at most 1,032 times as small; what claims more is no compressed data."""
_LONGEST_START = 4096
"""Bytes in which flags, dimensions and name of an array lie."""


def read_matlab(path: Path, names: Collection[str], limit: int) -> dict[str, NDArray[Any]]:
    """Reads those of the arrays `names` that a file has. Of the others only the names are looked at.

    Args:
        path: the file.
        names: of the arrays.
        limit: bytes of the file, and of all arrays that are read from it.

    Raises:
        FocusError: damaged, of another version, too large, or one of the arrays is not of real numbers.
    """
    data = memoryview(read_input(path, limit))
    try:
        return _read(data, names, limit)
    except (ValueError, struct.error, zlib.error) as error:
        raise FocusError(
            f"{path}: expected the Basel Face Model 2009 (MATLAB 5), but it is damaged or something else: {error}"
        ) from error


class _Tag(NamedTuple):
    kind: int
    size: int
    start: int
    """Of the data."""
    end: int
    """Where the next element starts."""


def _tag(data: memoryview, place: int, order: str) -> _Tag:
    """The tag of the element at a place, whose data lie within `data`."""
    kind, size = struct.unpack_from(f"{order}II", data, place)
    start, aligned = place + 8, True
    if kind >> 16:  # small: both in four bytes, and up to four bytes of data in the other four
        kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > 4:
            raise ValueError(f"a small element of {size} bytes")
    else:
        aligned = kind != _COMPRESSED
    if start + size > len(data):
        raise ValueError(f"an element of {size} bytes where {len(data) - start} are left; the file is cut short")
    end = place + 8 if start == place + 4 else start + size + (-size % 8 if aligned else 0)
    return _Tag(kind, size, start, end)


def _read(data: memoryview, names: Collection[str], limit: int) -> dict[str, NDArray[Any]]:
    mark = bytes(data[126:_HEADER])
    if len(data) < _HEADER or mark not in (b"IM", b"MI"):
        raise ValueError("it does not start as a file of MATLAB does")
    order = "<" if mark == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version != 0x0100:
        raise ValueError(f"version {version:#06x} of the format; save it with -v7")
    arrays: dict[str, NDArray[Any]] = {}
    place, left = _HEADER, limit
    while place < len(data):
        tag = _tag(data, place, order)
        element = data[tag.start : tag.start + tag.size]
        array: _Plain
        if tag.kind == _COMPRESSED:
            array = _Compressed(element, order)
        elif tag.kind == _MATRIX:
            array = _Plain(element)
        else:
            raise ValueError(f"an element of type {tag.kind} at byte {place}; expected arrays")
        found = array.header(order)
        if found.name in names:
            if found.name in arrays:
                raise ValueError(f"two arrays are called {found.name}")
            left -= max(found.nbytes, array.size)
            if left < 0:
                raise ValueError(f"its arrays have more than {limit} bytes, the limit")
            arrays[found.name] = _numbers(array.content(), found, order)
        place = tag.end
    return arrays


class _Header(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: str
    problem: str
    """Why its numbers cannot be read, or nothing."""
    start: int
    """Of the numbers, within the array."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * 8


class _Plain:
    """An array as it is in the file."""

    def __init__(self, element: memoryview) -> None:
        self._element = element
        self.size = len(element)

    def header(self, order: str) -> _Header:
        return _parse_header(self._element[:_LONGEST_START], self.size, order)

    def content(self) -> memoryview:
        return self._element


class _Compressed(_Plain):
    """An array that is deflated, with its tag."""

    def __init__(self, element: memoryview, order: str) -> None:
        self._compressed = element
        stream = zlib.decompressobj()
        start = memoryview(stream.decompress(element, _LONGEST_START + 8))
        kind, self.size = struct.unpack_from(f"{order}II", start, 0)
        if kind != _MATRIX:
            raise ValueError(f"a compressed element of type {kind}; expected an array")
        if self.size > _DEFLATE_RATIO * len(element) + _LONGEST_START:
            raise ValueError(f"{len(element)} compressed bytes claim to be {self.size}")
        self._element = start[8:]

    def content(self) -> memoryview:
        stream = zlib.decompressobj()
        whole = stream.decompress(self._compressed, self.size + 8)
        # One byte more, to come to the end, where the checksum is.
        if len(whole) != self.size + 8 or stream.decompress(stream.unconsumed_tail, 1) or not stream.eof:
            raise ValueError("a compressed array that is damaged or cut short")
        return memoryview(whole)[8:]


def _parse_header(data: memoryview, size: int, order: str) -> _Header:
    """Flags, dimensions and name; `data` are at least the first bytes of `size`."""
    if size == 0:
        raise ValueError("an array of 0 bytes")
    flags = _tag(data, 0, order)
    if flags.kind != 6 or flags.size != 8:
        raise ValueError("an array without flags")
    (flag,) = struct.unpack_from(f"{order}I", data, flags.start)
    dimensions = _tag(data, flags.end, order)
    if dimensions.kind != 5 or dimensions.size % 4 or not 8 <= dimensions.size <= 128:
        raise ValueError("an array without dimensions")
    shape = struct.unpack_from(f"{order}{dimensions.size // 4}i", data, dimensions.start)
    name = _tag(data, dimensions.end, order)
    if name.kind not in (1, 2) or min(shape) < 0:
        raise ValueError("an array without a name, or of negative size")
    text = bytes(data[name.start : name.start + name.size]).decode("latin-1")
    kind, problem = flag & 0xFF, ""
    if kind not in _CLASSES:
        problem = _OTHER_CLASSES.get(kind, f"of class {kind}")
    elif flag & _COMPLEX:
        problem = "of complex numbers"
    return _Header(text, shape, _CLASSES.get(kind, ""), problem, name.end)


def _numbers(data: memoryview, header: _Header, order: str) -> NDArray[Any]:
    if header.problem:
        raise ValueError(f"{header.name} is {header.problem}; expected real numbers")
    tag = _tag(data, header.start, order)
    stored = _STORED.get(tag.kind)
    if stored is None:
        raise ValueError(f"{header.name}: numbers of type {tag.kind}")
    dtype = np.dtype(order + stored)
    if tag.size != math.prod(header.shape) * dtype.itemsize:
        raise ValueError(f"{header.name}: {tag.size} bytes of {stored}, of shape {list(header.shape)}")
    flat = np.frombuffer(data[tag.start : tag.start + tag.size], dtype=dtype)
    # Whole numbers of a class that holds them; MATLAB stores no other.
    with np.errstate(all="ignore"):
        return flat.astype(header.dtype).reshape(header.shape, order="F")
