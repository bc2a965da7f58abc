"""A whole experiment: a set of pipelines with some seeds, trained where need be, scored, and put side by side."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from focus import parallel
from focus._optional import require
from focus.bounds import SCALE, SEED, WORKERS, Within, check_fields
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.eval.results import write_results
from focus.eval.testset import SUBSETS
from focus.experiment.pictures import example_pictures
from focus.experiment.provenance import commit, machine
from focus.experiment.recipes import ABLATION, RECIPES, TABLE2
from focus.experiment.runs import Run, Scores, TestSettings, run_of, train_and_score
from focus.experiment.training import short_schedule, train_run
from focus.lock import only_one
from focus.report.experiment import ETAS, Pipelines, Sweep, pipelines_report, sweep_report
from focus.report.files import write_together
from focus.report.results import write_json
from focus.train.checkpoint import load_trained, shipped_checkpoint
from focus.train.config import Preset, Settings
from focus.train.distributed import pick_device
from focus.train.trainer import LAST

EXPERIMENTS = {
    "table2": "Every compared pipeline, with and without its misfit prior (Table 2 of the paper).",
    "ablation": "What each term of the segmentation loss is good for (Figs. 9 to 11).",
    "hyperparameters": "Each weight of the segmentation loss made smaller and larger, one at a time (Fig. 4).",
}
MEAN_FACE = "MeanFace"
FACTOR = Within(0, 1e6)
"""On a weight of the segmentation loss."""
_DATA_WORKERS = 8

Progress = Callable[[str, int, int, str], None]
"""(run, done, total, text)."""


@dataclass(frozen=True)
class ExperimentSettings:
    """What is compared, and how."""

    name: str
    """One of `EXPERIMENTS`."""
    out: Path
    """Folder of the results; trained runs are kept in runs/ and used again."""
    seeds: Annotated[tuple[int, ...], SEED] = (0, 1, 2)
    """Of training. The test set is the same for all."""
    schedule: Preset = "small"
    """small: minutes a run on a core, from shared initial weights; paper, official: as published, for cards."""
    scale: Annotated[float, SCALE] = 1.0
    """Factor on the iterations."""
    initial: Path | None = None
    """Checkpoint that all runs start from; None: for `small` the one that ships with the package, else one is trained
    first."""
    model: str = "procedural"
    """Face model: `procedural`, or the path of one."""
    arcface: Path | None = None
    """ArcFace weights for the recognition features; None: the filter bank."""
    imagenet: Path | None = None
    """ImageNet weights that an initialisation begins with."""
    recipes: tuple[str, ...] = ()
    """Those of `RECIPES` to compare; empty: those of the experiment."""
    factors: Annotated[tuple[float, ...], FACTOR] = (0.25, 0.5, 2.0, 4.0)
    """On the weights, for `hyperparameters`; beside them always 1."""
    test: TestSettings = field(default_factory=TestSettings)
    """What all are scored on."""
    workers: Annotated[int | None, WORKERS] = None
    """Runs at a time; None: one for each core, on a card one."""
    device: str = "cpu"
    """`cpu`, `cuda` or auto."""

    def __post_init__(self) -> None:
        check_fields(self, "experiment: {}".format)
        if self.name not in EXPERIMENTS:
            raise FocusError(f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {self.name!r}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise FocusError(f"experiment: seeds: expected different numbers, got {self.seeds}")
        if self.test.subset not in SUBSETS:
            raise FocusError(f"experiment: subset: expected one of {', '.join(SUBSETS)}, got {self.test.subset!r}")
        unknown = sorted(set(self.recipes) - set(RECIPES))
        if unknown or len(set(self.recipes)) != len(self.recipes):
            raise FocusError(
                f"experiment: recipes: expected different ones of {', '.join(RECIPES)}, got {self.recipes}"
            )
        if self.recipes and self.name == "hyperparameters":
            raise FocusError("experiment: recipes: hyperparameters is about FOCUS alone; leave them out")
        distinct = {f"{factor:g}" for factor in self.factors}
        if len(distinct) != len(self.factors):
            raise FocusError(f"experiment: factors: expected different numbers, got {self.factors}")


@dataclass(frozen=True)
class ExperimentResult:
    """What came out."""

    details: dict[str, Any]
    """What the JSON file holds."""
    shown: list[Any]
    """For `rich`."""
    written: list[Path]
    failed: list[Skip]
    """Runs that ended without a result, and why; the tables are without them."""


def run_experiment(
    settings: ExperimentSettings, *, progress: Progress, message: Callable[[str], None]
) -> ExperimentResult:
    """Trains what is not there yet, scores, and writes ``NAME.md``, ``NAME.json``, ``NAME.jsonl`` (results) and
    pictures; NAME ends with subset, schedule and scale where they are not the usual ones.

    An experiment that was stopped goes on where it was: finished runs are kept, unfinished ones resumed.

    Args:
        settings: what to compare.
        progress: called while runs go on.
        message: called with a line for people now and then.

    Raises:
        FocusError: nothing could be trained, a package is missing, or a file cannot be written.
    """
    started = time.monotonic()
    # Before hours of training, not after them.
    require("scipy.stats", extra="evaluate", purpose="test differences")
    require("matplotlib.figure", extra="report", purpose="draw figures")
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(only_one(settings.out, "experiment", name="lock"))
        if note:
            message(note)
        base = _base(settings, progress, message)
        runs = list(_runs(settings, base))
        fresh = sum(not run.complete for run in runs)
        message(f"{settings.name}: {len(runs)} runs, {fresh} of them to be trained, in {settings.out / 'runs'}")
        jobs = [
            parallel.Job(
                _title(run), train_and_score, {"run": run, "test": settings.test}, has_children=base.workers > 0
            )
            for run in runs
        ]
        workers = settings.workers or (1 if pick_device(settings.device).type == "cuda" else None)
        reasons: dict[str, str] = {}
        found: dict[str, Scores] = parallel.run_jobs(
            jobs, workers=workers, on_report=lambda name, value: progress(name, *value), failures=reasons
        )
        failed = [Skip(name, reason) for name, reason in reasons.items()]
        if not found:
            why = "; ".join(f"{skip.name}: {skip.reason}" for skip in failed)
            raise FocusError(f"{settings.name}: no run came to an end: {why}")
        rows = (MEAN_FACE, *TABLE2)
        if settings.name != "hyperparameters":
            runs.sort(key=lambda run: (rows.index(run.name), run.settings.seed))
        scores = [found[_title(run)] for run in runs if _title(run) in found]
        return _report(settings, base, scores, failed, (time.monotonic() - started) / 60)


def _report(
    settings: ExperimentSettings, base: Settings, scores: Sequence[Scores], failed: list[Skip], minutes: float
) -> ExperimentResult:
    about = {
        "experiment": settings.name,
        "schedule": settings.schedule,
        "scale": settings.scale,
        "seeds": list(settings.seeds),
        "subset": settings.test.subset,
        "faces": settings.test.faces,
        "misfit_faces": settings.test.misfit_faces,
        "digest": scores[0].results[0].digest,
        "trained_by": sorted({score.commit for score in scores if score.run.trained}),
        "commit": commit(),
        "machine": machine(),
        "minutes": round(minutes, 1),
        "training": {**base.to_dict(), "start": None if base.start is None else base.start.name},
    }
    names = list(dict.fromkeys(score.run.name for score in scores))
    metrics = {name: [score.metrics for score in scores if score.run.name == name] for name in names}
    results = [result for score in scores for result in score.results]
    first = {name: next(score.run for score in scores if score.run.name == name) for name in names}
    if settings.name == "hyperparameters":
        weights = {eta: float(getattr(base.segmentation_weights, eta)) for eta in ETAS}
        points = {name: run.point for name, run in first.items()}
        examples = example_pictures(first, settings.test, count=2)
        report = sweep_report(Sweep(about, weights, points, metrics, results, examples))
    else:
        examples = example_pictures(first, settings.test, count=8)
        report = pipelines_report(Pipelines(about, metrics, results, examples))
    stem = _stem(settings)
    written = write_together(settings.out, {f"{stem}{end}": data for end, data in report.files.items()})
    written.append(write_json(settings.out / f"{stem}.json", report.details))
    written.append(write_results(settings.out / f"{stem}.jsonl", results))
    return ExperimentResult(report.details, report.shown, written, failed)


def _stem(settings: ExperimentSettings) -> str:
    """Of the files: what is not as usual is part of it, so that a quick look takes nothing's place."""
    parts = [settings.name]
    parts += [settings.test.subset] if settings.test.subset != SUBSETS[0] else []
    parts += [settings.schedule] if settings.schedule != "small" else []
    parts += [f"x{settings.scale:g}"] if settings.scale != 1 else []
    return "-".join(parts)


