"""Reconstructions of the images of the NoW challenge: boxes of faces, the layout of the files, what is skipped."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from focus.cli import NOTHING_WRITTEN, REFUSED, main
from focus.data import SyntheticFaces, SyntheticSettings, estimate_alignment, five_from_68, write_image
from focus.errors import FocusError
from focus.eval.now import NowImage, points_in_box, read_box, seven_landmarks
from focus.eval.now.dataset import load_prediction
from focus.face import MorphableModel
from focus.reconstructor import Reconstructor
from focus.report.now import write_prediction
from focus.train import shipped_checkpoint

BOX = {"left": 10.0, "top": 20, "right": np.float64(110.5), "bottom": np.int64(140)}


def _pickled(content: Any, protocol: int = 2) -> bytes:
    """A .npy file of an object, as old versions of numpy wrote it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.array(None, dtype=object)
    array[()] = content
    content = pickle.dumps(array, protocol=protocol)
    # From protocol 4 on, names have their length before them.
    return file.getvalue() + (content.replace(b"numpy._core", b"numpy.core") if protocol < 4 else content)


def test_boxes_are_read_as_the_dataset_has_them(tmp_path: Path) -> None:
    path, expected = tmp_path / "box.npy", [10, 20, 110.5, 140]
    np.save(path, np.array(BOX, dtype=object), allow_pickle=True)
    assert read_box(path).tolist() == expected
    for protocol in (0, 1, 2, 4):
        path.write_bytes(_pickled(BOX, protocol))
        assert read_box(path).tolist() == expected
    # Python 2 wrote keys as byte strings: SHORT_BINSTRING of a pickle of protocol 2.
    old = _pickled({"KEY": 1}).replace(b"X\x03\x00\x00\x00KEY", b"U\x04left")
    path.write_bytes(old)
    with pytest.raises(FocusError, match="KeyError: 'top'"):
        read_box(path)
    np.save(path, np.array(expected))
    assert read_box(path).tolist() == expected


class _Harmful:
    """Would make a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_what_is_no_box_is_named_and_runs_no_code(tmp_path: Path) -> None:
    path, harm = tmp_path / "box.npy", tmp_path / "harm"
    with pytest.raises(FocusError, match="no such file; expected the box of a face"):
        read_box(path)
    whole = _pickled(BOX)
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    for content, message in (
        (_pickled({**BOX, "x": _Harmful(harm)}), "mkdir is neither an array nor a number"),
        (b"", "cannot be read as the box"),
        (whole[:-20], "cannot be read as the box"),
        (whole[:40], "cannot be read as the box"),
        (plain.getvalue(), "four finite numbers"),
        (_pickled([1, 2]), "four finite numbers"),
        (_pickled("box"), "cannot be read as the box"),
        (_pickled({**BOX, "left": 200}), "left < right"),
        (_pickled({**BOX, "left": float("nan")}), "four finite numbers"),
    ):
        path.write_bytes(content)
        with pytest.raises(FocusError, match=message):
            read_box(path)
    assert not harm.exists()


def test_the_box_of_the_mean_face_gives_its_points() -> None:
    model = MorphableModel.procedural("small")
    points = model.mean_shape[model.landmarks68].double().numpy()[:, :2] * (2, -2) + (300, 200)
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    np.testing.assert_allclose(points_in_box(box, model), five_from_68(points), atol=1e-9)
    # A box of twice the size is a crop of twice the size, with the middle of the box at the same place in it.
    middle = (box[:2] + box[2:]) / 2
    large = np.concatenate([2 * box[:2] - middle, 2 * box[2:] - middle])
    first, second = (estimate_alignment(points_in_box(b, model), 64) for b in (box, large))
    assert first.scale == pytest.approx(2 * second.scale)
    np.testing.assert_allclose(first.to_crop(middle), second.to_crop(middle), atol=1e-9)


def test_meshes_beside_meshes_of_another_suffix_are_refused(tmp_path: Path) -> None:
    model, image = MorphableModel.procedural("small"), NowImage("A", "selfie", "1")
    (tmp_path / "A" / "selfie").mkdir(parents=True)
    (tmp_path / "A" / "selfie" / "1.obj").touch()
    with pytest.raises(FocusError, match=r"1\.obj is there already"):
        write_prediction(tmp_path, image, model.mean_shape, model.mean_albedo, model)
    (tmp_path / "A" / "selfie" / "1.obj").unlink()
    write_prediction(tmp_path, image, model.mean_shape, model.mean_albedo, model)
    mesh, landmarks = load_prediction(tmp_path, image)
    np.testing.assert_allclose(mesh.vertices, model.mean_shape, atol=1e-4)
    assert (landmarks == model.mean_shape[seven_landmarks(model)].double().numpy()).all()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic photos, three bad ones, boxes of all but one, landmarks of the first, and the list."""
    folder = tmp_path_factory.mktemp("now")
    place, boxes = folder / "iphone_pictures" / "A" / "selfie", folder / "detected_face" / "A" / "selfie"
    place.mkdir(parents=True)
    boxes.mkdir(parents=True)
    batch = SyntheticFaces(MorphableModel.procedural("small"), 128, 3, SyntheticSettings(occluded_fraction=0)).batch(
        0, 2
    )
    for i in range(2):
        write_image(place / f"{i}.jpg", batch.image[i].permute(1, 2, 0).numpy())
        points = batch.landmarks[i].numpy()
        sides = dict(zip(BOX, np.concatenate([points.min(axis=0), points.max(axis=0)]).tolist(), strict=True))
        (boxes / f"{i}.npy").write_bytes(_pickled(sides))
    (place / "damaged.jpg").write_bytes((place / "0.jpg").read_bytes()[:300])
    (place / "unboxed.jpg").write_bytes((place / "0.jpg").read_bytes())
    for name in ("damaged", "missing"):
        (boxes / f"{name}.npy").write_bytes((boxes / "0.npy").read_bytes())
    row = ["A/selfie/0.jpg", *map(str, batch.landmarks[0].flatten().tolist())]
    (folder / "landmarks.csv").write_text(",".join(row) + "\n")
    names = ("0", "1", "damaged", "unboxed", "missing")
    (folder / "list.txt").write_text("".join(f"A/selfie/{name}.jpg\n" for name in names))
    return folder


