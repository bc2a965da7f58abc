"""Result files that appear complete and together, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from focus.errors import FocusError
from focus.files import write_files


def check_folder(folder: Path) -> Path:
    """Refuses a place where no results can be written, before the work of which they come. Makes nothing.

    Raises:
        FocusError: it is a file or lies in one, or nothing can be written there.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        what = "a file" if place.exists() else "a link to nowhere"
        raise FocusError(f"{folder}: expected a folder for results, but {place} is {what}; choose another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FocusError(f"{folder}: nothing can be written into {place}; choose another folder, or change its rights")
    return folder


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files of one folder by `focus.files.write_files`: the last one speaks for all.

    Args:
        folder: made if need be.
        contents: file name to contents.

    Returns:
        The paths, in the order of `contents`.

    Raises:
        FocusError: the file system refused (full, read-only, no such place, ...). Older files of these names are
            untouched, or, if it refused in the middle, the last of them is gone.
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
