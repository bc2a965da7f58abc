"""Many photos, one by one or side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import Skip
from focus.face import MorphableModel
from focus.fit.faces import PhotoFace
from focus.fit.photo import PhotoFitter, Witness
from focus.fit.results import Failed, FitReport, Job, Progress, Results, Written, find_jobs, one_thread
from focus.fit.settings import FitSettings
from focus.fit.stream import Network, Stream
from focus.parallel import Lost, run_each
from focus.reconstruction import Reconstruction
from focus.report.files import check_folder


class Reconstruct(Protocol):
    """From a photo and its landmarks to a reconstruction, as `PhotoFitter` and `Reconstructor.photo` do it."""

    def __call__(
        self, image: str | Path, landmarks: NDArray[np.float64], *, name: str, notify: Callable[[], None]
    ) -> Reconstruction: ...


def run(
    photos: Sequence[Path],
    landmarks: Path | Sequence[PhotoFace],
    model: MorphableModel,
    out: Path,
    settings: FitSettings | None = None,
    notify: Callable[[Progress], None] = lambda progress: None,
    *,
    again: bool = False,
    workers: int = 1,
    report: FitReport | None = None,
    witness: Witness | None = None,
) -> FitReport:
    """Fits photos and writes the files of each (`Reconstruction.save`); prints nothing.

    A photo whose files are there and whole, of the same photo, landmarks, model, settings and version, is not fitted
    again: a run that was stopped goes on where it was.

    Args:
        photos: files; a folder stands for those of its photos that the landmark file names.
        landmarks: a file or folder, see `read_landmarks`; or the faces themselves, whose photos then count.
        model: the face model.
        out: folder for the results; made if need be.
        settings: see `FitSettings`.
        notify: called with the progress.
        again: fit also what is there already.
        workers: processes that fit; with 1 it is done in this one. All use one thread, and the results are the same.
        report: filled in as the work goes on, for callers that want to know what was written before an exception.
        witness: a network that is heard about the masks.

    Returns:
        What was written, and what was skipped and why. A photo that fails does not stop the others; a full disk does.

    Raises:
        FocusError: an unusable landmark file, no photo at all, or a file where `out` should be.
    """
    fitter = PhotoFitter(model, settings, witness=witness)
    with one_thread():
        return reconstruct_photos(
            photos,
            landmarks,
            out,
            fitter,
            fitter.steps,
            notify,
            made_by=fitter.made_by,
            again=again,
            workers=workers,
            report=report,
        )


def reconstruct_photos(
    photos: Sequence[Path],
    landmarks: Path | Sequence[PhotoFace],
    out: Path,
    reconstruct: Reconstruct | Network,
    steps: int,
    notify: Callable[[Progress], None] = lambda progress: None,
    *,
    made_by: Mapping[str, Any] | None = None,
    again: bool = False,
    workers: int = 1,
    report: FitReport | None = None,
) -> FitReport:
    """As `run`, with any way to reconstruct a photo, which calls its `notify` `steps` times; or with a network, which
    gets photos in batches and never waits for files.

    Args:
        made_by: what, beside a photo and its landmarks, decides the result; JSON. None: nobody knows, and nothing that
            is there already is taken for the same.
        workers: with more than 1, `reconstruct` must be picklable.
    """
    check_folder(out)  # before the work, not after it
    report = FitReport() if report is None else report
    jobs = find_jobs(photos, landmarks, report)
    results = Results(out, made_by, again, frozenset(job.path.resolve() for job in jobs))
    bar = _Bar(jobs, steps, notify)
    done: dict[int, Written] = {}

    def take(index: int, answer: Written | Failed) -> bool:
        """Whether to go on."""
        bar.done(index)
        if isinstance(answer, Written):
            # In the order of the photos, whichever process was first.
            place = sum(other < index for other in done)
            done[index] = answer
            report.written.insert(place, answer)
            return True
        report.add_failure(answer)
        return not answer.full

    if isinstance(reconstruct, Network):
        with Stream(results, jobs, reconstruct, take) as stream:
            stream.run()
        return report
    for index, answer in _answers(_Work(reconstruct, results), jobs, workers, bar):
        if not take(index, answer):
            break
    return report


@dataclass(frozen=True)
class _Work:
    """What is done with each face, here or in another process."""

    reconstruct: Reconstruct
    results: Results

    def __call__(self, job: Job, report: Callable[[Any], None]) -> Written | Failed:
        start = time.perf_counter()
        try:
            made_from, stored = self.results.begin(job)
            there_already = stored is not None
            if stored is None:
                found = self.reconstruct(job.path, job.points, name=job.path.name, notify=lambda: report(None))
                stored = self.results.save(job, found, made_from)
        except Exception as error:
            return Failed.by(job, error)
        return job.written(self.results.out, stored, time.perf_counter() - start, there_already=there_already)


class _Bar:
    """Tells how far a run is whose photos may be fitted side by side."""

    def __init__(self, jobs: Sequence[Job], steps: int, notify: Callable[[Progress], None]) -> None:
        self._jobs, self._steps, self._notify = jobs, max(steps, 1), notify
        self._finished = 0
        self._running: dict[int, int] = {}

    def step(self, index: int) -> None:
        """A step of a photo is done."""
        self._running[index] = self._running.get(index, 0) + 1
        self._tell(index, sum(self._running.values()) / self._steps)

    def done(self, index: int) -> None:
        """A photo is done; those that were there already, or failed, had no steps."""
        whole = self._running.pop(index, 0) >= self._steps
        if not whole:
            self._tell(index, 1 + sum(self._running.values()) / self._steps)
        self._finished += 1

    def _tell(self, index: int, fraction: float) -> None:
        self._notify(Progress(self._jobs[index].path.name, self._finished, len(self._jobs), fraction))


def _answers(work: _Work, jobs: Sequence[Job], workers: int, bar: _Bar) -> Iterator[tuple[int, Written | Failed]]:
    if workers == 1 or len(jobs) < 2:
        for index, job in enumerate(jobs):
            yield index, work(job, lambda value, index=index: bar.step(index))  # type: ignore[misc]
        return
    for index, answer in run_each(
        work, jobs, workers=min(workers, len(jobs)), on_report=lambda index, value: bar.step(index)
    ):
        if isinstance(answer, Lost):
            answer = Failed(Skip(str(jobs[index].path), answer.reason), True)
        yield index, answer
