"""Landmark files: what is tolerated, what is skipped and listed, and what is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from focus.data.landmarks import MIRRORED_LANDMARKS, expand_to_68, five_from_68, read_landmarks, resolve_photo
from focus.errors import FocusError


def _row(name: str, count: int = 68, start: float = 0.0) -> str:
    return ",".join([name, *(str(start + value) for value in range(2 * count))])


def _write(path: Path, *rows: str, ending: str = "\n", encoding: str = "utf-8") -> Path:
    path.write_bytes((ending.join(rows) + ending).encode(encoding))
    return path


def test_rows_of_68_and_of_5_points(tmp_path: Path) -> None:
    table = read_landmarks(_write(tmp_path / "l.csv", _row("a.jpg"), _row("sub/b.png", 5, 0.5)))
    assert list(table.points) == ["a.jpg", "sub/b.png"]
    assert table.points["a.jpg"].shape == (68, 2)
    assert table.points["a.jpg"][3].tolist() == [6, 7]
    assert table.points["sub/b.png"].tolist() == [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5], [6.5, 7.5], [8.5, 9.5]]
    assert table.skipped == []


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_header_blank_lines_spaces_mark_and_endings(tmp_path: Path, ending: str, encoding: str) -> None:
    header = ",".join(["file", *(f"{axis}{i}" for i in range(1, 69) for axis in "xy")])
    rows = [header, "", _row("a.jpg").replace(",", " , "), _row("b.jpg") + ",,", ",,,"]
    table = read_landmarks(_write(tmp_path / "l.csv", *rows, ending=ending, encoding=encoding))
    assert list(table.points) == ["a.jpg", "b.jpg"]
    assert table.skipped == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_row("x.jpg", 67), "134 numbers"),
        (_row("x.jpg").replace(",7.0,", ",,"), "missing"),
        (_row("x.jpg").replace(",7.0,", ",seven,"), "'seven' is not a number"),
        (_row("x.jpg").replace(",7.0,", ",nan,"), "not finite"),
        (_row("x.jpg").replace(",7.0,", ",inf,"), "not finite"),
        (_row("x.jpg").replace(",7.0,", ",1e30,"), "far outside"),
        (_row(""), "no file name"),
        (_row("good.jpg"), "a second row of the same face"),
        ("x.jpg", "0 numbers"),
    ],
)
def test_bad_rows_are_skipped_and_listed(tmp_path: Path, row: str, reason: str) -> None:
    table = read_landmarks(_write(tmp_path / "l.csv", _row("good.jpg"), row))
    assert list(table.points) == ["good.jpg"]
    assert table.points["good.jpg"][0, 0] == 0
    (skip,) = table.skipped
    assert skip.reason.startswith("row 2: ")
    assert reason in skip.reason


def test_nothing_usable_is_an_error_that_names_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(FocusError, match=r"l\.csv: no usable row; first of 1 skipped rows: x\.jpg.*134 numbers"):
        read_landmarks(_write(tmp_path / "l.csv", _row("x.jpg", 67)))
    with pytest.raises(FocusError, match="has no rows"):
        read_landmarks(_write(tmp_path / "empty.csv", ""))
    with pytest.raises(FocusError, match="no such file"):
        read_landmarks(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(FocusError, match=r"binary\.csv: is no text in UTF-8"):
        read_landmarks(tmp_path / "binary.csv")
    with pytest.raises(FocusError, match="is a folder"):
        read_landmarks(tmp_path)


def test_names_may_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "a.jpg", folder / "sub" / "b.jpg", tmp_path / "secret.jpg"):
        path.write_bytes(b"x")
    (folder / "outside").symlink_to(tmp_path, target_is_directory=True)
    (folder / "inner.jpg").symlink_to(folder / "a.jpg")
    assert resolve_photo(folder, "a.jpg") == (folder / "a.jpg").resolve()
    assert resolve_photo(folder, "sub/b.jpg") == (folder / "sub" / "b.jpg").resolve()
    assert resolve_photo(folder, "inner.jpg") == (folder / "a.jpg").resolve()
    for name in (
        "../secret.jpg",
        "sub/../../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "..\\secret.jpg",
        "C:\\secret.jpg",
        "\\secret.jpg",
        "outside/secret.jpg",
    ):
        with pytest.raises(FocusError, match="leaves the photo folder"):
            resolve_photo(folder, name)
    for name in ("missing.jpg", "sub"):
        with pytest.raises(FocusError, match="no such file"):
            resolve_photo(folder, name)
    for name in ("a\0.jpg", "x" * 5000):
        with pytest.raises(FocusError, match=r"not a usable file name|no such file"):
            resolve_photo(folder, name)


def test_mirroring_swaps_the_sides_and_undoes_itself() -> None:
    assert np.array_equal(MIRRORED_LANDMARKS[MIRRORED_LANDMARKS], np.arange(68))
    for left, right in (
        (0, 16),
        (17, 26),
        (36, 45),
        (39, 42),
        (37, 44),
        (41, 46),
        (31, 35),
        (48, 54),
        (60, 64),
        (67, 65),
    ):
        assert MIRRORED_LANDMARKS[left] == right
    assert [i for i in range(68) if MIRRORED_LANDMARKS[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_five_points_expand_and_come_back() -> None:
    five = np.array([[30.0, 40], [70, 41], [50, 60], [38, 80], [62, 81]])
    points, weights = expand_to_68(five)
    assert np.array_equal(five_from_68(points), five)
    assert np.flatnonzero(weights).tolist() == [30, 48, 54]
    points, weights = expand_to_68(np.arange(136.0).reshape(68, 2))
    assert np.array_equal(points, np.arange(136.0).reshape(68, 2))
    assert weights.tolist() == [1.0] * 68
    with pytest.raises(FocusError, match=r"\[7, 2\]"):
        expand_to_68(np.zeros((7, 2)))
