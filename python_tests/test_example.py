"""`focus example`: what a stranger tries the other commands on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus.cli import REFUSED, main
from focus.data import read_image, read_landmarks
from focus.data.example import PHOTOS, draw_clip, draw_photos
from focus.data.images import read_grey
from focus.errors import FocusError
from focus.eval.now import NowImage, read_image_list
from focus.eval.now.dataset import NowDataset, check_prediction, load_prediction
from focus.face import MorphableModel

OPTIONS = ("--size", "96", "--frames", "3")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "example"
    assert main(["example", "--out", str(folder), *OPTIONS]) == 0
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_six_people_with_their_landmarks_and_masks(example: Path) -> None:
    points = read_landmarks(example / "landmarks.csv").points
    assert list(points) == [f"{name}.jpg" for name in PHOTOS]
    occluded = (example / "occluded.txt").read_text().split()
    assert occluded == list(PHOTOS)[1:]
    skins = set()
    for name in PHOTOS:
        photo = read_image(example / "photos" / f"{name}.jpg")
        assert photo.shape == (96, 96, 3)
        face = read_grey(example / "face_masks" / f"{name}.png") > 127
        seen = read_grey(example / "true_masks" / f"{name}.png") > 127
        assert 0.08 < face.mean() < 0.6  # a head with room round it
        assert not (seen & ~face).any()
        assert 0.02 * face.sum() < (face & ~seen).sum() or name not in occluded
        assert (face & ~seen).any() == (name in occluded)
        # Landmarks lie on the face, or near its outline, as a detector gives them.
        rows, columns = np.nonzero(face)
        low, high = np.array([columns.min(), rows.min()]) - 8, np.array([columns.max(), rows.max()]) + 8
        assert ((points[f"{name}.jpg"] > low) & (points[f"{name}.jpg"] < high)).all()
        skins.add(tuple((photo[seen].mean(axis=0) // 12).tolist()))
    assert len(skins) == len(PHOTOS)  # other skin or light for each


def test_clip_moves_and_ends_where_it_began(example: Path) -> None:
    points = read_landmarks(example / "clip" / "landmarks.csv").points
    frames = [read_image(example / "clip" / name) for name in points]
    assert len(frames) == 3
    with Image.open(example / "clip.gif") as animation:
        assert animation.n_frames == 3
        assert animation.size == frames[0].shape[1::-1]
    noses = np.stack([value[30] for value in points.values()])
    assert np.ptp(noses[:, 0]) > 3
    model = MorphableModel.procedural("small")
    start, quarter = (next(iter(draw_clip(model, 64, 5, count))).image for count in (1, 4))
    assert np.array_equal(start, quarter)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_people(example: Path, tmp_path: Path) -> None:
    assert main(["example", "--out", str(tmp_path / "again"), *OPTIONS]) == 0
    assert digests(tmp_path / "again") == digests(example)
    model = MorphableModel.procedural("small")
    first, second = (next(iter(draw_photos(model, 64, seed))) for seed in (0, 1))
    assert not np.array_equal(first.image, second.image)


def test_models_are_models_and_the_network_is_one(example: Path) -> None:
    own = MorphableModel.load(example / "face.focusmodel")
    with pytest.raises(FocusError, match="landmarks68"):
        MorphableModel.load(example / "face.npz")
    indices = [int(word) for word in (example / "landmarks68.txt").read_text().split()]
    assert MorphableModel.load(example / "face.npz", indices).landmarks68.equal(own.landmarks68)
    assert main(["model", str(example / "face.npz"), "--landmarks68", str(example / "landmarks68.txt")]) == 0


def test_the_layout_of_now(example: Path) -> None:
    images = read_image_list(example / "now" / "imagepathsvalidation.txt")
    assert images == [NowImage("person-1", "selfie", "1"), NowImage("person-2", "selfie", "1")]
    for image in images:
        scan = NowDataset(example / "now").load(image.subject)
        prediction = load_prediction(example / "now" / "mean_faces", image)
        assert not check_prediction(prediction, scan, unit="mm", metrical=True)


def test_an_example_may_be_drawn_again_but_not_over_other_files(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "hand.jpg").write_bytes(b"mine")
    assert main(["example", "--out", str(tmp_path), *OPTIONS, "--json"]) == REFUSED
    assert "holds other files" in json.loads(capsys.readouterr().out)["error"]
    assert (tmp_path / "photos" / "hand.jpg").read_bytes() == b"mine"
    assert main(["example", "--out", str(example), *OPTIONS]) == 0


@pytest.mark.parametrize("bad", [("--size", "5"), ("--seed", "-1"), ("--frames", "0"), ("--size", "100000")])
def test_refusals(bad: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "--out", str(tmp_path / "new"), *bad]) == REFUSED
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
