"""`focus demo`: the paper's experiment in minutes. Four methods go on from one initial network, live, on synthetic
faces; then they and the mean face are compared on a held-out test set.
"""

from __future__ import annotations

import itertools
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from focus import parallel
from focus._version import __version__
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.benchmark import (
    TEST_SEED_OFFSET,
    Evaluation,
    Method,
    evaluate,
    mean_face,
    network_mask,
    robust_rule,
    score,
    true_mask,
    whole_face,
)
from focus.eval.claims import Finding, check_claims
from focus.eval.shape import fit_similarity
from focus.face import Renderer
from focus.report.charts import Curve
from focus.report.demo_page import DemoReport, Faces, demo_page
from focus.report.results import write_json, write_text
from focus.report.viewer import Mesh, viewer
from focus.train.checkpoint import Trained, load_trained
from focus.train.config import Method as TrainingMethod
from focus.train.config import Settings
from focus.train.log import RunLogger
from focus.train.run import VALIDATION_SEED_OFFSET, build_data, build_features, build_networks, pick_device
from focus.train.schedule import Turn, plan
from focus.train.trainer import LAST, Trainer

TRAINED: dict[str, TrainingMethod] = {"FOCUS": "focus", "MoFA": "mofa", "Pretrained": "pretrained", "Oracle": "oracle"}
"""Name in the table -> method of the trainer; in the order in which training starts, the longest first."""
ORDER = ("MeanFace", "MoFA", "Pretrained", "FOCUS", "Oracle")
"""Rows of the table."""
EXAMPLES, ROUND_EXAMPLES = 8, 4
"""Faces in the report."""
DISTINCT_FACES = 4000
"""Training faces: drawing one costs as much as training on it, and a few rounds over this many do not wear them out."""
SHORT_INITIALISATION = 1500
"""Iterations of the initialisation where no initial checkpoint is there: enough to run, too few to show much."""


@dataclass(frozen=True)
class DemoSettings:
    """A run of the demo."""

    out: Path
    """Folder of the results; made if need be."""
    seed: int = 0
    """Of training, validation and test faces, and of the segmentation network's first weights."""
    initial: Path | None = None
    """Checkpoint that training starts from; None: the one that ships with the package."""
    test_faces: int = 500
    """Faces of the test set; each is seen once with and once without an occluder."""
    workers: int | None = None
    """Methods that train at a time; None: one for each core."""
    training: Settings | None = None
    """How to train; None: the preset `small`. Method, seed, start and the stage `initialise` are filled in."""


@dataclass(frozen=True)
class DemoResult:
    """What a run found and wrote."""

    metrics: dict[str, Any]
    findings: list[Finding]
    written: list[Path]
    minutes: float


Progress = Callable[[str, int, int, str], None]
"""(job, done, total, text)."""


def shipped_checkpoint() -> Path | None:
    """The initial checkpoint of the package, if this build has one."""
    path = Path(str(files("focus") / "assets" / "initial_small.safetensors"))
    return path if path.is_file() else None


def run_demo(settings: DemoSettings, *, progress: Progress, message: Callable[[str], None]) -> DemoResult:
    """Trains, evaluates and writes ``metrics.json``, ``per_image.json`` and ``report.html``.

    Args:
        settings: the run.
        progress: called while jobs run.
        message: called with a line for people now and then.

    Raises:
        FocusError: a checkpoint does not fit, training failed, or a file cannot be written.
    """
    started = time.monotonic()
    if settings.test_faces < EXAMPLES:
        raise FocusError(f"demo: test_faces: expected at least {EXAMPLES}, got {settings.test_faces}")
    base = replace(settings.training or Settings.preset("small"), seed=settings.seed, threads=1)
    runs = settings.out / "training"
    initial = settings.initial or shipped_checkpoint()
    if initial is None:
        initial = _initialise(base, runs / "initial", progress, message)
    data = replace(base.data, distinct=DISTINCT_FACES)
    base = replace(base, start=initial, data=data, stages=replace(base.stages, initialise=0))
    start = load_trained(initial)  # fails here, before any work, where it does not fit
    if base.face != start.settings.face or base.image_size != start.settings.image_size:
        raise FocusError(
            f"{initial}: trained with {start.settings.face} at {start.settings.image_size} pixels; the demo uses "
            f"{base.face} at {base.image_size} pixels. Use a checkpoint of the preset 'small'."
        )
    training = {name: replace(base, method=method) for name, method in TRAINED.items()}
    for name in training:
        _clear(runs / name)
    message(f"training {', '.join(training)} from {initial.name}, in {runs}")
    rounds = _run(
        [parallel.Job(name, _train, {"settings": s, "folder": runs / name}) for name, s in training.items()],
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
        write_json(settings.out / "metrics.json", metrics),
        write_json(settings.out / "per_image.json", {"seed": settings.seed, **evaluation.per_image()}),
    ]
    minutes = (time.monotonic() - started) / 60
    report = _report(metrics, findings, settings, training, runs, initial, rounds, minutes)
    written.append(write_text(settings.out / "report.html", demo_page(report)))
    return DemoResult(metrics, findings, written, (time.monotonic() - started) / 60)


