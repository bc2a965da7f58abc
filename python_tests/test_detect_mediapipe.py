"""MediaPipe itself, on the drawn people of the example: `make test-detect`, or wherever the extra detect is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from focus.cli import main
from focus.data import read_image, read_landmarks, write_image
from focus.data.detection import DetectedFace, LandmarkDetector, make_detector
from focus.data.detection.search import search_faces
from focus.errors import FocusError

if importlib.util.find_spec("mediapipe") is None:
    if os.environ.get("FOCUS_REQUIRE_DETECT") == "1":
        raise RuntimeError("FOCUS_REQUIRE_DETECT=1, and there is no mediapipe")
    pytest.skip("no mediapipe", allow_module_level=True)

OCCLUDED = {"hand": 12.0, "mask": 22.0, "hair": 9.0, "microphone": 12.0}
"""Largest mean distance from the true points, % of that of the outer eye corners; what is hidden is a guess."""
PLAIN = 8.0


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return make_detector()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    assert main(["example", "--out", str(folder), "--size", "256", "--frames", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def truth(example: Path) -> dict[str, NDArray[np.float64]]:
    return read_landmarks(example / "landmarks.csv").points


def distance(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    return float(100 * np.linalg.norm(found - true, axis=1).mean() / np.linalg.norm(true[36] - true[45]))


def test_every_face_of_the_example_is_found(
    detector: LandmarkDetector, example: Path, truth: dict[str, NDArray[np.float64]]
) -> None:
    for name, points in truth.items():
        (face,) = search_faces(read_image(example / "photos" / name), detector)
        assert face.score > 0.6
        assert distance(face.points, points) < OCCLUDED.get(Path(name).stem, PLAIN), name
        left, top, right, bottom = face.box
        assert ((face.points >= (left - 1, top - 1)) & (face.points <= (right + 1, bottom + 1))).all()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_photos(
    quarters: int, detector: LandmarkDetector, example: Path, truth: dict[str, NDArray[np.float64]]
) -> None:
    image = read_image(example / "photos" / "plain.jpg")
    (face,) = search_faces(np.ascontiguousarray(np.rot90(image, quarters)), detector)
    x, y = face.points.T
    last = len(image) - 1
    back = {1: (last - y, x), 2: (last - x, last - y), 3: (y, last - x)}[quarters]
    assert distance(np.stack(back, axis=1), truth["plain.jpg"]) < PLAIN


def test_small_faces_and_faces_at_the_border(
    detector: LandmarkDetector, example: Path, truth: dict[str, NDArray[np.float64]]
) -> None:
    small = np.array(Image.open(example / "photos" / "plain.jpg").resize((96, 96), Image.Resampling.LANCZOS))
    image = np.full((900, 1200, 3), 150, dtype=np.uint8)
    corners = [(40, 60), (1000, 300), (500, 780)]
    for left, top in corners:
        image[top : top + 96, left : left + 96] = small
    found = search_faces(image, detector, "all")
    expected = [(truth["plain.jpg"] + 0.5) * 96 / 256 - 0.5 + corner for corner in corners]
    assert len(found) == 3
    for points in expected:
        assert min(distance(face.points, points) for face in found) < PLAIN
    photo = read_image(example / "photos" / "plain.jpg")
    left, top = truth["plain.jpg"].min(axis=0).astype(int) - (4, 24)
    right, bottom = truth["plain.jpg"].max(axis=0).astype(int) + 4
    tight = np.ascontiguousarray(photo[top:bottom, left:right])
    (face,) = search_faces(tight, detector)
    assert distance(face.points, truth["plain.jpg"] - np.array([left, top])) < PLAIN


def test_no_face_where_there_is_none(detector: LandmarkDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    assert search_faces(noise, detector, "all") == []
    assert search_faces(np.zeros((16, 16, 3), dtype=np.uint8), detector) == []


def test_the_same_photo_gives_the_same_points(detector: LandmarkDetector, example: Path) -> None:
    image = read_image(example / "photos" / "hair.jpg")
    first, second = (search_faces(image, find)[0] for find in (detector, make_detector()))
    np.testing.assert_array_equal(first.points, second.points)
    assert first.score == second.score


def test_the_command_is_silent_and_needs_no_network(example: Path, tmp_path: Path) -> None:
    # Without a network of its own a process reaches nothing; where namespaces are not allowed, it runs as it is.
    alone = ["unshare", "--map-root-user", "--net"]
    possible = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    command = [sys.executable, "-W", "error", "-m", "focus", "landmarks", str(example / "photos"), "--out", "out"]
    for more in ([], ["--again", "--workers", "2"]):
        done = subprocess.run(
            [*(alone if possible else []), *command, *more],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == "photos looked at for faces: 6; landmarks: out/landmarks.csv"
    assert len(json.loads((tmp_path / "out" / "landmarks.json").read_text())["photos"]) == 6


def test_fit_needs_no_landmarks(example: Path, tmp_path: Path) -> None:
    quick = ["--model", "procedural-small", "--image-size", "48", "--coarse-steps", "1", "--fine-steps", "1"]
    assert main(["fit", str(example / "photos" / "plain.jpg"), "--out", str(tmp_path), *quick]) == 0
    assert (tmp_path / "plain.ply").is_file()
    assert (tmp_path / "landmarks.csv").is_file()


def test_the_interface_that_takes_a_file(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With models out of the wheel: their mesh is not the one of Google's file, and its points are not right."""
    import mediapipe

    modules = Path(mediapipe.__file__).parent / "modules"
    bundle = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        archive.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    image = read_image(example / "photos" / "plain.jpg")
    monkeypatch.setenv("FOCUS_FACE_LANDMARKER", str(bundle))
    for detector in (make_detector(), make_detector("mediapipe", bundle)):
        faces: list[DetectedFace] = list(detector(image))
        assert len(faces) == 1
        assert np.isfinite(faces[0].points).all()
        assert 0 < faces[0].score <= 1


Bad = Callable[[Path], object]


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"x" * 99), lambda p: p.mkdir(), lambda p: p.touch()])
def test_a_bad_model_file_is_refused_by_name(make: Bad, tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    with pytest.raises(FocusError, match=r"face_landmarker\.task"):
        make_detector("mediapipe", path)
    make(path)
    with pytest.raises(FocusError, match=r"face_landmarker\.task"):
        make_detector("mediapipe", path)


def test_a_photo_written_turned_is_found_as_shown(detector: LandmarkDetector, example: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    image = read_image(example / "photos" / "plain.jpg")
    Image.fromarray(np.ascontiguousarray(np.rot90(image, 3))).save(tmp_path / "a.png", exif=exif)
    write_image(tmp_path / "b.png", image)
    first, second = (search_faces(read_image(tmp_path / name), detector)[0] for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(first.points, second.points)
