"""Commands without `--landmarks`, with a detector of the tests in place of MediaPipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus.cli import NOTHING_WRITTEN, REFUSED, main
from focus.data import SyntheticFaces, SyntheticSettings, read_landmarks, write_image
from focus.data.detection import DetectedFace
from focus.face import MorphableModel
from focus.train import shipped_checkpoint

QUICK = ["--model", "procedural-small", "--image-size", "32", "--coarse-steps", "1", "--fine-steps", "1"]

DETECTOR = '''
import json
from pathlib import Path
import numpy as np
from focus.data.detection import DetectedFace

KNOWN = json.loads(Path(__file__).with_name("known.json").read_text())

def find(image):
    """The faces of the pictures whose first row it knows."""
    points = KNOWN.get(image[0].tobytes().hex())
    if points is None:
        return []
    points = np.array(points)
    return [DetectedFace(points, 0.9, (*points.min(axis=0), *points.max(axis=0)))]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos that the detector knows, `known:find`, and one that it does not."""
    place = tmp_path / "photos"
    place.mkdir()
    faces = SyntheticFaces(MorphableModel.procedural("small"), 64, 5, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 2)
    known = {}
    for number, name in enumerate(("a.png", "b.png")):
        image = np.rint(batch.image[number].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        image[0, 0] = number
        write_image(place / name, image)
        known[image[0].tobytes().hex()] = batch.landmarks[number].tolist()
    write_image(place / "c.png", np.full((64, 64, 3), 90, dtype=np.uint8))
    module = tmp_path / "module"
    module.mkdir()
    (module / "known.json").write_text(json.dumps(known))
    (module / "known.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(module)
    monkeypatch.delitem(sys.modules, "known", raising=False)
    return place


def answer(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> dict[str, Any]:
    assert main(["--json", *map(str, arguments)]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


WITH = ("--detector", "known:find")


@pytest.mark.parametrize("workers", [1, 2])
def test_landmarks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    out = tmp_path / "out"
    found = answer(capsys, 0, "landmarks", folder, "--out", out, *WITH, "--workers", workers, "--draw-points")
    assert [Path(face["photo"]).name for face in found["faces"]] == ["a.png", "b.png"]
    assert {Path(path).relative_to(out).as_posix() for path in found["written"]} == {
        *("landmarks.csv", "landmarks.json", "points/a.jpg", "points/b.jpg")
    }
    assert all(Path(path).is_file() for path in found["written"])
    assert [Path(skip["name"]).name for skip in found["skipped"]] == ["c.png"]
    assert answer(capsys, 0, "landmarks", folder, "--out", out, *WITH)["written"] == []
    assert main(["landmarks", str(folder), "--out", str(out), *WITH]) == 0
    assert "0.90" in capsys.readouterr().out


def test_nothing_found_is_no_success(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["landmarks"], ["fit", *QUICK], ["prepare"]):
        photos = folder / "c.png" if command != ["prepare"] else tmp_path / "none"
        if command == ["prepare"]:
            photos.mkdir()
            write_image(photos / "c.png", np.full((64, 64, 3), 90, dtype=np.uint8))
        found = answer(capsys, NOTHING_WRITTEN, *command, photos, "--out", tmp_path / command[0], *WITH)
        assert "no face was found" in found["skipped"][0]["reason"]
    assert answer(capsys, REFUSED, "landmarks", "--out", tmp_path / "x", *WITH)["error"].startswith("expected at least")
    assert "--faces" in answer(capsys, REFUSED, "landmarks", folder, "--out", tmp_path / "x", "--faces", "no")["error"]


def test_fit_finds_faces_and_keeps_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = answer(capsys, 0, "fit", folder, "--out", out, *QUICK, *WITH)
    assert [Path(photo["photo"]).name for photo in found["photos"]] == ["a.png", "b.png"]
    assert [Path(skip["name"]).name for skip in found["skipped"]] == ["c.png"]
    assert str(out / "landmarks.csv") in found["written"]
    assert found["faces"][0]["score"] == 0.9
    again = answer(capsys, 0, "fit", folder, "--out", out, *QUICK, *WITH)
    assert [photo["there_already"] for photo in again["photos"]] == [True, True]
    assert again["written"] == []
    # The table is one for everybody; the results are those of the same landmarks.
    given = answer(capsys, 0, "fit", folder, "--out", out, *QUICK, "--landmarks", out / "landmarks.csv")
    assert [photo["there_already"] for photo in given["photos"]] == [True, True]
    assert [row.name for row in read_landmarks(out / "landmarks.csv").rows] == ["a.png", "b.png"]


@pytest.mark.parametrize("command", ["fit", "reconstruct", "prepare"])
def test_options_of_a_search_that_is_not_made_are_refused(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "landmarks.csv"
    table.write_text("a.png" + ",5" * 136)
    network = ("--checkpoint", shipped_checkpoint()) if command == "reconstruct" else ()
    wanted = (folder, "--out", tmp_path / "out", "--landmarks", table, *network)
    for options in (WITH, ("--faces", "all"), ("--draw-points",), ("--detector-model", table)):
        told = answer(capsys, REFUSED, command, *wanted, *options)
        assert f"{options[0]}: is for faces that are found" in told["error"]


def test_fits_side_by_side_are_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, 0, "landmarks", folder, "--out", tmp_path, *WITH)
    table = tmp_path / "landmarks.csv"
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:500])
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[0].replace("a.png", "d.png")]))
    answers = [
        answer(capsys, 0, "fit", folder, "--landmarks", table, "--out", tmp_path / out, *QUICK, "--workers", count)
        for out, count in (("one", 1), ("two", 2))
    ]
    for key in ("occluded_fraction", "landmark_error_percent", "there_already"):
        assert len({json.dumps([photo[key] for photo in found["photos"]]) for found in answers}) == 1
    assert [[Path(skip["name"]).name for skip in found["skipped"]] for found in answers] == [["d.png"], ["d.png"]]
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 12
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    more = answer(capsys, 0, "fit", folder, "--landmarks", table, "--out", tmp_path / "two", *QUICK, "--workers", 2)
    assert all(photo["there_already"] for photo in more["photos"])


