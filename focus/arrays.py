"""NumPy's array files (.npy, .npz): headers are checked before memory is spent, and nothing is unpickled."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError
from focus.files import check_input

Array = NDArray[Any]

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
"""Bytes; as numpy has it."""
_ENTRIES = {
    "descr": r"'descr'\s*:\s*'([<>|=]?[biufcSUO?]\d{0,9})'",
    "fortran_order": r"'fortran_order'\s*:\s*(True|False)",
    "shape": r"'shape'\s*:\s*\(([\dL,\s]*)\)",  # Python 2 wrote (3L, 4L)
}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArrayHeader(NamedTuple):
    """What the header of a .npy file says of the bytes after it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Of the array; means nothing for objects."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_array_header(file: IO[bytes]) -> ArrayHeader:
    """Reads up to the first byte after the header. Fields of structured types are not known.

    Raises:
        ValueError: it is damaged, or of a type that is not known.
    """
    start = file.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC):
        raise ValueError("it does not start as an array of numpy does")
    if start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"version {start[6]}.{start[7]} of array files is not known")
    code = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(code, file.read(struct.calcsize(code)).ljust(4, b"\0")[: struct.calcsize(code)])
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    rest = file.read(length).decode("latin-1")
    found: dict[str, str] = {}
    for key, pattern in _ENTRIES.items():
        match = re.search(pattern, rest)
        if match is None or len(rest) < length:
            raise ValueError(f"its header is damaged, or of a type that is not read: {rest.strip()[:80]!r}")
        found[key] = match[1]
        rest = rest[: match.start()] + rest[match.end() :]
        length = len(rest)
    if re.fullmatch(r"\s*\{[\s,]*\}\s*", rest) is None:
        raise ValueError(f"its header has {rest.strip()[:80]!r} that is not known")
    try:
        dtype = np.dtype(found["descr"])
    except TypeError as error:
        raise ValueError(f"the type {found['descr']!r} is not known") from error
    shape = tuple(int(side.rstrip("L")) for side in found["shape"].replace(" ", "").split(",") if side)
    return ArrayHeader(dtype, shape, found["fortran_order"] == "True")


def read_array(file: IO[bytes], size: int) -> Array:
    """Reads an array that fills the rest of a file.

    Args:
        file: at its start.
        size: bytes of the whole file. An array that claims another size is refused before memory is spent.

    Raises:
        ValueError: damaged, or an array of objects.
    """
    header = read_array_header(file)
    if header.dtype.hasobject:
        raise ValueError("an array of Python objects, which are not read: they can run any code")
    rest = size - file.tell()
    if header.nbytes != rest or len(header.shape) > 32:
        raise ValueError(f"its header claims {header.nbytes} bytes of shape {header.shape}, and {rest} follow"[:200])
    data = file.read(rest)
    if len(data) != rest:
        raise ValueError("it is cut short")
    flat: Array = np.frombuffer(data, dtype=header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


class ArrayArchive:
    """The arrays of an .npz file; each is read when it is asked for, and what nobody asks for is never looked at.

    Args:
        path: the file.
        limit: bytes of the file, and of all arrays that are read from it.

    Raises:
        FocusError: damaged, something else, no ordinary file, too large.
    """

    def __init__(self, path: Path, limit: int) -> None:
        check_input(path, limit)
        self.path, self._limit = path, limit
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    name = entry.filename.removesuffix(".npy")
                    if name in self._entries:
                        raise ValueError(f"two arrays are called {name[:80]!r}")
                    self._entries[name] = entry
        except Exception as error:  # zipfile raises many kinds for damaged files
            raise self._damaged(error) from error

    @property
    def names(self) -> Collection[str]:
        """Of all arrays, in the order of the file."""
        return self._entries.keys()

    def read(self, names: Iterable[str]) -> dict[str, Array]:
        """Those of the arrays `names` that are there.

        Raises:
            FocusError: one of them is damaged, or holds objects; or all together are larger than the limit.
        """
        entries = {name: self._entries[name] for name in names if name in self._entries}
        total = sum(entry.file_size for entry in entries.values())
        if total > self._limit:
            raise FocusError(f"{self.path}: expected at most {self._limit} bytes of arrays, got {total}")
        arrays: dict[str, Array] = {}
        name = ""
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name, entry in entries.items():
                    if entry.compress_type not in _COMPRESSIONS:
                        raise ValueError(f"its compression {entry.compress_type} is not known")
                    with archive.open(entry) as file:
                        arrays[name] = read_array(file, entry.file_size)
                        if file.read(1):  # also compares the checksum
                            raise ValueError("it is longer than the archive says")
        except Exception as error:  # zipfile and zlib raise many kinds for damaged files
            raise self._damaged(error, name) from error
        return arrays

    def _damaged(self, error: Exception, name: str = "") -> FocusError:
        array = f"the array {name}: " if name else ""
        reason = str(error)[:200] or type(error).__name__
        if isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError)):
            reason = f"damaged: {reason}"
        return FocusError(f"{self.path}: expected an .npz file of plain arrays, but {array}{reason}")
