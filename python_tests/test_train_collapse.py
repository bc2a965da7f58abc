"""Masks that go black or white: provoked with weights far off, in real if short training, and caught by the guard.

The preset `small` from the shipped initial network, with small batches. A first turn of the segmentation network on the
masks of the outlier-robust rule is shared, as in a run; what follows from it is up to the weights of L_S.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from focus.cli import REFUSED, main
from focus.errors import FocusError
from focus.train import Settings, load_checkpoint, monitor, shipped_checkpoint, train
from focus.train.config import GuardSettings, LogSettings, StageSettings
from focus.train.monitor import MaskGuard, empty_images

WINDOW = 20


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """`threads` is a setting of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The end of the stage segmentation, which knows no weights of L_S."""
    folder = tmp_path_factory.mktemp("pretrained")
    stages = StageSettings(initialise=0, segmentation=20, joint=0)
    assert train(short(shipped_checkpoint(), stages=stages), folder)
    return folder / "segmentation.safetensors"


def short(start: Path, *, stages: StageSettings | None = None, highest: float = 0.995, **weights: float) -> Settings:
    """The preset `small`, cut short."""
    small = Settings.preset("small")
    return replace(
        small,
        batch_size=4,
        start=start,
        threads=1,
        device="cpu",
        data=replace(small.data, distinct=64, validation=0),
        stages=stages or StageSettings(0, 0, joint=80, cycle=80, segmentation_in_cycle=70),
        segmentation_weights=replace(small.segmentation_weights, **weights),
        guard=GuardSettings(window=WINDOW, highest=highest),
        log=LogSettings(every=10, checkpoint_every=10, validate_every=1000, tensorboard="off"),
    )


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def check_begins_again(settings: Settings, folder: Path) -> None:
    """Resuming the run with other weights is refused; a new one from its checkpoint, with the preset's, is well."""
    mended = replace(settings, segmentation_weights=Settings.preset("small").segmentation_weights)
    with pytest.raises(FocusError, match=r"other settings \(segmentation_weights.area.*start a new run"):
        train(mended, folder, resume=True)
    again = folder / "again"
    assert train(replace(mended, start=folder / "last.safetensors"), again)
    last = lines_of(again)[-1]
    assert last["kind"] == "joint/reconstruction"
    assert 0.5 < last["mask"] < 0.98
    assert last["empty"] == 0


@pytest.mark.slow
def test_weights_of_the_preset_pass(pretrained: Path, tmp_path: Path) -> None:
    assert train(short(pretrained), tmp_path)
    lines = lines_of(tmp_path)
    assert all(0.5 < line["mask"] < 0.98 and line["empty"] == 0 for line in lines)
    assert len(lines) == 8


@pytest.mark.slow
def test_without_area_whole_images_go_black_while_the_mean_looks_well(pretrained: Path, tmp_path: Path) -> None:
    settings = short(pretrained, area=0.0)
    with pytest.raises(FocusError) as caught:
        train(settings, tmp_path)
    message = str(caught.value)
    found = re.search(r"over 20 iterations is (0\.\d+), but (\d+)% of the images keep less than 10% of their", message)
    assert found, message
    assert 0.1 < float(found[1]) < 0.9  # far above guard.lowest
    assert 10 < int(found[2]) < 80
    assert "Raise segmentation_weights.area, then preserve, or lower its neighbor or distance" in message
    assert "new run" in message
    assert str(tmp_path / "last.safetensors") in message
    step = int(message.split("after iteration ")[1].split(":")[0])
    assert load_checkpoint(tmp_path / "last.safetensors").header.step == step - 10
    check_begins_again(settings, tmp_path)


@pytest.mark.slow
def test_without_area_and_preserve_all_masks_go_black(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "EMPTY_IMAGES", 1.0)  # it would end the run earlier: see to the end what happens
    stages = StageSettings(0, 0, joint=140, cycle=140, segmentation_in_cycle=130)
    settings = short(pretrained, stages=stages, area=0.0, preserve=0.0)
    with pytest.raises(FocusError, match=r"is 0\.00\d+, below 0.005 \(guard.lowest\).*Raise segmentation_weights.area"):
        train(settings, tmp_path)
    last = lines_of(tmp_path)[-1]
    assert last["empty"] == 1
    assert last["neighbor"] < 0.001  # a black mask has nothing to explain
    assert last["distance"] < 0.001
    shorter = short(pretrained, area=0.0, preserve=0.0)
    check_begins_again(shorter, tmp_path)  # from a checkpoint whose masks are nearly black