# --- jobs, each in a process of its own
# -----------------------------------------------------------------------------------


class _JobLogger(RunLogger):
    """Writes the files of a run, and tells progress to the process that shows it."""

    def __init__(self, report: parallel.Report, folder: Path, settings: Settings) -> None:
        super().__init__(folder, replace(settings.log, pictures=0, tensorboard="off"))
        self._report = report

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """To the parent."""
        self._report((step, total, text))

    def message(self, text: str) -> None:
        """Into a file of the run."""
        with open(self.folder / "messages.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")


def _train(report: parallel.Report, settings: Settings, folder: Path) -> list[Faces]:
    """Trains one method; of FOCUS, returns how some validation faces looked after every round."""
    model = settings.face.build()
    rounds: list[Faces] = []
    shown = SyntheticFaces(model, settings.image_size, settings.seed + VALIDATION_SEED_OFFSET, settings.data.synthetic)
    batch = shown.batch(0, ROUND_EXAMPLES, occluded=True).to(pick_device(settings.device))

    def after_turn(trainer: Trainer, turn: Turn) -> None:
        if turn.stage == "segmentation" or (turn.stage == "joint" and turn.network == "reconstruction"):
            found = trainer.predict(batch)
            label = "Before" if turn.stage == "segmentation" else f"Round {turn.cycle + 1}"
            rounds.append(Faces(label, found.rendering.image.cpu(), found.rendering.mask.cpu(), found.mask.cpu()))

    with _JobLogger(report, folder, settings) as logger:
        data, validation = build_data(settings, model, logger)
        trainer = Trainer(
            settings,
            model,
            build_networks(settings, model),
            data,
            build_features(settings, logger),
            validation=validation,
            folder=folder,
            logger=logger,
            device=pick_device(settings.device),
            after_turn=after_turn if settings.method == "focus" else None,
        )
        if not trainer.run():
            raise FocusError("stopped by a signal")
    return rounds


def _score(
    report: parallel.Report, initial: Path, checkpoints: Mapping[str, Path], seed: int, first_index: int, count: int
) -> Evaluation:
    """Scores all methods on a part of the test set."""
    start = load_trained(initial)
    methods = build_methods(start, {name: load_trained(path) for name, path in checkpoints.items()})
    faces = test_set(start, seed)
    return evaluate(
        methods, faces, count, first_index=first_index, progress=lambda done, total: report((done, total, ""))
    )


def build_methods(start: Trained, trained: Mapping[str, Trained]) -> list[Method]:
    """The rows of the table.

    Args:
        start: the initial network, which gives the pose and light of MeanFace.
        trained: name -> networks; names without networks are left out.
    """
    methods = {"MeanFace": Method("MeanFace", mean_face(start.networks.reconstruction), whole_face)}
    for name, result in trained.items():
        methods[name] = method_of(result, name)
    return [methods[name] for name in ORDER if name in methods]


def method_of(trained: Trained, name: str) -> Method:
    """A trained network with the mask rule of the method that it was trained by."""
    robust = trained.settings.robust
    rules = {
        "mofa": whole_face,
        "pretrained": robust_rule(robust.sigma, robust.cutoff),
        "oracle": true_mask,
        "focus": network_mask(trained.networks.segmentation),
    }
    return Method(name, trained.networks.reconstruction, rules[trained.settings.method])


def test_set(trained: Trained, seed: int) -> SyntheticFaces:
    """The test faces of a seed, in the model and image size of a network."""
    settings = trained.settings
    return SyntheticFaces(trained.model, settings.image_size, TEST_SEED_OFFSET + seed, settings.data.synthetic)


# --- running the jobs
# -----------------------------------------------------------------------------------------------------


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
    _run([parallel.Job("initialisation", _train, {"settings": settings, "folder": folder})], 1, progress)
    return folder / LAST


