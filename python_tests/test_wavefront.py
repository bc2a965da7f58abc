"""Wavefront OBJ files as they are found: read right, or refused with the line; never with other polygons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focus.errors import FocusError
from focus.wavefront import parse_wavefront

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
POSITIONS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
FAN = [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    "data",
    [
        (SQUARE + "f 1 2 3 4\n").encode(),
        (SQUARE + "f 1 2 3 4").encode(),
        (SQUARE + "f 1 2 3 4\n").encode("utf-8-sig"),
        (SQUARE + "f 1 2 3 4\n").encode("utf-16"),
        (SQUARE + "f 1 2 3 4\n").replace("\n", "\r\n").encode(),
        (SQUARE + "f 1 2 3 4\n").replace("\n", "\r").encode(),
        "\n".join(" \t" + line for line in (SQUARE + "f 1 2 3 4\n").splitlines()).encode(),
        (SQUARE + "f 1 2 3 4\n").replace(" ", "\t ").encode(),
        (SQUARE + "f 1 2 \\\n 3 \\\n4\n").encode(),
        (SQUARE + "f 1 2 \\\r\n 3 4\r\n").encode(),
        ("# C:\\models\\\n" + SQUARE + "f 1 2 3 4 # square C:\\\n# the end").encode(),
        (SQUARE + "f 1 2 3 4 # square\n").replace("0\n", "0#point\n").encode(),
        (SQUARE + "f -4 -3 -2 -1\nv 9 9 9\n").encode()[:-8],
        b"v 0 0 0\nv 1 0 0\nvn 0 0 1\nv 1 1 0\nvt 0 0\nv 0 1 0\nf 1//1 2//1 3//-1 4//1\n",
        (SQUARE + "vt 0 0\nvt 1\nvt 1 1 0\nf 1/1 2/2 3/3 4/-3\n").encode(),
        SQUARE.replace("0\n", "0 0.5 0.25 1\n").encode() + b"f 1 2 3 4\n",
        SQUARE.replace("0\n", "0 1\n").encode() + b"f 1 2 3 4\n",
        ("mtllib a b.mtl\no head\ng face #1\ns off\nvp 0 1\nvn 0 0 1\n" + SQUARE + "l 1 2\np 1\nf 1 2 3 4\n").encode(),
        ("# caf\xe9\n" + SQUARE + "usemtl caf\xe9\nf 1 2 3 4\n").encode("latin-1"),
        ("\n\n" + SQUARE + "f +1 2 3 4\n").encode(),
    ],
)
def test_the_same_square(data: bytes) -> None:
    mesh = parse_wavefront(data, "a.obj")
    assert mesh.vertices.tolist() == POSITIONS
    assert mesh.faces.tolist() == FAN


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("f 1 2", r"line 5: a polygon of 2 corners"),
        ("f", r"line 5: a polygon of 0 corners"),
        ("f 1 2 5", r"line 5: a face names vertex 5 \(numbered from 1\) of 4, 4 of them before it"),
        ("f 1 2 -5", r"line 5: a face names vertex -5"),
        ("f 0 1 2", r"line 5: a face names vertex 0"),
        ("f 1 2 3\nf 1 2 9" + "9" * 30, r"line 6: a face names vertex 99"),
        ("f 1 2 3.0", r"line 5: '3\.0' is no corner"),
        ("f 1/1/1/1 2 3", r"is no corner"),
        ("f 1 2 1_0", r"'1_0' is no corner"),
        ("v 1 2", r"line 5: damaged: a vertex of 2 numbers; expected x y z"),
        ("v 1 2 3 4 5", r"a vertex of 5 numbers"),
        ("v 1 2 x", r"line 5: a vertex: 'x' is not a number"),
        ("v 1 2 1_000", r"a vertex: '1_000' is not a number"),
        ("v 1 2 3 0.5", r"line 5: a vertex with a weight"),
        ("vt", r"a texture coordinate of 0 numbers"),
        ("V 1 2 3", r"line 5: 'V': no statement"),
        ("\ufeffv 1 2 3", r"line 5: '.ufeffv': no statement"),
        ("v1 2 3", r"'v1': no statement"),
        ("surf 0 1 0 1 1 2 3 4", r"free-form curves and surfaces \('surf'\)"),
        ("curv 0 1 1 2", r"free-form"),
        ("call other.obj", r"'call': no statement"),
        ("csh rm -rf x", r"'csh': no statement"),
        ("3 4 0", r"'3': no statement"),
        ("f 1 2 \\ \n3", r"line 6: '3': no statement"),
    ],
)
def test_what_is_not_read_is_refused_with_its_line(lines: str, reason: str) -> None:
    with pytest.raises(FocusError, match=r"a\.obj: .*" + reason):
        parse_wavefront((SQUARE + lines).encode(), "a.obj")


def test_utf_16_that_is_none_is_named() -> None:
    with pytest.raises(FocusError, match=r"a\.obj: starts as UTF-16"):
        parse_wavefront(b"\xff\xfe\x00", "a.obj")


def test_materials_and_texture_follow_the_triangles() -> None:
    text = SQUARE + "vt 0 0\nvt 1 0\nvt 1 1\nf 1 2 3\nusemtl skin  tone\nf 1/1 2/2 3/3 4/2\nusemtl eye\nf 1/1 3 4/2\n"
    mesh = parse_wavefront((text + "usemtl skin  tone\nf 2 3 4\n").encode(), "a.obj")
    assert [mesh.materials[index] for index in mesh.face_materials] == ["", *["skin  tone"] * 2, "eye", "skin  tone"]
    assert mesh.texture.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert mesh.texture_faces.tolist() == [[-1, -1, -1], [0, 1, 2], [0, 2, 1], [0, -1, 1], [-1, -1, -1]]


def test_texture_coordinates_that_are_missing_keep_no_surface_from_being_read() -> None:
    mesh = parse_wavefront((SQUARE + "vt 0 0\nf 1/1 2/2 3/-1\nf 1/-9 2 3/0\n").encode(), "a.obj")
    assert mesh.faces.tolist() == [[0, 1, 2]] * 2
    assert mesh.texture_faces.tolist() == [[0, 1, 0], [1, -1, -1]]


def test_an_empty_file_has_no_polygons() -> None:
    mesh = parse_wavefront(b"# nothing\n", "a.obj")
    assert mesh.vertices.shape == (0, 3)
    assert mesh.faces.shape == mesh.texture_faces.shape == (0, 3)


@given(
    st.lists(st.integers(3, 6), min_size=1, max_size=5),
    st.integers(6, 9),
    st.randoms(use_true_random=False),
)
def test_any_style_of_writing_means_the_same(sizes: list[int], count: int, random: np.random.Generator) -> None:
    """Forms of corners, relative numbers, separators, comments and continued lines change nothing."""
    points = [[float(i), i / 3, -float(i)] for i in range(count)]
    polygons = [[random.randrange(count) for _ in range(size)] for size in sizes]  # type: ignore[attr-defined]
    pick = random.choice  # type: ignore[attr-defined]
    lines = [pick(["v ", " v\t", "v  "]) + " ".join(map(repr, point)) for point in points]
    lines += ["vt 0 0"]
    for polygon in polygons:
        corners = [str(pick([vertex + 1, vertex - count])) + pick(["", "/1", "//1", "/-1/1"]) for vertex in polygon]
        lines.append(pick(["f ", "\tf "]) + pick([" ", "\t", " \\\n "]).join(corners) + pick(["", " # f 1 2 3", "  "]))
    text = pick(["\n", "\r\n"]).join(lines).replace("\\\n", pick(["\\\n", "\\\r\n"]))
    mesh = parse_wavefront(text.encode(pick(["utf-8", "utf-8-sig", "utf-16"])), "a.obj")
    assert mesh.vertices.tolist() == points
    expected = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    assert mesh.faces.tolist() == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for content in (data, b"v 0 0 0\n" * 3 + b"f 1 2 3 " + data):
        try:
            mesh = parse_wavefront(content, "a.obj")
        except FocusError:
            continue
        assert mesh.faces.size == 0 or 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices)
