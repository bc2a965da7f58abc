"""Meshes and landmarks in files, as the NoW protocol reads them: right, or refused in words; never another mesh."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from focus.errors import FocusError
from focus.eval.now.dataset import read_image_list
from focus.eval.now.files import read_landmarks, read_mesh, read_picked_points
from focus.eval.now.ply import parse_ply

HEADER = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
FACES = "element face {}\nproperty list uchar int vertex_indices\nend_header\n"
CODES = {
    name: code
    for names, code in (
        ("char int8", "b"),
        ("uchar uint8", "B"),
        ("short int16", "h"),
        ("ushort uint16", "H"),
        ("int int32", "i"),
        ("uint uint32", "I"),
        ("float float32", "f"),
        ("double", "d"),
    )
    for name in names.split()
}


def write_ply(
    kind: str, elements: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]], ending: str = "\n"
) -> bytes:
    """(name, properties, rows) of each element; a list in a row is the content of a list property."""
    header = ["ply", f"format {kind} 1.0", "comment by hand", "obj_info none"]
    for name, properties, rows in elements:
        header += [f"element {name} {len(rows)}", *(f"property {prop}" for prop in properties)]
    data = (ending.join([*header, "end_header"]) + ending).encode()
    order = ">" if kind == "binary_big_endian" else "<"
    for _, properties, rows in elements:
        for row in rows:
            words = []
            for prop, value in zip(properties, row, strict=True):
                types = prop.split()[:-1]
                values = [value] if types[0] != "list" else [len(value), *value]  # type: ignore[arg-type, misc]
                codes = types if types[0] != "list" else [types[1], *[types[2]] * len(value)]  # type: ignore[arg-type]
                if kind == "ascii":
                    words += [repr(number) for number in values]
                else:
                    data += b"".join(
                        struct.pack(order + CODES[code], number) for code, number in zip(codes, values, strict=True)
                    )
            if kind == "ascii":
                data += (" ".join(words) + ending).encode()
    return data


KINDS = ("ascii", "binary_little_endian", "binary_big_endian")


@st.composite
def meshes(draw: st.DrawFn) -> tuple[bytes, list[list[float]], list[list[int]]]:
    """A PLY file in any of its forms, its vertices, and its polygons."""
    kind, ending = draw(st.sampled_from(KINDS)), draw(st.sampled_from(["\n", "\r\n"]))
    count = draw(st.integers(3, 8))
    points = [[float(i), i * 0.5, float(-i)] for i in range(count)]
    sizes = draw(st.one_of(st.lists(st.sampled_from([3, 4]), max_size=6), st.lists(st.integers(3, 6), max_size=6)))
    pick = random.Random(draw(st.integers(0, 999)))
    polygons = [[pick.randrange(count) for _ in range(size)] for size in sizes]
    extra = pick.random() < 0.5
    vertex = [f"{draw(st.sampled_from(['float', 'double', 'float32']))} {axis}" for axis in "xyz"]
    rows: list[list[object]] = [list(point) for point in points]
    if extra:
        vertex = ["uchar red", vertex[0], "list uchar float weights", *vertex[1:], "short label"]
        rows = [[7, p[0], [0.5] * pick.randrange(3), p[1], p[2], -2] for p in points]
    length, index = draw(st.sampled_from(["uchar", "int", "ushort", "uint8"])), draw(st.sampled_from(["int", "uint"]))
    corners = f"list {length} {index} {draw(st.sampled_from(['vertex_indices', 'vertex_index']))}"
    face = ("face", [corners], [[polygon] for polygon in polygons])
    if extra:
        face = (
            "face",
            ["uchar flags", corners, "list uchar float texcoord"],
            [[1, polygon, [0.25] * pick.randrange(7)] for polygon in polygons],
        )
    elements = [("vertex", vertex, rows), face]
    if pick.random() < 0.3:
        elements.reverse()
    if pick.random() < 0.3:
        elements.insert(pick.randrange(3), ("edge", ["int vertex1", "list uchar int more"], [[1, [2, 3]], [4, []]]))
    data = write_ply(kind, elements, ending)
    return (b"\xef\xbb\xbf" if pick.random() < 0.2 else b"") + data, points, polygons


@given(meshes())
@settings(max_examples=300, deadline=None)
def test_any_form_of_ply_gives_its_vertices_and_fans(mesh: tuple[bytes, list[list[float]], list[list[int]]]) -> None:
    data, points, polygons = mesh
    vertices, faces = parse_ply(data, "a.ply")
    assert vertices.tolist() == points
    assert faces.tolist() == [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]


@given(meshes(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_ply_is_read_or_refused(
    mesh: tuple[bytes, list[list[float]], list[list[int]]], data: st.DataObject
) -> None:
    content = bytearray(mesh[0])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        vertices, faces = parse_ply(bytes(content), "a.ply")
    except FocusError:
        return
    assert vertices.shape[1:] == faces.shape[1:] == (3,)


@pytest.mark.parametrize("kind", KINDS)
def test_strips_are_unrolled(kind: str) -> None:
    vertex = ("vertex", ["float x", "float y", "float z"], [[i, 0.0, 0.0] for i in range(6)])
    strips = ("tristrips", ["list int int vertex_indices"], [[[0, 1, 2, 3, -1, 2, 3, 4, 4, 5]], [[3, 4, 5]]])
    _, faces = parse_ply(write_ply(kind, [vertex, strips]), "a.ply")
    assert faces.tolist() == [[0, 1, 2], [2, 1, 3], [2, 3, 4], [3, 4, 5]]


def test_a_mesh_of_trimesh_is_read_back() -> None:
    box = trimesh.creation.box()
    for encoding in ("ascii", "binary"):
        data = trimesh.exchange.ply.export_ply(box, encoding=encoding, vertex_normal=True)
        vertices, faces = parse_ply(data, "a.ply")
        np.testing.assert_allclose(vertices, box.vertices, atol=1e-6)
        assert np.array_equal(faces, box.faces)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("off\n", "does not start with the line 'ply'"),
        (HEADER, "its header has no end"),
        ("ply\nelement vertex 0\nend_header\n", "no line 'format'"),
        ("ply\nformat ascii 2.0\nend_header\n", "a line that is not known: 'format ascii 2.0'"),
        ("ply\nformat ascii 1.0\nsomething else\nend_header\n", "a line that is not known: 'something else'"),
        ("ply\nformat ascii 1.0\nproperty float x\nend_header\n", "a line that is not known"),
        (HEADER + "element face -1\nend_header\n", "a line that is not known: 'element face -1'"),
        (HEADER + "property float x\n" + FACES.format(0) + SQUARE, "vertex has two properties of the name 'x'"),
        (HEADER + "element vertex 1\n" + FACES.format(0) + SQUARE, "two elements of the name 'vertex'"),
        (HEADER + "property half w\n" + FACES.format(0), "a property of no known type: 'property half w'"),
        (HEADER.replace("float z", "float depth") + FACES.format(0) + SQUARE, "no vertices of x, y and z"),
        (HEADER + FACES.format(1) + SQUARE + "3 0 1\n", "face 0: 3 numbers in its line; expected 4"),
        (HEADER + FACES.format(1) + SQUARE + "3 0 1 2 3\n", "face 0: 5 numbers in its line; expected 4"),
        (HEADER + FACES.format(1) + SQUARE + "2 0 1\n", "face 0 has 2 corners"),
        (HEADER + FACES.format(1) + SQUARE + "-1\n", "a list of length '-1'"),
        (HEADER + FACES.format(1) + SQUARE + "3 0 1 1.5\n", "vertex_indices of an element 'face' is no number"),
        (HEADER + FACES.format(2) + SQUARE + "3 0 1 2\n", "5 lines of data; expected 6"),
        (HEADER + FACES.format(1) + SQUARE + "3 0 1 2\n3 0 2 3\n", "6 lines of data; expected 5"),
        (HEADER + FACES.format(1) + SQUARE.replace("1 1 0", "1 1") + "3 0 1 2\n", "vertex 2: 2 numbers"),
        (HEADER + FACES.format(1) + SQUARE.replace("1 1 0", "1 1 x") + "3 0 1 2\n", "z of an element 'vertex'"),
        (HEADER + FACES.format(1).replace("uchar", "float") + SQUARE, "are of type float; expected whole numbers"),
        (HEADER + FACES.format(1).replace(" int ", " float ") + SQUARE + "3 0 1 2\n", "one list of whole numbers"),
        (HEADER + FACES.format(1).replace("vertex_indices", "corners") + SQUARE + "3 0 1 2\n", "got corners"),
        (
            HEADER + FACES.format(1).replace("face", "polygon") + SQUARE + "3 0 1 2\n",
            "polygons in the element 'polygon'",
        ),
    ],
)
def test_what_is_not_read_is_refused_in_words(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text(content)
    with pytest.raises(FocusError) as caught:
        read_mesh(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as a PLY file: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 4)])
def test_another_amount_of_data_than_the_header_says_is_refused(kind: str, sizes: tuple[int, int]) -> None:
    vertex = ("vertex", ["float x", "float y", "float z"], [[i, 0.0, 0.0] for i in range(4)])
    face = ("face", ["list uchar int vertex_indices"], [[list(range(size))] for size in sizes])
    data = write_ply(kind, [vertex, face])
    assert parse_ply(data + b"\n", "a.ply")[1].shape == (sum(sizes) - 4, 3)
    with pytest.raises(FocusError, match="4 bytes more than its header says"):
        parse_ply(data + b"\0\0\0\1", "a.ply")
    for cut in (1, 10, 20, 21, 40):
        with pytest.raises(FocusError, match="cut short: fewer bytes"):
            parse_ply(data[:-cut], "a.ply")


def test_sizes_that_a_header_makes_up_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    for kind in KINDS:
        text = (HEADER + FACES.format(1)).replace("ascii", kind).replace("vertex 4", "vertex 999999999999")
        path.write_bytes(text.encode() + b"\0" * 60)
        with pytest.raises(FocusError, match=r"cut short|lines of data"):
            read_mesh(path)


def test_faces_of_vertices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    for index in ("-1", "4"):
        path.write_text(HEADER + FACES.format(1) + SQUARE + f"3 0 1 {index}\n")
        with pytest.raises(FocusError, match=r"faces name vertices .* the file has 4"):
            read_mesh(path)


def test_meshes_keep_their_vertices(tmp_path: Path) -> None:
    """Seams of a texture split nothing; colours and polygons are read."""
    text = "mtllib x\nv 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 1 0 0\nv 0 1 0 1 0 0\nvt 0 0\nf 1/1/1 2//1 3 4\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    declared = f'<!DOCTYPE PickedPoints [<!ENTITY e SYSTEM "{tmp_path / "secret"}">]>'
    points = "".join(f'<point active="1" name="{i}" x="{i}" y="0" z="0"/>' for i in range(7))
    text = f"<!DOCTYPE PickedPoints><PickedPoints>{points}</PickedPoints>"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.pp").write_text(text, encoding=encoding)
        assert read_picked_points(tmp_path / "a.pp").shape == (7, 3)
    (tmp_path / "a.pp").write_text(f"{declared}<PickedPoints>{points}</PickedPoints>")
    with pytest.raises(FocusError, match="declares XML entities"):
        read_picked_points(tmp_path / "a.pp")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_landmarks_with_commas_or_spaces(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("# eyes\r\n" + "1,2,3\r\n" * 3 + "\t1 2 3 # nose\n" * 4, encoding=encoding)
    assert read_landmarks(path).tolist() == [[1, 2, 3]] * 7
    path.write_text("[" * 100_000)
    with pytest.raises(FocusError, match="cannot be read as landmarks") as refusal:
        read_landmarks(path)
    assert len(str(refusal.value)) < 1000 + len(str(path))
    path.write_text("1;2;3\n" * 7)
    with pytest.raises(FocusError, match="three numbers, apart by spaces or commas"):
        read_landmarks(path)


def test_arrays_of_any_kind_of_numbers(tmp_path: Path) -> None:
    points = np.arange(21.0).reshape(7, 3)
    path = tmp_path / "a.npy"
    for dtype in ("<f4", ">f4", ">f8", "<f2", "<i4", ">i2", "u1"):
        for array in (points.astype(dtype), np.asfortranarray(points.astype(dtype))):
            np.save(path, array)
            assert np.array_equal(read_landmarks(path), points)


def test_arrays_that_are_not_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"

    def write(shape: tuple[int, ...], descr: str = "<f8", size: int = 168) -> None:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        path.write_bytes(file.getvalue() + b"\0" * size)

    for shape, descr, size in (
        ((1 << 40, 3), "<f8", 168),
        ((7, 3), "<f8", 160),
        ((7, 3), "<f8", 176),
        ((7, 3), "<c16", 336),
        ((7, 3), "|O", 168),
        ((7, 3), "<U2", 168),
        ((-7, -3), "<f8", 168),
    ):
        write(shape, descr, size)
        with pytest.raises(FocusError, match=r"a\.npy: cannot be read as landmarks"):
            read_landmarks(path)


def test_long_lines_are_quoted_in_part(tmp_path: Path) -> None:
    for text in ("[" * 5000, "/".join(["a" * 5000] * 3) + "\n" + "/".join(["a" * 5000] * 3)):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(FocusError) as caught:
            read_image_list(tmp_path / "a.txt")
        assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_signalling_nans_are_refused_without_a_warning(tmp_path: Path) -> None:
    nan = np.array([0x7F800001], "<u4").view("<f4")
    np.save(tmp_path / "a.npy", np.repeat(nan, 21).reshape(7, 3))
    with pytest.raises(FocusError, match="not finite"):
        read_landmarks(tmp_path / "a.npy")
    vertex = ("vertex", ["float x", "float y", "float z"], [[0.0, 0.0, 0.0]] * 3)
    data = write_ply("binary_little_endian", [vertex, ("face", ["list uchar int vertex_index"], [[[0, 1, 2]]])])
    start = data.index(b"end_header\n") + len(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(data[:start] + nan.tobytes() + data[start + 4 :])
    with pytest.raises(FocusError, match="1 of 3 vertices are not finite"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_mesh, "a.obj"),
        (read_mesh, "a.ply"),
        (read_landmarks, "a.npy"),
        (read_landmarks, "a.txt"),
        (read_picked_points, "a.pp"),
        (read_image_list, "list.txt"),
    ],
)
def test_what_is_no_ordinary_file_is_refused_at_once(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(FocusError, match="FIFO"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(FocusError, match="character device"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FocusError, match="folder"):
        read(path)
