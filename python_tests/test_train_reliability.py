"""No lost work: signals, dead workers, no memory, full disks, closed terminals, two runs in one folder."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

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
from focus.train.log import RunLogger, read_log
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


def test_words_that_mean_no_memory() -> None:
    assert out_of_memory(NO_MEMORY)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


def logger_with(tmp_path: Path, **changes: Any) -> tuple[RunLogger, io.StringIO]:
    stream = io.StringIO()
    return RunLogger(tmp_path, replace(SETTINGS.log, **changes), console=Console(file=stream, width=200)), stream


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    logger, stream = logger_with(tmp_path)
    with logger:
        logger.scalars(1, "joint/segmentation", {"loss": 1.0, "odd": float("nan")})
        good = logger._file
        with open("/dev/full", "ab", buffering=0) as logger._file:
            for step in (2, 3):
                logger.scalars(step, "joint/segmentation", {"loss": 1.0})
        logger._file = good
        logger.scalars(4, "joint/segmentation", {"loss": 1.0})
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 4]
    assert np.isnan(read_log(tmp_path / "log.jsonl")[0]["odd"])
    told = stream.getvalue()
    assert told.count("log.jsonl cannot be written (No space left on device); training goes on without") == 1


def test_damaged_lines_of_a_log_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    logger, _ = logger_with(tmp_path)
    with logger:
        for step in range(1, 6):
            logger.scalars(step, "joint/segmentation", {"loss": 1.0})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"step": 2', '"step": 3')
    lines[2] = lines[2].replace("1.0", "1.5")
    old = json.dumps({"step": 1, "kind": "validation", "loss": 2.0})  # as FOCUS 0.1.0 wrote them
    odd = [json.dumps(value) for value in ([1], {"step": "1", "kind": "a"}, {"step": -1, "kind": "a"}, {"step": True})]
    (tmp_path / "log.jsonl").write_text("\n".join([old, *odd, *lines]) + "\n")
    with RunLogger(tmp_path, SETTINGS.log, step=4):
        pass
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [old, lines[0], lines[3]]


def test_curves_and_pictures_that_cannot_be_written_end_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    (tmp_path / "pictures").write_text("in the way")
    logger, stream = logger_with(tmp_path, tensorboard="on", pictures=2)
    with logger:
        for step in (1, 2):
            logger.scalars(step, "joint/segmentation", {"loss": 1.0})
            logger.picture(step, "joint", np.zeros((4, 4, 3), np.uint8))
    assert stream.getvalue().count("TensorBoard curves cannot be written") == 1
    assert stream.getvalue().count("validation pictures cannot be written") == 1
    assert len(read_log(tmp_path / "log.jsonl")) == 2


def test_curves_on_a_full_disk_end_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger, stream = logger_with(tmp_path, tensorboard="on")
    with logger:
        assert logger._curves is not None
        with open("/dev/full", "wb", buffering=0) as full:
            logger._curves._writer._writer = full
            for step in (1, 2):
                logger.scalars(step, "joint/segmentation", {"loss": 1.0})
    assert stream.getvalue().count("TensorBoard curves cannot be written (No space left on device)") == 1


def test_curves_are_those_that_tensorboard_reads(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger, _ = logger_with(tmp_path, tensorboard="on")
    with logger:
        for step in range(1, 5):
            logger.scalars(step, "joint", {"loss": step / 2})
    with RunLogger(tmp_path, replace(SETTINGS.log, tensorboard="on"), step=2) as again:
        again.scalars(3, "joint", {"loss": 9.0})
    curves = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [(point.step, point.value) for point in curves.Scalars("joint/loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.EIO, "Input/output error"), ValueError("closed file")]
)
@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_needs_to_read_what_a_run_tells(tmp_path: Path, error: Exception, terminal: bool) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    console = Console(file=Gone(), force_terminal=terminal)
    with RunLogger(tmp_path, replace(SETTINGS.log, seconds_per_line=0.0), console=console) as logger:
        for step in (1, 2):
            logger.message("a line")
            logger.progress(step, 2, "joint", 3.0)
            logger.scalars(step, "joint", {"loss": 1.0})
    assert len(read_log(tmp_path / "log.jsonl")) == 2


def test_names_that_a_terminal_cannot_show_end_no_run(tmp_path: Path) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    with RunLogger(tmp_path, SETTINGS.log, console=console) as logger:
        logger.message("skipped Zoë.jpg")
    assert b"skipped Zo\\xeb.jpg" in raw.getvalue()


HOLDER = """
    import sys, time
    from pathlib import Path
    from focus.lock import only_one
    with only_one(Path(sys.argv[1]), "training"):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in the folder `run`."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("held")
        yield process
        process.kill()


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    folder = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FocusError, match=rf"another training \(process {holder.pid} on .*, since 20.*\) is at work"):
        train(SETTINGS, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(FocusError, match="is at work here"), only_one(link, "training"):
        pass
    with only_one(tmp_path / "other", "training"):  # another folder is another run
        pass
    holder.kill()
    holder.wait()
    with only_one(folder, "training") as note:
        assert note is None
        with pytest.raises(FocusError, match=rf"process {os.getpid()} "), only_one(folder, "training"):
            pass  # this process has it, too
    with only_one(folder, "training"):
        pass


@pytest.mark.parametrize("how", ["fork", "command"])
def test_children_do_not_keep_the_lock(tmp_path: Path, how: str) -> None:
    program = """
        import os, signal, subprocess, sys, time
        from pathlib import Path
        from focus.lock import only_one
        with only_one(Path(sys.argv[1]), "training"):
            if sys.argv[2] == "command":
                child = subprocess.Popen(["sleep", "60"], close_fds=False).pid
            else:
                child = os.fork()
                if not child:
                    time.sleep(60)
                    os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        try:
            with only_one(tmp_path, "training") as note:
                assert note is None
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)


def test_file_systems_without_locks_and_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with only_one(tmp_path, "training") as note:
            assert (
                note == f"{tmp_path}: this file system has no locks (No locks available): start no second training here"
            )
    opened = os.open

    def of_somebody_else(path: Any, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR and str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", of_somebody_else)
    with (
        only_one(tmp_path, "training"),
        pytest.raises(FocusError, match="at work here"),
        only_one(tmp_path, "training"),
    ):
        pass
    with pytest.raises(FocusError, match="cannot be written"), only_one(Path("/dev/null/a"), "training"):
        pass


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
