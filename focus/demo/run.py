"""The demo from start to end."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from focus import parallel
from focus.bounds import COUNT, SEED, WORKERS, Within, check_fields
from focus.data.images import write_image
from focus.demo.gather import EXAMPLES, gather_report
from focus.demo.jobs import TRAINED, score_methods, train_method
from focus.errors import FocusError
from focus.eval.benchmark import TEST_SEED_OFFSET, Evaluation
from focus.eval.claims import Finding, check_claims
from focus.experiment.provenance import commit
from focus.experiment.training import short_schedule
from focus.lock import only_one
from focus.report.demo_page import demo_page, faces_sheet
from focus.report.results import write_sealed, write_text
from focus.train.checkpoint import load_trained, shipped_checkpoint
from focus.train.config import Settings
from focus.train.distributed import pick_device
from focus.train.trainer import LAST

TEST_FACES = Within(EXAMPLES, COUNT.high)
SHORT_INITIALISATION = 1500
"""Iterations of the initialisation where no initial checkpoint is there: enough to run, too few to show much."""


@dataclass(frozen=True)
class DemoSettings:
    """A run of the demo."""

    out: Path
    """Folder of the results; made if need be."""
    seed: Annotated[int, SEED] = 0
    """Of training, validation and test faces, and of the segmentation network's first weights."""
    initial: Path | None = None
    """Checkpoint that training starts from; None: the one that ships with the package."""
    test_faces: Annotated[int, TEST_FACES] = 500
    """Faces of the test set; each is seen once with and once without an occluder."""
    workers: Annotated[int | None, WORKERS] = None
    """Methods that train at a time; None: one for each core."""
    training: Settings | None = None
    """How to train; None: the preset `small`. Method, seed, start and the stage `initialise` are filled in."""

    def __post_init__(self) -> None:
        check_fields(self, "demo: {}".format)


@dataclass(frozen=True)
class DemoResult:
    """What a run found and wrote."""

    metrics: dict[str, Any]
    findings: list[Finding]
    written: list[Path]
    minutes: float


Progress = Callable[[str, int, int, str], None]
"""(job, done, total, text)."""


def run_demo(settings: DemoSettings, *, progress: Progress, message: Callable[[str], None]) -> DemoResult:
    """Trains, evaluates and writes ``metrics.json``, ``per_image.json``, ``report.html`` and ``faces.png``.

    Args:
        settings: the run.
        progress: called while jobs run.
        message: called with a line for people now and then.

    Raises:
        FocusError: a checkpoint does not fit, training failed, or a file cannot be written.
    """
    started = time.monotonic()
    base = replace(settings.training or Settings.preset("small"), seed=settings.seed, threads=1, workers=0)
    pick_device(base.device)
    initial = settings.initial or shipped_checkpoint()
    if initial is not None:
        _schedule(initial, base)  # fails here, before any work, where it does not fit
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(only_one(settings.out, "demo"))
        if note:
            message(note)
        return _alone(settings, initial, base, started, progress, message)


def _schedule(initial: Path, base: Settings) -> Settings:
    """The settings of a training that starts from a checkpoint. Raises `FocusError` where it does not fit."""
    base = short_schedule(initial, base.seed, base)
    start = load_trained(initial)
    if base.face != start.settings.face or base.image_size != start.settings.image_size:
        raise FocusError(
            f"{initial}: trained with {start.settings.face} at {start.settings.image_size} pixels; the demo uses "
            f"{base.face} at {base.image_size} pixels. Use a checkpoint of the preset 'small'."
        )
    return base


def _alone(
    settings: DemoSettings,
    initial: Path | None,
    base: Settings,
    started: float,
    progress: Progress,
    message: Callable[[str], None],
) -> DemoResult:
    runs = settings.out / "training"
    if initial is None:
        initial = _initialise(base, runs / "initial", progress, message)
    base = _schedule(initial, base)
    training = {name: replace(base, method=method) for name, method in TRAINED.items()}
    for name in training:
        _clear(runs / name)
    message(f"training {', '.join(training)} from {initial.name}, in {runs}")
    rounds = _run(
        [parallel.Job(name, train_method, {"settings": s, "folder": runs / name}) for name, s in training.items()],
        settings.workers,
        progress,
    )["FOCUS"]
    checkpoints = {name: runs / name / LAST for name in training}
    message(f"evaluating on {2 * settings.test_faces} test pictures")
    evaluation = _evaluate(initial, checkpoints, settings, progress)
    metrics = {
        "seed": settings.seed,
        "commit": commit(),
        "settings": _described(settings, training["FOCUS"], initial),
        "methods": evaluation.metrics(),
    }
    findings = check_claims([evaluation.per_image()])
    written = [
        write_sealed(settings.out / "metrics.json", metrics),
        write_sealed(settings.out / "per_image.json", {"seed": settings.seed, **evaluation.per_image()}),
    ]
    minutes = (time.monotonic() - started) / 60
    report = gather_report(metrics, findings, training, runs, initial, rounds, minutes)
    written.append(write_text(settings.out / "report.html", demo_page(report)))
    written.append(write_image(settings.out / "faces.png", faces_sheet(report)))
    return DemoResult(metrics, findings, written, (time.monotonic() - started) / 60)


def _run(jobs: Sequence[parallel.Job], workers: int | None, progress: Progress) -> dict[str, Any]:
    return parallel.run_jobs(jobs, workers=workers, on_report=lambda name, value: progress(name, *value))


def _initialise(base: Settings, folder: Path, progress: Progress, message: Callable[[str], None]) -> Path:
    iterations = min(base.stages.initialise, SHORT_INITIALISATION)
    message(
        f"this build ships no initial checkpoint: training one for {iterations} iterations. That is short, so expect "
        "weak results; hand in a better one with --initial."
    )
    _clear(folder)
    stages = replace(base.stages, initialise=iterations, segmentation=0, joint=0, adapt=0)
    settings = replace(base, method="pretrained", start=None, stages=stages)
    _run([parallel.Job("initialisation", train_method, {"settings": settings, "folder": folder})], 1, progress)
    return folder / LAST


def _evaluate(initial: Path, checkpoints: Mapping[str, Path], settings: DemoSettings, progress: Progress) -> Evaluation:
    parts = min(settings.workers or parallel.processors(), settings.test_faces)
    edges = [settings.test_faces * i // parts for i in range(parts + 1)]
    jobs = [
        parallel.Job(
            f"test {i + 1}/{parts}" if parts > 1 else "test",
            score_methods,
            {
                "initial": initial,
                "checkpoints": checkpoints,
                "seed": settings.seed,
                "first_index": first,
                "count": last - first,
            },
        )
        for i, (first, last) in enumerate(itertools.pairwise(edges))
    ]
    return Evaluation.cat(list(_run(jobs, settings.workers, progress).values()))


def _clear(folder: Path) -> None:
    """Removes an earlier run of the demo; nothing else is ever in these folders."""
    if folder.exists():
        shutil.rmtree(folder)


def _described(settings: DemoSettings, training: Settings, initial: Path) -> dict[str, Any]:
    """What was run, without the paths of this machine."""
    return {
        "training": {**training.to_dict(), "start": initial.name},
        "test": {
            "seed": TEST_SEED_OFFSET + settings.seed,
            "faces": settings.test_faces,
            "pictures": 2 * settings.test_faces,
        },
    }