def _evaluate(initial: Path, checkpoints: Mapping[str, Path], settings: DemoSettings, progress: Progress) -> Evaluation:
    parts = min(settings.workers or parallel.processors(), settings.test_faces)
    edges = [settings.test_faces * i // parts for i in range(parts + 1)]
    jobs = [
        parallel.Job(
            f"test {i + 1}/{parts}" if parts > 1 else "test",
            _score,
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


# --- the report
# -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _report(
    metrics: dict[str, Any],
    findings: list[Finding],
    settings: DemoSettings,
    training: Mapping[str, Settings],
    runs: Path,
    initial: Path,
    rounds: Sequence[Faces],
    minutes: float,
) -> DemoReport:
    start = load_trained(initial)
    trained = {name: load_trained(runs / name / LAST) for name in training}
    renderer = Renderer(start.model, start.settings.image_size)
    batch = test_set(start, settings.seed).batch(0, EXAMPLES, occluded=True)
    neutral, unoccluded, face, visible = batch.neutral_vertices, batch.unoccluded, batch.face_mask, batch.visible_mask
    if neutral is None or unoccluded is None or face is None or visible is None or batch.parameters is None:
        raise ValueError("demo: expected synthetic faces with ground truth")
    shown, meshes = [], [Mesh("true face", neutral[0], start.model.albedo(batch.parameters.albedo)[0])]
    for method in build_methods(start, trained):
        parameters = method.reconstruct(batch.image)
        rendering = renderer(parameters)
        values, errors = score(method, batch, renderer)
        captions = [
            f"{shape:.2f} mm, IoU {iou:.2f}"
            for shape, iou in zip(values["shape_error_mm"].tolist(), values["outlier_iou"].tolist(), strict=True)
        ]
        shown.append(Faces(method.name, rendering.image, rendering.mask, method.mask(batch, rendering), captions))
        if method.name in ("FOCUS", "MoFA"):
            found = start.model.neutral_shape(parameters.identity[:1])
            aligned = fit_similarity(found, neutral[:1]).apply(found)[0].float()
            meshes.append(Mesh(method.name, aligned, start.model.albedo(parameters.albedo)[0], errors[0]))
    validation = SyntheticFaces(
        start.model, start.settings.image_size, settings.seed + VALIDATION_SEED_OFFSET, start.settings.data.synthetic
    )
    order = [mesh.label for mesh in meshes]
    return DemoReport(
        metrics=metrics,
        findings=findings,
        test_faces=settings.test_faces,
        round_photos=validation.batch(0, ROUND_EXAMPLES, occluded=True).image,
        rounds=rounds,
        photos=batch.image,
        truth=Faces("truth", unoccluded, face, visible, [kind.replace("+", ", ") for kind in batch.occluder]),
        methods=shown,
        scores=_scores(training, runs),
        losses=_losses(training, runs),
        viewer=viewer(start.model, meshes, shown=order.index("FOCUS")),
        machine=machine(),
        minutes=minutes,
    )


def _scores(training: Mapping[str, Settings], runs: Path) -> dict[str, list[Curve]]:
    """Validation scores over the iterations of the reconstruction network."""
    titles = {
        "shape_error_mm": "Shape error on validation faces, mm",
        "appearance_rmse": "Appearance error on validation faces",
        "outlier_iou": "Outlier IoU on validation faces",
    }
    curves: dict[str, list[Curve]] = {title: [] for title in titles.values()}
    for name in ORDER:
        if name not in training:
            continue
        lines = [line for line in read_log(runs / name) if line["kind"] == "validation"]
        for key, title in titles.items():
            points = [(own_iterations(training[name], line["step"]), line[key]) for line in lines if key in line]
            curves[title].append(Curve(name, points, name.lower()))
    return curves


def _losses(training: Mapping[str, Settings], runs: Path) -> dict[str, list[Curve]]:
    """Losses while training, each over the iterations of its network."""
    pixel = [
        Curve(
            name,
            [
                (own_iterations(training[name], line["step"]), line["pixel"])
                for line in read_log(runs / name)
                if line["kind"] == "joint/reconstruction" and "pixel" in line
            ],
            name.lower(),
        )
        for name in ORDER
        if name in training
    ]
    lines = [line for line in read_log(runs / "FOCUS") if line["kind"] == "joint/segmentation"]
    terms = ("neighbor", "distance", "area", "preserve", "binary")
    segmentation = [
        Curve(
            term,
            [
                (own_iterations(training["FOCUS"], line["step"], "segmentation"), line[term])
                for line in lines
                if term in line
            ],
            f"series{number + 1}",
        )
        for number, term in enumerate(terms)
    ]
    return {
        "Photometric loss in training, over the trusted pixels": [curve for curve in pixel if curve.points],
        "Terms of the segmentation loss of FOCUS, unweighted": segmentation,
    }


def own_iterations(settings: Settings, step: int, network: str = "reconstruction") -> int:
    """How often a network has learnt when a run has done `step` iterations of both."""
    turns = plan(settings.stages, settings.method)
    return sum(min(max(step - turn.start, 0), turn.length) for turn in turns if turn.network == network)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl`` of a run."""
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


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


def machine() -> str:
    """The machine in words: processor, cores in use, torch."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = parallel.processors()
    return f"{name}, {cores} core{'s' if cores > 1 else ''}, {platform.system()}, torch {torch.__version__}"


def commit() -> str:
    """The commit of the source tree that this package runs from or was built in, else its version.

    A tree with changes is marked with a plus sign.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        # An environment may lie in the tree of some other project.
        if (root / "focus" / "_version.py").read_text() != (here / "_version.py").read_text():
            return f"version {__version__}"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(root / "focus"), str(root / "csrc"))
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