def run(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    """A command with --json: its exit code is as expected; returns what it said."""
    assert main([*map(str, arguments), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_images_are_reconstructed_where_now_looks_for_them(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = shipped_checkpoint()
    assert network is not None
    photos, listed = dataset / "iphone_pictures", dataset / "list.txt"
    command = ["evaluate", "predictions", network, "--images", listed, "--photos", photos, "--device", "cpu"]
    answer = run([*command, "--out", tmp_path / "mine"], capsys)
    reasons = {skip["name"]: skip["reason"] for skip in answer["skipped"]}
    assert list(reasons) == ["A/selfie/damaged", "A/selfie/unboxed", "A/selfie/missing"]
    assert "damaged.jpg: cannot be read as an image" in reasons["A/selfie/damaged"]
    assert "unboxed.npy: no such file" in reasons["A/selfie/unboxed"]
    assert "expected one picture of this name, found none" in reasons["A/selfie/missing"]
    assert [Path(path).name for path in answer["written"]] == ["0.ply", "0.npy", "1.ply", "1.npy"]
    boxed = load_prediction(tmp_path / "mine", NowImage("A", "selfie", "0"))

    # With landmarks: the neutral face of what focus reconstruct finds.
    row = (dataset / "landmarks.csv").read_text()
    extra = tmp_path / "landmarks.csv"
    extra.write_text(row + row.replace("0.jpg", "7"))
    answer = run([*command, "--landmarks", extra, "--out", tmp_path / "points"], capsys)
    assert {"A/selfie/7", "A/selfie/damaged"} <= {skip["name"] for skip in answer["skipped"]}
    extra.write_text(row + row.replace("0.jpg", "0"))
    refused = run([*command, "--landmarks", extra, "--out", tmp_path / "points"], capsys, REFUSED)
    assert "a second row of landmarks for the image A/selfie/0" in refused["error"]
    reconstructor = Reconstructor.load(network)
    points = np.loadtxt((dataset / "landmarks.csv"), delimiter=",", usecols=range(1, 137)).reshape(68, 2)
    found = reconstructor.photo(photos / "A" / "selfie" / "0.jpg", points)
    written = trimesh.load(tmp_path / "points" / "A" / "selfie" / "0.ply", process=False)
    neutral = reconstructor.model.neutral_shape(found.parameters.identity)[0].numpy()
    np.testing.assert_allclose(written.vertices, neutral, atol=1e-4)
    assert np.abs(found.vertices.numpy() - neutral).max() > 0.1
    # The box leads to nearly the same face.
    assert 0 < np.linalg.norm(boxed.mesh.vertices - neutral, axis=1).mean() < 2


def test_predictions_are_measured(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("igl")
    model, network = MorphableModel.procedural("small"), shipped_checkpoint()
    scans = tmp_path / "scans" / "A"
    scans.mkdir(parents=True)
    trimesh.Trimesh(model.mean_shape.numpy(), model.faces.numpy(), process=False).export(scans / "1.obj")
    picked = model.mean_shape[seven_landmarks(model)].tolist()
    text = "".join(f'<point x="{x}" y="{y}" z="{z}"/>' for x, y, z in picked)
    (scans / "1.pp").write_text(f"<PickedPoints>{text}</PickedPoints>")
    (tmp_path / "list.txt").write_text("A/selfie/0.jpg\nA/selfie/1.jpg\n")
    listed = ["--images", tmp_path / "list.txt"]
    run(
        ["evaluate", "predictions", network, *listed, "--photos", dataset / "iphone_pictures", "--out", tmp_path / "m"],
        capsys,
    )
    options = ["--predictions", f"mine={tmp_path / 'm'}", "--workers", 1]
    answer = run(["evaluate", "now", "--scans", tmp_path / "scans", *listed, *options], capsys)
    assert 0.2 < answer["methods"]["mine"]["all"]["mean"] < 4
    assert answer["notes"] == []


def test_predictions_that_cannot_begin_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, listed, network = dataset / "iphone_pictures", dataset / "list.txt", shipped_checkpoint()
    base = ["evaluate", "predictions", network, "--images", listed, "--out", tmp_path / "out"]
    for options, message in (
        (["--photos", tmp_path / "none"], "no such folder of images"),
        (["--photos", photos, "--boxes", tmp_path / "none"], "no such folder of face boxes"),
        (["--photos", photos, "--passes", 0], "--passes: expected a whole number from 1"),
        (["--photos", photos, "--out", dataset / "detected_face"], "would replace the face boxes"),
        (["--photos", photos, "--landmarks", tmp_path / "none.csv"], "no such landmark file"),
    ):
        assert message in run([*base, *options], capsys, REFUSED)["error"]
    (tmp_path / "list.txt").write_text("A/selfie/damaged.jpg\n")
    nothing = [*base[:3], "--images", tmp_path / "list.txt", "--photos", photos, "--out", tmp_path / "out"]
    assert run(nothing, capsys, NOTHING_WRITTEN)["written"] == []
    assert not (tmp_path / "out").exists()
