"""Whole runs: sources of faces, logs, and training by settings alone, in one process and in two."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from focus.data import FaceBatch, PhotoFolder, SyntheticFaces, write_image
from focus.errors import FocusError
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import PhotoSource, Settings, SyntheticSource, export, load_checkpoint, load_trained, train
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings
from focus.train.distributed import pick_device
from focus.train.log import RunLogger
from focus.train.run import build_features
from focus.train.sources import Batches

SETTINGS = replace(
    Settings.preset("small"),
    image_size=32,
    batch_size=4,
    face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
    network=NetworkSettings(
        EncoderSettings(
            block="basic",
            blocks=(1,),
            widths=(8,),
            strides=(2,),
            stem_width=8,
            normalisation="group",
            output_width=None,
        ),
        SegmentationSettings(filters=(8, 8), dropout=0.0, normalisation="group"),
    ),
    data=DataSettings(validation=2),
    stages=StageSettings(initialise=2, segmentation=1, joint=4, adapt=0, cycle=4, segmentation_in_cycle=2),
    log=LogSettings(every=1, checkpoint_every=2, validate_every=100, tensorboard="off", pictures=2),
    device="cpu",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of seven synthetic photos, one of them broken, and their landmarks."""
    folder = tmp_path_factory.mktemp("photos")
    batch = SyntheticFaces(SETTINGS.face.build(), 96, seed=3).batch(0, 7)
    lines = []
    for i in range(7):
        write_image(folder / f"{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        lines.append(",".join([f"{i}.png", *(f"{value:.2f}" for value in batch.landmarks[i].flatten().tolist())]))
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:500])
    (folder / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return folder, folder / "landmarks.csv"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(SETTINGS, folder)
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_photos_come_in_epochs(photos: tuple[Path, Path]) -> None:
    folder = PhotoFolder(*photos, 32)
    indices = [0, 1, 2, 4, 5]
    source = PhotoSource(folder, indices, 3, seed=1)
    names = [name for step in range(10) for name in source.batch(step).names]
    usable = [folder.items[i].name for i in indices]
    epochs = [names[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == sorted(usable) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in another order
    again = PhotoSource(folder, indices, 3, seed=1)
    for step in (7, 1):  # whatever was asked before
        assert torch.equal(again.batch(step).image, source.batch(step).image)
    assert not torch.equal(PhotoSource(folder, indices, 3, seed=2).batch(1).image, source.batch(1).image)
    first = {
        name: image for step in (0, 1) for name, image in zip(names[3 * step :], source.batch(step).image, strict=False)
    }
    later = dict(zip(names[6:9], source.batch(2).image, strict=True))
    common = first.keys() & later.keys()
    assert common
    assert all(not torch.equal(first[name], later[name]) for name in common)  # changed at random in each epoch
    plain = PhotoSource(folder, indices, 12, seed=1, augment=False).batch(0)
    assert len(plain) == 12  # more than there are
    position = [item.name for item in folder.items].index(plain.names[0])
    assert torch.equal(plain.image[0], folder.batch([position]).image[0])


def test_processes_share_a_batch(photos: tuple[Path, Path]) -> None:
    folder = PhotoFolder(*photos, 32)
    faces = SyntheticFaces(SETTINGS.face.build(), 32, seed=0)

    def sources(part: tuple[int, int]) -> tuple[PhotoSource, SyntheticSource]:
        return PhotoSource(folder, [0, 1, 2], 4, seed=0, part=part), SyntheticSource(faces, 4, part=part)

    for whole, *parts in zip(sources((0, 1)), sources((0, 2)), sources((1, 2)), strict=True):
        for step in range(3):
            joined = FaceBatch.cat([part.batch(step) for part in parts])
            assert torch.equal(joined.image, whole.batch(step).image)
    with pytest.raises(FocusError, match="multiple of the 3 processes"):
        sources((0, 3))[1].batch(0)


def test_workers_change_nothing() -> None:
    source = SyntheticSource(SyntheticFaces(SETTINGS.face.build(), 32, seed=0), 2)
    order = [(0, 3), (0, 1 << 40), (0, 4)]
    with Batches([source], lambda: iter(order), workers=1) as batches:
        found = list(batches)
    for key, batch in zip(order, found, strict=True):
        expected = source.batch(key[1])
        assert torch.equal(batch.image, expected.image)
        assert batch.names == expected.names


def test_train_resume_export_and_start_anew(finished: Path, tmp_path: Path) -> None:
    assert [line["step"] for line in lines_of(finished) if line["kind"] != "validation"] == list(range(1, 8))
    assert len(list((finished / "pictures").iterdir())) == 4
    assert load_trained(finished / "last.safetensors").settings == SETTINGS
    with pytest.raises(FocusError, match="already holds a run"):
        train(SETTINGS, finished)
    assert train(SETTINGS, finished, resume=True)  # nothing is left to do
    exported, _ = export(finished / "initialise.safetensors", tmp_path / "start.safetensors")
    stages = replace(SETTINGS.stages, initialise=0, segmentation=0)
    continued = replace(SETTINGS, start=exported, stages=stages, method="mofa", reconstruction_weights=replace(
        SETTINGS.reconstruction_weights, pixel=0.4))  # fmt: skip
    assert train(continued, tmp_path / "mofa")
    kinds = {line["kind"] for line in lines_of(tmp_path / "mofa")}
    assert kinds == {"joint/reconstruction", "validation"}
    assert load_checkpoint(tmp_path / "mofa" / "last.safetensors").header.step == 2  # only its own iterations
    with pytest.raises(FocusError, match="nothing to do"):
        train(replace(continued, stages=replace(stages, joint=0)), tmp_path / "none")


def test_train_on_photos_and_adapt_to_them(photos: tuple[Path, Path], tmp_path: Path) -> None:
    data = DataSettings(photos=photos[0], landmarks=photos[1], validation=2)
    settings = replace(SETTINGS, data=data)
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert train(settings, tmp_path / "photos")
    assert "6 photos, 5 to train with and 1 for validation; 1 skipped" in stream.getvalue()
    assert "skipped 4.png" in stream.getvalue()
    scores = [line for line in lines_of(tmp_path / "photos") if line["kind"] == "validation"]
    assert "shape_error_mm" not in scores[-1]  # there is no truth
    adapted = replace(
        SETTINGS,
        start=tmp_path / "photos" / "last.safetensors",
        stages=StageSettings(0, 0, 0, adapt=4, cycle=4, segmentation_in_cycle=2),
        data=DataSettings(adapt_photos=photos[0], adapt_landmarks=photos[1], validation=2),
    )
    assert train(adapted, tmp_path / "adapted")
    assert {line["kind"] for line in lines_of(tmp_path / "adapted")} == {
        "adapt/segmentation", "adapt/reconstruction", "validation"
    }  # fmt: skip
    with pytest.raises(FocusError, match="expected at least one to train with"):
        PhotoSource(PhotoFolder(*photos, 32), [], 2, seed=0)


def test_log_goes_on_where_the_run_does(tmp_path: Path) -> None:
    settings = replace(SETTINGS.log, tensorboard="on", seconds_per_line=0.0)
    stream = io.StringIO()
    with RunLogger(tmp_path, settings, console=Console(file=stream)) as logger:
        for step in range(1, 6):
            logger.scalars(step, "joint/segmentation", {"loss": 1 / step})
        logger.progress(5, 10, "joint", 3725.0)
    assert "5/10  1:02:05 left  joint" in stream.getvalue()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 6, "ki')  # cut short by a kill
    with RunLogger(tmp_path, settings, step=3) as logger:
        assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]
        logger.scalars(4, "joint/segmentation", {"loss": 0.0})
        assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]  # at once, not when the run ends
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    with RunLogger(tmp_path, replace(settings, tensorboard="off")):
        assert lines_of(tmp_path) == []  # a new run


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    with RunLogger(tmp_path, SETTINGS.log, console=Console(file=stream, force_terminal=True, width=100)) as logger:
        logger.progress(1, 4, "joint reconstruction", 65.0)
        logger.message("a line [above] the bar")
        logger.progress(4, 4, "joint reconstruction", 0.0)
    assert "01:05 left  joint reconstruction" in stream.getvalue()
    assert "a line [above] the bar" in stream.getvalue()


def test_device_and_features_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(FocusError, match="sees no card"):
        pick_device("cuda")
    with pytest.raises(FocusError, match="got 'gpu'"):
        pick_device("gpu")
    with pytest.raises(FocusError, match=r"none.safetensors"), RunLogger(tmp_path, SETTINGS.log) as logger:
        build_features(replace(SETTINGS, arcface=tmp_path / "none.safetensors"), logger)


def test_two_processes_learn_what_one_does(
    finished: Path, tmp_path: Path, train_in_two_processes: Callable[[Settings, Path], None]
) -> None:
    """Under torchrun's environment, with half of each batch each."""
    train_in_two_processes(replace(SETTINGS, threads=1), tmp_path / "run")

    def weights(folder: Path, name: str) -> Tensor:
        checkpoint = load_checkpoint(folder / f"{name}.safetensors")
        return torch.cat([v.flatten() for n, v in sorted(checkpoint.tensors.items()) if not n.startswith("optimiser")])

    alone, together = weights(finished, "last"), weights(tmp_path / "run", "last")
    moved = (alone - weights(finished, "initialise")).norm()
    # Sums in another order, which Adam amplifies where a gradient is nearly zero.
    assert (alone - together).norm() < 0.01 * moved
    for one, two in zip(lines_of(finished), lines_of(tmp_path / "run"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_process_that_dies_ends_the_run_and_loses_nothing(
    tmp_path: Path, run_in_two_processes: Callable[..., None], gone: int
) -> None:
    """In the middle of an iteration; the other one says so at once, and the iterations before are kept."""
    run = tmp_path / "run"
    (tmp_path / "run.json").write_text(json.dumps(replace(SETTINGS, threads=1).to_dict()))
    program = """
        import json, os, sys
        from pathlib import Path
        from focus.errors import FocusError
        from focus.train import Settings, Trainer, train
        from focus.train.learner import Learner

        rank, gone = int(os.environ["RANK"]), int(sys.argv[3])
        learn = Learner.learn

        def last(self, turn, step, batch):
            if step == 4 and rank == gone:
                os._exit(0)
            return learn(self, turn, step, batch)

        Learner.learn = last
        try:
            train(Settings.from_dict(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]))
        except FocusError as error:
            Path(f"said-{rank}").write_text(str(error))
            os._exit(0)  # gloo's threads may wait for the one that is gone
    """
    run_in_two_processes(program, str(tmp_path / "run.json"), str(run), str(gone), cwd=tmp_path)
    said = (tmp_path / f"said-{1 - gone}").read_text()
    assert "another process of the run is gone" in said
    kept = load_checkpoint(run / "last.safetensors").header.step
    assert kept == 4 if gone == 1 else kept <= 4
    if gone == 1:
        assert f"The last good checkpoint is {run / 'last.safetensors'}" in said


def test_torchrun_starts_processes_again(tmp_path: Path) -> None:
    """The second process dies once, in the middle of an iteration: torchrun starts both again, and the run ends."""
    (tmp_path / "settings.json").write_text(json.dumps(replace(SETTINGS, threads=1).to_dict()))
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import json, os
            from pathlib import Path
            from focus.train import Settings, train
            from focus.train.learner import Learner

            here = Path(__file__).parent
            learn = Learner.learn

            def learn_or_die(self, turn, step, batch):
                died = here / "died"
                if step == 4 and os.environ["RANK"] == "1" and not died.exists():
                    died.write_text("")
                    os._exit(1)
                return learn(self, turn, step, batch)

            Learner.learn = learn_or_die
            assert train(Settings.from_dict(json.loads((here / "settings.json").read_text())), here / "run")
        """)
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "died").exists()
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").header.step == 7
    assert "going on after iteration" in result.stderr + result.stdout


def test_a_restart_by_torchrun_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun --max-restarts starts the same command again: it goes on with its own run, and with no other."""
    settings = replace(SETTINGS, stages=replace(SETTINGS.stages, segmentation=0, joint=0))
    assert train(settings, tmp_path / "mine")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    for restarts in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        with pytest.raises(FocusError, match="already holds a run"):
            train(settings, tmp_path / "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert train(settings, tmp_path / "its")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(settings, tmp_path / "its")


def test_others_wait_for_the_first_process_as_long_as_it_takes(
    tmp_path: Path, run_in_two_processes: Callable[..., None]
) -> None:
    """Longer than exchanges of gradients may: fits of thousands of photos take hours. Its errors are theirs, too."""
    program = """
        import datetime, time
        import torch
        import torch.distributed as dist
        from focus.errors import FocusError
        from focus.train.distributed import by_the_first, place, process_group

        join = dist.init_process_group
        dist.init_process_group = lambda *a, **b: join(*a, timeout=datetime.timedelta(seconds=2), **b)

        def work():
            time.sleep(4)
            return place()

        def fail():
            raise FocusError("no photo")

        with process_group(torch.device("cpu")):
            assert by_the_first(work) == (0, 2)
            try:
                by_the_first(fail)
            except FocusError as error:
                assert str(error) == "no photo"
            else:
                raise AssertionError
    """
    run_in_two_processes(program, cwd=tmp_path)
