"""Files of a folder that is somewhere else, kept on this machine while they are needed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from focus.data.crops import RESERVE
from focus.errors import FocusError

_TRIES = 3
_PIECE = 1 << 20


def is_remote(location: str) -> bool:
    """Whether a text is an address (``https://...``, ``s3://...``) and no folder of this machine."""
    return "://" in location


class Fetched:
    """Fetches files by fsspec, which torch needs anyway and which knows HTTP, S3 and many more.

    All processes of a machine may share the folder: each file is fetched once, and the ones that were used least
    recently make room. Who has a file open keeps it.

    Args:
        location: address of the folder.
        cache: folder on this machine, of this location alone; None: nothing can be kept, only read.
        limit: bytes of the files in it. Those that are open while they make room take theirs until they are closed.
    """

    def __init__(self, location: str, cache: Path | None, limit: int) -> None:
        self._location, self._cache, self._limit = location.rstrip("/"), cache, limit
        self._expected: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_expected": set()}

    def read(self, name: str, limit: int) -> bytes:
        """A small file."""
        data = bytearray()
        for piece in self._pieces(name):
            data += piece
            if len(data) > limit:
                raise FocusError(f"{self._location}/{name}: expected at most {limit:,} bytes")
        return bytes(data)

    def expect(self, name: str, size: int) -> None:
        """Fetches a file in a thread. An error is told to who opens it."""

        def fetch() -> None:
            try:
                with contextlib.suppress(FocusError):
                    os.close(self.open(name, size))
            finally:
                self._expected.discard(name)

        if name not in self._expected:
            self._expected.add(name)
            threading.Thread(target=fetch, name="focus fetching", daemon=True).start()

    def open(self, name: str, size: int) -> int:
        """A descriptor of a file, for reading; it is fetched first where it is not there.

        Raises:
            FocusError: it cannot be fetched, has another size, or there is no room.
        """
        if self._cache is None:
            raise FocusError(f"{self._location}: expected a folder of this machine for what is fetched, got none")
        if size > self._limit:
            raise FocusError(
                f"{self._location}/{name}: has {size:,} bytes, and {self._limit:,} are kept at most "
                "(data.crops_gigabytes)"
            )
        path = self._cache / name
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            # Of all files: who makes room, or opens one, does it alone.
            with _locked(self._cache / ".lock"):
                if not path.is_file() or path.stat().st_size != size:
                    self._make_room(size)
                    self._fetch(name, path, size)
                os.utime(path)
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise FocusError(f"{path}: cannot be kept: {error.strerror or error}") from error

    def _fetch(self, name: str, path: Path, size: int) -> None:
        partial = path.with_name(f".{name}.part")
        try:
            for left in reversed(range(_TRIES)):
                try:
                    count = 0
                    with open(partial, "wb") as file:
                        for piece in self._pieces(name):
                            count += len(piece)
                            if count > size:
                                break
                            file.write(piece)
                    if count == size:
                        os.replace(partial, path)
                        return
                    reason = f"expected {size} bytes, got {'more' if count > size else count}"
                    raise FocusError(f"{self._location}/{name}: {reason}")
                except FocusError:
                    if not left:
                        raise
                    time.sleep(2.0 ** (_TRIES - left))
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        cache = cast(Path, self._cache)
        there = []
        for path in cache.glob("*.tar"):
            with contextlib.suppress(OSError):  # another process has made room
                status = path.stat()
                there.append((status.st_mtime_ns, status.st_size, path))
        if shutil.disk_usage(cache).free < size + RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = sum(entry[1] for entry in there) + size - self._limit
        for _, count, path in sorted(there):
            if left <= 0:
                break
            path.unlink(missing_ok=True)
            left -= count

    def _pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, one after the other."""
        address = f"{self._location}/{name}"
        try:
            import fsspec  # type: ignore[import-untyped]

            with fsspec.open(address, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except ImportError as error:
            raise FocusError(f"{address}: {error} (pip install 'focus-face[shards]' has what HTTP needs)") from error
        except Exception as error:  # of any of the libraries behind fsspec
            raise FocusError(f"{address}: cannot be fetched ({type(error).__name__}: {error})") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
