"""No lost work: signals, dead workers, no memory, full disks, state that does not fit."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focus.cli import main
from focus.data import FaceBatch, PhotoFolder, SyntheticFaces, write_image
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.lock import only_one
from focus.nets import EncoderSettings, FilterBank, NetworkSettings, SegmentationSettings
from focus.train import (
    Networks,
    PhotoSource,
    Settings,
    SyntheticSource,
    Trainer,
    load_checkpoint,
    save_checkpoint,
    train,
)
from focus.train.config import DataSettings, FaceSettings, GuardSettings, LogSettings, OptimiserSettings, StageSettings
from focus.train.monitor import stop_on_signals
from focus.train.sources import Batches, WorkersLostError, out_of_memory

SETTINGS = replace(
    Settings.preset("small"),
    seed=5,
    image_size=32,
    batch_size=2,
    face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
    network=NetworkSettings(
        # BatchNorm: statistics that an iteration changes before it is done
        EncoderSettings(block="basic", blocks=(1,), widths=(4,), strides=(2,), stem_width=4, output_width=None),
        SegmentationSettings(filters=(4, 4), dropout=0.0),
    ),
    data=DataSettings(validation=0, distinct=8),
    stages=StageSettings(initialise=4, segmentation=2, joint=4, adapt=0, cycle=4, segmentation_in_cycle=2),
    optimiser=OptimiserSettings(name="adam"),
    guard=GuardSettings(lowest=0, highest=1),
    log=LogSettings(every=1, checkpoint_every=100, validate_every=100, tensorboard="off", pictures=0),
    device="cpu",
    threads=1,
)


class Recorder:
    """A logger that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return SETTINGS.face.build()


@pytest.fixture
def make(model: MorphableModel) -> Callable[..., Trainer]:
    faces = SyntheticFaces(model, 32, seed=1)
    batches = [faces.batch(2 * i, 2) for i in range(3)]

    class Pool:
        def batch(self, step: int) -> FaceBatch:
            return batches[step % 3]

    def trainer(settings: Settings = SETTINGS, **parts: Any) -> Trainer:
        torch.manual_seed(settings.seed)
        parts.setdefault("data", Pool())
        parts.setdefault("logger", Recorder())
        return Trainer(settings, model, Networks.build(settings, model), features=FilterBank(), **parts)

    return trainer


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.state()[1].items()}


NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 bytes")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NO_MEMORY, "not enough memory"),
        (MemoryError("Unable to allocate 8 GiB"), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (FocusError("a.jpg: was changed or removed while it was in use"), "a.jpg: was changed"),
        (WorkersLostError("a data worker was killed by SIGKILL"), "use fewer workers"),
    ],
)
def test_what_ends_a_run_costs_no_iteration(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    """The error comes in the middle of an iteration, when the statistics of BatchNorm have changed already."""
    whole = make()
    assert whole.run()
    broken = make(folder=tmp_path)
    with monkeypatch.context() as patch:
        backward = torch.autograd.backward

        def fail(*values: Any) -> None:
            if broken.step == 7:
                raise error
            backward(*values)

        patch.setattr(torch.autograd, "backward", fail)
        with pytest.raises(FocusError, match=rf"stopped after iteration 7: .*{told}.* The last good checkpoint is"):
            broken.run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.step == 7
    resumed = make()
    resumed.resume(checkpoint)
    assert resumed.run()
    expected, found = state_of(whole), state_of(resumed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_a_fault_of_ours_keeps_its_traceback_and_the_iterations(make: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make(folder=tmp_path)
    trainer._report = lambda turn: [][trainer.step - 3]  # type: ignore[method-assign, assignment]
    with pytest.raises(IndexError):
        trainer.run()
    assert load_checkpoint(tmp_path / "last.safetensors").header.step == trainer.step == 1


def test_an_optimiser_that_fails_half_way_leaves_the_older_checkpoint(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(replace(SETTINGS, log=replace(SETTINGS.log, checkpoint_every=3)), folder=tmp_path)
    step = torch.optim.Adam.step

    def fail(optimiser: Any, *values: Any) -> Any:
        if trainer.step == 4:  # the third iteration is saved, and the fourth as the end of a stage
            optimiser.param_groups[0]["params"][0].data.fill_(7.0)
            raise NO_MEMORY
        return step(optimiser, *values)

    monkeypatch.setattr(torch.optim.Adam, "step", fail)
    with pytest.raises(FocusError, match="stopped after iteration 4: not enough memory"):
        trainer.run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.step == 4
    assert not any((value == 7.0).all() for value in checkpoint.tensors.values() if value.dim() > 1)


def test_a_full_disk_at_a_checkpoint_is_told_and_leaves_the_older_one(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(replace(SETTINGS, log=replace(SETTINGS.log, checkpoint_every=2)), folder=tmp_path)
    from focus.train import checkpoint as module

    write = module.write_files

    def full(contents: Any) -> None:
        if trainer.step >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(contents)

    monkeypatch.setattr(module, "write_files", full)
    with pytest.raises(FocusError, match="cannot be written: No space left on device"):
        trainer.run()
    assert load_checkpoint(tmp_path / "last.safetensors").header.step == 2


@pytest.mark.parametrize("missing", ["initialise", "joint"])
def test_a_stage_whose_checkpoint_is_missing_gets_it_on_resume(
    make: Callable[..., Trainer], tmp_path: Path, missing: str
) -> None:
    stages = replace(SETTINGS.stages, segmentation=0, joint=0) if missing == "initialise" else SETTINGS.stages
    settings = replace(SETTINGS, stages=stages)
    assert make(settings, folder=tmp_path).run()
    path = tmp_path / f"{missing}.safetensors"
    before = path.read_bytes()
    path.unlink()
    trainer = make(settings, folder=tmp_path)
    trainer.resume(load_checkpoint(tmp_path / "last.safetensors"))
    assert trainer.run()
    assert path.read_bytes() == before


def test_the_checkpoint_of_a_stage_is_written_first(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from focus.train import trainer as module

    written: list[str] = []
    monkeypatch.setattr(module, "save_checkpoint", lambda path, *_: written.append(path.name))
    assert make(folder=tmp_path).run()
    for stage in ("initialise", "segmentation", "joint"):
        assert written[written.index(f"{stage}.safetensors") + 1] == "last.safetensors"


def _changed(
    path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor] | None, to: str | None = None
) -> None:
    checkpoint = load_checkpoint(path)
    value = checkpoint.tensors.pop(name)
    if change is not None:
        checkpoint.tensors[to or name] = change(value)
    save_checkpoint(path, checkpoint.header, checkpoint.tensors)


FIRST = "optimiser.segmentation.exp_avg.0"


@pytest.mark.parametrize(
    ("change", "to", "told"),
    [
        (None, None, r"exp_avg\.0: expected a value, got none"),
        (lambda value: value, "optimiser.segmentation.momentum.0", r"momentum\.0: expected one of step, exp_avg"),
        (lambda value: value, "optimiser.segmentation.exp_avg.999", r"exp_avg\.999: expected one of"),
        (lambda value: value, "optimiser.segmentation.exp_avg.-1", "expected one of"),
        (lambda value: value, "optimiser.other.exp_avg.0", "other: expected no state"),
        (lambda value: value[:1], None, "expected the shape"),
        (lambda value: value.long(), None, "expected floating point"),
        (lambda value: value * float("nan"), None, "expected finite numbers"),
    ],
)
def test_state_that_does_not_fit_is_named(
    make: Callable[..., Trainer], tmp_path: Path, change: Any, to: str | None, told: str
) -> None:
    assert make(folder=tmp_path).run()
    path = tmp_path / "last.safetensors"
    _changed(path, FIRST, change, to)
    with pytest.raises(FocusError, match=told):
        make().resume(load_checkpoint(path))


def test_more_iterations_than_the_plan_has_are_refused(make: Callable[..., Trainer], tmp_path: Path) -> None:
    assert make(folder=tmp_path).run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    checkpoint.header.step = 11
    with pytest.raises(FocusError, match="step: expected at most 10 iterations, got 11"):
        make().resume(checkpoint)


@pytest.mark.parametrize("numbers", [(signal.SIGHUP,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_signals_end_a_run_after_the_iteration(
    make: Callable[..., Trainer], tmp_path: Path, numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(folder=tmp_path)
    iterate = trainer._iterate

    def interrupted(turn: Any, batch: Any) -> None:
        if trainer.step == 2:
            for number in numbers:
                os.kill(os.getpid(), number)
        iterate(turn, batch)

    monkeypatch.setattr(trainer, "_iterate", interrupted)
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert trainer.run() is False
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert load_checkpoint(tmp_path / "last.safetensors").header.step == 3
    assert trainer.ending is not None
    assert trainer.ending.number == numbers[0]  # the first one counts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_says_which_signal_ended_a_training(
    tmp_path: Path,
    number: signal.Signals,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    iterate = Trainer._iterate

    def interrupted(trainer: Trainer, turn: Any, batch: Any) -> None:
        if trainer.step == 1:
            os.kill(os.getpid(), number)
        iterate(trainer, turn, batch)

    monkeypatch.setattr(Trainer, "_iterate", interrupted)
    arguments = ["train", "--out", str(tmp_path / "run"), "--scale", "0.001", "--image-size", "32", "--batch-size", "2"]
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        code = main([*arguments, "--log.tensorboard", "off", *["--json"] * as_json])
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert code == 128 + number
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if "to go on" in line]
    assert len(told) == 1
    assert re.match(rf"stopped by {number.name} after iteration 2 of \d+; to go on: .*--resume", told[0])
    assert "error" not in err
    if as_json:
        answer = json.loads(out)
        assert (answer["ok"], answer["error"], answer["finished"]) == (False, told[0], False)
        assert str(tmp_path / "run" / "last.safetensors") in answer["written"]


@pytest.mark.parametrize("name", ["initialise.safetensors", ".lock", "log.jsonl", "last.safetensors"])
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_what_is_no_file_in_the_folder_of_a_run_is_named(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(FocusError, match=re.escape(name)):
        train(SETTINGS, tmp_path, resume=True)


def test_a_third_interrupt_ends_at_once_and_ignored_signals_stay_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with pytest.raises(KeyboardInterrupt), stop_on_signals() as stopped:  # noqa: PT012 - where it is raised is the test
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_the_exit_code_of_a_worker_is_waited_for() -> None:
    """A busy system may take its time between the end of a connection and that of the process."""
    ending = "import os, time; os.closerange(3, 100); time.sleep(1); os.kill(os.getpid(), 9)"
    worker = multiprocessing.get_context("spawn").Process(target=exec, args=(ending,))
    worker.start()
    with Batches([], lambda: ()) as batches:
        batches._workers = [worker]
        assert batches._lost(60) == f"a data worker (process {worker.pid}) was killed by SIGKILL"


def test_dead_workers_are_replaced_once_and_group_signals_mean_nothing_to_them(model: MorphableModel) -> None:
    source = SyntheticSource(SyntheticFaces(model, 32, seed=0), 2)
    told: list[str] = []
    done: list[FaceBatch] = []
    handler = signal.getsignal(signal.SIGCHLD)
    before = set(multiprocessing.active_children())
    with Batches([source], lambda: ((0, i) for i in range(len(done), 40)), workers=1, told=told.append) as batches:
        done.append(next(batches))
        (worker,) = set(multiprocessing.active_children()) - before
        assert worker.pid is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(worker.pid, number)
        done += [next(batches) for _ in range(4)]
        assert told == []
        os.kill(worker.pid, signal.SIGKILL)
        while len(done) < 20:
            done.append(next(batches))
        assert told == [
            f"a data worker (process {worker.pid}) was killed by SIGKILL: the data workers are started anew"
        ]
        (worker,) = set(multiprocessing.active_children()) - before
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkersLostError, match="was killed by SIGKILL"):
            list(batches)
    assert set(multiprocessing.active_children()) == before
    assert signal.getsignal(signal.SIGCHLD) is handler
    for i, batch in enumerate(done):
        assert torch.equal(batch.image, source.batch(i).image)


@pytest.mark.parametrize("workers", [0, 1])
def test_photos_that_change_under_a_run_are_named(tmp_path: Path, model: MorphableModel, workers: int) -> None:
    batch = SyntheticFaces(model, 64, seed=3).batch(0, 2)
    lines = []
    for i in range(2):
        write_image(tmp_path / f"{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        lines.append(",".join([f"{i}.png", *(f"{value:.2f}" for value in batch.landmarks[i].flatten().tolist())]))
    (tmp_path / "landmarks.csv").write_text("\n".join(lines))
    folder = PhotoFolder(tmp_path, tmp_path / "landmarks.csv", 32, cache_bytes=0)
    source = PhotoSource(folder, [0, 1], 2, seed=0)
    assert len(source.batch(0)) == 2
    write_image(tmp_path / "1.png", np.zeros((64, 64, 3), np.uint8))
    with Batches([source], lambda: [(0, 0)], workers=workers) as batches, pytest.raises(FocusError) as caught:
        next(batches)
    assert str(caught.value) == f"{tmp_path / '1.png'}: was changed or removed while it was in use"


def test_a_full_shared_memory_is_told(model: MorphableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from focus.train import sources

    drawn = sources._Drawn([SyntheticSource(SyntheticFaces(model, 32, seed=0), 2)])
    assert not drawn[0, 0].image.is_shared()  # type: ignore[union-attr]
    monkeypatch.setattr(sources, "get_worker_info", lambda: "a worker")
    found = drawn[0, 0]
    assert isinstance(found, FaceBatch)
    assert found.parameters is not None
    assert found.image.is_shared()
    assert found.parameters.identity.is_shared()

    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    refusal = drawn[0, 0]
    assert isinstance(refusal, sources._Refusal)
    assert out_of_memory(refusal.error)


def test_words_that_mean_no_memory() -> None:
    assert out_of_memory(NO_MEMORY)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


PROGRAM = """
    import json, sys
    from pathlib import Path
    from focus.train import Settings, train
    if __name__ == "__main__":
        train(Settings.from_dict(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]))
"""


def test_workers_die_with_the_run_that_is_killed(tmp_path: Path) -> None:
    """kill -9: nobody tells the workers, and nobody else holds the lock."""
    stages = replace(SETTINGS.stages, initialise=100_000)
    (tmp_path / "settings.json").write_text(json.dumps(replace(SETTINGS, workers=1, stages=stages).to_dict()))
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "program.py", "settings.json", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        log = tmp_path / "run" / "log.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and log.read_text()):
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            process.kill()
            pytest.skip("this system does not list the children of a process")
        workers = [int(pid) for pid in children.read_text().split()]
        assert workers
        process.kill()
        process.wait()

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(map(alive, workers)):
        time.sleep(0.05)
    assert not any(map(alive, workers))
    with only_one(tmp_path / "run", "training"):
        pass
