"""Many photos: which landmarks belong to which, what their files are called, and what could not be used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from focus import limits
from focus._version import __version__
from focus.data.landmarks import LandmarkRow, Skip, find_faces, five_from_68, name_parts, read_landmarks
from focus.errors import FocusError, out_of_memory, reason_to_skip
from focus.face import MorphableModel
from focus.files import digest_input
from focus.fit.photo import PhotoFitter
from focus.fit.settings import FitSettings
from focus.parallel import Lost, run_each
from focus.reconstruction import RESULT_SUFFIXES, Reconstruction
from focus.record import check_result
from focus.report.files import check_folder

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What no other photo would be spared."""


@dataclass(frozen=True)
class Progress:
    """Where `run` is."""

    name: str
    """Of the photo."""
    index: int
    """Of the photo, from 0."""
    count: int
    """Number of photos."""
    fraction: float
    """Of this photo, 0 to 1."""


@dataclass(frozen=True)
class Written:
    """One photo that was reconstructed."""

    name: str
    files: list[Path]
    occluded_fraction: float
    landmark_error: float
    """See `landmark_error`."""
    seconds: float
    there_already: bool = False
    """An earlier run made the same, and its files are whole."""


@dataclass
class FitReport:
    """What `run` did. It is filled in as the work goes on: what is in it holds, however the run ends."""

    written: list[Written] = field(default_factory=list)
    """The photos whose results are there, whole."""
    skipped: list[Skip] = field(default_factory=list)
    """Rows of the landmark file that cannot be read, then photos that failed, with the reason."""
    faults: int = 0
    """How many of the skipped failed by an error that is no fault of theirs."""
    stopped: str | None = None
    """Why the photos that are in neither list were not tried."""


class Reconstruct(Protocol):
    """From a photo and its landmarks to a reconstruction, as `PhotoFitter` and `Reconstructor.photo` do it."""

    def __call__(
        self, image: str | Path, landmarks: NDArray[np.float64], *, name: str, notify: Callable[[], None]
    ) -> Reconstruction: ...


