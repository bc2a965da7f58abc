"""Networks that learn from fits: what is believed of them, what is kept, and that a wrong teacher is not followed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from focus.cli import main
from focus.data import PhotoFolder, SyntheticFaces, write_image
from focus.data.synthetic import SyntheticSettings
from focus.data.teaching import TaughtPhotos
from focus.errors import FocusError
from focus.eval.masks import outlier_iou
from focus.face import MorphableModel
from focus.fit.trust import Trust
from focus.nets import FilterBank, NetworkSettings, SegmentationSettings
from focus.train import PhotoSource, Settings, Trainer, load_checkpoint, train
from focus.train.checkpoint import Networks
from focus.train.config import FaceSettings, StageSettings
from focus.train.lessons import NetworkWitness, Taught, make_lessons
from focus.train.log import SilentLogger
from focus.train.trainer import LAST

COUNT, SIDE, SIZE = 12, 112, 56
INVERTED, REFUSED = frozenset({0, 3, 6, 9}), frozenset({1})
SMALL = SegmentationSettings(filters=(4, 8), dropout=0.0)
FACE = FaceSettings(detail="small", identity=12, expression=6, albedo=10)


@pytest.fixture(scope="module")
def jobs() -> Iterator[ModuleType]:
    """Other processes get the folder of this module in their path, too."""
    sys.path.insert(0, str(Path(__file__).parent))
    import teaching_jobs

    yield teaching_jobs
    sys.path.remove(str(Path(__file__).parent))
    sys.modules.pop("teaching_jobs", None)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    """All of them with something before them that hides a fifth to a half."""
    settings = SyntheticSettings(
        occluded_fraction=1.0,
        coverage=(0.2, 0.5),
        occluders=("surgical_mask", "scarf", "book", "phone"),
        extreme_light_fraction=0.0,
        landmark_noise=0.003,
        hidden_landmark_noise=0.01,
    )
    return SyntheticFaces(FACE.build(), SIDE, 17, settings)


@pytest.fixture(scope="module")
def folder(faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    batch = faces.batch(0, COUNT)
    rows = []
    for index in range(COUNT):
        write_image(folder / f"{index}.png", batch.image[index].permute(1, 2, 0).numpy())
        numbers = batch.landmarks[index].flatten().tolist()
        rows.append(",".join([f"{index}.png", *(f"{number:.3f}" for number in numbers)]))
    (folder / "landmarks.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> PhotoFolder:
    return PhotoFolder(folder, folder / "landmarks.csv", SIZE)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lessons")


@pytest.fixture(scope="module")
def taught(jobs: ModuleType, faces: SyntheticFaces, photos: PhotoFolder, calls: Path, kept: Path) -> Taught:
    """Of a teacher that is inverted for a third of the photos."""
    teacher = jobs.KnownFaces(faces, 2 * SIZE, calls, INVERTED, REFUSED)
    return make_lessons(photos, faces.model, kept, teacher, workers=2)


def test_inverted_and_failed_fits_are_left_out_and_counted(taught: Taught) -> None:
    assert set(taught.left_out) == {f"{index}.png" for index in INVERTED | REFUSED}
    assert taught.left_out["1.png"] == "no face fits them"
    for index in INVERTED:
        assert "face" in taught.left_out[f"{index}.png"], taught.left_out
    assert set(taught.files) == set(range(COUNT)) - INVERTED - REFUSED
    assert all(0 < weight <= 1 for weight in taught.weights.values())
    assert 0.5 < np.mean(list(taught.seen.values())) < 0.8
    assert f"{len(taught.files)} of {COUNT} fits are believed" in taught.text
    assert "5 left out" in taught.text


def test_each_photo_is_fitted_once(
    jobs: ModuleType, taught: Taught, faces: SyntheticFaces, photos: PhotoFolder, calls: Path, kept: Path
) -> None:
    before = len(list(calls.iterdir()))
    assert before == COUNT
    teacher = jobs.KnownFaces(faces, 2 * SIZE, calls, INVERTED, REFUSED)
    file = taught.files[2]
    content = file.read_bytes()
    file.write_bytes(content[:1000])  # as a copy that was cut short
    told: list[tuple[int, int]] = []
    again = make_lessons(photos, faces.model, kept, teacher, notify=lambda *done: told.append(done))
    assert again == taught
    assert file.read_bytes() == content
    assert len(list(calls.iterdir())) == before + 1
    assert told == [(COUNT - 1, COUNT), (COUNT, COUNT)]
    other = jobs.KnownFaces(faces, 2 * SIZE, calls, frozenset(), REFUSED)
    assert len(make_lessons(photos, faces.model, kept, other).files) == COUNT - 1
    assert len(list(calls.iterdir())) == before + 1 + COUNT


def test_copies_of_a_photo_are_fitted_once(
    jobs: ModuleType, faces: SyntheticFaces, folder: Path, tmp_path: Path
) -> None:
    rows = (folder / "landmarks.csv").read_text().splitlines()
    for name in ("2.png", "02.png", "4.png"):
        (tmp_path / name).write_bytes((folder / f"{int(name[:-4])}.png").read_bytes())
    (tmp_path / "l.csv").write_text(f"{rows[2]}\n0{rows[2]}\n{rows[4]}\n")
    (tmp_path / "calls").mkdir()
    copies = PhotoFolder(tmp_path, tmp_path / "l.csv", SIZE)
    teacher = jobs.KnownFaces(faces, 2 * SIZE, tmp_path / "calls")
    taught = make_lessons(copies, faces.model, tmp_path / "lessons", teacher, workers=2)
    assert len(list((tmp_path / "calls").iterdir())) == 2
    assert taught.files[0] == taught.files[1] != taught.files[2]


def test_drift_is_named() -> None:
    def taught(seen: dict[int, float]) -> Taught:
        return Taught({index: Path(str(index)) for index in seen}, {}, seen, dict.fromkeys(seen, 1.0))

    first = taught(dict.fromkeys(range(10), 0.7))
    assert first.drift(taught(dict.fromkeys(range(1, 10), 0.8))) is None
    assert "30% of the faces were called hidden and 50% are" in str(first.drift(taught(dict.fromkeys(range(10), 0.5))))
    assert "called face" in str(first.drift(taught(dict.fromkeys(range(10), 0.9))))
    assert "of 10 fits that were believed only 4 still are" in str(first.drift(taught(dict.fromkeys(range(4), 0.7))))


def test_a_teacher_that_nothing_is_believed_of_is_refused(
    jobs: ModuleType, faces: SyntheticFaces, photos: PhotoFolder, tmp_path: Path
) -> None:
    (tmp_path / "calls").mkdir()
    teacher = jobs.KnownFaces(faces, 2 * SIZE, tmp_path / "calls", frozenset(range(COUNT)))
    with pytest.raises(FocusError, match=r"none of the fits of its 12 photos is believed; the first: \d+.png"):
        make_lessons(photos, faces.model, tmp_path / "lessons", teacher)


def _source(photos: PhotoFolder, taught: Taught, model: MorphableModel, pasted: float) -> TaughtPhotos:
    return TaughtPhotos(photos, taught.files, model, occluded_fraction=pasted, coverage=(0.1, 0.5))


def test_batches_hold_what_the_teacher_said(photos: PhotoFolder, taught: Taught, faces: SyntheticFaces) -> None:
    source = _source(photos, taught, faces.model, 1.0)
    plain, drawn = source.batch([2, 4]), source.batch([2, 4], occluded=True)
    assert plain.lessons is not None
    assert drawn.lessons is not None
    assert plain.occluder == ["none", "none"]
    assert "none" not in drawn.occluder
    assert torch.equal(plain.image, photos.batch([2, 4]).image)
    changed = (plain.image != drawn.image).any(dim=1, keepdim=True)
    assert bool(changed.any(dim=(1, 2, 3)).all())
    # Nothing that was hidden is seen now; where nothing was drawn, the lesson is as before.
    assert bool((drawn.lessons.mask <= plain.lessons.mask).all())
    assert torch.equal(drawn.lessons.mask[~changed], plain.lessons.mask[~changed])
    assert bool((drawn.lessons.known >= plain.lessons.known).all())
    assert float((plain.lessons.mask - drawn.lessons.mask).sum()) > 50
    true = torch.stack([torch.from_numpy(sample.visible_mask) for sample in faces.samples([2, 4])])[:, None].float()
    small = torch.nn.functional.interpolate(true, size=(SIZE, SIZE), mode="area")
    assert float((plain.lessons.mask - small).abs().mean()) < 0.06  # crops are not cut just as the pictures are


def test_changed_photos_are_the_same_for_the_same_seed(
    photos: PhotoFolder, taught: Taught, faces: SyntheticFaces
) -> None:
    first, second = (_source(photos, taught, faces.model, 0.5) for _ in range(2))
    second.batch([5])  # whatever else was asked for
    one, two, other = first.batch([2, 4], 7), second.batch([4], 7), first.batch([4], 8)
    assert one.lessons is not None
    assert two.lessons is not None
    assert torch.equal(one.image[1:], two.image)
    assert torch.equal(one.lessons.mask[1:], two.lessons.mask)
    assert torch.equal(one.lessons.parameters.rotation[1:], two.lessons.parameters.rotation)
    assert not torch.equal(two.image, other.image)


def test_the_student_does_not_follow_an_inverted_teacher(
    photos: PhotoFolder, taught: Taught, faces: SyntheticFaces
) -> None:
    small = Settings.preset("photos")
    settings = replace(
        small,
        precision="float32",
        image_size=SIZE,
        batch_size=8,
        face=FACE,
        network=NetworkSettings(
            replace(NetworkSettings.preset("small").encoder, widths=(16, 24, 32), stem_width=8),
            SegmentationSettings(filters=(8, 16, 32), dropout=0.0),
        ),
        stages=StageSettings(initialise=120, segmentation=120, joint=0, cycle=4, segmentation_in_cycle=2),
        device="cpu",
    )
    torch.manual_seed(0)
    source = PhotoSource(_source(photos, taught, faces.model, 0.2), sorted(taught.files), 8, seed=0)
    trainer = Trainer(settings, faces.model, Networks.build(settings, faces.model), source, FilterBank())
    assert trainer.run()
    indices = sorted(INVERTED)
    batch = photos.batch(indices)
    found = trainer.predict(batch)
    true = torch.stack([torch.from_numpy(sample.visible_mask) for sample in faces.samples(indices)])[:, None].float()
    small_true = (torch.nn.functional.interpolate(true, size=(SIZE, SIZE), mode="area") > 0.5).float()
    face = found.rendering.mask
    right = outlier_iou(found.mask, small_true, face).mean()
    inverted = outlier_iou(found.mask, 1 - small_true, face).mean()
    assert right > 0.4 > inverted + 0.1, (right, inverted)


def test_what_makes_masks_worse_is_taken_back(
    photos: PhotoFolder, taught: Taught, faces: SyntheticFaces, tmp_path: Path
) -> None:
    """Nothing pays for hiding: what the networks teach each other turns all masks black."""
    base = Settings.preset("photos")
    settings = replace(
        base,
        precision="float32",
        image_size=SIZE,
        batch_size=4,
        face=FACE,
        network=replace(NetworkSettings.preset("photos"), segmentation=SMALL),
        stages=StageSettings(initialise=20, segmentation=40, joint=120, cycle=60, segmentation_in_cycle=55),
        anchor=0.0,
        segmentation_weights=replace(base.segmentation_weights, area=0.0, preserve=0.0, binary=0.0),
        optimiser=replace(base.optimiser, joint_segmentation=replace(base.optimiser.segmentation, start=0.02)),
        guard=replace(base.guard, lowest=0.0, highest=1.0),
        log=replace(base.log, checkpoint_every=1000, validate_every=1000, pictures=0),
        device="cpu",
    )
    torch.manual_seed(0)
    photos_of_run = _source(photos, taught, faces.model, 0.2)
    source = PhotoSource(photos_of_run, sorted(taught.files), 4, seed=0)
    held_out = photos_of_run.batch(sorted(taught.files)[:3], occluded=True)

    class Told(SilentLogger):
        lines: ClassVar[list[str]] = []

        def message(self, text: str) -> None:
            self.lines.append(text)

    def trainer() -> Trainer:
        networks = Networks.build(settings, faces.model)
        return Trainer(
            settings,
            faces.model,
            networks,
            source,
            FilterBank(),
            validation=held_out,
            folder=tmp_path,
            logger=Told(),
        )

    run = trainer()
    assert run.run()
    assert "the stage joint made the masks worse: taught_mean_iou" in Told.lines[-1]
    assert run.step == 60 + 60, "the second cycle is not begun"
    before, last = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("segmentation", "last"))
    assert all(
        torch.equal(last.tensors[name], value) for name, value in before.tensors.items() if "optimiser" not in name
    )
    again = trainer()
    again.resume(last)
    assert again.run()
    assert again.step == run.step, "nothing is done any more"


@pytest.mark.parametrize(
    ("trust", "weight", "doubt"),
    [
        (Trust(0.8, float("nan"), 2.0, 1.0), 1.0, None),
        (Trust(0.375, 0.1, 2.0, 0.6), 0.5, None),
        (Trust(0.8, 0.1, 9.0, 0.6), 0.5, None),
        (Trust(0.2, 0.1, 2.0, 0.6), 0.0, "not like it"),
        (Trust(0.4, 0.6, 2.0, 0.6), 0.0, "inverted"),
        (Trust(0.7, 0.74, 2.0, 0.6), 1.0, None),
        (Trust(0.4, 0.9, 2.0, 0.99), 0.6, None),
        (Trust(0.8, 0.1, 15.0, 0.6), 0.0, "15% of the distance of the eyes"),
        (Trust(0.8, 0.1, float("inf"), 0.6), 0.0, "landmarks"),
        (Trust(0.8, 0.1, 2.0, 0.05), 0.0, "only 5%"),
        (Trust(float("nan"), 0.5, 2.0, 0.0), 0.0, "only 0%"),
    ],
)
def test_what_is_believed_of_a_fit(trust: Trust, weight: float, doubt: str | None) -> None:
    assert trust.weight == pytest.approx(weight)
    assert (trust.doubt is None) == (doubt is None)
    assert doubt is None or doubt in str(trust.doubt)


ARGUMENTS = [
    *("--stages.initialise", "3", "--stages.segmentation", "3", "--stages.again", "3", "--data.validation", "1"),
    *("--stages.joint", "4", "--stages.cycle", "4", "--stages.segmentation-in-cycle", "2"),
    *("--image-size", "48", "--batch-size", "2", "--network.segmentation.filters", "4", "8"),
    *("--log.tensorboard", "off", "--log.checkpoint-every", "1", "--precision", "float32", "--device", "cpu"),
    *("--face.identity", "8", "--face.expression", "4", "--face.albedo", "6", "--threads", "1", "--workers", "2"),
]


@pytest.fixture(scope="module")
def few(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the photos."""
    few = tmp_path_factory.mktemp("few")
    rows = (folder / "landmarks.csv").read_text().splitlines()
    for index in (2, 4, 5):
        (few / f"{index}.png").write_bytes((folder / f"{index}.png").read_bytes())
    (few / "landmarks.csv").write_text("\n".join(rows[index] for index in (2, 4, 5)) + "\n")
    return few


