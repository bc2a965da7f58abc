"""Result files that appear complete and together, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from focus.errors import FocusError


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files of one folder: all under temporary names and, when the last byte is on the disk, under their own.

    Args:
        folder: made if need be.
        contents: file name to contents.

    Returns:
        The paths, in the order of `contents`.

    Raises:
        FocusError: the file system refused (full, read-only, no such place, ...); older files of these names are
            untouched.
    """
    temporary: list[tuple[str, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mode = 0o666 & ~_umask()
        for name, data in contents.items():
            handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".partial")
            temporary.append((partial, folder / name))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, mode)
        for partial, path in temporary:
            os.replace(partial, path)
    except OSError as error:
        total = sum(len(data) for data in contents.values()) / 2**20
        raise FocusError(
            f"{folder}: cannot write {', '.join(contents)} ({total:.1f} MiB together): {error.strerror or error}. "
            "Make room, or choose another folder"
        ) from error
    finally:
        for partial, _ in temporary:
            with contextlib.suppress(OSError):
                os.unlink(partial)
    return [path for _, path in temporary]


def _umask() -> int:
    """The process's permission mask; `mkstemp` ignores it and makes files that only the owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
