"""Landmark files: what is tolerated, what is skipped and listed, and what is an error."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focus.data.landmarks import (
    MIRRORED_LANDMARKS,
    Face,
    Skip,
    expand_to_68,
    find_faces,
    five_from_68,
    read_landmarks,
    resolve_photo,
)
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
    with pytest.raises(FocusError, match="no such landmark file"):
        read_landmarks(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(FocusError, match=r"binary\.csv: cannot be read as a CSV text"):
        read_landmarks(tmp_path / "binary.csv")
    with pytest.raises(FocusError, match=r"no landmarks in this folder"):
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


def _numbers(count: int = 68, start: float = 0.25) -> list[str]:
    return [f"{start + value:.2f}" for value in range(2 * count)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "header", "hint"])
@pytest.mark.parametrize("count", [68, 5])
def test_tables_of_any_spreadsheet(
    tmp_path: Path, separator: str, decimal: str, encoding: str, first: str, count: int
) -> None:
    if separator == decimal:
        return  # not written by any
    start = {"": "", "header": separator.join(["file", *("xy" * count)]) + "\r\n", "hint": f"sep={separator}\r\n"}[
        first
    ]
    rows = [
        separator.join([name, *(cell.replace(".", decimal) for cell in _numbers(count))]) for name in ("é.jpg", "b")
    ]
    path = tmp_path / "l.csv"
    path.write_bytes((start + "\r\n".join(rows) + separator * 3 + "\r\n").encode(encoding))
    table = read_landmarks(path)
    assert [row.name for row in table.rows] == ["é.jpg", "b"]
    assert table.points["b"].ravel().tolist() == [float(number) for number in _numbers(count)]
    assert table.skipped == []


def test_what_a_separator_or_a_comma_means_is_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("a.jpg;" + ";".join(f"1,{100 + i}" for i in range(10)) + "\n")
    with pytest.raises(FocusError, match=r"numbers such as 1,100 between semicolons: .* decimals or of thousands"):
        read_landmarks(path)
    path.write_text("a.jpg " + " ".join(_numbers()) + "\n")
    with pytest.raises(FocusError, match="no separator; expected commas, semicolons or tabs"):
        read_landmarks(path)
    path.write_text("a.jpg," + ",".join(_numbers(5)) + "\n" + "b.jpg;" + ";".join(_numbers(5)) + "\n")
    table = read_landmarks(path)
    assert [row.name for row in table.rows] == ["a.jpg"]
    (skip,) = table.skipped
    assert "with commas between them" in skip.reason
    assert len(skip.name) <= 80
    path.write_text("a.jpg;" + ";".join([*_numbers(5)[:-1], "1_0"]) + "\n")
    with pytest.raises(FocusError, match="'1_0' is not a number"):
        read_landmarks(path)


def test_messages_never_quote_a_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    for separator in (" ", "|", ":", ";;"):
        path.write_text(separator.join(["a.jpg", *_numbers()]) + "\n")
        with pytest.raises(FocusError) as caught:
            read_landmarks(path)
        assert len(str(caught.value)) < 400 + len(str(path))


def test_quotes(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    numbers = ",".join(_numbers(5))
    path.write_text(f'"one, two.jpg",{numbers}\n"say ""a"".jpg",{numbers}\n5" tall.jpg,{numbers}\n')
    assert [row.name for row in read_landmarks(path).rows] == ["one, two.jpg", 'say "a".jpg', '5" tall.jpg']
    path.write_text(f'a.jpg,{numbers}\n"b.jpg,{numbers}\nc.jpg,{numbers}\n')
    with pytest.raises(FocusError, match=r"cannot be read as a table with commas .* \(row 2"):
        read_landmarks(path)


def test_several_faces_of_a_photo(tmp_path: Path) -> None:
    path = _write(tmp_path / "l.csv", _row("a.jpg", 5), _row("b.jpg"), _row("a.jpg", 5, 400), _row("./a.jpg", 5))
    table = read_landmarks(path)
    assert [row.name for row in table.rows] == ["a.jpg", "b.jpg", "a.jpg", "./a.jpg"]
    assert table.points["a.jpg"][0, 0] == 0
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    *faces, skip = find_faces(tmp_path, table.rows)
    assert skip == Skip("./a.jpg", "another row has the same photo and the same points")
    assert all(isinstance(face, Face) for face in faces)
    assert [face.name for face in faces] == ["a.jpg, face 1", "b.jpg", "a.jpg, face 2"]
    assert [face[1] for face in faces] == ["a.jpg", "b.jpg", "a.jpg"]
    assert [face[3][0, 0] for face in faces] == [0, 0, 400]


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_either_form_of_accents_names_a_file(written: str, stored: str, tmp_path: Path) -> None:
    name = "Zoë/Ångström.jpg"
    (tmp_path / unicodedata.normalize(stored, "Zoë")).mkdir()
    file = tmp_path / unicodedata.normalize(stored, name)
    file.write_bytes(b"x")
    assert resolve_photo(tmp_path, unicodedata.normalize(written, name)).samefile(file)
    both = tmp_path / unicodedata.normalize(written, name)
    both.parent.mkdir(exist_ok=True)
    both.write_bytes(b"y")
    assert resolve_photo(tmp_path, unicodedata.normalize(written, name)).samefile(both)


def test_names_as_other_systems_write_them(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    file = folder / "sub" / "a b.jpg"
    file.write_bytes(b"x")
    for name in ("sub/a b.jpg", "./sub/a b.jpg", "sub//a b.jpg", "sub\\a b.jpg", ".\\sub\\a b.jpg", str(file)):
        assert resolve_photo(folder, name).samefile(file), name
    (folder / "c\\d.jpg").write_bytes(b"x")
    assert resolve_photo(folder, "c\\d.jpg").name == "c\\d.jpg"


def test_folders_of_links_are_folders_of_photos(tmp_path: Path) -> None:
    """As caches of hubs and version control of data lay them out."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(b"x")
    folder = tmp_path / "snapshots" / "main"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.jpg").symlink_to("../../../blobs/0a1b")
    (folder / "b.jpg").symlink_to(tmp_path / "blobs" / "0a1b")
    (folder / "gone.jpg").symlink_to("../../blobs/none")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    for name in ("train/a.jpg", "b.jpg"):
        assert resolve_photo(folder, name) == (tmp_path / "blobs" / "0a1b").resolve()
    with pytest.raises(FocusError, match="its link leads to no file"):
        resolve_photo(folder, "gone.jpg")
    with pytest.raises(FocusError, match=r"link leads to no file|not a usable file name"):
        resolve_photo(folder, "loop.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert resolve_photo(tmp_path / "link", "b.jpg").name == "0a1b"


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FocusError, match="FIFO"):
        read_landmarks(tmp_path / "pipe")
    with pytest.raises(FocusError, match="no ordinary file"):
        resolve_photo(tmp_path, "pipe")
    with pytest.raises(FocusError, match="character device"):
        read_landmarks("/dev/zero")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    with contextlib.suppress(FocusError):
        read_landmarks(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",".join(["b.jpg", *['"186,00"'] * 136]), "decimals have a comma"),
        (",".join(["b.jpg", *["np.float64(186.0)"] * 136]), "without the name of its type"),
        (f"0,{_row('b.jpg')}", "the index that pandas writes"),
        (f"0,{_row('b.jpg', 5)}", "the index that pandas writes"),
    ],
)
def test_first_rows_that_are_not_understood_are_listed(tmp_path: Path, row: str, reason: str) -> None:
    table = read_landmarks(_write(tmp_path / "l.csv", row, _row("a.jpg")))
    assert list(table.points) == ["a.jpg"]
    assert [reason in skip.reason for skip in table.skipped] == [True]


@pytest.mark.parametrize("start", ["# made by a detector", '"sep=,"'])
def test_lines_before_the_faces_are_no_faces(tmp_path: Path, start: str) -> None:
    table = read_landmarks(_write(tmp_path / "l.csv", start, _row("a.jpg"), _row("b.jpg")))
    assert (list(table.points), table.skipped) == (["a.jpg", "b.jpg"], [])


def test_utf16_without_a_mark_is_named(tmp_path: Path) -> None:
    with pytest.raises(FocusError, match="UTF-16 without a byte-order mark; save it as UTF-8") as caught:
        read_landmarks(_write(tmp_path / "l.csv", _row("a.jpg"), encoding="utf-16-le"))
    assert "\0" not in str(caught.value)