def _base(settings: ExperimentSettings, progress: Progress, message: Callable[[str], None]) -> Settings:
    """What all runs share, but for their seeds."""
    training = replace(
        Settings.preset(settings.schedule).scaled(settings.scale),
        device=settings.device,
        arcface=settings.arcface,
        imagenet=settings.imagenet,
        # At the size of the paper, drawing a batch of faces takes as long as a card takes to learn from it.
        workers=min(_DATA_WORKERS, parallel.processors() - 1) if settings.schedule != "small" else 0,
    )
    training = replace(training, face=replace(training.face, source=settings.model))
    pick_device(settings.device)
    # The guards end a run whose masks say nothing any more. Here such a run is a result.
    training = replace(training, guard=replace(training.guard, lowest=0.0, highest=1.0))
    initial = settings.initial
    if initial is None and settings.schedule == "small":
        initial = shipped_checkpoint()
    if initial is None:
        initial = _initialise(training, settings, progress, message)
    start = load_trained(initial)
    if training.face != start.settings.face or training.image_size != start.settings.image_size:
        raise FocusError(
            f"{initial}: trained with {start.settings.face} at {start.settings.image_size} pixels; the schedule "
            f"{settings.schedule!r} has {training.face} at {training.image_size} pixels. Give --initial a checkpoint "
            "of that face model and size, or leave out --model"
        )
    if settings.schedule == "small":
        return short_schedule(initial, 0, training)
    return replace(training, start=initial, imagenet=None, stages=replace(training.stages, initialise=0))


