"""Meshes and landmarks in files, as the NoW protocol reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from focus.errors import FocusError
from focus.eval.now.files import read_landmarks, read_mesh, read_picked_points


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    declared = f'<!DOCTYPE PickedPoints [<!ENTITY e SYSTEM "{tmp_path / "secret"}">]>'
    points = "".join(f'<point active="1" name="{i}" x="{i}" y="0" z="0"/>' for i in range(7))
    (tmp_path / "a.pp").write_text(f"<!DOCTYPE PickedPoints><PickedPoints>{points}</PickedPoints>")
    assert read_picked_points(tmp_path / "a.pp").shape == (7, 3)
    (tmp_path / "a.pp").write_text(f"{declared}<PickedPoints>{points}</PickedPoints>")
    with pytest.raises(FocusError, match="declares XML entities"):
        read_picked_points(tmp_path / "a.pp")


def test_meshes_keep_their_vertices(tmp_path: Path) -> None:
    """Seams of a texture split nothing; colours, polygons and PLY are read."""
    text = "mtllib x\nv 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 1 0 0\nv 0 1 0 1 0 0\nvt 0 0\nf 1/1/1 2//1 3 4\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    rows = "0 0 0\n1 0 0\n1 1 0\n3 0 1 2\n"
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    (tmp_path / "a.ply").write_text(
        f"{header}element face 1\nproperty list uchar int vertex_indices\nend_header\n{rows}"
    )
    assert read_mesh(tmp_path / "a.ply").vertices.shape == (3, 3)
    (tmp_path / "b.ply").write_text(header)
    with pytest.raises(FocusError, match="PLY"):
        read_mesh(tmp_path / "b.ply")


def test_text_landmarks_with_commas_or_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,2,3\n" * 3 + "1 2 3\n" * 4)
    assert read_landmarks(tmp_path / "a.txt").shape == (7, 3)
