"""Files that appear complete under their names, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes all under temporary names beside them and, when the last byte is on the disk, moves them to their own.

    A full disk or a kill leaves the files of before, or none. Files get the rights that the umask leaves.

    Args:
        contents: file to its bytes; the folders must exist.

    Raises:
        OSError: the file system refused, or another process is writing the same file; callers say what that means for
            their user.
    """
    partial: list[tuple[BufferedWriter, Path, Path]] = []
    with contextlib.ExitStack() as stack:
        try:
            for path, data in contents.items():
                # One temporary name per file: what a killed process left is removed by the next one, not collected.
                temporary = path.with_name(f".{path.name}.partial")
                temporary.unlink(missing_ok=True)
                file = stack.enter_context(open(temporary, "xb"))
                partial.append((file, temporary, path))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            for file, temporary, path in partial:
                # Another writer took the name over with a file of its own, so that the two never mix.
                if not (temporary.exists() and os.path.samestat(os.stat(temporary), os.fstat(file.fileno()))):
                    raise OSError(errno.EBUSY, "another process is writing the same file", str(path))
                os.replace(temporary, path)
        except BaseException:
            for _, temporary, _ in partial:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Makes new names outlive a power cut."""
    with contextlib.suppress(OSError):  # the files are in place already, and some file systems cannot do this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
