"""PLY files (Turk 1994): the vertices and polygons of ascii and binary ones, read whole or refused.

Read here, since trimesh's reader takes the first face of a binary file for the length of all of them, reads on where a
file is cut short, and keeps quads as rows of four.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError

_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "char int8",
        "u1": "uchar uint8",
        "i2": "short int16",
        "u2": "ushort uint16",
        "i4": "int int32",
        "u4": "uint uint32",
        "i8": "int64",
        "u8": "uint64",
        "f4": "float float32",
        "f8": "double float64",
    }.items()
    for name in names.split()
}
_Order = Literal["=", "<", ">"]
_BYTE_ORDERS: dict[str, _Order] = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_CORNERS = ("vertex_indices", "vertex_index")
_SURFACES = ("face", "tristrips")
_LONGEST_HEADER = 1 << 20


class _Property(NamedTuple):
    name: str
    dtype: np.dtype[np.generic]
    count_dtype: np.dtype[np.generic] | None
    """Of the length of a list; None: a single number."""


class _Element(NamedTuple):
    name: str
    length: int
    properties: list[_Property]


class _List(NamedTuple):
    """Lists one after the other."""

    sizes: NDArray[np.int64]
    values: NDArray[np.generic]


_Column = NDArray[np.generic] | _List


def parse_ply(data: bytes, name: object) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reads the vertices, and the polygons as fans of triangles; triangle strips are unrolled.

    Other elements and properties, whatever their types, are passed over by their sizes.

    Args:
        data: the file.
        name: of the file, for messages.

    Returns:
        Vertices ``[V, 3]`` and faces ``[F, 3]``; neither finite nor in range for certain.

    Raises:
        FocusError: a damaged or unknown header, another amount of data than it says, polygons of fewer than three
            corners.
    """

    def refuse(reason: str) -> FocusError:
        return FocusError(f"{name}: cannot be read as a PLY file: {reason}")

    data = data.removeprefix(b"\xef\xbb\xbf")
    order, elements, body = _read_header(data, refuse)
    read = _read_ascii if order == "=" else _read_binary
    columns = read(elements, data[body:], refuse)
    for element in elements:
        corners = [prop.name for prop in element.properties if prop.name in _CORNERS]
        if element.name not in _SURFACES and corners:
            raise refuse(f"polygons in the element {element.name!r}; expected them in 'face'")
    return _vertices(columns, refuse), _faces(columns, refuse)


_Refuse = Callable[[str], FocusError]


