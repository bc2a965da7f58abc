"""Training runs that are kept: each in a folder that is named after what it computes, with the scores it got."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from focus import limits, parallel
from focus.bounds import COUNT, Within, check_fields
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.benchmark import HALVES, Method, evaluate
from focus.eval.misfit import ESTIMATION_SEED_OFFSET, PRIOR_SUFFIX, MisfitPrior, estimate_misfit
from focus.eval.results import Result, from_evaluation, read_results, write_results
from focus.eval.testset import VERSION, benchmark_faces, digest
from focus.experiment.provenance import commit
from focus.experiment.training import mean_face_of, method_of, train_run
from focus.files import digest_input
from focus.report.results import read_sealed, write_sealed
from focus.train.checkpoint import Trained, load_trained
from focus.train.config import Settings
from focus.train.distributed import pick_device
from focus.train.record import what_it_computes
from focus.train.trainer import LAST

FACES = Within(2, COUNT.high)
"""Of the test set."""
_PLAIN = "run"


@dataclass(frozen=True)
class TestSettings:
    """What runs are scored on."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    subset: str = "general"
    """Of the fixed test set."""
    faces: Annotated[int, FACES] = 500
    """Of the subset; each is seen once with and once without an occluder."""
    misfit_faces: Annotated[int, COUNT] = 500
    """That the misfit prior of a run is estimated from; other ones."""

    def __post_init__(self) -> None:
        check_fields(self, "experiment: test set: {}".format)


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
    point: tuple[str, float] | None = None
    """Of `hyperparameters`: which weight is changed, and the factor on it."""

    @property
    def checkpoint(self) -> Path:
        """The trained networks."""
        if self.trained:
            return self.folder / LAST
        if self.settings.start is None:
            raise ValueError("Run: expected a start for a run that is not trained")
        return self.settings.start

    @property
    def done(self) -> Path:
        """The file that says that training came to its end."""
        return self.folder / "done.json"

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train."""
        return not self.trained or (self.done.exists() and self.checkpoint.exists())


@dataclass(frozen=True)
class Scores:
    """What a run got."""

    run: Run
    metrics: dict[str, dict[str, Any]]
    """Name, and name with `PRIOR_SUFFIX` -> half -> numbers, as `Evaluation.metrics` gives them."""
    results: list[Result]
    """The same two, picture by picture."""
    commit: str
    """State of the source that finished training it."""


def run_of(
    name: str, settings: Settings, runs: Path, *, trained: bool = True, point: tuple[str, float] | None = None
) -> Run:
    """A run in its place below the folder `runs`.

    Two runs share a folder where they compute the same: then one is made, under whatever name.

    Raises:
        FocusError: the initial weights, or other files that decide what is computed, cannot be read.
    """
    content: dict[str, Any] = {"start": _digest(settings.start, "initial weights")}
    if trained:
        content |= what_it_computes(settings)
        # What lies there decides, not where: another file under the same name is another run.
        content["arcface"] = _digest(settings.arcface, "arcface")
        content["imagenet"] = _digest(settings.imagenet, "imagenet")
        source = Path(settings.face.source)
        if source.is_file():
            content["face"] = {**content["face"], "source": _digest(source, "face model")}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    kind = settings.method if trained else "mean-face"
    return Run(name, settings, runs / f"{kind}-seed{settings.seed}-{key}", trained, point)


def _digest(path: Path | None, what: str) -> str | None:
    if path is None:
        return None
    try:
        return digest_input(path, limits.WEIGHTS_FILE)
    except FocusError as error:
        raise FocusError(f"{path}: {what}: cannot be read ({error})") from error


def train_and_score(report: parallel.Report, run: Run, test: TestSettings) -> Scores:
    """Trains a run where it is not trained yet, and scores it where it is not scored yet. Scores that are damaged are
    made anew.

    Raises:
        FocusError: training failed, or the networks of a run that was trained cannot be read any more.
    """
    if run.trained and (_trained_by(run) is None or not run.complete):
        with _told_what_to_delete(run):
            train_run(report, run.settings, run.folder)
        write_sealed(run.done, {"name": run.name, "settings": run.settings.to_dict(), "commit": commit()})
    with _told_what_to_delete(run):
        trained = load_trained(run.checkpoint, device=pick_device(run.settings.device))
    try:
        return _read_scores(run, trained, test)
    except (FocusError, KeyError, TypeError, ValueError, AttributeError):
        return _score(report, run, trained, test)


def _trained_by(run: Run) -> str | None:
    """The commit that finished training it; None: nobody did, as far as can be read."""
    try:
        found = read_sealed(run.done)["commit"]
    except (FocusError, KeyError, TypeError):
        return None
    return str(found)


@contextlib.contextmanager
def _told_what_to_delete(run: Run) -> Iterator[None]:
    try:
        yield
    except FocusError as error:
        if run.trained and run.checkpoint.exists() and str(run.checkpoint) in str(error):
            raise FocusError(f"{error}. Delete {run.folder}, and it is trained again") from error
        raise


def _files(run: Run, test: TestSettings) -> tuple[Path, Path]:
    """Where the scores of a run on a test set are kept: as tables, and picture by picture."""
    stem = f"scores-{test.subset}-{test.faces}-{test.misfit_faces}-v{VERSION}"
    return run.folder / f"{stem}.json", run.folder / f"{stem}.jsonl"


def _read_scores(run: Run, trained: Trained, test: TestSettings) -> Scores:
    """Raises whatever damaged files make of themselves."""
    tables, pictures = _files(run, test)
    content = read_sealed(tables)
    faces = benchmark_faces(trained.model, run.settings.image_size, test.subset)
    if content["digest"] != digest(faces, test.faces):
        raise ValueError("scores of another test set")
    results = read_results(pictures)
    if any(result.digest != content["digest"] for result in results):
        raise ValueError("values of another test set")
    return _scores_of(run, content, results)


def _scores_of(run: Run, content: dict[str, Any], results: list[Result]) -> Scores:
    """Scores under the name of the run: a run may be part of experiments under several."""
    names = {_PLAIN: run.name, _PLAIN + PRIOR_SUFFIX: run.name + PRIOR_SUFFIX}
    for name in names:
        for half in HALVES:
            _ = content["metrics"][name][half]["shape_error_mm"]["mean"]
    by_name = {result.method: result for result in results}
    return Scores(
        run,
        {title: content["metrics"][name] for name, title in names.items()},
        [replace(by_name[name], method=title, seed=run.settings.seed) for name, title in names.items()],
        _trained_by(run) or content["commit"],
    )


def _score(report: parallel.Report, run: Run, trained: Trained, test: TestSettings) -> Scores:
    settings = run.settings
    device = pick_device(settings.device)
    plain = scored_method(run, trained, _PLAIN)
    size, total = settings.image_size, test.misfit_faces + 2 * test.faces
    path = run.folder / f"misfit-{test.misfit_faces}.safetensors"
    try:
        prior = MisfitPrior.load(path)
        prior.check_model(trained.model)
    except FocusError:  # not there yet, or damaged
        prior = estimate_misfit(
            plain.reconstruct,
            SyntheticFaces(trained.model, size, ESTIMATION_SEED_OFFSET, settings.data.synthetic),
            test.misfit_faces,
            source=run.name,
            device=device,
            progress=lambda done, _: report((done, total, "misfit prior")),
        )
        prior.save(path)
    faces = benchmark_faces(trained.model, size, test.subset)
    evaluation = evaluate(
        [plain, replace(plain, name=_PLAIN + PRIOR_SUFFIX, misfit=prior)],
        faces,
        test.faces,
        device=device,
        progress=lambda done, _: report((test.misfit_faces + done, total, "test pictures")),
    )
    mark = digest(faces, test.faces)
    results = from_evaluation(
        evaluation, seed=settings.seed, subset=test.subset, version=VERSION, digest=mark, commit=commit()
    )
    tables, pictures = _files(run, test)
    content = {"digest": mark, "commit": commit(), "metrics": evaluation.metrics()}
    write_results(pictures, results)
    write_sealed(tables, content)  # last: what says that all of it is there
    return _scores_of(run, content, results)


def scored_method(run: Run, trained: Trained, name: str) -> Method:
    """What is scored of a run."""
    return method_of(trained, name) if run.trained else mean_face_of(trained, name)
