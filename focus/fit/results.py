"""What comes of many photos: results that are there already, and what is told of each."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from focus import limits
from focus._version import __version__
from focus.data.landmarks import Skip, five_from_68, read_landmarks
from focus.errors import FocusError, out_of_memory, reason_to_skip
from focus.files import digest_input
from focus.fit.faces import PhotoFace, find_photo_faces, output_stems
from focus.reconstruction import Reconstruction
from focus.record import RECORD, RESULT_SUFFIXES, check_result

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

    def add_failure(self, failed: Failed) -> None:
        """A photo that failed."""
        self.skipped.append(failed.skip)
        self.faults += failed.is_fault
        if failed.full:
            self.stopped = failed.skip.reason


class Failed(NamedTuple):
    """A face without a result."""

    skip: Skip
    is_fault: bool
    full: bool = False
    """No other photo would be spared."""

    @classmethod
    def by(cls, job: Job, error: Exception) -> Failed:
        """Whatever it is, results of other photos are not lost by it."""
        skip = Skip(str(job.path), reason_to_skip(error).removeprefix(f"{job.path}: "))
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL
        return cls(skip, not isinstance(error, FocusError) and not out_of_memory(error), full)


class Stored(NamedTuple):
    """What is told of a result, whole and on the disk."""

    occluded_fraction: float
    landmarks_68: NDArray[np.float64]
    made_from: Any
    """See `Job.made_from`; None: nobody knows."""


class Job(NamedTuple):
    """A face of a photo."""

    path: Path
    points: NDArray[np.float64]
    stem: str
    """Of its results."""

    def files(self, out: Path) -> list[Path]:
        """Of its result."""
        return [out / f"{self.stem}{suffix}" for suffix in RESULT_SUFFIXES]

    def check_place(self, out: Path, inputs: frozenset[Path]) -> None:
        """Refuses to replace one of the photos.

        Raises:
            FocusError: a result would.
        """
        overwritten = inputs & {file.resolve() for file in self.files(out)}
        if overwritten:
            raise FocusError(f"its result {min(overwritten)} would replace a photo; choose another folder for results")

    def made_from(self, made_by: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the result, as it comes back from a JSON file."""
        content = {
            "version": __version__,
            "photo": digest_input(self.path, limits.IMAGE_FILE),
            "landmarks": hashlib.sha256(np.ascontiguousarray(self.points, dtype="<f8").tobytes()).hexdigest(),
            **made_by,
        }
        plain: dict[str, Any] = json.loads(json.dumps(content))
        return plain

    def stored(self, out: Path) -> Stored | None:
        """The result that is there, whole; None: there is none."""
        try:
            record = check_result(out / f"{self.stem}{RECORD}")
            landmarks = np.array(record["landmarks_68"], dtype=np.float64)
            found = Stored(float(record["occluded_fraction"]), landmarks, record.get("made_from"))
        except (FocusError, KeyError, TypeError, ValueError):  # damaged results are made anew
            return None
        return found if landmarks.shape == (68, 2) else None

    def written(self, out: Path, result: Stored, seconds: float, *, there_already: bool) -> Written:
        """What is told of it."""
        error = landmark_error(self.points, result.landmarks_68)
        return Written(str(self.path), self.files(out), result.occluded_fraction, error, seconds, there_already)


@dataclass(frozen=True)
class Results:
    """Where the results of faces go, and what is there already."""

    out: Path
    made_by: Mapping[str, Any] | None
    """See `focus.fit.folder.reconstruct_photos`."""
    again: bool
    inputs: frozenset[Path]
    """All photos, which no result may replace."""

    def begin(self, job: Job) -> tuple[Any, Stored | None]:
        """What a result will be made from, and the one that is there, if it was made from the same.

        Raises:
            FocusError: the result would replace a photo.
        """
        job.check_place(self.out, self.inputs)
        made_from = None if self.made_by is None else job.made_from(self.made_by)
        stored = None if self.again or made_from is None else job.stored(self.out)
        return made_from, stored if stored is not None and stored.made_from == made_from else None

    def save(self, job: Job, found: Reconstruction, made_from: Any) -> Stored:
        """Writes the files of a result."""
        found.save(self.out, job.stem, made_from=made_from)
        return Stored(found.occluded_fraction, found.landmarks_68, made_from)


def find_jobs(photos: Sequence[Path], landmarks: Path | Sequence[PhotoFace], report: FitReport) -> list[Job]:
    """The faces to fit; arguments as of `run`. What cannot be used is added to the report."""
    if isinstance(landmarks, (str, Path)):
        table = read_landmarks(landmarks)
        report.skipped += table.skipped
        faces = find_photo_faces(photos, table.rows, report.skipped)
    else:
        faces = list(landmarks)
    return [Job(*face, stem) for face, stem in zip(faces, output_stems([path for path, _ in faces]), strict=True)]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums of torch have another order with another number of threads: with one, as the processes have it, results
    depend neither on the machine nor on the number of processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
