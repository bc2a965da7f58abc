"""Results as text files: pages, and JSON that other programs and later commands read."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from focus import limits
from focus.errors import FocusError
from focus.files import read_input, read_text
from focus.record import parse_json
from focus.report.files import write_together
from focus.sealed import DamagedError, open_any_json, seal_json


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 file, whole or not at all. Raises `FocusError` where the file system refuses."""
    return write_together(path.parent, {path.name: text.encode()})[0]


def write_json(path: Path, value: Any) -> Path:
    """`write_text` of indented JSON. Numbers that are not finite, which JSON does not know, become null."""
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file, with or without a byte-order mark.

    Raises:
        FocusError: missing, unreadable or damaged.
    """
    return parse_json(read_text(path, limits.TEXT_FILE), path)


def write_sealed(path: Path, value: Mapping[str, Any]) -> Path:
    """As `write_json`, with a checksum as the last entry: for what later commands read back and compute with."""
    return write_text(path, seal_json(plain(value), indent=1) + "\n")


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


def plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, paths as texts, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    return str(value)


def not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Names of the numbers that `plain` makes null, such as ``photos.0.seconds``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from not_finite(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, np.ndarray):
        yield from not_finite(value.tolist(), name)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from not_finite(item, f"{name}.{position}" if name else str(position))
    elif isinstance(value, (float, np.floating)) and not math.isfinite(value):
        yield name