def _initialise(
    training: Settings, settings: ExperimentSettings, progress: Progress, message: Callable[[str], None]
) -> Path:
    stages = replace(training.stages, segmentation=0, joint=0, adapt=0)
    run = run_of("initialisation", replace(training, method="pretrained", stages=stages), settings.out / "runs")
    message(f"no initial weights for the schedule {settings.schedule!r}: training them first, in {run.folder}")
    arguments = {"settings": run.settings, "folder": run.folder}
    job = parallel.Job(run.name, train_run, arguments, has_children=training.workers > 0)
    parallel.run_jobs([job], workers=1, on_report=lambda name, value: progress(name, *value))
    return run.folder / LAST


def _runs(settings: ExperimentSettings, base: Settings) -> Iterator[Run]:
    """All runs, the longest first."""
    folder = settings.out / "runs"
    if settings.name == "hyperparameters":
        for seed in settings.seeds:
            standard = RECIPES["FOCUS"].settings(replace(base, seed=seed))
            yield run_of("standard", standard, folder)
            for eta in ETAS:
                for factor in sorted(set(settings.factors) - {1.0}):
                    weights = standard.segmentation_weights
                    weights = replace(weights, **{eta: factor * getattr(weights, eta)})
                    changed = replace(standard, segmentation_weights=weights)
                    if changed != standard:  # a weight of 0 stays 0
                        yield run_of(f"{eta} x {factor:g}", changed, folder, point=(eta, factor))
        return
    order = TABLE2 if settings.name == "table2" else ABLATION
    chosen = set(settings.recipes or order)
    for name, recipe in RECIPES.items():
        if name in chosen:
            for seed in settings.seeds:
                yield run_of(name, recipe.settings(replace(base, seed=seed)), folder)
    if settings.name == "table2":
        yield run_of(MEAN_FACE, base, folder, trained=False)


def _title(run: Run) -> str:
    return f"{run.name}, seed {run.settings.seed}" if run.trained else run.name