def test_a_folder_of_photos_is_all_that_is_needed(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fitted, taught, fitted again with the network heard, taught again; killed on the way, and gone on with."""
    command = ["train", "--photos", str(few), "--landmarks", str(few / "landmarks.csv"), *ARGUMENTS]
    out = tmp_path / "run"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(  # elsewhere than in the folder of the sources, which would be imported
        [sys.executable, "-m", "focus", *command, "--out", str(out)],
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        until = time.monotonic() + 240
        while not list((out / "lessons").glob("[!.]*.safetensors")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    made = {path: path.stat().st_mtime_ns for path in (out / "lessons").glob("[!.]*.safetensors")}
    assert made
    assert main([*command, "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert "photos are few" in told
    assert told.count("fits are believed") == 2
    for path, changed in made.items():
        assert path.stat().st_mtime_ns == changed, "it was fitted twice"
    lessons = list((out / "lessons").glob("*.safetensors"))
    assert len(lessons) == 6
    assert {path.name for path in out.glob("*.safetensors")} == {
        f"{name}.safetensors" for name in ("initialise", "segmentation", "again", "joint", "last")
    }
    first = load_checkpoint(out / "last.safetensors").tensors
    # Without a break, and stopped in the second half: the same bits.
    other = tmp_path / "other"
    other.mkdir()
    (out / "lessons").rename(other / "lessons")
    assert main([*command, "--out", str(other)]) == 0
    second = load_checkpoint(other / "last.safetensors").tensors
    assert all(torch.equal(first[name], second[name]) for name in first)
    options = ["--landmarks", str(few / "landmarks.csv"), "--checkpoint", str(other / "last.safetensors")]
    assert main(["reconstruct", str(few), *options, "--out", str(tmp_path / "faces")]) == 0
    assert len(list((tmp_path / "faces").glob("*_mask.png"))) == 3


def tiny(folder: Path) -> Settings:
    """The recipe in miniature, with a checkpoint after each iteration."""
    settings = replace(
        Settings.preset("photos"),
        precision="float32",
        image_size=48,
        batch_size=8,
        face=FaceSettings(detail="small", identity=8, expression=4, albedo=6),
        network=replace(NetworkSettings.preset("photos"), segmentation=SMALL),
        stages=StageSettings(initialise=2, segmentation=2, again=4, joint=0, cycle=4, segmentation_in_cycle=2),
        device="cpu",
        threads=1,
        workers=2,
    )
    data = replace(settings.data, photos=folder, landmarks=folder / "landmarks.csv", validation=0)
    return replace(settings, data=data, log=replace(settings.log, checkpoint_every=1, tensorboard="off"))


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run, from end to end."""
    run = tmp_path_factory.mktemp("whole")
    assert train(tiny(few), run)
    return run


def test_a_run_goes_on_with_the_second_lessons(few: Path, whole: Path, tmp_path: Path) -> None:
    """Of a run that was stopped while it learnt them; they are those of the network at the end of the first ones."""
    settings, halted = tiny(few), tmp_path / "halted"

    class HaltError(Exception):
        pass

    def stop_in_the_middle(trainer: Trainer) -> None:
        original = trainer._iterate

        def iterate(turn: object, batch: object) -> None:
            original(turn, batch)  # type: ignore[arg-type]
            if trainer.step == 6:
                raise HaltError

        trainer._iterate = iterate  # type: ignore[method-assign]

    (halted / "lessons").mkdir(parents=True)
    for path in (whole / "lessons").iterdir():
        (halted / "lessons" / path.name).write_bytes(path.read_bytes())
    begin = Trainer._begin

    def begin_and_stop(self: Trainer, turn: object) -> None:
        begin(self, turn)  # type: ignore[arg-type]
        if getattr(turn, "stage", "") == "again" and not hasattr(self, "halting"):
            self.halting = True  # type: ignore[attr-defined]
            stop_in_the_middle(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_begin", begin_and_stop)
        with pytest.raises(HaltError):
            train(settings, halted)
    assert load_checkpoint(halted / LAST).header.step in (5, 6)
    (halted / "segmentation.safetensors").rename(tmp_path / "away")
    with pytest.raises(FocusError, match=r"segmentation.safetensors"):
        train(settings, halted, resume=True)
    (tmp_path / "away").rename(halted / "segmentation.safetensors")
    assert train(settings, halted, resume=True)
    assert len(list((halted / "lessons").iterdir())) == len(list((whole / "lessons").iterdir()))
    first, second = (load_checkpoint(run / LAST).tensors for run in (whole, halted))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_are_taught_what_one_is(
    few: Path, whole: Path, tmp_path: Path, train_in_two_processes: Callable[[Settings, Path], None]
) -> None:
    """The first one fits, the other waits for it; both learn from the same lessons, twice."""
    together = tmp_path / "together"
    train_in_two_processes(replace(tiny(few), workers=0), together)
    assert len(list((together / "lessons").glob("*.safetensors"))) == 6

    def weights(run: Path, name: str) -> Tensor:
        tensors = sorted(load_checkpoint(run / f"{name}.safetensors").tensors.items())
        return torch.cat([value.flatten() for name, value in tensors if not name.startswith("optimiser")])

    first, second = weights(whole, "last"), weights(together, "last")
    moved = (weights(whole, "initialise") - first).norm()
    # Sums in another order, which Adam amplifies where a gradient is nearly zero.
    assert (first - second).norm() < 0.03 * moved


def test_what_a_network_says_is_heard(few: Path, faces: SyntheticFaces) -> None:
    settings = replace(
        Settings.preset("photos"),
        image_size=SIZE,
        face=FACE,
        network=replace(NetworkSettings.preset("photos"), segmentation=SMALL),
    )
    torch.manual_seed(0)
    networks = Networks.build(settings, faces.model)
    witness = NetworkWitness(networks, faces.model, settings)
    crop = faces.batch(2, 1).image
    said = witness(crop)
    assert said.shape == (1, 1, SIDE, SIDE)
    assert bool(torch.isfinite(said).all())
    digest = witness.digest()
    with torch.no_grad():
        next(networks.segmentation.parameters()).add_(1)
    assert witness.digest() != digest


def test_settings_that_have_no_teacher_are_refused(few: Path, tmp_path: Path) -> None:
    assert main(["train", "--preset", "photos", "--out", str(tmp_path / "run")]) == 2
    options = ["--photos", str(few), "--landmarks", str(few / "landmarks.csv"), "--out", str(tmp_path / "run")]
    assert main(["train", *options, "--teacher", "truth"]) == 2
    assert not np.any([path.suffix == ".safetensors" for path in tmp_path.rglob("*")])
