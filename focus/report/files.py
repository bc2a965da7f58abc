"""Result files that appear complete and together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from focus.errors import FocusError
from focus.files import write_files


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files of one folder by `focus.files.write_files`.

    Args:
        folder: made if need be.
        contents: file name to contents.

    Returns:
        The paths, in the order of `contents`.

    Raises:
        FocusError: the file system refused (full, read-only, no such place, ...); older files of these names are
            untouched.
    """
    files = {folder / name: data for name, data in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(files)
    except OSError as error:
        total = sum(len(data) for data in contents.values()) / 2**20
        raise FocusError(
            f"{folder}: cannot write {', '.join(contents)} ({total:.1f} MiB together): {error.strerror or error}. "
            "Make room, or choose another folder"
        ) from error
    return list(files)
