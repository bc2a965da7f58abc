"""The files of one photo belong together: its JSON file, written last, says what the others are and what they are of.

A JSON file that is missing, or that does not agree with what is beside it, means that a run was killed while it wrote
them, or that somebody changed one of them: readers refuse such a result by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from focus import limits
from focus.errors import FocusError
from focus.files import digest_input, read_text

MESHES = (".ply", ".obj", ".glb")
MASK, OVERLAY, RECORD = "_mask.png", "_overlay.png", ".json"
RESULT_SUFFIXES = (*MESHES, MASK, OVERLAY, RECORD)
"""What the names of the files of a photo end with, after its stem, in the order in which they are written."""

JSON_FORMAT = 2
_AGAIN = "reconstruct the photo again"


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of the files of a photo but for the JSON file, which holds them as ``files``."""
    return {suffix: hashlib.sha256(data).hexdigest() for suffix, data in contents.items() if suffix != RECORD}


def parse_json(text: str, path: str | Path) -> Any:
    """The JSON of a file, of which `text` is all or a line.

    Raises:
        FocusError: damaged, or NaN or an infinity, which JSON does not know.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FocusError(f"{path} cannot be read as JSON ({error})") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """The JSON file of a photo (`Reconstruction.to_dict`, ``files`` and ``made_from``). Nothing beside it is looked at.

    Raises:
        FocusError: missing or damaged, or not written by this version of the format.
    """
    path = Path(path)
    found = parse_json(read_text(path, limits.TEXT_FILE), path)
    if not isinstance(found, dict) or found.get("format") != JSON_FORMAT:
        raise FocusError(f"{path}: expected the JSON file of a result, of format {JSON_FORMAT}; {_AGAIN}")
    files, expected = found.get("files"), RESULT_SUFFIXES[:-1]
    if not isinstance(files, dict) or sorted(files) != sorted(expected) or not all(map(_is_digest, files.values())):
        raise FocusError(f"{path}: files: expected the digests of {', '.join(expected)}; {_AGAIN}")
    return found


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


def check_result(path: str | Path, suffixes: Iterable[str] = RESULT_SUFFIXES[:-1]) -> dict[str, Any]:
    """`read_record`, and that the files beside it are those that it was written with.

    Args:
        path: ``STEM.json``.
        suffixes: of the files to look at; all of them by default.

    Raises:
        FocusError: as `read_record`; or a file is missing or is another one.
    """
    path = Path(path)
    record = read_record(path)
    stem = path.name.removesuffix(RECORD)
    for suffix in suffixes:
        file = path.with_name(f"{stem}{suffix}")
        if digest_input(file, limits.MESH_FILE) != record["files"][suffix]:
            raise FocusError(f"{file}: is not the file that {path.name} was written with; {_AGAIN}")
    return record


def refuse_part(mask: Path) -> None:
    """Refuses ``STEM_mask.png`` of a photo whose files are not whole. Masks that lie alone are anybody's.

    Raises:
        FocusError: the run that wrote it did not come to its end, or the mask is another one than the JSON file says.
    """
    stem = mask.name.removesuffix(MASK)
    if stem == mask.name:
        return
    path = mask.with_name(f"{stem}{RECORD}")
    if path.is_file():
        found = parse_json(read_text(path, limits.TEXT_FILE), path)
        if isinstance(found, dict) and "model_fingerprint" in found:
            check_result(path, [MASK])
    elif all(mask.with_name(f"{stem}{suffix}").is_file() for suffix in MESHES):
        raise FocusError(
            f"{mask}: is part of a result that was never finished ({path.name} is missing); {_AGAIN}, or copy the mask "
            "to another folder if it is whole"
        )
