"""Tables of landmarks: a file name and x, y of 68 (or 5) points in each row, as the original writes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from focus.data.images import PHOTO_SUFFIXES
from focus.data.landmark_rows import LANDMARK_COUNT, LARGEST_COORDINATE, LandmarkRow, LandmarkTable, Skip, short
from focus.errors import FocusError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NUMBERS = (2 * LANDMARK_COUNT, 10)
_FIRST_ROWS = 20
"""Rows by which the separator is recognised."""


def parse_table(path: Path, text: str) -> LandmarkTable:
    """The rows of a table of landmarks; see `focus.data.landmarks.read_landmarks`.

    Raises:
        FocusError: it is no such table, or no row is usable.
    """
    rows: list[LandmarkRow] = []
    skipped: list[Skip] = []
    seen: set[tuple[str, bytes]] = set()
    separator, text = _recognise(path, text)
    decimal = _decimal(path, text, separator)
    for count, (number, cells) in enumerate(_cells(path, text, separator)):
        if count == 0 and _is_header(cells, decimal):
            continue
        if not (rows or skipped) and cells[0].startswith("#") and len(_trimmed(cells)) - 1 not in _NUMBERS:
            continue  # a comment; a photo may have such a name
        name = cells[0]
        values, reason = _parse(cells[1:], separator, decimal)
        if not name:
            reason = "no file name"
        elif values is not None and (name, values.tobytes()) in seen:
            reason = "a second row of the same face, with the same points; the first is used"
        if reason is None and values is not None:
            seen.add((name, values.tobytes()))
            rows.append(LandmarkRow(name, values))
        else:
            skipped.append(Skip(short(name) or "unnamed", f"row {number}: {reason}"))
    if not rows:
        detail = (
            f"; first of {len(skipped)} skipped rows: {skipped[0].name}: {skipped[0].reason}"
            if skipped
            else "; it has no rows"
        )
        raise FocusError(
            f"{path}: no usable row{detail}. Expected: file name,x1,y1,...,x68,y68 (or 5 points), in photo pixels"
        )
    return LandmarkTable(rows, skipped)


def _cells(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of each row that is not empty."""
    # Strict: a quote that is not closed would swallow the rows after it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise FocusError(
            f"{path}: cannot be read as a table with {_SEPARATORS[separator]} between its cells (row {number + 1}: "
            f"{error})"
        ) from error


def _recognise(path: Path, text: str) -> tuple[str, str]:
    """The separator of a table, and its text: the one with which most of its first rows have the right numbers."""
    hint = re.match(r'("?)sep=([,;\t])\1(?:\r\n?|\n)', text, re.IGNORECASE)  # a line that Excel writes and obeys
    if hint:
        return hint[2], text[hint.end() :]
    lines = islice(io.StringIO(text, newline=None), 10 * _FIRST_ROWS)
    head = [line for line in lines if line.strip()][:_FIRST_ROWS]
    fitting = {separator: sum(_fits(line.split(separator)) for line in head) for separator in _SEPARATORS}
    best = max(fitting, key=lambda separator: fitting[separator])
    if fitting[best] == 0:
        occurring = {separator: sum(line.count(separator) for line in head) for separator in _SEPARATORS}
        best = max(occurring, key=lambda separator: occurring[separator])
        if head and not any(occurring.values()):
            raise FocusError(
                f"{path}: no usable row: its cells have no separator; expected commas, semicolons or tabs between file "
                "name,x1,y1,...,x68,y68 (or 5 points)"
            )
    return best, text


def _fits(cells: list[str]) -> bool:
    numbers = _trimmed(cells)[1:]
    return len(numbers) in _NUMBERS and all(re.fullmatch(r'\s*"?[-+0-9.,eE]+"?\s*', cell) for cell in numbers)


def _decimal(path: Path, text: str, separator: str) -> str:
    """What is between a number and its decimals: a comma only where it can be nothing else.

    Raises:
        FocusError: commas that may separate decimals or thousands.
    """
    if separator == ",":
        return "."
    numbers = [cell for _, cells in islice(_cells(path, text, separator), _FIRST_ROWS) for cell in cells[1:]]
    with_comma = [cell for cell in numbers if re.fullmatch(r"[-+]?[0-9]*,[0-9]+", cell)]
    if not with_comma or any(re.fullmatch(r"[-+]?[0-9]*[.][0-9]+", cell) for cell in numbers):
        return "."
    if all(re.fullmatch(r"[-+]?[1-9][0-9]{0,2},[0-9]{3}", cell) for cell in with_comma):
        raise FocusError(
            f"{path}: numbers such as {with_comma[0]} between {_SEPARATORS[separator]}: is the comma one of decimals "
            "or of thousands? Write decimals with a point"
        )
    return ","


def _is_header(cells: list[str], decimal: str) -> bool:
    """Words alone, of which the first does not look like a photo: a row that is not understood is listed."""
    if PurePosixPath(cells[0]).suffix.lower() in PHOTO_SUFFIXES:
        return False
    return len(cells) > 1 and not any(_number(cell, decimal) is not None for cell in cells[1:]) and any(cells[1:])


def _number(cell: str, decimal: str) -> float | None:
    if decimal == ",":
        cell = "x" if "." in cell else cell.replace(",", ".")
    try:
        return None if "_" in cell else float(cell)  # Python takes 1_000 for a number
    except ValueError:
        return None


def _trimmed(cells: Sequence[str]) -> Sequence[str]:
    """Without the empty cells at the end that spreadsheets leave."""
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _parse(cells: Sequence[str], separator: str, decimal: str) -> tuple[NDArray[np.float64] | None, str | None]:
    """The numbers of a row as [68 or 5, 2], or the reason why not."""
    cells = _trimmed(cells)
    if len(cells) not in _NUMBERS:
        reason = f"{len(cells)} numbers; expected 136 (68 points) or 10 (5 points)"
        if len(cells) <= 1:
            reason += f", with {_SEPARATORS[separator]} between them"
        elif len(cells) - 1 in _NUMBERS and _number(cells[0], decimal) is None:
            reason += (
                "; is there a column before that of the file names, such as the index that pandas writes? Leave it out"
            )
        return None, reason
    values = [_number(cell, decimal) for cell in cells]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        bad = cells[values.index(None)]
        if not bad:
            return None, "a number is missing"
        reason = f"{short(bad)!r} is not a number"
        if re.fullmatch(r"[-+]?[0-9]*,[0-9]+", bad):
            reason += "; its decimals have a comma, as they may between semicolons or tabs alone: write a point"
        elif re.fullmatch(r"[a-z_.]+[0-9]*\(.*\)", bad):
            reason += "; write it without the name of its type, as float(value) or value.item() gives it"
        return None, reason
    points = np.array(numbers)
    if not np.isfinite(points).all() or np.abs(points).max() > LARGEST_COORDINATE:
        return None, "a coordinate is not finite or far outside of any photo"
    return points.reshape(-1, 2), None