def _read_header(data: bytes, refuse: _Refuse) -> tuple[_Order, list[_Element], int]:
    """Byte order (``=`` for text), elements, and where the data start."""
    start = re.match(rb"ply[ \t]*(\r\n|\n|\r)", data)
    if start is None:
        raise refuse("it does not start with the line 'ply'")
    # Lines end as the first does. With single carriage returns, data that start with a line feed would be ambiguous.
    ending = b"\r" if start[1] == b"\r" else b"\n"
    order: _Order | None = None
    elements: list[_Element] = []
    position = start.end()
    while True:
        end = data.find(ending, position, _LONGEST_HEADER)
        if end < 0:
            raise refuse("its header has no end ('end_header')")
        line = data[position:end].decode("latin-1").strip()
        position = end + 1
        words = line.split()
        if words == ["end_header"]:
            break
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in _BYTE_ORDERS and words[2] == "1.0":
            if order is not None:
                raise refuse("two lines of its format")
            order = _BYTE_ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"[0-9]{1,12}", words[2]):
            if any(element.name == words[1] for element in elements):
                raise refuse(f"two elements of the name {words[1][:40]!r}")
            elements.append(_Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements:
            elements[-1].properties.append(_read_property(words, order or "=", elements[-1], refuse))
        else:
            raise refuse(f"its header has a line that is not known: {line[:60]!r}")
    if order is None:
        raise refuse("its header has no line 'format'")
    return order, elements, position


def _read_property(words: list[str], order: _Order, element: _Element, refuse: _Refuse) -> _Property:
    is_list = words[1:2] == ["list"]
    if len(words) != (5 if is_list else 3) or not all(word in _TYPES for word in words[2 if is_list else 1 : -1]):
        raise refuse(f"its header has a property of no known type: {' '.join(words)[:60]!r}")
    dtypes = [np.dtype(_TYPES[word]).newbyteorder(order) for word in words[2 if is_list else 1 : -1]]
    if is_list and dtypes[0].kind not in "iu":
        raise refuse(f"the lengths of the list {words[-1][:40]!r} are of type {words[2]}; expected whole numbers")
    if any(prop.name == words[-1] for prop in element.properties):
        raise refuse(f"{element.name[:40]} has two properties of the name {words[-1][:40]!r}")
    return _Property(words[-1], dtypes[-1], dtypes[0] if is_list else None)


def _read_ascii(elements: list[_Element], body: bytes, refuse: _Refuse) -> dict[str, dict[str, _Column]]:
    """Each item has a line of its own, so that a number too many or too few cannot shift those after it."""
    lines = [line for line in body.splitlines() if line.strip()]
    expected = sum(element.length for element in elements)
    if len(lines) != expected:
        raise refuse(f"{len(lines)} lines of data; expected {expected}, one for each item of its header")
    columns: dict[str, dict[str, _Column]] = {}
    first = 0
    for element in elements:
        rows = [line.split() for line in lines[first : first + element.length]]
        columns[element.name] = _ascii_columns(element, rows, refuse)
        first += element.length
    return columns


def _ascii_columns(element: _Element, rows: list[list[bytes]], refuse: _Refuse) -> dict[str, _Column]:
    words: list[list[bytes]] = [[] for _ in element.properties]
    sizes: list[list[int]] = [[] for _ in element.properties]
    for number, row in enumerate(rows):
        position = 0
        for index, prop in enumerate(element.properties):
            size = 1
            if prop.count_dtype is not None:
                text = row[position] if position < len(row) else b""
                if not text.isdigit() or len(text) > 12:
                    raise refuse(f"{element.name} {number}: a list of length {_show(text)}")
                size, position = int(text), position + 1
                sizes[index].append(size)
            words[index] += row[position : position + size]
            position += size
        if position != len(row):
            raise refuse(f"{element.name} {number}: {len(row)} numbers in its line; expected {position}")
    columns: dict[str, _Column] = {}
    for prop, texts, lengths in zip(element.properties, words, sizes, strict=True):
        values = _parse_words(texts, prop, element, refuse)
        columns[prop.name] = values if prop.count_dtype is None else _List(np.array(lengths, dtype=np.int64), values)
    return columns


def _parse_words(words: list[bytes], prop: _Property, element: _Element, refuse: _Refuse) -> NDArray[np.generic]:
    parse = float if prop.dtype.kind == "f" else int
    try:
        if any(b"_" in word for word in words):  # which Python takes for a number: 1_000
            raise ValueError
        # As wide as can be: a position is not rounded to the type that the header says.
        return np.array([parse(word) for word in words], dtype=np.float64 if parse is float else np.int64)
    except (ValueError, OverflowError):
        raise refuse(f"{prop.name[:40]} of an element {element.name[:40]!r} is no number of its type") from None


def _read_binary(elements: list[_Element], body: bytes, refuse: _Refuse) -> dict[str, dict[str, _Column]]:
    columns: dict[str, dict[str, _Column]] = {}
    position = 0
    for element in elements:
        columns[element.name], position = _binary_columns(element, body, position, refuse)
    if body[position:].strip():
        raise refuse(f"{len(body) - position} bytes more than its header says")
    return columns


def _binary_columns(element: _Element, body: bytes, position: int, refuse: _Refuse) -> tuple[dict[str, _Column], int]:
    cut = refuse(f"it is cut short: fewer bytes than the {element.length} items of {element.name[:40]!r} have")
    smallest = sum((prop.count_dtype or prop.dtype).itemsize for prop in element.properties)
    if element.length * smallest > len(body) - position:
        raise cut
    if not element.length or not element.properties:
        return {prop.name: _empty(prop) for prop in element.properties}, position
    # All lists as long as those of the first item, as in most files?
    lengths = _binary_lengths(element, body, position)
    if lengths is None:
        raise cut
    fields: list[tuple[str, np.dtype[np.generic]] | tuple[str, np.dtype[np.generic], tuple[int]]] = []
    for index, (prop, length) in enumerate(zip(element.properties, lengths, strict=True)):
        if prop.count_dtype is None:
            fields.append((f"v{index}", prop.dtype))
        else:
            fields += [(f"n{index}", prop.count_dtype), (f"v{index}", prop.dtype, (length,))]
    layout = np.dtype(fields)
    if element.length * layout.itemsize <= len(body) - position:
        table = np.frombuffer(body, layout, element.length, position)
        counted = [index for index, prop in enumerate(element.properties) if prop.count_dtype is not None]
        if all((table[f"n{index}"] == lengths[index]).all() for index in counted):
            columns: dict[str, _Column] = {}
            for index, prop in enumerate(element.properties):
                values = table[f"v{index}"]
                columns[prop.name] = (
                    values
                    if prop.count_dtype is None
                    else _List(np.full(element.length, lengths[index], np.int64), values.reshape(-1))
                )
            return columns, position + element.length * layout.itemsize
    return _binary_rows(element, body, position, refuse, cut)


def _binary_lengths(element: _Element, body: bytes, position: int) -> list[int] | None:
    """The lengths of the lists of the item that starts here (1 for single numbers); None: it is cut short."""
    lengths = []
    for prop in element.properties:
        length = 1
        if prop.count_dtype is not None:
            if position + prop.count_dtype.itemsize > len(body):
                return None
            length = int(np.frombuffer(body, prop.count_dtype, 1, position)[0])
            position += prop.count_dtype.itemsize
        position += length * prop.dtype.itemsize
        if length < 0 or position > len(body):
            return None
        lengths.append(length)
    return lengths


def _binary_rows(
    element: _Element, body: bytes, position: int, refuse: _Refuse, cut: FocusError
) -> tuple[dict[str, _Column], int]:
    """Lists of different lengths, item by item."""
    parts: list[list[bytes]] = [[] for _ in element.properties]
    sizes: list[list[int]] = [[] for _ in element.properties]
    # (bytes of the length, of a number, how the length is read)
    plan = [
        (
            0 if prop.count_dtype is None else prop.count_dtype.itemsize,
            prop.dtype.itemsize,
            "big" if (prop.count_dtype or prop.dtype).str[0] == ">" else "little",
            prop.count_dtype is not None and prop.count_dtype.kind == "i",
        )
        for prop in element.properties
    ]
    for number in range(element.length):
        for index, (count_bytes, item_bytes, order, signed) in enumerate(plan):
            size = 1
            if count_bytes:
                end = position + count_bytes
                if end > len(body):
                    raise cut
                size = int.from_bytes(body[position:end], order, signed=signed)  # type: ignore[arg-type]
                if size < 0:
                    raise refuse(f"{element.name[:40]} {number}: a list of length {size}")
                position = end
                sizes[index].append(size)
            end = position + size * item_bytes
            if end > len(body):
                raise cut
            parts[index].append(body[position:end])
            position = end
    columns: dict[str, _Column] = {}
    for prop, part, lengths in zip(element.properties, parts, sizes, strict=True):
        values = np.frombuffer(b"".join(part), prop.dtype)
        columns[prop.name] = values if prop.count_dtype is None else _List(np.array(lengths, dtype=np.int64), values)
    return columns, position


def _empty(prop: _Property) -> _Column:
    values = np.empty(0, prop.dtype)
    return values if prop.count_dtype is None else _List(np.empty(0, np.int64), values)


def _vertices(columns: dict[str, dict[str, _Column]], refuse: _Refuse) -> NDArray[np.float64]:
    found = [columns.get("vertex", {}).get(axis) for axis in "xyz"]
    axes = [column for column in found if isinstance(column, np.ndarray)]
    if len(axes) < 3:
        raise refuse("its header has no vertices of x, y and z")
    return np.stack([axis.astype(np.float64) for axis in axes], axis=1)


def _faces(columns: dict[str, dict[str, _Column]], refuse: _Refuse) -> NDArray[np.int64]:
    triangles = [np.empty((0, 3), np.int64)]
    for element in _SURFACES:
        properties = columns.get(element)
        if properties is None:
            continue
        names = [name for name in _CORNERS if name in properties]
        corners = properties[names[0]] if len(names) == 1 else None
        if not isinstance(corners, _List) or corners.values.dtype.kind not in "iu":
            raise refuse(
                f"expected one list of whole numbers {' or '.join(_CORNERS)} for each {element}, got "
                f"{', '.join(properties) or 'no property'}"[:200]
            )
        triangles.append(_fans(corners, refuse) if element == "face" else _strips(corners))
    return np.concatenate(triangles)


def _fans(corners: _List, refuse: _Refuse) -> NDArray[np.int64]:
    sizes, values = corners.sizes, corners.values.astype(np.int64)
    if (sizes < 3).any():
        first = int((sizes < 3).argmax())
        raise refuse(f"face {first} has {sizes[first]} corners; expected at least 3")
    starts = np.cumsum(sizes) - sizes
    face = np.repeat(np.arange(len(sizes)), sizes - 2)
    second = np.arange(len(face)) + 2 * face + 1  # each face before has two corners more than triangles
    fans: NDArray[np.int64] = values[np.stack([starts[face], second, second + 1], axis=1)]
    return fans


def _strips(corners: _List) -> NDArray[np.int64]:
    """Every third corner makes a triangle with the two before it, every other one turned; -1 starts anew.

    Triangles with a corner twice, by which strips go round corners, have no surface and are left out.
    """
    parts = [np.empty((0, 3), np.int64)]
    values, start = corners.values.astype(np.int64), 0
    for size in corners.sizes.tolist():
        strip = values[start : start + size]
        start += size
        for piece in np.split(strip, np.flatnonzero(strip == -1)):
            piece = piece[piece != -1]
            if len(piece) < 3:
                continue
            faces = np.stack([piece[:-2], piece[1:-1], piece[2:]], axis=1)
            faces[1::2] = faces[1::2, [1, 0, 2]]
            distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
            parts.append(faces[distinct])
    return np.concatenate(parts)


def _show(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))