PhotoFace = tuple[Path, NDArray[np.float64]]
"""A photo and the landmarks of one of its faces, [68, 2] or [5, 2] pixels. Faces of one photo have equal paths."""


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

    Returns:
        What was written, and what was skipped and why. A photo that fails does not stop the others; a full disk does.

    Raises:
        FocusError: an unusable landmark file, no photo at all, or a file where `out` should be.
    """
    fitter = PhotoFitter(model, settings)
    made_by = {"settings": asdict(fitter.settings), "model": fitter.model.fingerprint()}
    with _one_thread():
        return reconstruct_photos(
            photos,
            landmarks,
            out,
            fitter,
            fitter.steps,
            notify,
            made_by=made_by,
            again=again,
            workers=workers,
            report=report,
        )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of torch have another order with another number of threads: with one, as the processes have it, results
    depend neither on the machine nor on the number of processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reconstruct_photos(
    photos: Sequence[Path],
    landmarks: Path | Sequence[PhotoFace],
    out: Path,
    reconstruct: Reconstruct,
    steps: int,
    notify: Callable[[Progress], None] = lambda progress: None,
    *,
    made_by: Mapping[str, Any] | None = None,
    again: bool = False,
    workers: int = 1,
    report: FitReport | None = None,
) -> FitReport:
    """As `run`, with any way to reconstruct a photo, which calls its `notify` `steps` times.

    Args:
        made_by: what, beside a photo and its landmarks, decides the result; JSON. None: nobody knows, and nothing that
            is there already is taken for the same.
        workers: with more than 1, `reconstruct` must be picklable.
    """
    check_folder(out)  # before the work, not after it
    report = FitReport() if report is None else report
    if isinstance(landmarks, (str, Path)):
        table = read_landmarks(landmarks)
        report.skipped += table.skipped
        faces = _find_landmarks(photos, table.rows, report.skipped)
    else:
        faces = list(landmarks)
    jobs = [_Job(*face, stem) for face, stem in zip(faces, output_stems([path for path, _ in faces]), strict=True)]
    work = _Work(reconstruct, out, made_by, again, frozenset(path.resolve() for path, _ in faces))
    bar = _Bar(jobs, steps, notify)
    done: dict[int, Written] = {}
    for index, answer in _answers(work, jobs, workers, bar):
        bar.done(index)
        if isinstance(answer, Written):
            # In the order of the photos, whichever process was first.
            place = sum(other < index for other in done)
            done[index] = answer
            report.written.insert(place, answer)
            continue
        skip, is_fault, full = answer
        report.skipped.append(skip)
        report.faults += is_fault
        if full:
            report.stopped = skip.reason
            break
    return report


class _Job(NamedTuple):
    """A face of a photo."""

    path: Path
    points: NDArray[np.float64]
    stem: str


class _Failed(NamedTuple):
    """A face without a result."""

    skip: Skip
    is_fault: bool
    full: bool
    """No other photo would be spared."""


@dataclass(frozen=True)
class _Work:
    """What is done with each face, here or in another process."""

    reconstruct: Reconstruct
    out: Path
    made_by: Mapping[str, Any] | None
    again: bool
    inputs: frozenset[Path]
    """All photos, which no result may replace."""

    def __call__(self, job: _Job, report: Callable[[Any], None]) -> Written | _Failed:
        start = time.perf_counter()
        try:
            known, there_already = self._result(job, lambda: report(None))
        except Exception as error:
            # Whatever it is, results of other photos are not lost by it.
            skip = Skip(str(job.path), reason_to_skip(error).removeprefix(f"{job.path}: "))
            full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL
            return _Failed(skip, not isinstance(error, FocusError) and not out_of_memory(error), full)
        return Written(
            name=str(job.path),
            files=[self.out / f"{job.stem}{suffix}" for suffix in RESULT_SUFFIXES],
            occluded_fraction=known[0],
            landmark_error=landmark_error(job.points, known[1]),
            seconds=time.perf_counter() - start,
            there_already=there_already,
        )

    def _result(self, job: _Job, notify: Callable[[], None]) -> tuple[tuple[float, NDArray[np.float64]], bool]:
        """Occluded fraction and landmarks of a face, and whether its files were there already."""
        overwritten = self.inputs & {(self.out / f"{job.stem}{suffix}").resolve() for suffix in RESULT_SUFFIXES}
        if overwritten:
            raise FocusError(f"its result {min(overwritten)} would replace a photo; choose another folder for results")
        made_from = None if self.made_by is None else _made_from(job.path, job.points, self.made_by)
        known = None if self.again or made_from is None else _known(self.out, job.stem, made_from)
        if known is not None:
            return known, True
        reconstruction = self.reconstruct(job.path, job.points, name=job.path.name, notify=notify)
        reconstruction.save(self.out, job.stem, made_from=made_from)
        return (reconstruction.occluded_fraction, reconstruction.landmarks_68), False


class _Bar:
    """Tells how far a run is whose photos may be fitted side by side."""

    def __init__(self, jobs: Sequence[_Job], steps: int, notify: Callable[[Progress], None]) -> None:
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


def _answers(work: _Work, jobs: Sequence[_Job], workers: int, bar: _Bar) -> Iterator[tuple[int, Written | _Failed]]:
    if workers == 1 or len(jobs) < 2:
        for index, job in enumerate(jobs):
            yield index, work(job, lambda value, index=index: bar.step(index))  # type: ignore[misc]
        return
    for index, answer in run_each(
        work, jobs, workers=min(workers, len(jobs)), on_report=lambda index, value: bar.step(index)
    ):
        if isinstance(answer, Lost):
            answer = _Failed(Skip(str(jobs[index].path), answer.reason), True, False)
        yield index, answer


def _made_from(path: Path, points: NDArray[np.float64], made_by: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result of a photo, as it comes back from a JSON file."""
    content = {
        "version": __version__,
        "photo": digest_input(path, limits.IMAGE_FILE),
        "landmarks": hashlib.sha256(np.ascontiguousarray(points, dtype="<f8").tobytes()).hexdigest(),
        **made_by,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _known(out: Path, stem: str, made_from: Mapping[str, Any]) -> tuple[float, NDArray[np.float64]] | None:
    """Occluded fraction and 68 landmarks of a photo whose result is there and whole; None: there is none."""
    try:
        record = check_result(out / f"{stem}.json")
        landmarks = np.array(record["landmarks_68"], dtype=np.float64)
        occluded = float(record["occluded_fraction"])
    except (FocusError, KeyError, TypeError, ValueError):  # damaged results are made anew
        return None
    if record.get("made_from") != made_from or landmarks.shape != (68, 2):
        return None
    return occluded, landmarks


def landmark_error(given: NDArray[np.float64], reconstructed: NDArray[np.float64]) -> float:
    """Mean distance of points, in % of the distance of the outer eye corners (of the eye centres where 5 are given).

    Infinite, or NaN, where these two fall on one point, as they may in a profile.

    Args:
        given: ``[68, 2]`` or ``[5, 2]``.
        reconstructed: ``[68, 2]``.
    """
    if len(given) == 5:
        reconstructed, (left, right) = five_from_68(reconstructed), (0, 1)
    else:
        left, right = 36, 45
    distance = np.linalg.norm(given - reconstructed, axis=1).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(100 * distance / np.linalg.norm(given[left] - given[right]))


def output_stems(photos: Sequence[Path]) -> list[str]:
    """A stem for the files of each face, all different, also where upper and lower case are the same.

    The photo's own where it is the only one of that name, else with its suffix (``a_jpg``, ``a_png``) and, if need be,
    a number (``a_jpg_2``). A photo that comes several times has several faces: ``a_face1``, ``a_face2``, ...

    Args:
        photos: of each face; equal paths are one photo.
    """
    faces = Counter(photos)
    count = Counter(photo.stem.casefold() for photo in faces)
    taken = {stem for stem, times in count.items() if times == 1}
    of_photos: dict[Path, str] = {}
    for photo in faces:
        stem = photo.stem
        if count[stem.casefold()] > 1:
            stem = _free(f"{stem}_{photo.suffix.lstrip('.').lower()}".rstrip("_"), taken)
        of_photos[photo] = stem
    stems = []
    number: Counter[Path] = Counter()
    for photo in photos:
        stem = of_photos[photo]
        if faces[photo] > 1:
            number[photo] += 1
            stem = _free(f"{stem}_face{number[photo]}", taken)
        stems.append(stem)
    return stems


def _free(base: str, taken: set[str]) -> str:
    """A stem that is not taken yet, and is now."""
    stem, number = base, 2
    while stem.casefold() in taken:
        stem, number = f"{base}_{number}", number + 1
    taken.add(stem.casefold())
    return stem


def _find_landmarks(
    photos: Sequence[Path], rows: Sequence[LandmarkRow], skipped: list[Skip]
) -> list[tuple[Path, NDArray[np.float64]]]:
    """(photo, landmarks) of every face of the photos, each once. The faces of a photo have one path."""
    if not photos:
        raise FocusError("expected at least one photo or folder of photos, got none")
    by_name: dict[tuple[str, ...], list[LandmarkRow]] = {}
    for row in rows:
        by_name.setdefault(name_parts(row.name), []).append(row)
    found: dict[Path, dict[bytes, tuple[Path, NDArray[np.float64]]]] = {}  # photo -> points -> face
    for photo in photos:
        if photo.is_dir():
            inside: dict[Path, dict[bytes, tuple[Path, NDArray[np.float64]]]] = {}
            for face in find_faces(photo, rows):
                if isinstance(face, Skip):
                    skipped.append(face)
                    continue
                place = photo / face.photo
                faces = inside.setdefault(face.path, {})
                first = next(iter(faces.values()), None)
                faces[face.points.tobytes()] = (place if first is None else first[0], face.points)
            for path, faces in inside.items():
                found.setdefault(path, faces)
            continue
        matches = _rows_of(photo, by_name)
        try:
            points = [row.on(photo) for row in matches]
        except FocusError as error:
            skipped.append(Skip(str(photo), str(error).removeprefix(f"{photo}: ")))
            continue
        if points:
            found.setdefault(photo.resolve(), {values.tobytes(): (photo, values) for values in points})
        else:
            reason = "the landmark file has no row for it" if photo.exists() else "no such file or folder"
            skipped.append(Skip(str(photo), reason))
    return [face for faces in found.values() for face in faces.values()]


def _rows_of(photo: Path, by_name: Mapping[tuple[str, ...], list[LandmarkRow]]) -> list[LandmarkRow]:
    """The rows that agree with most of the path, from its end; "a.jpg", or "a", is a row for every photo of that
    name."""
    written, absolute = name_parts(photo), name_parts(os.path.abspath(photo))
    for length in range(max(len(written), len(absolute)), 0, -1):
        for parts in (written, absolute):
            end = parts[-length:]
            for name in (end, (*end[:-1], end[-1].rpartition(".")[0])):
                if length <= len(parts) and name in by_name:
                    return by_name[name]
    return []
