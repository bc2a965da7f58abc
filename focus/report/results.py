"""Results as text files: pages, and JSON that other programs and later commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from focus.errors import FocusError
from focus.report.files import write_together


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
