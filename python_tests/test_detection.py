"""Detectors by name, faces that are hard to find, and the tables in which they are kept. No MediaPipe is needed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import detector_of_blocks as blocks  # noqa: E402

from focus.data import read_landmarks, write_image  # noqa: E402
from focus.data.detection import DetectedFace, detectors, make_detector, mediapipe_mesh, register_detector  # noqa: E402  # noqa: E402
from focus.data.detection import photos as photos_module  # noqa: E402
from focus.data.detection.photos import Detections, DetectionSettings, detect_photos, list_photos  # noqa: E402
from focus.data.detection.pixels import cut, part, turned  # noqa: E402
from focus.data.detection.quiet import quiet_natives  # noqa: E402
from focus.data.detection.search import parse_choice, search_faces  # noqa: E402
from focus.data.landmarks import five_from_68  # noqa: E402
from focus.data.mesh_points import (  # noqa: E402
    CHEEKS,
    CHIN,
    OVAL,
    five_from_mesh,
    ibug_from_mesh,
    jaw_line,
    seven_from_mesh,
)
from focus.errors import FocusError  # noqa: E402

FIND = "detector_of_blocks:find"
Picture = NDArray[np.uint8]


def picture(height: int = 200, width: int = 300) -> Picture:
    return np.full((height, width, 3), 120, dtype=np.uint8)


def face(left: int = 100, top: int = 60, size: int = 30, shape: tuple[int, int] = (200, 300)) -> Picture:
    image = picture(*shape)
    blocks.draw(image, left, top, size)
    return image


def test_detectors_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "_FACTORIES", dict(detectors._FACTORIES))
    register_detector("blocks", lambda model: blocks.find)
    assert make_detector("blocks") is blocks.find
    assert make_detector(FIND) is blocks.find
    with pytest.raises(FocusError, match=r"'nose': expected one of blocks, mediapipe, or module:function"):
        make_detector("nose")
    with pytest.raises(FocusError, match="expected a name of letters"):
        register_detector("a b", lambda model: blocks.find)
    for name in ("no_such_module_:find", "detector_of_blocks:gone", ":x", "json:", "..:x"):
        with pytest.raises(FocusError, match=r"cannot be imported|expected one of"):
            make_detector(name)
    with pytest.raises(FocusError, match="expected a function"):
        make_detector("detector_of_blocks:TEMPLATE")
    with pytest.raises(FocusError, match="takes no model file"):
        make_detector(FIND, Path("x"))


def test_without_mediapipe_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(FocusError, match=r'pip install "focus-face\[detect\]"; or give the landmarks'):
        make_detector()


def test_a_mediapipe_without_models_asks_for_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Bare:
        __version__ = "9.9"

    monkeypatch.setattr(mediapipe_mesh, "_import", lambda: Bare)
    with pytest.raises(FocusError, match=r"mediapipe 9\.9 has no models in it.*--detector-model or FOCUS_"):
        make_detector()


@pytest.mark.parametrize("faces", [[(1, 2)], [DetectedFace(np.zeros((5, 2)), 1, (0, 0, 1, 1))], ["x"]])
def test_what_is_no_face_is_refused(faces: list[object]) -> None:
    with pytest.raises(FocusError, match="detector: expected"):
        search_faces(picture(), lambda image: faces)  # type: ignore[arg-type,return-value]


def test_what_is_no_list_and_what_is_no_score_is_refused() -> None:
    with pytest.raises(FocusError, match="expected a list of faces, empty where there is none, got NoneType"):
        search_faces(picture(), lambda image: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(FocusError, match=r"score in \[0, 1\], 1 for a face that is sure, got 97"):
        search_faces(picture(), lambda image: [DetectedFace(np.zeros((68, 2)), 97, (0, 0, 1, 1))])


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "some", "\u0661"])
def test_choices_that_are_none(text: str) -> None:
    with pytest.raises(FocusError, match="--faces"):
        parse_choice(text)
    assert (parse_choice("all"), parse_choice("largest"), parse_choice("3")) == ("all", "largest", 3)


def test_an_upright_face_is_found_at_once() -> None:
    calls = []

    def count(image: Picture) -> list[DetectedFace]:
        calls.append(image.shape)
        return blocks.find(image)

    (found,) = search_faces(face(), count)
    np.testing.assert_allclose(found.points, blocks.points_at(100, 60, 30))
    assert len(calls) == 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_on_their_side_and_upside_down(quarters: int) -> None:
    image = np.ascontiguousarray(np.rot90(face(), quarters))
    (found,) = search_faces(image, blocks.find)
    back = turned(face(), quarters)
    np.testing.assert_allclose(back.to_image(found.points), blocks.points_at(100, 60, 30), atol=1e-9)


def test_small_faces_are_found_in_tiles_once_each() -> None:
    image = picture(1200, 1600)
    places = [(40, 30, 26), (700, 500, 20), (1500, 1100, 24)]
    for place in places:
        blocks.draw(image, *place)
    found = search_faces(image, blocks.find, "all")
    assert len(found) == 3
    for one, place in zip(found, sorted(places, key=lambda place: -place[2]), strict=True):
        np.testing.assert_allclose(one.points, blocks.points_at(*place))
    assert len(search_faces(image, blocks.find, 2)) == 2
    np.testing.assert_allclose(search_faces(image, blocks.find)[0].points, found[0].points)


def test_large_photos_are_looked_at_smaller_and_points_come_back_in_place() -> None:
    (found,) = search_faces(face(1500, 900, 500, (2560, 3840)), blocks.find)
    np.testing.assert_allclose(found.points, blocks.points_at(1500, 900, 500), atol=3.0)  # a pixel of the smaller one


def test_unsure_faces_are_compared_with_those_of_the_turned_photo() -> None:
    def unsure(image: Picture) -> list[DetectedFace]:
        wide = image.shape[1] > image.shape[0]
        points = blocks.points_at(100, 60, 30)
        return [DetectedFace(points, 0.6 if wide else 0.95, (100, 60, 129, 119))]

    (found,) = search_faces(picture(), unsure)
    assert found.score == 0.95
    assert not search_faces(picture(), lambda image: [DetectedFace(blocks.points_at(9, 9, 9), 0.3, (9, 9, 20, 30))])


def test_cut_keeps_points_in_place() -> None:
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (10, 10, 3))
    image = np.array(Image.fromarray(small.astype(np.uint8)).resize((300, 300), Image.Resampling.BICUBIC))
    for side, roll in ((60.0, 0.0), (120.0, 0.7), (250.0, -2.0), (290.0, 3.0)):
        view = cut(image, (150.0, 140.0), side, 64, roll)
        places = np.array([[20.0, 30.0], [40.0, 12.0], [31.5, 31.5]])
        there = view.to_image(places)
        np.testing.assert_allclose(there[2], [150, 140])
        for (x, y), (u, v) in zip(places[:2].astype(int), there[:2], strict=True):
            around = image[int(v) : int(v) + 2, int(u) : int(u) + 2].astype(float).mean((0, 1))
            assert np.abs(view.image[y, x] - around).max() < 14
    assert part(image, -20, -10, 340, 320, 1000).to_image(np.zeros(2)).tolist() == [-20, -10]


def mesh(scale: float = 1.0) -> NDArray[np.float64]:
    """A mesh on whose oval points lie, and cheeks within."""
    points = np.zeros((478, 2))
    angle = np.linspace(np.pi, 0, len(OVAL))
    points[list(OVAL)] = np.stack([50 * np.cos(angle), 80 * np.sin(angle)], axis=1)
    points[list(CHEEKS)] = np.random.default_rng(1).uniform((-20, 10), (20, 50), (len(CHEEKS), 2))
    return scale * points + (200, 100)


def test_jaw_points_are_at_equal_distances_on_the_oval_of_a_frontal_face() -> None:
    jaw = jaw_line(mesh())
    assert jaw.shape == (17, 2)
    np.testing.assert_allclose(jaw[[0, 8, 16]], mesh()[[OVAL[0], CHIN, OVAL[-1]]])
    steps = np.linalg.norm(np.diff(jaw, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.05)
    turned_by = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]])
    np.testing.assert_allclose(jaw_line(mesh() @ turned_by.T), jaw @ turned_by.T, atol=1e-9)


def test_jaw_points_of_a_turned_head_lie_on_its_cheek() -> None:
    points = mesh()
    points[CHEEKS[0]] = (120, 130)  # outside of the oval, on the image's left
    jaw = jaw_line(points)
    assert np.linalg.norm(jaw - points[CHEEKS[0]], axis=1).min() < 12
    assert jaw[1:8, 0].min() < jaw_line(mesh())[1:8, 0].min() - 15
    np.testing.assert_allclose(jaw[8:], jaw_line(mesh())[8:])


def test_five_of_a_mesh_are_five_of_its_68() -> None:
    points = np.random.default_rng(3).uniform(0, 100, (478, 2))
    np.testing.assert_allclose(five_from_mesh(points), five_from_68(ibug_from_mesh(points)))
    np.testing.assert_allclose(seven_from_mesh(points)[[0, 5, 6]], ibug_from_mesh(points)[[36, 48, 54]])
    np.testing.assert_allclose(ibug_from_mesh(points[:468]), ibug_from_mesh(points))


def test_logs_of_native_libraries_are_dropped_and_the_rest_appears(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_natives():
        os.write(2, b"W0000 00:00:1795962427.590875 11102 inference.cc:114] Feedback manager requires\n")
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nours\n")
        print("also ours", file=sys.stderr)
    os.write(2, b"after\n")
    assert sorted(capfd.readouterr().err.splitlines()) == ["after", "also ours", "ours"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two photos with a face and one without; the current folder is above it."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    write_image(folder / "a.png", face())
    write_image(folder / "below" / "b.png", face(40, 50, 28))
    write_image(folder / "empty.png", picture())
    monkeypatch.chdir(tmp_path)
    return folder


def detect(folder: Path, out: Path, **options: object) -> Detections:
    names, skipped = list_photos([folder], out)
    assert not skipped
    settings = DetectionSettings("detector_of_blocks:find_logged")
    return detect_photos(names, out / "landmarks.csv", settings, **options)  # type: ignore[arg-type]


def asked() -> int:
    path = Path("asked.txt")
    count = len(path.read_text()) if path.exists() else 0
    path.unlink(missing_ok=True)
    return count


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_found_is_kept_in_a_table(photos: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    found = detect(photos, out, workers=workers)
    assert [one.photo.name for one in found.faces] == ["a.png", "b.png"]
    assert [(skip.name, "no face was found" in skip.reason) for skip in found.skipped] == [
        (str(photos / "empty.png"), True)
    ]
    assert found.looked == 3
    assert asked() > 3
    table = read_landmarks(out / "landmarks.csv")
    assert [row.name for row in table.rows] == ["a.png", "below/b.png"]
    np.testing.assert_allclose(table.rows[0].points, blocks.points_at(100, 60, 30), atol=0.006)
    np.testing.assert_array_equal(found.faces[0].points, table.rows[0].points)
    before = [path.read_bytes() for path in sorted(out.iterdir())]
    again = detect(photos, out, workers=workers)
    assert (again.looked, asked(), again.written) == (0, 0, [])
    assert [(one.photo, one.score, one.box) for one in again.faces] == [
        (one.photo, one.score, one.box) for one in found.faces
    ]
    assert before == [path.read_bytes() for path in sorted(out.iterdir())]
    assert detect(photos, out, again=True).looked == 3


def test_changed_photos_are_looked_at_again_and_corrections_are_heeded(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    detect(photos, out)
    table = out / "landmarks.csv"
    lines = table.read_text().splitlines()
    cells = lines[0].split(",")
    table.write_text(",".join([cells[0], "7", *cells[2:]]) + "\n")  # one point corrected, the other face taken out
    write_image(photos / "empty.png", face(30, 40, 26))
    found = detect(photos, out)
    assert [one.photo.name for one in found.faces] == ["a.png", "empty.png"]
    assert found.faces[0].points[0, 0] == 7
    assert found.looked == 1
    assert [(Path(skip.name).name, "no row in" in skip.reason) for skip in found.skipped] == [("b.png", True)]
    for _ in range(2):  # the second time the run before has written the table
        with pytest.raises(FocusError, match=r"corrected by hand.*--faces or --detector.*delete landmarks\.csv"):
            detect_photos(list_photos([photos])[0], table, DetectionSettings(FIND, faces=2))
        assert read_landmarks(table).rows[0].points[0, 0] == 7
        assert detect(photos, out).looked == 0
    assert detect_photos(list_photos([photos])[0], table, DetectionSettings(FIND, faces=2), again=True).looked == 3
    assert detect_photos(list_photos([photos])[0], table, DetectionSettings(FIND, faces=3)).looked == 3


def test_only_that_there_is_no_face_is_remembered(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: Picture) -> list[DetectedFace]:
        raise ValueError("my model broke")

    def out_of_memory(path: Path) -> Picture:
        raise MemoryError

    monkeypatch.setattr(detectors, "_FACTORIES", {"mine": lambda model: broken})
    names, table = list_photos([photos])[0], tmp_path / "out" / "landmarks.csv"
    found = detect_photos(names, table, DetectionSettings("mine"))
    assert {skip.reason for skip in found.skipped} == {"the detector failed (ValueError: my model broke)"}
    monkeypatch.setattr(detectors, "_FACTORIES", {"mine": lambda model: blocks.find})
    with monkeypatch.context() as short:
        short.setattr(photos_module, "read_image", out_of_memory)
        assert len(detect_photos(names, table, DetectionSettings("mine")).skipped) == 3
    assert len(detect_photos(names, table, DetectionSettings("mine")).faces) == 2
    assert detect_photos(names, table, DetectionSettings("mine")).looked == 0


def test_names_that_are_no_text_are_skipped(photos: Path, tmp_path: Path) -> None:
    try:
        write_image(photos / "z\udcff.png", face())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    found = detect(photos, tmp_path / "out")
    assert len(found.faces) == 2
    assert "not UTF-8" in found.skipped[0].reason
    assert len(read_landmarks(tmp_path / "out" / "landmarks.csv").rows) == 2


def test_another_mediapipe_or_model_looks_anew(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mediapipe_mesh.MODEL_VARIABLE, raising=False)
    monkeypatch.setitem(detectors._FACTORIES, "mediapipe", lambda model: blocks.find)

    def looked(version: str | None) -> int:
        def of(package: str) -> str:
            if version is None:
                raise importlib.metadata.PackageNotFoundError(package)
            return version

        monkeypatch.setattr(importlib.metadata, "version", of)
        return detect_photos(list_photos([photos])[0], tmp_path / "landmarks.csv").looked

    assert [looked("0.10.14"), looked("0.10.14"), looked("0.10.21")] == [3, 0, 3]
    assert json.loads((tmp_path / "landmarks.json").read_text())["made_by"]["package"] == "0.10.21"
    assert [looked(None), looked("0.10.21")] == [0, 0]
    (tmp_path / "face_landmarker.task").write_bytes(b"model")
    monkeypatch.setenv(mediapipe_mesh.MODEL_VARIABLE, str(tmp_path / "face_landmarker.task"))
    assert [looked("0.10.21"), looked("0.10.21")] == [3, 0]


def test_a_table_of_somebody_else_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "landmarks.csv").write_text("mine")
    with pytest.raises(FocusError, match=r"no landmarks\.json beside it.*give it by --landmarks"):
        detect(photos, out)
    (out / "landmarks.json").write_text("[1]")
    with pytest.raises(FocusError, match=r"not of a detection"):
        detect(photos, out)
    assert (out / "landmarks.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["photos"].update({"a.png": 3}),
        lambda about: about["photos"]["a.png"].update(sha256=None),
        lambda about: about["photos"]["a.png"].update(faces={"x": 1}),
        lambda about: about["photos"]["a.png"].update(faces=[{"score": "high", "box": [1, "2", None, 4]}]),
        lambda about: about["photos"]["a.png"].update(reason=4),
    ],
)
def test_damaged_records_are_made_anew_or_used_without_what_is_damaged(
    change: Callable[[dict[str, dict[str, object]]], None], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    detect(photos, out)
    about = json.loads((out / "landmarks.json").read_text())
    change(about)
    (out / "landmarks.json").write_text(json.dumps(about))
    assert [one.photo.name for one in detect(photos, out).faces] == ["a.png", "b.png"]


def test_a_run_that_was_ended_keeps_what_it_found(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(done: int, count: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    found = Detections()
    with pytest.raises(KeyboardInterrupt):
        detect(photos, out, notify=stop, detections=found)
    assert (len(found.faces), len(found.skipped)) == (1, 1)
    assert detect(photos, out).looked == 1


def test_unreadable_photos_are_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "void.png").touch()
    found = detect(photos, tmp_path / "out")
    reasons = {Path(skip.name).name: skip.reason for skip in found.skipped}
    assert set(reasons) == {"cut.jpg", "void.png", "empty.png"}
    assert "not an image" in reasons["cut.jpg"]
    assert len(found.faces) == 2


def test_points_are_in_the_pixels_of_the_photo_as_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: shown after a quarter turn clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(face(), 1))).save(tmp_path / "a.png", exif=exif)
    found = detect_photos({tmp_path / "a.png": "a.png"}, tmp_path / "o" / "landmarks.csv", DetectionSettings(FIND))
    np.testing.assert_allclose(found.faces[0].points, blocks.points_at(100, 60, 30), atol=0.006)


def test_photos_are_listed_once_and_results_are_not_photos(photos: Path, tmp_path: Path) -> None:
    out = photos / "out"
    out.mkdir()
    write_image(out / "a_overlay.png", face())
    write_image(photos / "a_mask.png", picture())
    write_image(photos / "lonely_mask.png", picture())
    (photos / "a.json").write_text("{}")
    (photos / ".hidden.png").touch()
    (photos / "notes.txt").touch()
    names, skipped = list_photos([photos, photos / "a.png", photos / "below", tmp_path / "gone"], out)
    assert list(names.values()) == ["a.png", "empty.png", "lonely_mask.png", "below/b.png"]
    assert [skip.reason for skip in skipped] == ["no such file or folder"]
    detect_photos({photos / "a.png": "a.png"}, photos / "landmarks.csv", DetectionSettings(FIND))
    (photos / "points").mkdir()
    write_image(photos / "points" / "a.jpg", face())
    (photos / "below" / "points").mkdir()
    write_image(photos / "below" / "points" / "c.png", face())  # a folder of photos that is called so
    names, _ = list_photos([photos], out)
    assert list(names.values()) == ["a.png", "empty.png", "lonely_mask.png", "below/b.png", "below/points/c.png"]
    other = tmp_path / "other"
    other.mkdir()
    write_image(other / "a.png", picture())
    names, _ = list_photos([photos / "a.png", other])
    assert list(names.values()) == [str(photos / "a.png"), str(other / "a.png")]
    with pytest.raises(FocusError, match="at least one photo"):
        list_photos([])


def test_names_with_commas_and_quotes_come_back(tmp_path: Path) -> None:
    path = tmp_path / 'a, "b"\n.png'
    write_image(path, face())
    found = detect_photos({path: path.name}, tmp_path / "o" / "landmarks.csv", DetectionSettings(FIND))
    assert len(found.faces) == 1
    assert detect_photos({path: path.name}, tmp_path / "o" / "landmarks.csv", DetectionSettings(FIND)).looked == 0
