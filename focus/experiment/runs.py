"""Training runs that are kept: each in a folder that is named after what it computes, with the scores it got."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from focus import parallel
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.benchmark import Method, evaluate, mean_face, whole_face
from focus.eval.misfit import ESTIMATION_SEED_OFFSET, PRIOR_SUFFIX, estimate_misfit
from focus.eval.results import Result, append_results, from_evaluation, read_results
from focus.eval.testset import VERSION, benchmark_faces, digest
from focus.experiment.provenance import commit
from focus.experiment.training import method_of, train_run
from focus.report.results import read_json, write_json
from focus.train.checkpoint import Trained, load_trained
from focus.train.config import Settings
from focus.train.run import pick_device
from focus.train.trainer import LAST, what_it_computes

_PLAIN = "run"
_DONE = "done.json"


@dataclass(frozen=True)
class TestSettings:
    """What runs are scored on."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    subset: str = "general"
    """Of the fixed test set."""
    faces: int = 500
    """Of the subset; each is seen once with and once without an occluder."""
    misfit_faces: int = 500
    """That the misfit prior of a run is estimated from; other ones."""


@dataclass(frozen=True)
class Run:
    """One pipeline with one seed."""

    name: str
    """As tables have it."""
    settings: Settings
    """How it is trained."""
    folder: Path
    """Where it is kept."""
    trained: bool = True
    """False: nobody is trained, `settings.start` gives pose and light of the mean face."""

    @property
    def checkpoint(self) -> Path:
        """The trained networks."""
        if self.trained:
            return self.folder / LAST
        if self.settings.start is None:
            raise ValueError("Run: expected a start for a run that is not trained")
        return self.settings.start


@dataclass(frozen=True)
class Scores:
    """What a run got."""

    run: Run
    metrics: dict[str, dict[str, Any]]
    """Name, and name with `PRIOR_SUFFIX` -> half -> numbers, as `Evaluation.metrics` gives them."""
    results: list[Result]
    """The same two, picture by picture."""
    commit: str
    """State of the source that trained it."""


def run_of(name: str, settings: Settings, runs: Path, *, trained: bool = True) -> Run:
    """A run in its place below the folder `runs`.

    Two runs share a folder where they compute the same: then one is made, under whatever name.

    Raises:
        FocusError: the initial weights cannot be read.
    """
    start = None
    if settings.start is not None:
        try:
            start = hashlib.sha256(settings.start.read_bytes()).hexdigest()
        except OSError as error:
            raise FocusError(
                f"{settings.start}: initial weights: cannot be read ({error.strerror or error})"
            ) from error
    content = {"start": start, **what_it_computes(settings)} if trained else {"start": start}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    kind = settings.method if trained else "mean-face"
    return Run(name, settings, runs / f"{kind}-seed{settings.seed}-{key}", trained)


def train_and_score(report: parallel.Report, run: Run, test: TestSettings) -> str | None:
    """Trains a run where it is not trained yet, scores it where it is not scored yet.

    Returns:
        Why it failed, so that the others of its experiment go on; None if it did not.
    """
    try:
        done = run.folder / _DONE
        if run.trained and not done.exists():
            train_run(report, run.settings, run.folder)
            write_json(done, {"name": run.name, "settings": run.settings.to_dict(), "commit": commit()})
        if not _scored(run, test):
            _score(report, run, test)
    except FocusError as error:
        return str(error)
    return None


def read_scores(run: Run, test: TestSettings) -> Scores:
    """The scores of a run, under its name.

    Raises:
        FocusError: it was not scored on this, or its files are damaged.
    """
    path = _metrics_path(run, test)
    content = read_json(path)
    names = {_PLAIN: run.name, _PLAIN + PRIOR_SUFFIX: run.name + PRIOR_SUFFIX}
    try:
        mark, metrics = content["digest"], {names[name]: rows for name, rows in content["metrics"].items()}
        trained_by = read_json(run.folder / _DONE)["commit"] if run.trained else content["commit"]
    except (KeyError, TypeError) as error:
        raise FocusError(f"{path}: damaged ({error}); delete it, and the run is scored again") from error
    results = [
        replace(result, method=names[result.method], seed=run.settings.seed)
        for result in read_results(run.folder / "results.jsonl")
        if result.digest == mark and result.subset == test.subset
    ]
    return Scores(run, metrics, results, trained_by)


def _metrics_path(run: Run, test: TestSettings) -> Path:
    return run.folder / f"scores-{test.subset}-{test.faces}-{test.misfit_faces}-v{VERSION}.json"


def _scored(run: Run, test: TestSettings) -> bool:
    return _metrics_path(run, test).exists()


def _score(report: parallel.Report, run: Run, test: TestSettings) -> None:
    settings = run.settings
    device = pick_device(settings.device)
    trained = load_trained(run.checkpoint, device=device)
    plain = scored_method(run, trained, _PLAIN)
    size, total = settings.image_size, test.misfit_faces + 2 * test.faces
    prior = estimate_misfit(
        plain.reconstruct,
        SyntheticFaces(trained.model, size, ESTIMATION_SEED_OFFSET, settings.data.synthetic),
        test.misfit_faces,
        source=run.name,
        device=device,
        progress=lambda done, _: report((done, total, "misfit prior")),
    )
    faces = benchmark_faces(trained.model, size, test.subset)
    evaluation = evaluate(
        [plain, replace(plain, name=_PLAIN + PRIOR_SUFFIX, misfit=prior)],
        faces,
        test.faces,
        device=device,
        progress=lambda done, _: report((test.misfit_faces + done, total, "test pictures")),
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    prior.save(run.folder / "misfit.safetensors")
    mark = digest(faces, test.faces)
    results = from_evaluation(
        evaluation, seed=settings.seed, subset=test.subset, version=VERSION, digest=mark, commit=commit()
    )
    append_results(run.folder / "results.jsonl", results)
    # Last: what says that all of it is there.
    write_json(_metrics_path(run, test), {"digest": mark, "commit": commit(), "metrics": evaluation.metrics()})


def scored_method(run: Run, trained: Trained, name: str) -> Method:
    """What is scored of a run."""
    if run.trained:
        return method_of(trained, name)
    return Method(name, mean_face(trained.networks.reconstruction), whole_face)
