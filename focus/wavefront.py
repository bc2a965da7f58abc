"""Wavefront OBJ files: polygons with the numbering of their file; what could change it is read right, or refused.

Read here, since trimesh's reader skips what it does not know (a line with a byte-order mark or an indentation, and so
every later number is off by one), takes relative numbers for absolute ones, and splits vertices at seams of a texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError

_HARMLESS = frozenset(
    # Names and settings; normals; points of curves; points and lines, which have no surface.
    b"o g s mg mtllib usemtl maplib usemap lod shadow_obj trace_obj bevel c_interp d_interp vn vp p l".split()
)
_FREE_FORM = frozenset(
    b"cstype deg bmat step curv curv2 surf parm trim hole scrv sp end con bzp bsp cdc cdp res".split()
)
_POSITION = {
    3: "x y z",
    4: "x y z w",
    6: "x y z and a colour",
    7: "x y z and a colour with opacity",
}


class Polygons(NamedTuple):
    """The polygons of a file as fans of triangles; numbers are those of the file, from 0."""

    vertices: NDArray[np.float64]
    """``[V, 3]`` in the unit of the file; not checked for NaN and infinity."""
    faces: NDArray[np.int64]
    """``[F, 3]``, each in ``0 ... V - 1``."""
    texture: NDArray[np.float64]
    """``[T, 2]``, u and v."""
    texture_faces: NDArray[np.int64]
    """``[F, 3]``, the texture coordinates of the corners, in ``0 ... T - 1``; -1 where a corner has none, T where it
    names one that is not there: no surface depends on it.
    """
    materials: list[str]
    """Names; the first, "", is that of polygons before any ``usemtl``."""
    face_materials: NDArray[np.int64]
    """``[F]``, in `materials`."""


def parse_wavefront(data: bytes, name: object) -> Polygons:
    """Reads the positions, texture coordinates and polygons of an OBJ file.

    Byte-order marks, any indentation and line ending, lines that a backslash continues, comments after data (a comment
    ends with its line), numbers that count back, colours after positions and all forms of corners are understood.
    Lines, points, names, normals and display settings change no surface and are passed over.

    Args:
        data: the file.
        name: of the file, for messages.

    Raises:
        FocusError: a line that is damaged or not known, free-form surfaces, polygons of fewer than three corners, or
            of vertices that are not there.
    """
    lines = _Lines(data, name)
    vertices = _positions(lines)
    texture = _texture(lines)
    sizes = np.array([len(corners) for corners in lines.corners], dtype=np.int64)
    if (sizes < 3).any():
        first = int((sizes < 3).argmax())
        raise lines.error(lines.face_lines[first], f"a polygon of {sizes[first]} corners; expected at least 3")
    corners, texture_corners = _corners(lines, sizes, len(vertices), len(texture))
    # Corner 0 with each pair of neighbours: [F, 3] positions in the list of all corners.
    starts = np.cumsum(sizes) - sizes
    polygon = np.repeat(np.arange(len(sizes)), sizes - 2)
    second = np.arange(len(polygon)) + 2 * polygon + 1  # each polygon before has two corners more than triangles
    fans = np.stack([starts[polygon], second, second + 1], axis=1)
    return Polygons(
        vertices=vertices,
        faces=corners[fans],
        texture=texture,
        texture_faces=texture_corners[fans],
        materials=[material.decode(errors="replace") for material in lines.materials],
        face_materials=np.array(lines.face_materials, dtype=np.int64)[polygon],
    )


class _Lines:
    """The lines of a file by their kinds, as words, with their numbers."""

    def __init__(self, data: bytes, name: object) -> None:
        self.name = name
        self.positions: list[list[bytes]] = []
        self.position_lines: list[int] = []
        self.texture: list[list[bytes]] = []
        self.texture_lines: list[int] = []
        self.corners: list[list[bytes]] = []
        self.face_lines: list[int] = []
        self.face_materials: list[int] = []
        self.counts: list[tuple[int, int]] = []  # of positions and texture coordinates before each polygon
        self.materials: list[bytes] = [b""]
        numbers: dict[bytes, int] = {b"": 0}
        material = 0
        for number, line in _logical_lines(_plain_bytes(data, name)):
            words = line.split()
            if not words:
                continue
            kind = words[0]
            if kind == b"usemtl":
                label = line.strip()[len(kind) :].strip()
                material = numbers.setdefault(label, len(numbers))
                if material == len(self.materials):
                    self.materials.append(label)
                continue
            if kind in _HARMLESS or kind[:1] == b"#":
                continue
            if b"#" in line:
                words = line.partition(b"#")[0].split()
            if kind == b"v":
                self.positions.append(words[1:])
                self.position_lines.append(number)
            elif kind == b"vt":
                self.texture.append(words[1:])
                self.texture_lines.append(number)
            elif kind == b"f":
                self.corners.append(words[1:])
                self.face_lines.append(number)
                self.face_materials.append(material)
                self.counts.append((len(self.positions), len(self.texture)))
            elif kind in _FREE_FORM:
                raise self.error(number, f"free-form curves and surfaces ({_show(kind)}) are not read; export polygons")
            else:
                raise self.error(number, f"{_show(kind)}: no statement of a Wavefront OBJ file that is known here")

    def error(self, number: int, reason: str) -> FocusError:
        return FocusError(f"{self.name}: line {number}: {reason}")


def _plain_bytes(data: bytes, name: object) -> bytes:
    """The same text without a byte-order mark, in an encoding that agrees with ASCII."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise FocusError(f"{name}: starts as UTF-16 text and is none ({error.reason}); write it again") from error
    return data.removeprefix(b"\xef\xbb\xbf")


