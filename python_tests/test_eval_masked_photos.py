"""Photos with true masks: the same crop for both, halves only where they are known, and what is refused."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focus.cli import NOTHING_WRITTEN, REFUSED, main
from focus.data import estimate_alignment, write_image
from focus.errors import FocusError
from focus.eval import Method
from focus.eval.benchmark import true_mask, whole_face
from focus.eval.mask_files import read_mask
from focus.eval.masked_photos import MaskedPhotos, evaluate_photos, read_names, results_of_photos
from focus.eval.results import read_results
from focus.face import FaceParameters, MorphableModel
from focus.train import shipped_checkpoint

SIZE = 48
POINTS = np.array([[105.0, 90], [155, 90], [130, 118], [108, 142], [152, 142]])
NAMES = ("a.png", "b.png", "c.jpg", "d.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/ of noise, the last one cut off beside the face; truth/ hides everything below y = 120; landmarks.csv."""
    rng = np.random.default_rng(1)
    for folder in ("photos", "truth"):
        (tmp_path / folder).mkdir()
    rows = []
    for name in NAMES:
        shape = (240, 150) if name == "d.png" else (240, 260)
        write_image(tmp_path / "photos" / name, rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        mask = np.zeros(shape, np.float32)
        mask[:120] = 1
        write_image(tmp_path / "truth" / f"{Path(name).stem}.png", mask)
        rows.append(",".join([name, *map(str, POINTS.flatten())]))
    (tmp_path / "landmarks.csv").write_text("\n".join(rows))
    return tmp_path


def load(folder: Path, occluded: Sequence[str] | None = None) -> MaskedPhotos:
    """The photos of the fixture."""
    return MaskedPhotos(folder / "photos", folder / "landmarks.csv", folder / "truth", SIZE, occluded=occluded)


def test_masks_go_through_the_crop_of_their_photos(photos: Path) -> None:
    found = load(photos)
    assert found.names == NAMES
    assert (found.skipped, found.occluded, found.subset) == ([], None, "photos")
    batch, inside = found.batch(0, 4)
    assert batch.visible_mask is not None
    # By the crop's own arithmetic: row y of the crop shows row `to_photo` of the photo.
    alignment = estimate_alignment(POINTS, SIZE)
    centres = alignment.to_photo(np.stack([np.arange(SIZE)] * 2, axis=1).astype(float))
    seen = torch.from_numpy(centres[:, 1] < 119.5)
    wrong = (batch.visible_mask[0, 0] > 0.5) != seen[:, None]
    assert wrong.any(dim=1).sum() == 0
    assert 0 < seen.sum() < SIZE
    assert inside[:3].min() == 1
    assert (inside[3, 0] > 0.5).equal(torch.from_numpy(centres[:, 0] <= 149.5).expand(SIZE, SIZE))
    assert inside[3].mean() < 1


def _methods(model: MorphableModel) -> list[Method]:
    def mean(images: Tensor) -> FaceParameters:
        return FaceParameters.cat([FaceParameters.mean(model)] * len(images))

    return [Method("whole", mean, whole_face), Method("truth", mean, true_mask)]


def test_scores_by_hand_and_halves_only_where_they_are_known(photos: Path) -> None:
    model = MorphableModel.procedural("small", 2, 1, 1)
    done: list[tuple[int, int]] = []
    found = load(photos, ["b", "c.jpg"])
    values = evaluate_photos(_methods(model), found, model, batch_size=3, progress=lambda *state: done.append(state))
    assert done == [(3, 4), (4, 4)]
    assert (values["truth"]["outlier_iou"] == 1).all()
    assert (values["whole"]["outlier_iou"] == 0).all()
    assert (values["whole"]["recall"] > 0.99).all()
    assert ((values["whole"]["precision"] > 0.3) & (values["whole"]["precision"] < 0.9)).all()
    whole, _ = results_of_photos(values, found, commit="0")
    assert whole.halves == ("occluded", "unoccluded", "overall")
    assert whole.occluded == (False, True, True, False)
    assert set(whole.values) == {
        "accuracy", "precision", "recall", "f1", "outlier_iou",
        "hard_accuracy", "hard_precision", "hard_recall", "hard_f1",
    }  # fmt: skip
    (unknown, _) = results_of_photos(values, load(photos), commit="0")
    assert unknown.halves == ("overall",)
    assert unknown.digest == whole.digest


def test_the_digest_names_photos_masks_and_landmarks(photos: Path) -> None:
    digests = {load(photos).digest, load(photos, ["a"]).digest}
    assert len(digests) == 1
    write_image(photos / "truth" / "a.png", np.ones((240, 260), np.float32))
    digests.add(load(photos).digest)
    (photos / "landmarks.csv").write_text((photos / "landmarks.csv").read_text().replace("105.0", "104.0"))
    digests.add(load(photos).digest)
    (photos / "photos" / "a.png").write_bytes((photos / "photos" / "b.png").read_bytes())
    digests.add(load(photos).digest)
    digests.add(MaskedPhotos(photos / "photos", photos / "landmarks.csv", photos / "truth", SIZE + 16).digest)
    assert len(digests) == 5


def test_accents_and_several_faces_find_their_masks(photos: Path) -> None:
    """A table and masks as macOS writes names, photos as Linux does; the faces of a photo share its mask."""
    composed, apart = (unicodedata.normalize(form, "\xe9") for form in ("NFC", "NFD"))
    for folder, name in (("photos", f"{composed}.png"), ("truth", f"{apart}_mask.png")):
        (photos / folder / "a.png").rename(photos / folder / name)
    table = photos / "landmarks.csv"
    rows = table.read_text().replace("a.png", f"{apart}.png").splitlines()
    table.write_text("\n".join([*rows, ",".join([f"{apart}.png", *map(str, (POINTS + 20).flatten())])]))
    found = load(photos, [composed])
    assert found.names == (f"{apart}.png, face 1", "b.png", "c.jpg", "d.png", f"{apart}.png, face 2")
    assert found.occluded == (True, False, False, False, True)
    assert found.skipped == []


def test_photos_without_a_usable_mask_are_left_out_by_name(photos: Path) -> None:
    (photos / "truth" / "a.png").unlink()
    (photos / "truth" / "b.png").write_bytes(b"")
    write_image(photos / "truth" / "c.png", np.ones((260, 240), np.float32))
    found = load(photos)
    assert found.names == ("d.png",)
    reasons = dict(found.skipped)
    assert "no such file; expected the mask of a.png, of its size" in reasons["a.png"]
    assert "the file is empty" in reasons["b.png"]
    assert "expected a mask of 260 x 240 pixels, as its picture has, got 240 x 260" in reasons["c.jpg"]
    write_image(photos / "truth" / "d.png", np.ones((240, 150), np.uint8))
    with pytest.raises(FocusError, match=r"none of the 4 photos has a true mask to score; the first: a\.png"):
        load(photos)


def test_what_is_ambiguous_or_unknown_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FocusError, match=r"2 of 3 names are in no row of the landmark file: x, e\.png"):
        load(photos, ["a", "x", "e.png"])
    write_image(photos / "truth" / "a.jpg", np.ones((240, 260), np.float32))
    with pytest.raises(FocusError, match=r"none of the 4 photos.*another one of a"):
        load(photos)
    (photos / "photos" / "a.jpg").write_bytes((photos / "photos" / "c.jpg").read_bytes())
    with open(photos / "landmarks.csv", "a") as file:
        file.write("\n" + ",".join(["a.jpg", *map(str, POINTS.flatten())]))
    with pytest.raises(FocusError, match=r"a\.png and a\.jpg would share the mask"):
        load(photos)
    names = tmp_path / "names.txt"
    with pytest.raises(FocusError, match="no such file; expected names of photos"):
        read_names(names)
    names.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(FocusError, match="cannot be read as text"):
        read_names(names)
    names.write_text("\n \n")
    with pytest.raises(FocusError, match="found none"):
        read_names(names)
    names.write_text("\ufeffa\r\n\r\n b.png \n")
    assert read_names(names) == ["a", "b.png"]


