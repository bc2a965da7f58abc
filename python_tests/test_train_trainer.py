"""The trainer on tiny networks and pictures: stages, methods, resuming to the bit, guards and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from focus import losses
from focus.data import FaceBatch, SyntheticFaces
from focus.data.skin import skin_mask
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.losses import ReconstructionWeights
from focus.nets import EncoderSettings, FilterBank, NetworkSettings, SegmentationSettings
from focus.train import Networks, Settings, Trainer, Turn, load_checkpoint
from focus.train.config import (
    DataSettings,
    FaceSettings,
    GuardSettings,
    LogSettings,
    OptimiserSettings,
    Rate,
    RobustSettings,
    StageSettings,
)
from focus.train.methods import METHODS
from focus.train.schedule import SEGMENTATION_STREAM

SIZE = 32
ENCODER = EncoderSettings(
    block="basic", blocks=(1, 1), widths=(8, 16), strides=(2, 2), stem_width=8, stem_kernel=3, output_width=None
)
SETTINGS = Settings(
    seed=5,
    image_size=SIZE,
    batch_size=3,
    face=FaceSettings(detail="small", identity=4, expression=2, albedo=3),
    network=NetworkSettings(ENCODER, SegmentationSettings(filters=(4, 8), dropout=0.5)),
    data=DataSettings(validation=2),
    stages=StageSettings(initialise=6, segmentation=2, joint=10, adapt=5, cycle=5, segmentation_in_cycle=2),
    robust=RobustSettings(plain=0.34, anneal=0.33),
    binary_ramp=3,
    optimiser=OptimiserSettings(
        name="adam",
        initialise=Rate(1e-3),
        segmentation=Rate(1e-3),
        joint_reconstruction=Rate(1e-3),
        joint_segmentation=Rate(1e-3),
    ),
    log=LogSettings(every=2, checkpoint_every=3, validate_every=100, tensorboard="off"),
)


@dataclass
class Pool:
    """A few batches, again and again, and which were asked for."""

    batches: list[FaceBatch]
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int) -> FaceBatch:
        self.asked.append(step)
        return self.batches[step % len(self.batches)]


@dataclass
class Recorder:
    """A logger that remembers."""

    lines: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    seconds_left: list[float] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def scalars(self, step: int, kind: str, values: dict[str, Any]) -> None:
        self.lines.append((step, kind, dict(values)))

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        self.seconds_left.append(seconds_left)

    def picture(self, step: int, name: str, picture: Any) -> None:
        assert picture.dtype == "uint8"
        self.pictures.append(name)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return SETTINGS.face.build()


@pytest.fixture(scope="module")
def batches(model: MorphableModel) -> list[FaceBatch]:
    faces = SyntheticFaces(model, SIZE, seed=1)
    return [faces.batch(3 * i, 3) for i in range(5)]


@pytest.fixture
def make(model: MorphableModel, batches: list[FaceBatch]) -> Callable[..., Trainer]:
    def trainer(settings: Settings = SETTINGS, **parts: Any) -> Trainer:
        torch.manual_seed(settings.seed)
        parts.setdefault("data", Pool(batches))
        return Trainer(settings, model, Networks.build(settings, model), features=FilterBank(), **parts)

    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.state()[1].items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_every_stage_runs_and_says_so(make: Callable[..., Trainer], batches: list[FaceBatch], tmp_path: Path) -> None:
    logger, turns = Recorder(), []
    trainer = make(
        validation=batches[0][:2],
        folder=tmp_path,
        logger=logger,
        after_turn=lambda trainer, turn: turns.append((turn.stage, turn.network, turn.cycle, trainer.step)),
    )
    before = weights(trainer)
    assert trainer.run()
    assert turns == [
        ("initialise", "reconstruction", 0, 6),
        ("segmentation", "segmentation", 0, 8),
        ("joint", "segmentation", 0, 10),
        ("joint", "reconstruction", 0, 13),
        ("joint", "segmentation", 1, 15),
        ("joint", "reconstruction", 1, 18),
        ("adapt", "segmentation", 0, 20),
        ("adapt", "reconstruction", 0, 23),
    ]
    after = weights(trainer)
    assert [name for name in before if torch.equal(before[name], after[name])] == []  # both networks have moved
    terms = {kind: set(values) - {"rate", "iterations_per_second", "waiting"} for _, kind, values in logger.lines}
    common, learns = {"loss", "perceptual", "landmark", "regularisation"}, {"gradient_norm"}
    assert terms["initialise/reconstruction"] == common | learns | {"robust", "inliers"}
    assert terms["segmentation/segmentation"] == learns | {"loss", "mask", "empty", "given"}
    assert terms["joint/segmentation"] == learns | {
        "loss", "neighbor", "distance", "area", "preserve", "binary", "mask", "empty"
    }  # fmt: skip
    assert terms["joint/reconstruction"] == common | learns | {"pixel", "area", "mask", "empty"}
    assert terms["validation"] == common | {
        "loss", "step", "robust", "mask", "empty", "f1", "outlier_iou", "appearance_rmse", "shape_error_mm"
    }  # fmt: skip
    first = next(values for _, kind, values in logger.lines if kind == "initialise/reconstruction")
    assert "pixel" in first  # the warm-up
    assert logger.seconds_left[-1] == 0.0
    assert all(left > 0 for left in logger.seconds_left[:-1])
    assert len(logger.pictures) == 8
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{name}.safetensors" for name in ("last", "initialise", "segmentation", "joint", "adapt", "best")
    }
    assert [load_checkpoint(tmp_path / f"{name}.safetensors").header.step for name in ("initialise", "joint")] == [
        6,
        18,
    ]


@pytest.mark.parametrize("method", METHODS)
def test_antialias_softens_the_outline_in_the_loss_alone(
    make: Callable[..., Trainer], batches: list[FaceBatch], method: Any
) -> None:
    plain, soft = (make(replace(SETTINGS, method=method, antialias=on), validation=batches[0]) for on in (False, True))
    before = [trainer.predict(batches[0]) for trainer in (plain, soft)]
    assert torch.equal(before[0].mask, before[1].mask)
    assert torch.equal(before[0].rendering.mask, before[1].rendering.mask)
    assert set(before[1].rendering.mask.unique().tolist()) == {0.0, 1.0}
    losses = []
    for trainer in (plain, soft):
        logger = trainer.logger = Recorder()
        assert trainer.run()
        losses.append([values["loss"] for _, kind, values in logger.lines if kind == "initialise/reconstruction"])
        assert all(torch.isfinite(torch.tensor(values["loss"])) for _, _, values in logger.lines)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


# Iteration 3: within the first stage; 8: between two stages; 12: within a turn of the joint stage; 15: between turns.
@pytest.mark.parametrize(
    ("name", "steps", "method"),
    [("adam", (3, 8, 12, 15), "focus"), ("adadelta", (12,), "focus"), ("adam", (7,), "cutmix")],
)
def test_resuming_changes_no_bit(
    make: Callable[..., Trainer], tmp_path: Path, name: Any, steps: tuple[int, ...], method: Any
) -> None:
    settings = replace(
        SETTINGS,
        method=method,
        optimiser=replace(SETTINGS.optimiser, name=name),
        stages=replace(SETTINGS.stages, adapt=0),
        log=replace(SETTINGS.log, checkpoint_every=1),
    )
    whole = make(settings, folder=tmp_path)
    batch = whole.data.batch

    def keep(number: int) -> FaceBatch:  # asked for the next batch, the trainer has just written its checkpoint
        if whole.step in steps:
            shutil.copy(tmp_path / "last.safetensors", tmp_path / f"{whole.step}.safetensors")
        return batch(number)

    whole.data.batch = keep  # type: ignore[method-assign]
    assert whole.run()
    for step in steps:
        torch.manual_seed(999)  # the state of the generator in between does not matter
        resumed = make(settings)
        for _, network in resumed.networks.items():
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter)
        resumed.resume(load_checkpoint(tmp_path / f"{step}.safetensors"))
        assert resumed.step == step
        assert resumed.run()
        assert_same(weights(whole), weights(resumed))


def test_runs_are_repeatable_and_seeds_matter(make: Callable[..., Trainer]) -> None:
    settings = replace(SETTINGS, stages=replace(SETTINGS.stages, initialise=2, joint=5, adapt=0))
    first, second, other = make(settings), make(settings), make(replace(settings, seed=6))
    for trainer in (first, second, other):
        trainer.run()
    assert_same(weights(first), weights(second))
    assert not torch.equal(weights(first)["segmentation.head.weight"], weights(other)["segmentation.head.weight"])


def test_resume_refuses_what_does_not_fit(make: Callable[..., Trainer], tmp_path: Path) -> None:
    settings = replace(SETTINGS, stages=replace(SETTINGS.stages, joint=0, adapt=0))
    make(settings, folder=tmp_path).run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    other = make(replace(settings, method="mofa", optimiser=replace(settings.optimiser, gradient_clip=1.0)))
    with pytest.raises(FocusError, match=r"other settings \(method, optimiser.gradient_clip\)"):
        other.resume(checkpoint)
    make(replace(settings, log=LogSettings(every=7), threads=1, workers=1)).resume(checkpoint)  # these change nothing
    checkpoint.header.kind = "inference"
    with pytest.raises(FocusError, match="new run"):
        make(settings).resume(checkpoint)


@pytest.mark.parametrize("network", ["reconstruction", "segmentation"])
def test_the_other_network_is_frozen(make: Callable[..., Trainer], network: str) -> None:
    trainer = make()
    for turn in trainer.plan:
        before = {name: value for name, value in weights(trainer).items() if name.startswith(network)}
        trainer._begin(turn)
        while trainer.step < turn.end:
            trainer._iterate(turn, trainer.data.batch(trainer.step))
        trained = weights(trainer)
        after = {name: trained[name] for name in before}
        if turn.network != network:
            assert_same(before, after)  # BatchNorm's statistics included
        else:
            assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_methods_differ_only_in_their_mask(
    make: Callable[..., Trainer], batches: list[FaceBatch], monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    trainer = make(replace(SETTINGS, method=method))
    trainer._begin(next(turn for turn in trainer.plan if (turn.stage, turn.network) == ("joint", "reconstruction")))
    batch = batches[1]
    given: dict[str, Any] = {}
    original = losses.reconstruction_loss
    monkeypatch.setattr(losses, "reconstruction_loss", lambda **values: (given.update(values), original(**values))[1])
    trainer.objectives._trusting_loss(batch, batch.image)
    seen = trainer.networks.segmentation
    face, render = given["rendering"].mask, given["rendering"].image.detach()
    inliers = losses.robust(batch.image, render, face)[1]
    assert batch.visible_mask is not None
    with torch.no_grad():
        expected = {
            "mofa": face,
            "pretrained": inliers,
            "oracle": face * batch.visible_mask,
            "skin": face * skin_mask(batch.image),
            **dict.fromkeys(("focus", "supervised"), face * seen(render, batch.image, face)),
            **dict.fromkeys(("cutmix", "cutout"), face),
        }[method]
        assert torch.equal(trainer.objectives.mask_of(batch, given["rendering"]), expected)
    if method in ("oracle", "focus", "skin", "supervised"):
        assert torch.equal(given["mask"], expected)
    else:
        assert given["mask"] is None  # the whole face, or what the robust loss finds by itself
    assert given["robust_sigma"] == (0.043 if method == "pretrained" else None)
    assert given["weights"] == replace(ReconstructionWeights(), area=0.06 if method in ("focus", "supervised") else 0.0)
    assert given["mask_gradient"] is False
    assert given["target"] is batch.image
    assert given["confidence"] is batch.landmark_weights


@pytest.mark.parametrize("method", ["oracle", "supervised"])
def test_some_methods_need_true_masks(make: Callable[..., Trainer], batches: list[FaceBatch], method: Any) -> None:
    blind = replace(batches[0], visible_mask=None)
    trainer = make(replace(SETTINGS, method=method))
    turn = next(turn for turn in trainer.plan if turn.stage == "joint")
    trainer._begin(turn)
    with pytest.raises(FocusError, match="true masks"):
        trainer._iterate(turn, blind)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(make: Callable[..., Trainer], method: Any) -> None:
    trainer = make(replace(SETTINGS, method=method, stages=replace(SETTINGS.stages, adapt=0)))
    before = weights(trainer)
    assert trainer.run()
    after = weights(trainer)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    networks = {"reconstruction", "segmentation"} if METHODS[method].segments else {"reconstruction"}
    assert moved == networks
    assert {turn.network for turn in trainer.plan} == networks


def test_supervised_masks_come_to_be_the_true_ones(make: Callable[..., Trainer], batches: list[FaceBatch]) -> None:
    trainer = make(replace(SETTINGS, method="supervised"))
    turn = next(turn for turn in trainer.plan if (turn.stage, turn.network) == ("joint", "segmentation"))
    trainer._begin(turn)
    seen: dict[str, Any] = {}
    original = losses.mask_cross_entropy

    def keep(logits: torch.Tensor, expected: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        seen["expected"], seen["face"] = expected, face
        return original(logits, expected, face)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "mask_cross_entropy", keep)
        trainer._iterate(turn, batches[0])
    assert torch.equal(seen["expected"], seen["face"] * batches[0].visible_mask)


@pytest.mark.parametrize("method", ["cutmix", "cutout"])
def test_patches_hide_parts_from_the_network_alone(
    make: Callable[..., Trainer], batches: list[FaceBatch], monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    trainer = make(replace(SETTINGS, method=method))
    trainer._begin(next(turn for turn in trainer.plan if (turn.stage, turn.network) == ("joint", "reconstruction")))
    given: list[torch.Tensor] = []
    trainer.networks.reconstruction.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    targets: list[torch.Tensor] = []
    original = losses.reconstruction_loss
    monkeypatch.setattr(
        losses, "reconstruction_loss", lambda **values: (targets.append(values["target"]), original(**values))[1]
    )
    batch = batches[0]
    clean = batch.image.clone()
    for number in (3, 3, 4):
        trainer.objectives._trusting_loss(batch, trainer.objectives._patched(batch.image, number))
    assert torch.equal(batch.image, clean)
    assert all(torch.equal(target, clean) for target in targets)
    assert torch.equal(given[0], given[1])  # what follows from a number can be done again
    assert not torch.equal(given[0], clean)
    assert not torch.equal(given[0], given[2])
    assert trainer.predict(batch).mask.shape == batch.image[:, :1].shape
    assert torch.equal(given[-1], clean)  # nothing is hidden when it is tested


def test_area_reaches_the_encoder_through_the_mask(make: Callable[..., Trainer], batches: list[FaceBatch]) -> None:
    def gradient(area: float, **changes: Any) -> tuple[Tensor, bool]:
        only = ReconstructionWeights(pixel=0.0, perceptual=0.0, landmark=0.0, regularisation=0.0, area=area)
        trainer = make(replace(SETTINGS, reconstruction_weights=only, **changes))
        with torch.no_grad():
            trainer.networks.reconstruction.trunk.fc.weight.normal_(std=0.01)
        trainer._begin(
            next(turn for turn in trainer.plan if turn.stage == "joint" and turn.network == "reconstruction")
        )
        loss, _ = trainer.objectives._trusting_loss(batches[0], batches[0].image)
        if loss.requires_grad:
            loss.backward()
        found = trainer.networks.reconstruction.trunk.fc.weight.grad
        assert all(parameter.grad is None for parameter in trainer.networks.segmentation.parameters())
        return (torch.zeros(1) if found is None else found), loss.requires_grad

    once, _ = gradient(0.06)
    twice, _ = gradient(0.12)
    assert once.abs().sum() > 0
    assert torch.allclose(2 * once, twice, rtol=1e-4)
    assert gradient(0.0)[1] is False


def test_collapsed_masks_end_the_run(make: Callable[..., Trainer], tmp_path: Path) -> None:
    settings = replace(SETTINGS, guard=GuardSettings(window=2))
    for bias, what in (
        (20.0, "everything is called face.*Lower segmentation_weights.area"),
        (-20.0, "everything is called hidden.*Raise segmentation_weights.area"),
    ):
        trainer = make(settings, folder=tmp_path)

        def spoil(trainer: Trainer, turn: Turn, bias: float = bias) -> None:
            if turn.stage == "segmentation":
                with torch.no_grad():
                    trainer.networks.segmentation.head.bias.fill_(bias)

        trainer.after_turn = spoil
        with pytest.raises(FocusError, match=rf"after iteration 10: the masks collapsed.*{what}") as caught:
            trainer.run()
        assert str(tmp_path / "last.safetensors") in str(caught.value)
        checkpoint = load_checkpoint(tmp_path / "last.safetensors")
        assert checkpoint.header.step == 9  # written when the guard had not seen a whole window
    permitted = replace(settings, guard=GuardSettings(window=2, highest=1.0, lowest=0.0))
    trainer = make(permitted)
    trainer.after_turn = spoil
    assert trainer.run()


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_a_number_that_is_not_finite_ends_the_run(
    make: Callable[..., Trainer], batches: list[FaceBatch], tmp_path: Path, what: str
) -> None:
    spoiled = Pool([replace(batch, image=batch.image.clone()) for batch in batches])
    trainer = make(data=spoiled, folder=tmp_path, validation=batches[1])
    good: list[Any] = []

    def spoil(trainer: Trainer, turn: Turn) -> None:
        good.append(load_checkpoint(tmp_path / "last.safetensors").header.step)
        if what == "loss":
            for batch in spoiled.batches:
                batch.image[0, 0, 0, 0] = float("nan")
        else:
            with torch.no_grad():
                trainer.networks.reconstruction.trunk.fc.bias[-1] = float("inf")  # an unused output would go unnoticed
            trainer._window.add = lambda values: setattr(trainer._window, "count", trainer._window.count + 1)  # type: ignore[method-assign]

    trainer.after_turn = spoil
    message = "loss.* not finite between iterations 7 and 8" if what == "loss" else "a weight is not finite"
    with pytest.raises(FocusError, match=rf"{message}.*Lower.*last good checkpoint"):
        trainer.run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.step == good[0] == 6
    assert all(bool(torch.isfinite(value).all()) for value in checkpoint.tensors.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_iteration(
    make: Callable[..., Trainer], batches: list[FaceBatch], tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    logger, data = Recorder(), Pool(batches)
    trainer = make(data=data, folder=tmp_path, logger=logger)

    def interrupt(step: int) -> FaceBatch:
        if step == 4:
            os.kill(os.getpid(), number)
        return Pool.batch(data, step)

    data.batch = interrupt  # type: ignore[method-assign]
    assert trainer.run() is False
    assert load_checkpoint(tmp_path / "last.safetensors").header.step == trainer.step == 5
    assert trainer.ending is not None
    assert trainer.ending.number == number
    assert logger.messages == [trainer.ending.text]
    assert trainer.ending.text.startswith(f"stopped by {number.name} after iteration 5 of 23; to go on: ")
    assert signal.getsignal(number) is before


def test_the_stage_adapt_uses_its_own_faces(make: Callable[..., Trainer], batches: list[FaceBatch]) -> None:
    data, adaptation = Pool(batches), Pool(batches[:1])
    make(data=data, adaptation=adaptation).run()
    assert sorted(data.asked) == [*range(6 + 6), *(SEGMENTATION_STREAM + i for i in range(2 + 4))]
    assert sorted(adaptation.asked) == [12, 13, 14, SEGMENTATION_STREAM + 6, SEGMENTATION_STREAM + 7]


def test_validation_remembers_the_best(make: Callable[..., Trainer], batches: list[FaceBatch], tmp_path: Path) -> None:
    logger = Recorder()
    settings = replace(
        SETTINGS, stages=replace(SETTINGS.stages, joint=0, adapt=0), log=replace(SETTINGS.log, validate_every=1)
    )
    make(settings, validation=batches[0], folder=tmp_path, logger=logger).run()
    values = [line for _, kind, line in logger.lines if kind == "validation"]
    kept = load_checkpoint(tmp_path / "last.safetensors").header.validation
    assert kept["last"] == values[-1]
    assert kept["best"]["loss"] == min(line["loss"] for line in values)
    assert json.loads(json.dumps(kept)) == kept
