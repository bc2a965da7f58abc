"""Many photos at once: names, progress, and what is skipped."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from focus.data.align import Alignment
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel
from focus.fit import FitSettings, Progress, run
from focus.fit.faces import output_stems
from focus.fit.folder import reconstruct_photos
from focus.fit.results import landmark_error
from focus.reconstruction import RESULT_SUFFIXES, Reconstruction

QUICK = FitSettings(image_size=48, coarse_steps=2, fine_steps=2)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=4, expression=3, albedo=3)


@pytest.fixture(scope="module")
def points(model: MorphableModel) -> NDArray[np.float64]:
    """68 points of a frontal face in a photo of 64 x 64."""
    mean = model.mean_shape[model.landmarks68, :2].double().numpy()
    return np.stack([31.5 + 0.25 * mean[:, 0], 33 - 0.25 * mean[:, 1]], axis=1)


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(90, 180, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_landmarks(path: Path, rows: dict[str, NDArray[np.float64]]) -> Path:
    path.write_text("".join(",".join([name, *map(str, values.ravel())]) + "\n" for name, values in rows.items()))
    return path


@pytest.fixture
def dull(model: MorphableModel) -> Callable[..., Reconstruction]:
    """A way to reconstruct that takes no time."""

    def reconstruct(
        image: str | Path, landmarks: NDArray[np.float64], *, name: str, notify: Callable[[], None]
    ) -> Reconstruction:
        if "bad" in name:
            raise FocusError(f"{name}: no good")
        for _ in range(2):
            notify()
        blank = torch.ones(1, 8, 8)
        return Reconstruction(
            model=model,
            parameters=FaceParameters.mean(model),
            image=blank.expand(3, -1, -1),
            rendering=blank.expand(3, -1, -1),
            face=blank,
            mask=blank,
            alignment=Alignment(0.2, (31.5, 31.5), 8),
            photo=np.zeros((64, 64, 3), np.uint8),
            name=name,
        )

    return reconstruct


@pytest.mark.parametrize(
    ("photos", "stems"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png", "b.jpg"], ["a_jpg", "a_png", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["a_jpg", "a_jpg_2"]),
        (["a.jpg", "A.jpg"], ["a_jpg", "A_jpg_2"]),
        (["a_jpg.png", "a.jpg", "a.png"], ["a_jpg", "a_jpg_2", "a_png"]),
        (["a", "a.jpg"], ["a", "a_jpg"]),
        (["a.jpg", "b.jpg", "a.jpg"], ["a_face1", "b", "a_face2"]),
        (["a.jpg", "a.png", "a.jpg"], ["a_jpg_face1", "a_png", "a_jpg_face2"]),
        (["a.jpg", "a.jpg", "a_face1.jpg"], ["a_face1_2", "a_face2", "a_face1"]),
    ],
)
def test_stems_differ(photos: list[str], stems: list[str]) -> None:
    assert output_stems([Path(photo) for photo in photos]) == stems


def test_fits_photos(model: MorphableModel, points: NDArray[np.float64], tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        write_photo(tmp_path / name)
    csv = write_landmarks(tmp_path / "points.csv", {"a.jpg": points, "a.png": points, "gone.jpg": points})
    progress: list[Progress] = []
    report = run([tmp_path / "a.jpg", tmp_path / "a.png"], csv, model, tmp_path / "out", QUICK, progress.append)
    assert not report.skipped
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{stem}{suffix}" for stem in ("a_jpg", "a_png") for suffix in RESULT_SUFFIXES
    )
    assert [file.name for file in report.written[0].files] == [f"a_jpg{suffix}" for suffix in RESULT_SUFFIXES]
    assert report.written[0].landmark_error < 5
    assert [(item.index, item.fraction) for item in progress] == [
        (photo, (step + 1) / 4) for photo in range(2) for step in range(4)
    ]
    assert {item.count for item in progress} == {2}


def test_a_folder_stands_for_its_photos(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    for name in ("a.png", "sub/b.png", "bad.png", "unlisted.png"):
        write_photo(folder / name)
    rows = {"a.png": points, "sub/b.png": points, "bad.png": points, "gone.png": points, "../c.png": points}
    csv = write_landmarks(tmp_path / "points.csv", rows)
    with csv.open("a") as file:
        file.write("broken.png,1,2,3\n")
    report = reconstruct_photos([folder, folder / "a.png", folder / "unlisted.png"], csv, tmp_path / "out", dull, 2)
    assert [Path(item.name).name for item in report.written] == ["a.png", "b.png"]
    reasons = {Path(skip.name).name: skip.reason for skip in report.skipped}
    assert set(reasons) == {"broken.png", "gone.png", "c.png", "unlisted.png", "bad.png"}
    assert "expected 136" in reasons["broken.png"]
    assert "no such file" in reasons["gone.png"]
    assert "leaves the photo folder" in reasons["c.png"]
    assert "no row" in reasons["unlisted.png"]
    assert "no good" in reasons["bad.png"]


def test_the_row_that_names_most_of_the_path_is_used(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], tmp_path: Path
) -> None:
    for name in ("x/a.png", "y/a.png"):
        write_photo(tmp_path / name)
    csv = write_landmarks(tmp_path / "points.csv", {"a.png": points + 1, "y/a.png": points})
    seen: list[NDArray[np.float64]] = []

    def watch(image: Path, landmarks: NDArray[np.float64], **options: object) -> Reconstruction:
        seen.append(landmarks)
        return dull(image, landmarks, **options)

    reconstruct_photos([tmp_path / "x/a.png", tmp_path / "y/a.png"], csv, tmp_path / "out", watch, 2)  # type: ignore[arg-type]
    np.testing.assert_allclose(seen, [points + 1, points])


def test_a_photo_with_several_rows_has_several_faces(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], tmp_path: Path
) -> None:
    write_photo(tmp_path / "a.png")
    csv = write_landmarks(tmp_path / "points.csv", {"a.png": points, "./a.png": points + 1, "x": points})
    text = csv.read_text()
    csv.write_text(text + text.splitlines()[0] + "\n")
    for photos in ([tmp_path / "a.png"], [tmp_path], [tmp_path, tmp_path / "a.png"]):
        seen: list[float] = []

        def watch(image: Path, landmarks: NDArray[np.float64], seen: list[float] = seen, **options: object) -> object:
            seen.append(float(landmarks[0, 0]))
            return dull(image, landmarks, **options)

        report = reconstruct_photos(photos, csv, tmp_path / "out", watch, 2)  # type: ignore[arg-type]
        assert seen == [points[0, 0], points[0, 0] + 1]
        assert [file.files[0].stem for file in report.written] == ["a_face1", "a_face2"]
        assert any("second row of the same face" in skip.reason for skip in report.skipped)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_names_match_in_either_form_of_accents(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], written: str, stored: str, tmp_path: Path
) -> None:
    photo = tmp_path / "photos" / unicodedata.normalize(stored, "Zoë/Ångström.png")
    write_photo(photo)
    csv = write_landmarks(tmp_path / "points.csv", {unicodedata.normalize(written, "Zoë\\Ångström.png"): points})
    for photos in ([tmp_path / "photos"], [photo]):
        report = reconstruct_photos(photos, csv, tmp_path / "out", dull, 2)
        assert (len(report.written), report.skipped) == (1, [])


def test_rows_may_have_whole_paths(
    dull: Callable[..., Reconstruction],
    points: NDArray[np.float64],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_photo(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    csv = write_landmarks(tmp_path / "points.csv", {str(tmp_path / "photos" / "a.png"): points})
    for photo in (Path("photos"), Path("photos/a.png"), tmp_path / "photos", Path("photos/../photos/a.png")):
        report = reconstruct_photos([photo], csv, tmp_path / "out", dull, 2)
        assert (len(report.written), report.skipped) == (1, [])


@pytest.mark.parametrize("as_folder", [True, False])
def test_the_work_to_find_rows_grows_with_their_number(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], as_folder: bool, tmp_path: Path
) -> None:
    def calls(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        photos = [folder / f"bad{i}.png" for i in range(count)]
        for photo in photos:
            photo.touch()
        csv = write_landmarks(tmp_path / f"{count}.csv", {photo.name: points[:5] for photo in photos})
        total = 0

        def count_call(*_: object) -> None:
            nonlocal total
            total += 1

        sys.setprofile(count_call)
        try:
            report = reconstruct_photos([folder] if as_folder else photos, csv, tmp_path / "out", dull, 1)
        finally:
            sys.setprofile(None)
        assert len(report.skipped) == count
        return total

    assert calls(120) < 4 * calls(40)


def test_results_never_replace_a_photo(
    dull: Callable[..., Reconstruction], points: NDArray[np.float64], tmp_path: Path
) -> None:
    for name in ("a.png", "a_mask.png"):
        write_photo(tmp_path / name)
    before = (tmp_path / "a_mask.png").read_bytes()
    csv = write_landmarks(tmp_path / "points.csv", {"a.png": points, "a_mask.png": points})
    report = reconstruct_photos([tmp_path], csv, tmp_path, dull, 2)
    assert [skip.name for skip in report.skipped] == [str(tmp_path / "a.png")]
    assert "would replace a photo" in report.skipped[0].reason
    assert (tmp_path / "a_mask.png").read_bytes() == before
    assert (tmp_path / "a_mask_mask.png").is_file()


def test_nothing_to_do(dull: Callable[..., Reconstruction], points: NDArray[np.float64], tmp_path: Path) -> None:
    csv = write_landmarks(tmp_path / "points.csv", {"a.png": points})
    with pytest.raises(FocusError, match="at least one photo"):
        reconstruct_photos([], csv, tmp_path / "out", dull, 2)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FocusError, match=r"expected a folder for results, but .*file is a file"):
            reconstruct_photos([tmp_path / "a.png"], csv, out, dull, 2)
    gone = reconstruct_photos([tmp_path / "gone"], csv, tmp_path / "out", dull, 2)
    assert [skip.reason for skip in gone.skipped] == ["no such file or folder"]
    report = reconstruct_photos(
        [tmp_path / "a.png"], csv, tmp_path / "out", lambda *a, **k: dull("bad", a, name="bad", notify=int), 2
    )
    assert not report.written
    assert len(report.skipped) == 1


def test_bad_photos_do_not_stop_the_others(model: MorphableModel, points: NDArray[np.float64], tmp_path: Path) -> None:
    write_photo(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    rows = {"empty.png": points, "cut.png": points, "dot.png": points, "far.png": points + 300, "good.png": points}
    write_photo(tmp_path / "far.png")
    csv = write_landmarks(tmp_path / "points.csv", rows)
    report = run([tmp_path], csv, model, tmp_path / "out", replace(QUICK, coarse_steps=0, fine_steps=1))
    assert [Path(item.name).name for item in report.written] == ["good.png"]
    assert {Path(skip.name).name for skip in report.skipped} == {"empty.png", "cut.png", "dot.png", "far.png"}
    assert {path.name.split("_")[0].split(".")[0] for path in (tmp_path / "out").iterdir()} == {"good"}


def test_landmark_error(points: NDArray[np.float64]) -> None:
    eyes = np.linalg.norm(points[36] - points[45])
    assert landmark_error(points, points) == 0
    assert landmark_error(points, points + np.array([3, 4])) == pytest.approx(100 * 5 / eyes)
    five = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), points[30], points[48], points[54]])
    assert landmark_error(five, points + np.array([0, 1])) == pytest.approx(100 / np.linalg.norm(five[0] - five[1]))
