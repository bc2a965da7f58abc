"""Crops of photos in one file, decoded once for all runs of a folder and all processes of a run.

``crops_T.bin`` has those of side T, one after the other, uint8 ``[T, T, 3]`` each; ``crops_T.jsonl`` a sealed line for
each: of which photo it is (a digest), its number, and its checksum. A line is written after its crop: whatever ends a
run, what has a line is whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.errors import FocusError
from focus.files import check_input, read_input
from focus.sealed import DamagedError, open_any_json, seal_json

RESERVE = 4 << 30
"""Bytes of the disk that are left for what else a run writes."""


class CropStore:
    """Crops by a digest of what they are made of. It can be pickled: the copy reads the same file, and adds nothing.

    Args:
        folder: where the two files are; made if need be.
        side: T, pixels.
        limit: bytes of crops beyond which no more are added.

    Raises:
        FocusError: something that is no ordinary file has one of the names.
    """

    def __init__(self, folder: Path, side: int, limit: int) -> None:
        self.side, self.limit = side, limit
        self._file, self._lines = folder / f"crops_{side}.bin", folder / f"crops_{side}.jsonl"
        self._numbers: dict[str, tuple[int, tuple[int, int]]] = {}
        self._crops: NDArray[np.uint8] | None = None
        self._open = True
        self._load()

    @property
    def _bytes(self) -> int:
        return 3 * self.side**2

    def __contains__(self, key: str) -> bool:
        return key in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def photo_size(self, key: str) -> tuple[int, int]:
        """(height, width) of the photo that a crop is of."""
        return self._numbers[key][1]

    def crop(self, key: str) -> NDArray[np.uint8]:
        """``[T, T, 3]``, not to be written to: it is the file itself.

        Raises:
            FocusError: the file is not there (on another machine, say), or was cut short meanwhile.
        """
        number = self._numbers[key][0]
        if self._crops is None or number >= len(self._crops):
            count = check_input(self._file, limits.CROPS_FILE) // self._bytes
            if number >= count:
                raise FocusError(f"{self._file}: was cut short while it was in use; start again")
            self._crops = np.memmap(self._file, np.uint8, "r", shape=(count, self.side, self.side, 3))
        crop: NDArray[np.uint8] = self._crops[number]
        return crop

    def add(self, key: str, crop: NDArray[np.uint8], photo_size: tuple[int, int]) -> bool:
        """Keeps a crop, if there is room.

        Returns:
            Whether it is kept; False beyond the limit, and where the disk is full.
        """
        number = len(self._numbers)
        if not self._open or key in self or (number + 1) * self._bytes > self.limit:
            return key in self
        data = np.ascontiguousarray(crop).tobytes()
        line = {"key": key, "crop": number, "photo_size": list(photo_size), "sha256": _digest(data)}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._file.parent).free < RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _append(self._file, number * self._bytes, data)
            _append(self._lines, None, seal_json(line).encode() + b"\n")
        except OSError:
            self._open = False  # what is there stays good
            return False
        self._numbers[key] = (number, photo_size)
        return True

    def _load(self) -> None:
        """What is whole; where a line or a crop is not, the rest is left out and written anew."""
        lines, crops = self._lines, self._file
        there = [path for path in (lines, crops) if os.path.lexists(path)]
        if len(there) < 2 or not all(path.lstat().st_size for path in there):
            try:
                for path in there:
                    path.unlink()
            except OSError:
                self._open = False
            return
        size, good, whole = check_input(crops, limits.CROPS_FILE), 0, read_input(lines, limits.TABLE_FILE)
        with open(crops, "rb") as file:
            for number, line in enumerate(whole.split(b"\n")):
                found = _entry(line)
                if (
                    found is None
                    or found["crop"] != number
                    or found["key"] in self
                    or (number + 1) * self._bytes > size
                ):
                    break
                if _digest(file.read(self._bytes)) != found["sha256"]:
                    break
                self._numbers[found["key"]] = (number, (found["photo_size"][0], found["photo_size"][1]))
                good += len(line) + 1
        try:
            _cut(lines, min(good, len(whole)))
            _cut(crops, len(self._numbers) * self._bytes)
        except OSError:
            self._open = False  # somebody else's folder: it is read, and nothing is added

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_crops": None, "_open": False}


def _append(path: Path, position: int | None, data: bytes) -> None:
    """Writes at a position, or at the end, and nothing behind it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(handle, "wb", buffering=0) as file:
        if position is None:
            position = file.seek(0, os.SEEK_END)
        else:
            file.seek(position)
        if file.write(data) != len(data):
            file.truncate(position)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut(path: Path, size: int) -> None:
    if path.lstat().st_size != size:
        with open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb") as file:
            file.truncate(size)


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is damaged."""
    try:
        values = open_any_json(line)
    except DamagedError:
        return None
    kinds = {"key": str, "crop": int, "photo_size": list, "sha256": str}
    if any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        return None
    sizes = values["photo_size"]
    return values if len(sizes) == 2 and all(type(size) is int and size > 0 for size in sizes) else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