def test_reconstruct_prepare_and_train_find_faces(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = shipped_checkpoint()
    assert checkpoint is not None
    done = answer(capsys, 0, "reconstruct", folder, "--checkpoint", checkpoint, "--out", tmp_path / "r", *WITH)
    assert len(done["photos"]) == 2
    done = answer(capsys, 0, "prepare", folder, "--out", tmp_path / "p", "--image-size", 32, *WITH)
    names = {Path(path).name for path in done["written"]}
    assert {"a.png", "b.png", "landmarks.csv", "photo_landmarks.csv", "photo_landmarks.json"} <= names
    assert np.abs(read_landmarks(tmp_path / "p" / "landmarks.csv").points["a.png"]).max() < 40  # of the crop
    assert answer(capsys, 0, "prepare", folder, "--out", tmp_path / "p", "--image-size", 32, *WITH)["read"]
    asked: list[Any] = []
    monkeypatch.setattr("focus.cli.train.train_to_end", lambda settings, out, **options: asked.append(settings.data))
    answer(capsys, 0, "train", "--photos", folder, "--adapt", folder, "--out", tmp_path / "t", *WITH)
    (data,) = asked
    assert (data.landmarks, data.adapt_landmarks) == (tmp_path / "t/landmarks.csv", tmp_path / "t/adapt_landmarks.csv")
    assert len(read_landmarks(data.adapt_landmarks).rows) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = answer(capsys, REFUSED, "train", "--photos", folder, "--out", tmp_path / "t", *WITH)
    assert "focus landmarks" in refused["error"]


def test_predictions_find_faces(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "now" / "images" / "one" / "selfie"
    place.mkdir(parents=True)
    for name in ("a.png", "c.png"):
        (place / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "list.txt").write_text("one/selfie/a.jpg\none/selfie/c.jpg\n")
    checkpoint = shipped_checkpoint()
    arguments = ("evaluate", "predictions", checkpoint, "--images", tmp_path / "list.txt", "--photos")
    found = answer(capsys, 0, *arguments, tmp_path / "now" / "images", "--out", tmp_path / "out", *WITH)
    assert (tmp_path / "out/one/selfie/a.ply").is_file()
    reasons = [skip["reason"] for skip in found["skipped"]]
    assert any("no face was found" in reason for reason in reasons)
    assert not (tmp_path / "out/one/selfie/c.ply").exists()


def test_landmarks_of_other_programs_beside_the_photos(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = list(json.loads((tmp_path / "module" / "known.json").read_text()).values())
    (folder / "b.json").write_text(json.dumps(known[1]))
    (folder / "a.pts").write_text("\n".join(["{", *(f"{x + 1} {y + 1}" for x, y in known[0]), "}"]))
    for photos in ([folder], [folder / "a.png", folder / "b.png"]):
        found = answer(capsys, 0, "fit", *photos, "--landmarks", folder, "--out", tmp_path / "out", *QUICK)
        assert [Path(photo["photo"]).name for photo in found["photos"]] == ["a.png", "b.png"]
    assert all(photo["there_already"] for photo in found["photos"])


def test_a_detector_that_is_missing_is_named_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    found = answer(capsys, REFUSED, "fit", folder, "--out", tmp_path / "out", *QUICK)
    assert "focus-face[detect]" in found["error"]
    assert found["written"] == []
    assert not (tmp_path / "out").exists()


def test_the_type_of_a_face_is_public() -> None:
    assert DetectedFace._fields == ("points", "score", "box")
