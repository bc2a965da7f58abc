"""`focus fit --same-person`: what is shared, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from focus.cli import NOTHING_WRITTEN, REFUSED, main
from focus.data import write_image
from focus.data.example import draw_clip
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.fit import PhotoFitter
from focus.fit.person import MOST_PHOTOS
from focus.record import RESULT_SUFFIXES, check_result

QUICK = ["--model", "procedural-small", "--image-size", "32", "--coarse-steps", "1", "--fine-steps", "1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of one person and their landmarks."""
    place = tmp_path_factory.mktemp("person")
    lines = []
    for name, frame in zip("abc", draw_clip(MorphableModel.procedural("small"), 96, 2, 3), strict=True):
        write_image(place / f"{name}.png", frame.image)
        lines.append(",".join([f"{name}.png", *map(str, frame.landmarks.flatten().tolist())]) + "\n")
    (place / "landmarks.csv").write_text("".join(lines))
    return place


@pytest.fixture
def person(drawn: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(drawn, tmp_path / "person")
    return tmp_path / "person"


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos are fitted together, from now on, each time."""
    counts: list[int] = []
    plain = PhotoFitter.finish_together

    def finish(self: PhotoFitter, starts: Any, notify: Any) -> Any:
        counts.append(len(starts))
        return plain(self, starts, notify)

    monkeypatch.setattr(PhotoFitter, "finish_together", finish)
    return counts


def fit(
    capsys: pytest.CaptureFixture[str], photos: Path, *more: object, code: int = 0, together: bool = True
) -> dict[str, Any]:
    arguments = ["fit", photos, "--landmarks", photos / "landmarks.csv", "--out", photos.parent / "out", *QUICK, *more]
    assert main(["--json", *map(str, arguments), *(["--same-person"] if together else [])]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def names(answer: dict[str, Any]) -> list[str]:
    return [Path(photo["photo"]).name for photo in answer["photos"]]


def there(answer: dict[str, Any]) -> list[bool]:
    return [photo["there_already"] for photo in answer["photos"]]


def record(photos: Path, stem: str) -> dict[str, Any]:
    return check_result(photos.parent / "out" / f"{stem}.json")


def test_one_identity_for_all(person: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = fit(capsys, person)
    assert names(answer) == ["a.png", "b.png", "c.png"]
    assert {Path(path).name for path in answer["written"]} == {
        f"{stem}{suffix}" for stem in "abc" for suffix in RESULT_SUFFIXES
    }
    records = [record(person, stem) for stem in "abc"]
    assert [one["fitted_with"] for one in records] == [["b.png", "c.png"], ["a.png", "c.png"], ["a.png", "b.png"]]
    assert [one["photo_size"] for one in records] == 3 * [{"height": 96, "width": 96}]
    for part, same in (("identity", True), ("albedo", True), ("expression", False)):
        assert (len({str(one["coefficients"][part]) for one in records}) == 1) == same, part
    alone = fit(capsys, person, together=False)
    assert there(alone) == [False, False, False]
    assert record(person, "a")["fitted_with"] == []
    assert record(person, "a")["coefficients"]["identity"] != records[0]["coefficients"]["identity"]
    assert there(fit(capsys, person)) == [False, False, False]


def test_results_are_kept_as_long_as_the_set_is_the_same(
    person: Path, capsys: pytest.CaptureFixture[str], solved: list[int]
) -> None:
    fit(capsys, person)
    before = (person.parent / "out/b.json").read_bytes()
    again = fit(capsys, person)
    assert (there(again), again["written"], solved) == ([True, True, True], [], [3])
    # Another order of rows and another place are the same set.
    lines = (person / "landmarks.csv").read_text().splitlines(keepends=True)
    (person / "landmarks.csv").write_text("".join(reversed(lines)))
    assert there(fit(capsys, person.rename(person.with_name("moved")))) == [True, True, True]
    person = person.with_name("moved")
    assert (person.parent / "out/b.json").read_bytes() == before
    # A file that is missing, a photo less, and other settings are not.
    (person.parent / "out/b.glb").unlink()
    assert there(fit(capsys, person)) == [False, False, False]
    (person / "landmarks.csv").write_text("".join(lines[:2]))
    assert there(fit(capsys, person)) == [False, False]
    assert record(person, "a")["fitted_with"] == ["b.png"]
    assert there(fit(capsys, person, "--jaw-sigma", "4")) == [False, False]
    assert there(fit(capsys, person, "--jaw-sigma", "4", "--again")) == [False, False]
    (person / "b.png").write_bytes((person / "c.png").read_bytes())
    assert there(fit(capsys, person, "--jaw-sigma", "4")) == [False, False]
    assert solved == [3, 3, 2, 2, 2, 2]


def test_a_photo_that_cannot_be_used_is_left_out(
    person: Path, capsys: pytest.CaptureFixture[str], solved: list[int]
) -> None:
    whole = (person / "b.png").read_bytes()
    (person / "b.png").write_bytes(whole[:300])
    with (person / "landmarks.csv").open("a") as file:
        file.write("gone.png" + 136 * ",1" + "\n")
    for expected in ([False, False], [True, True]):
        answer = fit(capsys, person)
        assert names(answer) == ["a.png", "c.png"]
        assert there(answer) == expected
        assert sorted(Path(skip["name"]).name for skip in answer["skipped"]) == ["b.png", "gone.png"]
    assert solved == [2]
    assert record(person, "a")["fitted_with"] == ["c.png"]
    assert not (person.parent / "out/b.json").exists()
    (person / "b.png").write_bytes(whole)  # then it is another set
    assert there(fit(capsys, person)) == [False, False, False]
    for name in "abc":
        (person / f"{name}.png").write_bytes(b"no image")
    assert len(fit(capsys, person, code=NOTHING_WRITTEN)["skipped"]) == 4
    assert solved == [2, 3]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(MemoryError("9 TiB"), NOTHING_WRITTEN, "not enough memory (9 TiB)"), (KeyError("x"), NOTHING_WRITTEN, "report")],
)
def test_a_fit_that_fails_names_all_its_photos(
    error: Exception,
    code: int,
    words: str,
    person: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def finish(self: PhotoFitter, starts: Any, notify: Any) -> Any:
        raise error

    monkeypatch.setattr(PhotoFitter, "finish_together", finish)
    answer = fit(capsys, person, code=code)
    assert [Path(skip["name"]).name for skip in answer["skipped"]] == ["a.png", "b.png", "c.png"]
    assert all(words in skip["reason"] for skip in answer["skipped"])


def test_results_never_replace_a_photo(person: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(person / "b.png", person / "a_mask.png")
    points = (person / "landmarks.csv").read_text().splitlines()[1].partition(",")[2]
    with (person / "landmarks.csv").open("a") as file:
        file.write(f"a_mask.png,{points}\n")
    arguments = ["fit", person, "--landmarks", person / "landmarks.csv", "--out", person, *QUICK, "--same-person"]
    assert main(["--json", *map(str, arguments)]) == 0
    (skip,) = json.loads(capsys.readouterr().out)["skipped"]
    assert Path(skip["name"]).name == "a.png"
    assert "would replace a photo" in skip["reason"]
    assert (person / "a_mask.png").read_bytes() == (person / "b.png").read_bytes()


def test_two_faces_of_one_photo_and_crowds_are_refused(person: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (person / "landmarks.csv").read_text().splitlines()
    (person / "landmarks.csv").write_text("\n".join([*rows, rows[0].replace("a.png,", "a.png,1")]))
    error = fit(capsys, person, code=REFUSED)["error"]
    assert "a.png: has 2 faces" in error
    assert "leave --faces at largest, or, with --landmarks, give a table with one row" in error
    points = rows[0].partition(",")[2]
    count = MOST_PHOTOS + 1
    for number in range(count):
        shutil.copy(person / "a.png", person / f"{number}.png")
    (person / "landmarks.csv").write_text("".join(f"{number}.png,{points}\n" for number in range(count)))
    words = f"expected at most {MOST_PHOTOS} photos of one person, got {count}"
    assert words in fit(capsys, person, code=REFUSED)["error"]
    assert not list((person.parent / "out").glob("*"))
    # Before faces are looked for, too.
    (person / "landmarks.csv").unlink()
    assert main(["--json", "fit", str(person), "--out", str(person.parent / "out"), "--same-person"]) == REFUSED
    assert f"got {count + 3}" in json.loads(capsys.readouterr().out)["error"]


def test_workers_are_not_for_one_person(person: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", person, "--landmarks", person / "landmarks.csv", "--out", person.parent / "out", *QUICK]
    assert main([*map(str, arguments), "--same-person", "--workers", "2"]) == 0
    errors = capsys.readouterr().err
    assert errors.count("--workers") == 1
    assert "3 photos of one person" in errors


def test_refusals_of_starts_are_those_of_single_photos(person: Path) -> None:
    fitter = PhotoFitter(MorphableModel.procedural("small"))
    with pytest.raises(FocusError, match="landmarks: expected shape"):
        fitter.start(person / "a.png", [[1.0, 2.0]])
