"""Errors of predicted meshes by the protocol of the NoW challenge, several images at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus._optional import require
from focus.bounds import Within, check_fields
from focus.errors import FocusError
from focus.eval.now.alignment import Placement, Surface, align_landmarks, face_region, refine
from focus.eval.now.dataset import (
    CHALLENGES,
    MILLIMETRES,
    NowDataset,
    NowImage,
    Prediction,
    Scan,
    Unit,
    check_prediction,
    load_prediction,
    scan_notes,
    summarise_notes,
)
from focus.eval.shape import summarise
from focus.parallel import Job, Report, processors, run_jobs

REFINEMENT_POINTS = Within(3, 1_000_000_000)
_SHOWN = 20
"""Problems that a message lists."""


@dataclass(frozen=True)
class NowSettings:
    """How to measure."""

    metrical: bool = False
    """Sizes count: align by rotation and translation only."""
    refine: bool = True
    """Minimise the distance of scan and mesh after the landmarks were aligned, as the challenge does."""
    refinement_points: Annotated[int, REFINEMENT_POINTS] = 10_000
    """Most vertices of the scan that the refinement uses; the error always uses all."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    """Method to the unit of its meshes; mm for methods that are not named."""

    def __post_init__(self) -> None:
        check_fields(self, "now: {}".format)


@dataclass(frozen=True)
class NowEvaluation:
    """Errors of several methods on the same images."""

    images: tuple[NowImage, ...]
    """In the order of the list."""
    errors: Mapping[str, tuple[NDArray[np.float32], ...]]
    """Method to the errors of each image, ``[vertices of the scan's face]`` mm."""
    skipped: tuple[tuple[str, str], ...]
    """Images that were left out for all methods, and why."""
    notes: tuple[str, ...]
    """What is odd about scans and predictions that were measured."""
    seconds: float
    """That the measuring took, files included."""

    @property
    def scans_per_second(self) -> float:
        """Predictions measured in a second."""
        return len(self.images) * len(self.errors) / max(self.seconds, 1e-9)

    def all_errors(self, method: str, challenge: str | None = None) -> NDArray[np.float32]:
        """Errors of all images, or those of a challenge, one after the other."""
        chosen = [
            values
            for image, values in zip(self.images, self.errors[method], strict=True)
            if challenge in (None, image.challenge)
        ]
        return np.concatenate(chosen)

    def challenges(self) -> list[str]:
        """Those that have images, in the order of `CHALLENGES`, then others."""
        found = {image.challenge for image in self.images}
        return [name for name in CHALLENGES if name in found] + sorted(found - set(CHALLENGES))

    def summary(self, method: str, challenge: str | None = None) -> dict[str, float]:
        """median, mean and std (mm) over all scan vertices, with images and vertices, the numbers of them."""
        errors = self.all_errors(method, challenge)
        count = sum(challenge in (None, image.challenge) for image in self.images)
        return {"images": count, "vertices": errors.size, **summarise(errors)}


def scan_errors(
    scan: Scan, prediction: Prediction, *, unit: Unit = "mm", settings: NowSettings | None = None
) -> tuple[NDArray[np.float32], Placement]:
    """The challenge's error of one prediction.

    Args:
        scan: the truth, mm.
        prediction: mesh and landmarks, in `unit`.
        unit: only counts in the metrical protocol.
        settings: how to measure.

    Returns:
        The distance of every vertex of the scan's face (`face_region`) to the placed surface, ``[N]`` mm, float32, in
        the order of the scan's vertices; and where the prediction was placed.

    Raises:
        FocusError: no vertex of the scan is near its landmarks.
    """
    settings = settings or NowSettings()
    centre, radius = face_region(scan.landmarks)
    points = scan.mesh.vertices[np.linalg.norm(scan.mesh.vertices - centre, axis=1) <= radius]
    if len(points) == 0:
        raise FocusError(
            f"no vertex of the scan within {radius:.3g} mm of its landmarks: are both in one place and unit?"
        )
    factor = MILLIMETRES[unit] if settings.metrical else 1.0
    surface = Surface(prediction.mesh.vertices * factor, prediction.mesh.faces)
    placement = align_landmarks(prediction.landmarks * factor, scan.landmarks, with_scale=not settings.metrical)
    if settings.refine:
        placement = refine(
            _some(points, settings.refinement_points), surface, placement, with_scale=not settings.metrical
        )
    distances = placement.scale * surface.closest(placement.inverse(points)).distances
    # In millimetres of the scan, whatever the unit of the prediction: told to whoever draws the placed mesh.
    return distances.astype(np.float32), placement._replace(scale=placement.scale * factor)


def evaluate_now(
    dataset: NowDataset,
    images: Sequence[NowImage],
    predictions: Mapping[str, Path],
    settings: NowSettings | None = None,
    *,
    partial: bool = False,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> NowEvaluation:
    """Checks all scans and predictions, then measures them.

    Args:
        dataset: the scans.
        images: what to measure.
        predictions: method to its folder.
        settings: how to measure.
        partial: leave images out that cannot be measured, for all methods, so that their rows compare; otherwise
            one such image is an error.
        workers: processes at a time; None: one for each core. With 1, all happens in this process. Results do not
            depend on it.
        progress: called with "checked" or "measured", images done, and their number.

    Raises:
        FocusError: something is missing or damaged (the message lists the first of them), or nothing is left.
    """
    settings = settings or NowSettings()
    require("igl", extra="evaluate", purpose="measure distances of scans to meshes")  # before the long reading of files
    if not predictions:
        raise FocusError("predictions: expected at least one method with its folder, got none")
    unknown = sorted(set(settings.units) - set(predictions))
    if unknown:
        raise FocusError(f"units: no predictions of {', '.join(unknown)}; expected one of {', '.join(predictions)}")
    dataset.folders()
    for method, folder in predictions.items():
        if not folder.is_dir():
            raise FocusError(f"{folder}: no such folder of predictions ({method})")

    common = {"dataset": dataset, "predictions": dict(predictions), "settings": settings}
    checked = _in_parts(_check_part, images, common, workers, "checked", progress)
    problems = [(image.name, problem) for image, check in checked for problem in check.problems]
    if problems and not partial:
        bad = {name for name, _ in problems}
        shown = [f"{name}: {problem}" for name, problem in problems[:_SHOWN]]
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise FocusError(
            f"{len(bad)} of {len(images)} images cannot be measured for "
            "every method; mend what is listed, or leave them out for all methods (--partial):\n  "
            + "\n  ".join(shown + more)
        )
    good = [image for image, check in checked if not check.problems]
    if not good:
        raise FocusError(f"no image is left; the first problem is {': '.join(problems[0])}")
    notes = summarise_notes([note for _, check in checked for note in check.notes])

    started = time.perf_counter()
    measured = dict(_in_parts(_measure_part, good, common, workers, "measured", progress))
    seconds = time.perf_counter() - started
    errors = {method: tuple(measured[image][method] for image in good) for method in predictions}
    return NowEvaluation(tuple(good), errors, tuple(problems), tuple(notes), seconds)


class _Check(NamedTuple):
    problems: list[str]
    notes: list[tuple[str, str]]


class _Scans:
    """The last scan read: images come subject by subject."""

    def __init__(self, dataset: NowDataset) -> None:
        self._dataset = dataset
        self._subject: str | None = None
        self._scan: Scan | FocusError | None = None

    def load(self, subject: str) -> Scan:
        if subject != self._subject:
            self._subject = subject
            try:
                self._scan = self._dataset.load(subject)
            except FocusError as error:
                self._scan = error
        if isinstance(self._scan, FocusError):
            raise self._scan
        assert self._scan is not None
        return self._scan


def _check_part(
    report: Report,
    images: Sequence[NowImage],
    dataset: NowDataset,
    predictions: Mapping[str, Path],
    settings: NowSettings,
) -> list[_Check]:
    scans, checks = _Scans(dataset), []
    noted: set[str] = set()
    for image in images:
        check = _Check([], [])
        try:
            scan = scans.load(image.subject)
            if image.subject not in noted:
                noted.add(image.subject)
                check.notes.extend((image.subject, note) for note in scan_notes(scan))
        except FocusError as error:
            check.problems.append(str(error))
        else:
            for method, folder in predictions.items():
                try:
                    unit = settings.units.get(method, "mm")
                    prediction = load_prediction(folder, image)
                    odd = check_prediction(prediction, scan, unit=unit, metrical=settings.metrical)
                    check.notes.extend((image.name, f"{method}: {note}") for note in odd)
                except FocusError as error:
                    check.problems.append(f"{method}: {error}")
        checks.append(check)
        report(1)
    return checks


def _measure_part(
    report: Report,
    images: Sequence[NowImage],
    dataset: NowDataset,
    predictions: Mapping[str, Path],
    settings: NowSettings,
) -> list[dict[str, NDArray[np.float32]]]:
    scans, measured = _Scans(dataset), []
    for image in images:
        scan, values = scans.load(image.subject), {}
        for method, folder in predictions.items():
            unit = settings.units.get(method, "mm")
            try:
                values[method], _ = scan_errors(scan, load_prediction(folder, image), unit=unit, settings=settings)
            except FocusError as error:
                raise FocusError(f"{image.name}: {method}: {error}") from error
        measured.append(values)
        report(1)
    return measured


def _in_parts(
    function: Callable[..., list[Any]],
    images: Sequence[NowImage],
    arguments: Mapping[str, Any],
    workers: int | None,
    what: str,
    progress: Callable[[str, int, int], None] | None,
) -> list[tuple[NowImage, Any]]:
    """Results of a function of a list of images, by image, in their order."""
    count = processors() if workers is None else workers
    if count < 1:
        raise FocusError(f"workers: expected at least 1, got {count}")
    done = 0

    def on_report(_: str, number: int) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(what, done, len(images))

    # Subject by subject, so that a part reads each of its scans once.
    ordered = sorted(images)
    bounds = np.linspace(0, len(ordered), min(count, len(ordered)) + 1).astype(int)
    parts = [ordered[start:stop] for start, stop in itertools.pairwise(bounds)]
    if len(parts) == 1:
        results = [function(lambda number: on_report("", number), parts[0], **arguments)]
    else:
        jobs = [Job(f"part {i}", function, {"images": part, **arguments}) for i, part in enumerate(parts)]
        results = list(run_jobs(jobs, workers=count, on_report=on_report).values())
    by_image = {
        image: value
        for part, values in zip(parts, results, strict=True)
        for image, value in zip(part, values, strict=True)
    }
    return [(image, by_image[image]) for image in images]


def _some(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """At most `count` of the points, the same ones each time."""
    if len(points) <= count:
        return points
    return points[np.sort(np.random.default_rng(0).choice(len(points), count, replace=False))]
