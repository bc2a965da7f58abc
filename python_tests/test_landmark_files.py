"""Landmarks of other programs: one photo in a file of its own, and folders of such files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from focus.data import read_landmarks, write_image
from focus.data.landmark_files import _PARTS
from focus.data.landmarks import Skip, find_faces
from focus.data.mesh_points import ibug_from_mesh
from focus.errors import FocusError

POINTS = np.random.default_rng(5).uniform(20, 180, (68, 2)).round(3)
FIVE = POINTS[:5]
MESH = np.random.default_rng(6).uniform(0.1, 0.9, (478, 2)).round(6)


def pts(points: NDArray[np.float64] = POINTS, count: int | None = None) -> str:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points + 1)
    return f"version: 1\nn_points:  {len(points) if count is None else count}\n{{\n{lines}\n}}\n"


def plain(points: NDArray[np.float64], separator: str = " ") -> str:
    return "\n".join(f"{x:.3f}{separator}{y:.3f}" for x, y in points) + "\n"


def objects(points: NDArray[np.float64]) -> list[dict[str, float]]:
    return [{"x": x, "y": y, "z": 0.1} for x, y in points.tolist()]


PARTS = {part: POINTS[list(indices)].tolist() for part, indices in _PARTS.items()}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.pts", pts(), POINTS),
        ("a.PTS", pts().replace("\n", "\r\n"), POINTS),
        ("a.pts", pts().replace("n_points:  68\n", ""), POINTS),
        ("a.pts", pts(FIVE), FIVE),
        ("a.txt", plain(FIVE), FIVE),
        ("a.txt", plain(FIVE, "\t"), FIVE),
        ("a.txt", plain(POINTS, ", "), POINTS),
        ("a.json", json.dumps(POINTS.tolist()), POINTS),
        ("a.json", json.dumps({"landmarks": POINTS.tolist(), "score": 0.9}), POINTS),
        ("a.json", json.dumps([{"box": [1, 2, 3, 4], "points": objects(POINTS)}]), POINTS),
        ("a.json", json.dumps({"faces": [{"landmarks": objects(FIVE)}]}), FIVE),
        ("a.json", json.dumps([PARTS]), POINTS),
        ("a.json", json.dumps((MESH * (200, 100)).tolist()), ibug_from_mesh(MESH * (200, 100))),
    ],
)
def test_one_face_in_a_file(name: str, text: str, expected: NDArray[np.float64], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    ((row,), skipped) = read_landmarks(tmp_path / name)
    assert (row.name, row.fractions, skipped) == ("a", False, [])
    np.testing.assert_allclose(row.points, expected, atol=1e-9)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda faces: {"face_landmarks": faces},
        lambda faces: {"faceLandmarks": faces, "faceBlendshapes": [], "facialTransformationMatrixes": []},
        lambda faces: {"multi_face_landmarks": [{"landmark": face} for face in faces]},
        lambda faces: {"sub/b.png": faces},
        lambda faces: [{"image": "sub/b.png", "landmarks": faces[0]}],
    ],
)
def test_fractions_of_mediapipe_become_pixels_of_the_photo(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_image(tmp_path / "sub" / "b.png", np.zeros((100, 200, 3), dtype=np.uint8))
    path = tmp_path / "sub" / "b.json"
    path.write_text(json.dumps(wrap([objects(MESH)])))
    for table in (read_landmarks(path), read_landmarks(tmp_path)):
        assert table.points == {}  # nobody knows its pixels without the photo
        (row,) = table.rows
        assert row.fractions
        expected = ibug_from_mesh(MESH * (200, 100) - 0.5)
        np.testing.assert_allclose(row.on(tmp_path / "sub" / "b.png"), expected)
        folder = tmp_path if "/" in row.name else tmp_path / "sub"
        (face,) = find_faces(folder, table.rows)
        assert not isinstance(face, Skip)
        np.testing.assert_allclose(face.points, expected)


def test_objects_of_photos(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"a.jpg": POINTS.tolist(), "b.jpg": [POINTS.tolist(), (POINTS + 1).tolist()]}))
    rows, _ = read_landmarks(path)
    assert [row.name for row in rows] == ["a.jpg", "b.jpg", "b.jpg"]
    np.testing.assert_allclose(rows[2].points, POINTS + 1)


def test_a_folder_of_files(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.jpg", "b.PNG", "deep/c.webp", "deep/d.png", "e.f.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    (photos / "a.pts").write_text(pts())
    (photos / "deep" / "c.json").write_text(json.dumps(POINTS.tolist()))
    for name in ("detections/b.txt", "deep/detections/d.txt"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text(plain(FIVE))
    (photos / "e.f.pts").write_text(pts(POINTS + 2))
    (photos / "gone.pts").write_text(pts())
    (photos / "readme.txt").write_text("about these photos")
    (photos / ".hidden.json").write_text("{")
    table = read_landmarks(photos)
    assert [skip.name for skip in table.skipped] == ["readme.txt"]
    faces = find_faces(photos, table.rows)
    found = {face.name: len(face.points) for face in faces if not isinstance(face, Skip)}
    assert found == {"a.jpg": 68, "b.PNG": 5, "deep/c.webp": 68, "deep/d.png": 5, "e.f.png": 68}
    assert [face for face in faces if isinstance(face, Skip)] == [("gone", "no such file in the photo folder")]


def test_names_of_two_photos_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    (tmp_path / "a.pts").write_text(pts())
    (skip,) = find_faces(tmp_path, read_landmarks(tmp_path).rows)
    assert skip == Skip("a", "several photos of this name: a.jpg, a.png")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.pts", "", "is empty|between"),
        ("a.pts", "68 points", r"between \{ and \}"),
        ("a.pts", pts()[:-40], r"between \{ and \}"),
        ("a.pts", pts(count=70), "n_points is 70, and there are 68"),
        ("a.pts", pts(POINTS[:67]), "67 points; expected 5, 68, 468 or 478"),
        ("a.pts", pts(np.full((68, 2), np.nan)), "not finite"),
        ("a.pts", pts(np.full((68, 2), 1e9)), "far outside"),
        ("a.pts", pts().replace(".", "_"), "two numbers in each line"),
        ("a.pts", "{\n}\n", "two numbers in each line"),
        ("a.pts", "{}{}", r"between \{ and \}"),
        ("a.json", "", "cannot be read as JSON|is empty"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", "[[[[[[[[[[]]]]]]]]]]", "within each other"),
        ("a.json", "[]", "no face in it"),
        ("a.json", "{}", "no face in it"),
        ("a.json", "3", "expected points of faces, got 3"),
        ("a.json", '{"a.jpg": 3}', "'a.jpg': expected points"),
        ("a.json", '["a"]', r"expected points \[x, y\]"),
        ("a.json", "[[1, 2], [3, 4]]", "2 points; expected"),
        ("a.json", json.dumps([[True, 1]] * 68), "got True"),
        ("a.json", json.dumps([[None, 1]] * 68), "got None"),
        ("a.json", json.dumps([[1e200, 1]] * 68), "far outside"),
        ("a.json", f"[{'[1, NaN],' * 67}[1, 2]]", "NaN is no number of JSON"),
        ("a.json", f"[{f'[1, {9**400}],' * 67}[1, 2]]", "expected points"),
    ],
)
def test_bad_files_are_refused_by_name(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FocusError, match=words) as refused:
        read_landmarks(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 600
    if text:
        with pytest.raises(FocusError, match=r"no landmarks in this folder.*first of 1"):
            read_landmarks(tmp_path)


def test_tables_in_text_files_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.txt"
    path.write_text(",".join(["a.jpg", *map(str, POINTS.reshape(-1).tolist())]) + "\n")
    assert read_landmarks(path).rows[0].name == "a.jpg"
