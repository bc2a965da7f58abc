"""Masks of other programs: on the pictures of the fixed test set, and beside the methods of this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus.cli import REFUSED, main
from focus.data import read_image, write_image
from focus.errors import FocusError
from focus.eval.mask_files import check_masks, find_pictures, read_mask
from focus.eval.results import read_results

SET = ["--faces", "2", "--subsets", "general", "large_pose"]


def run(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    """A command with --json: its exit code is as expected; returns what it said."""
    assert main([*map(str, arguments), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of two subsets, two faces each."""
    folder = tmp_path_factory.mktemp("pictures")
    assert main(["evaluate", "pictures", *SET, "--out", str(folder)]) == 0
    return folder


def test_pictures_and_true_masks_have_the_same_names(pictures: Path) -> None:
    said = json.loads((pictures / "pictures.json").read_text())
    assert (said["faces"], said["seed"], list(said["subsets"])) == (2, 0, ["general", "large_pose"])
    for subset in ("general", "large_pose"):
        names = sorted(path.name for path in (pictures / "pictures" / subset).iterdir())
        assert names == sorted(path.name for path in (pictures / "true_masks" / subset).iterdir())
        assert [name.rsplit("-", 1)[1] for name in names] == ["occluded.png", "unoccluded.png"] * 2
        with_occluder, without = (read_mask(pictures / "true_masks" / subset / name) for name in names[:2])
        assert set(np.unique(with_occluder)) == {0, 255}
        assert ((with_occluder > 0) <= (without > 0)).all()
        assert with_occluder.sum() < without.sum()
        picture = read_image(pictures / "pictures" / subset / names[0])
        assert picture.shape == (said["image_size"], said["image_size"], 3)
        assert picture.std() > 10


def test_pictures_of_no_faces_or_of_an_unknown_subset_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--faces", 0], "--faces: expected a whole number from 1"),
        (["--subsets", "sunny"], "expected one of general"),
    ):
        refused = run(["evaluate", "pictures", *options, "--out", tmp_path / "out"], capsys, REFUSED)
        assert message in refused["error"]
    assert not (tmp_path / "out").exists()


def test_folders_of_masks_are_rows_beside_the_rules(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true = pictures / "true_masks"
    white = tmp_path / "white"
    for path in true.glob("*/*.png"):
        (white / path.parent.name).mkdir(parents=True, exist_ok=True)
        write_image(white / path.parent.name / path.name, np.ones_like(read_mask(path)) * 255)
    masks = ["--masks", f"true={true}", "--masks", f"white={white}"]
    options = [*SET, "--device", "cpu", "--out", tmp_path / "out"]
    answer = run(["evaluate", "segmentation", *masks, *options], capsys)
    for rows in answer["subsets"].values():
        assert list(rows) == ["all face", "skin colour", "outlier-robust", "true", "white"]
        for half in ("occluded", "unoccluded"):
            assert rows["true"]["halves"][half]["outlier_iou"] == 1
            assert rows["true"]["halves"][half]["f1"] > 0.99
        assert rows["white"] == rows["all face"]  # inside the rendered face, the same mask
    kept = read_results(tmp_path / "out" / "results.jsonl")
    assert {(result.method, result.subset) for result in kept} >= {("true", "general"), ("white", "large_pose")}
    compared = run(["evaluate", "compare", tmp_path / "out" / "results.jsonl", "--reference", "outlier-robust"], capsys)
    assert compared["comparisons"][0]["methods"]["true"]["occluded"]["outlier_iou"]["difference"]["mean"] > 0


def test_masks_that_cannot_be_scored_are_named(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(pictures / "true_masks", mine)
    first, second, third, fourth = sorted((mine / "general").iterdir())
    first.unlink()
    second.write_bytes(b"")
    write_image(third, np.ones((20, 30), np.float32))
    write_image(fourth, np.dstack([read_mask(fourth)] * 2 + [0 * read_mask(fourth)]))
    size = json.loads((pictures / "pictures.json").read_text())["image_size"]
    options = [*SET, "--device", "cpu", "--out", tmp_path / "out"]
    refused = run(["evaluate", "segmentation", "--masks", f"mine={mine}", *options], capsys, REFUSED)["error"]
    for part in (
        "masks of mine: 4 of 4 cannot be used",
        f"{first.name}: no such file",
        f"{second.name}: the file is empty",
        f"{third.name}: expected a mask of {size} x {size} pixels, as its picture has, got 30 x 20",
        f"{fourth.name}: expected grey values, got colours",
    ):
        assert part in refused
    for given, message in (
        (["mine"], "expected NAME=VALUE"),
        ([f"mine={mine}", f"mine={mine}"], "mine is given twice"),
        ([f"all face={mine}"], "all face is the name of a method here"),
        ([f"FOCUS={mine}"], "FOCUS is the name of a method here"),
        ([f"mine={tmp_path / 'none'}"], "general: no such folder"),
    ):
        masks = [word for text in given for word in ("--masks", text)]
        assert message in run(["evaluate", "segmentation", *masks, *options], capsys, REFUSED)["error"]
    assert not (tmp_path / "out").exists()  # found before the work


@pytest.mark.parametrize("label", [1, 13])
def test_labels_of_classes_are_no_masks(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], label: int
) -> None:
    mine = shutil.copytree(pictures / "true_masks", tmp_path / "mine")
    for path in mine.glob("*/*.png"):
        write_image(path, np.where(read_mask(path) > 0, label, 0).astype(np.uint8))
    options = ["--masks", f"mine={mine}", *SET, "--device", "cpu", "--out", tmp_path / "out"]
    assert (
        f"got none above {label} in any mask" in run(["evaluate", "segmentation", *options], capsys, REFUSED)["error"]
    )
    for path in mine.glob("*/*.png"):
        write_image(path, np.zeros_like(read_mask(path)))  # a method that calls everything hidden
    assert "mine" in run(["evaluate", "segmentation", *options], capsys)["subsets"]["general"]


def test_long_lists_of_problems_are_cut(tmp_path: Path) -> None:
    with pytest.raises(FocusError, match=r"30 of 30 cannot be used(.|\n)*and 20 more"):
        check_masks("mine", tmp_path, map(str, range(30)), 64)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        write_image(tmp_path / name, np.ones((20, 20), np.float32))
    with pytest.raises(FocusError, match="another one of a"):
        find_pictures(tmp_path)