def _logical_lines(data: bytes) -> Sequence[tuple[int, bytes]]:
    """(number of the first line, text) with lines joined where a backslash says so."""
    lines = data.splitlines()
    if b"\\" not in data:
        return list(enumerate(lines, start=1))
    joined: list[tuple[int, bytes]] = []
    start, before = 1, b""
    for number, line in enumerate(lines, start=1):
        text = before + line
        # Paths of Windows end comments with backslashes, too: what follows a comment is never swallowed.
        if text.endswith(b"\\") and b"#" not in text:
            before = text[:-1] + b" "
            continue
        joined.append((start, text))
        start, before = number + 1, b""
    if before:
        joined.append((start, before))
    return joined


def _positions(lines: _Lines) -> NDArray[np.float64]:
    for words, number in zip(lines.positions, lines.position_lines, strict=True):
        if len(words) not in _POSITION:
            expected = ", ".join(_POSITION.values())
            raise lines.error(number, f"damaged: a vertex of {len(words)} numbers; expected {expected}")
    sizes = np.array([len(words) for words in lines.positions], dtype=np.int64)
    values = _numbers(lines, lines.positions, lines.position_lines, "a vertex")
    starts = np.cumsum(sizes) - sizes
    weights = values[starts[sizes == 4] + 3]
    if (weights != 1).any():
        first = int(np.flatnonzero(sizes == 4)[(weights != 1).argmax()])
        raise lines.error(
            lines.position_lines[first], "a vertex with a weight other than 1, for free-form surfaces; not read"
        )
    positions: NDArray[np.float64] = values[starts[:, None] + np.arange(3)]
    return positions


def _texture(lines: _Lines) -> NDArray[np.float64]:
    for words, number in zip(lines.texture, lines.texture_lines, strict=True):
        if not 1 <= len(words) <= 3:
            raise lines.error(number, f"a texture coordinate of {len(words)} numbers; expected 1 to 3")
    padded = [words if len(words) > 1 else [*words, b"0"] for words in lines.texture]  # v is 0 where it is left out
    sizes = np.array([len(words) for words in padded], dtype=np.int64)
    values = _numbers(lines, padded, lines.texture_lines, "a texture coordinate")
    pairs: NDArray[np.float64] = values[(np.cumsum(sizes) - sizes)[:, None] + np.arange(2)]
    return pairs


def _numbers(lines: _Lines, rows: list[list[bytes]], numbers: list[int], what: str) -> NDArray[np.float64]:
    """All numbers of the rows, one after the other."""
    words = list(chain.from_iterable(rows))
    try:
        if b"_" in b" ".join(words):  # Python takes 1_000 for a number
            raise ValueError
        return np.array(list(map(float, words)), dtype=np.float64)
    except ValueError:
        for row, number in zip(rows, numbers, strict=True):
            bad = next((word for word in row if not _is_number(word)), None)
            if bad is not None:
                raise lines.error(number, f"{what}: {_show(bad)} is not a number") from None
        raise


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _corners(
    lines: _Lines, sizes: NDArray[np.int64], vertex_count: int, texture_count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions and texture coordinates (-1: none) of all corners, from 0."""
    vertices: list[int] = []
    texture: list[int] = []
    for words, number in zip(lines.corners, lines.face_lines, strict=True):
        for word in words:
            parts = word.split(b"/")
            if len(parts) > 3 or b"_" in word:
                raise lines.error(number, f"{_show(word)} is no corner of a polygon; expected v, v/vt, v//vn, v/vt/vn")
            try:
                vertices.append(int(parts[0]))
                texture.append(int(parts[1]) if len(parts) > 1 and parts[1] else 0)
                if len(parts) > 2 and parts[2]:
                    int(parts[2])
            except ValueError:
                raise lines.error(
                    number, f"{_show(word)} is no corner of a polygon; expected v, v/vt, v//vn, v/vt/vn"
                ) from None
    before = np.repeat(np.array(lines.counts, dtype=np.int64).reshape(-1, 2), sizes, axis=0)
    numbers = _from_zero(vertices, before[:, 0])
    wrong = (numbers < 0) | (numbers >= vertex_count)
    if wrong.any():
        corner = int(wrong.argmax())
        polygon = int(np.searchsorted(np.cumsum(sizes), corner, side="right"))
        raise lines.error(
            lines.face_lines[polygon],
            f"a face names vertex {vertices[corner]} (numbered from 1) of {vertex_count}, {before[corner, 0]} of them "
            "before it; the file is cut short or damaged",
        )
    texture_numbers = _from_zero(texture, before[:, 1])
    absent = (texture_numbers < -1) | (texture_numbers >= texture_count)
    return numbers, np.where(absent, texture_count, texture_numbers)


def _from_zero(numbers: list[int], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers from 1, or back from the last one before (from -1), as numbers from 0; 0 becomes -1."""
    try:
        written = np.array(numbers, dtype=np.int64)
    except OverflowError:  # beyond 64 bits is beyond any count, too
        written = np.clip(np.array(numbers, dtype=object), -(2**62), 2**62).astype(np.int64)
    # Back beyond the first is no number at all, nor -1 for none.
    return np.where(written < 0, np.where(written + before < 0, -(2**62), written + before), written - 1)


def _show(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))