def run(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    """A command with --json: its exit code is as expected; returns what it said."""
    assert main([*map(str, arguments), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_photos_are_scored_and_compared(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--photos", photos / "photos", "--landmarks", photos / "landmarks.csv", "--truth", photos / "truth"]
    command = ["evaluate", "segmentation", *source, "--device", "cpu", "--out", tmp_path / "out"]
    (photos / "truth" / "d.png").unlink()
    answer = run([*command, "--masks", f"mine={photos / 'truth'}"], capsys)
    assert [skip["name"] for skip in answer["skipped"]] == ["d.png"]
    rows = answer["subsets"]["photos"]
    assert list(rows) == ["all face", "skin colour", "outlier-robust", "mine"]
    assert list(rows["mine"]["halves"]) == ["overall"]
    assert rows["mine"]["halves"]["overall"]["outlier_iou"] > 0.95
    assert "occluded" not in (tmp_path / "out" / "segmentation.md").read_text()
    results = tmp_path / "out" / "results.jsonl"
    compared = run(["evaluate", "compare", results, "--reference", "all face"], capsys)["comparisons"]
    assert [(row["subset"], row["version"], row["pictures"]) for row in compared] == [("photos", 0, 3)]
    assert list(compared[0]["methods"]["mine"]) == ["overall"]
    assert "shape_error_mm" not in compared[0]["methods"]["mine"]["overall"]
    missing = run(
        ["evaluate", "pose", results, "--subset", "photos", "--value", "f1", "--out", tmp_path], capsys, REFUSED
    )
    assert "known yaw" in missing["error"]

    # The same once more with halves takes the place of the lines before it, but for methods that are left out.
    (tmp_path / "occluded.txt").write_text("a\nb.png\n")
    halves = run([*command, "--occluded", tmp_path / "occluded.txt"], capsys)["subsets"]["photos"]
    assert list(halves["all face"]["halves"]) == ["unoccluded", "occluded", "overall"]
    assert len(read_results(results)) == 4
    assert "disagree about which" in run(["evaluate", "compare", results], capsys, REFUSED)["error"]

    small = tmp_path / "small"
    small.mkdir()
    for name in ("a.png", "b.png"):  # of c there is none
        write_image(small / name, np.ones((20, 20), np.float32))
    for more, message in (
        (["--faces", 3], "are of the test set"),
        (["--masks", f"mine={tmp_path / 'none'}"], "no such folder"),
        (["--masks", f"mine={small}"], "masks of mine: 3 of 3 cannot be used"),
    ):
        assert message in run([*command, *more], capsys, REFUSED)["error"]
    alone = ["evaluate", "segmentation", "--out", tmp_path / "x"]
    assert "expected --landmarks and --truth" in run([*alone, *source[:2]], capsys, REFUSED)["error"]
    assert "--truth: of photos" in run([*alone, *source[4:]], capsys, REFUSED)["error"]
    (photos / "photos").rename(photos / "general")
    source[1] = photos / "general"
    assert "rename the folder" in run([*alone, *source], capsys, REFUSED)["error"]


def test_folders_of_focus_reconstruct_are_masks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, network = photos / "landmarks.csv", shipped_checkpoint()
    faces = tmp_path / "faces"
    run(
        [
            "reconstruct",
            photos / "photos",
            "--landmarks",
            table,
            "--checkpoint",
            network,
            "--device",
            "cpu",
            "--out",
            faces,
        ],
        capsys,
    )
    (faces / "c_mask.png").rename(faces / "c.png")
    answer = run(["evaluate", "masks", faces, "--truth", photos / "truth", "--out", tmp_path / "m"], capsys)
    assert [image["name"] for image in answer["images"]] == ["a_mask.png", "b_mask.png", "c.png", "d_mask.png"]
    assert answer["skipped"] == []
    (kept,) = read_results(tmp_path / "m" / "results.jsonl")
    assert (kept.method, kept.names) == ("faces", ("a", "b", "c", "d"))
    source = ["--photos", photos / "photos", "--landmarks", table, "--truth", photos / "truth", "--device", "cpu"]
    rows = run(["evaluate", "segmentation", *source, "--masks", f"own={faces}", "--out", tmp_path / "s"], capsys)
    scores = rows["subsets"]["photos"]
    # What the network's rule says in the crop, taken to the photo and back: the same but for the resampling.
    own, rule = (scores[name]["halves"]["overall"]["accuracy"] for name in ("own", "outlier-robust"))
    assert own == pytest.approx(rule, abs=0.03)


def test_masks_against_masks_give_a_result_that_compare_reads(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in (photos / "truth").iterdir():
        write_image(mine / path.name, np.ones((240, 150 if path.stem == "d" else 260), np.float32))
    out = tmp_path / "out"
    run(["evaluate", "masks", mine, "--truth", photos / "truth", "--out", out], capsys)
    run(["evaluate", "masks", photos / "truth", "--truth", photos / "truth", "--name", "best", "--out", out], capsys)
    (comparison,) = run(["evaluate", "compare", out / "results.jsonl"], capsys)["comparisons"]
    assert (comparison["subset"], comparison["reference"]) == ("truth", "mine")
    assert comparison["methods"]["best"]["overall"]["outlier_iou"]["difference"]["mean"] == 1
    again = run(["evaluate", "masks", mine, "--truth", photos / "truth", "--out", out], capsys)
    assert main([*map(str, ["evaluate", "masks", mine, "--truth", photos / "truth", "--out", out])]) == 0
    assert "takes the place of the results of mine of before" in capsys.readouterr().out
    assert again["mean"]["outlier_iou"] == 0
    shutil.copytree(photos / "truth", photos / "general")
    subset = ["evaluate", "masks", mine, "--truth", photos / "general", "--out", out]
    assert "rename the folder" in run(subset, capsys, REFUSED)["error"]
    kept = (out / "metrics.json").read_bytes()
    (out / "results.jsonl").rename(out / "kept")
    (out / "results.jsonl").write_text("nonsense")
    damaged = ["evaluate", "masks", mine, "--truth", photos / "truth", "--out", out]
    assert "line 1: no result" in run(damaged, capsys, REFUSED)["error"]
    assert (out / "metrics.json").read_bytes() == kept
    (out / "kept").rename(out / "results.jsonl")
    (mine / "a.png").unlink()
    run(["evaluate", "masks", mine, "--truth", photos / "truth", "--name", "fewer", "--out", out], capsys)
    assert "another test set" in run(["evaluate", "compare", out / "results.jsonl"], capsys, REFUSED)["error"]


def test_nothing_is_scored_against_masks_without_a_face_or_of_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = photos / "truth"
    labels, bare = tmp_path / "labels", tmp_path / "bare"
    for folder in (labels, bare):
        shutil.copytree(truth, folder)
    for path in labels.iterdir():
        write_image(path, np.where(read_mask(path) > 0, 17, 0).astype(np.uint8))
    write_image(bare / "a.png", np.zeros_like(read_mask(bare / "a.png")))
    error = run(["evaluate", "masks", labels, "--truth", truth], capsys, REFUSED)["error"]
    assert "masks of labels: expected values from 0 (not the face) to 255 (the face), got none above 17" in error
    for truth_option in (["--truth", bare], ["--truth", truth, "--region", bare]):
        answer = run(["evaluate", "masks", truth, *truth_option], capsys)
        assert [image["name"] for image in answer["images"]] == ["b.png", "c.png", "d.png"]
        (skip,) = answer["skipped"]
        assert "expected white (255) on the pixels of the face, got none brighter than 0" in skip["reason"]
    answer = run(["evaluate", "masks", truth, "--truth", labels], capsys, NOTHING_WRITTEN)
    assert len(answer["skipped"]) == 4
    assert all("none brighter than 17" in skip["reason"] for skip in answer["skipped"])
    source = ["--photos", photos / "photos", "--landmarks", photos / "landmarks.csv", "--device", "cpu"]
    alone = ["evaluate", "segmentation", *source, "--out", tmp_path / "out"]
    assert "none of the 4 photos has a true mask to score" in run([*alone, "--truth", labels], capsys, REFUSED)["error"]
    named = [*alone, "--truth", truth, "--masks", f"own={labels}"]
    assert "masks of own: expected values from 0" in run(named, capsys, REFUSED)["error"]
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "results.jsonl").write_text("nonsense")
    assert "line 1: no result" in run([*alone, "--truth", truth], capsys, REFUSED)["error"]
