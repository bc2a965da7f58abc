"""Results as text files: pages, and JSON that other programs and later commands read."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focus import limits
from focus.errors import FocusError
from focus.files import read_input
from focus.report.files import write_together
from focus.sealed import DamagedError, open_any_json, seal_json


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 file, whole or not at all. Raises `FocusError` where the file system refuses."""
    return write_together(path.parent, {path.name: text.encode()})[0]


def write_json(path: Path, value: Any) -> Path:
    """`write_text` of indented JSON; `ValueError` for numbers that are not finite, which JSON does not know."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FocusError: missing, unreadable or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FocusError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FocusError(f"{path} cannot be read as JSON ({error})") from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> Path:
    """As `write_json`, with a checksum as the last entry: for what later commands read back and compute with."""
    return write_text(path, seal_json(value, indent=1) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads a file of `write_sealed`, or of before there were checksums.

    Raises:
        FocusError: missing, damaged, or no JSON object.
    """
    data = read_input(path, limits.LOG_FILE)
    try:
        return open_any_json(data.removeprefix(codecs.BOM_UTF8))
    except DamagedError as error:
        raise FocusError(f"{path} cannot be read as JSON ({error})") from error