@pytest.mark.slow
def test_too_much_area_makes_everything_face(pretrained: Path, tmp_path: Path) -> None:
    settings = short(pretrained, area=6.0)
    with pytest.raises(FocusError, match=r"above 0.995 \(guard.highest\).*Lower segmentation_weights.area.*\.safeten"):
        train(settings, tmp_path)
    check_begins_again(settings, tmp_path)


@pytest.mark.slow
def test_faces_that_nothing_hides_may_be_all_face(pretrained: Path, tmp_path: Path) -> None:
    def bare(highest: float) -> Settings:
        settings = short(pretrained, area=6.0, highest=highest)
        synthetic = replace(settings.data.synthetic, occluded_fraction=0.0)
        return replace(settings, data=replace(settings.data, synthetic=synthetic))

    with pytest.raises(FocusError, match=r"if nothing hides these faces, set guard\.highest to 1"):
        train(bare(0.995), tmp_path / "guarded")
    assert train(bare(1.0), tmp_path / "free")
    assert lines_of(tmp_path / "free")[-1]["mask"] > 0.995


@pytest.mark.slow
def test_the_command_ends_with_the_message(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "out": tmp_path / "run",
        "start": pretrained,
        "batch-size": 4,
        "threads": 1,
        "stages.initialise": 0,
        "stages.segmentation": 0,
        "stages.joint": 80,
        "stages.cycle": 80,
        "stages.segmentation-in-cycle": 70,
        "data.distinct": 64,
        "data.validation": 0,
        "segmentation-weights.area": 0,
        "guard.window": WINDOW,
        "log.every": 10,
        "log.checkpoint-every": 10,
        "log.tensorboard": "off",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["train", *arguments, "--json"]) == REFUSED
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert not answer["ok"]
    assert "the masks collapsed" in answer["error"]
    assert f"error: {answer['error']}" in output.err
    assert "segmentation_weights.area" in answer["error"]
    assert "Traceback" not in output.err
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_images_without_a_mask_are_counted() -> None:
    face = torch.zeros(4, 1, 10, 10)
    face[:3] = 1
    mask = torch.ones(4, 1, 10, 10)
    mask[0], mask[1] = 0.09, 0.11
    assert empty_images(mask, face).item() == 0.25  # the last one has no face to hide
    mask.requires_grad_()
    assert not empty_images(mask, face).requires_grad


def problem_of(mask: float, empty: float | None = None, *, learnt: bool = True, **limits: float) -> str | None:
    """What a guard says after two windows, the first of them well."""
    guard = MaskGuard(GuardSettings(window=2, **limits), highest=learnt)
    assert guard.problem() is None
    for value, part in ((0.5, 0.0), (0.5, 0.0), (mask, empty), (mask, empty)):
        assert guard.problem() is None
        guard.add(torch.tensor(value), None if part is None else torch.tensor(part))
    return guard.problem()


def test_limits_of_the_guard() -> None:
    assert problem_of(0.5) is None
    assert problem_of(0.5, 0.09) is None
    assert "11% of the images" in str(problem_of(0.5, 0.11))
    assert problem_of(0.5, 0.11, lowest=0.0) is None
    assert "below 0.005" in str(problem_of(0.004, 1.0))
    assert "above 0.995" in str(problem_of(0.996, 0.0))
    assert problem_of(1.0, 0.0, highest=1.0) is None
    assert problem_of(0.0, 1.0, lowest=0.0) is None
    assert "collapsed" in str(problem_of(math.nan))


def test_masks_that_are_not_learnt_have_no_weights_to_blame() -> None:
    assert problem_of(0.999, 0.0, learnt=False) is None
    assert problem_of(0.5, 0.5, learnt=False) is None  # a reconstruction that does not fit yet
    said = str(problem_of(0.001, 1.0, learnt=False))
    assert "segmentation_weights" not in said
    assert "robust.cutoff" in said
