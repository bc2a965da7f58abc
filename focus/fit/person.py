"""Photos of one person: fitted together, with the files of photos that are fitted one by one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from focus.data.images import read_image
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.fit.faces import PhotoFace
from focus.fit.photo import PhotoFitter, PhotoStart, Witness
from focus.fit.results import Failed, FitReport, Job, Progress, Stored, find_jobs, one_thread
from focus.fit.settings import FitSettings
from focus.report.files import check_folder

MOST_PHOTOS = 50
"""Of one person: the unknowns of all are solved for at once, in time that grows with the third power."""


class _Member(NamedTuple):
    """A photo whose file can be read."""

    job: Job
    made_from: dict[str, Any]
    """Without the other photos."""

    @property
    def key(self) -> list[str]:
        """Photo and landmarks, whatever they are called."""
        return [self.made_from["photo"], self.made_from["landmarks"]]

    def made_with(self, members: Sequence[_Member]) -> dict[str, Any]:
        """What decides the result of the photo when it is fitted with others."""
        return {**self.made_from, "together": sorted(member.key for member in members)}


def run_person(
    photos: Sequence[Path],
    landmarks: Path | Sequence[PhotoFace],
    model: MorphableModel,
    out: Path,
    settings: FitSettings | None = None,
    notify: Callable[[Progress], None] = lambda progress: None,
    *,
    again: bool = False,
    report: FitReport | None = None,
    witness: Witness | None = None,
) -> FitReport:
    """As `run`, of photos of one person: identity and albedo are those of all photos (`fit_photos`).

    A photo that cannot be used is skipped, and the others are fitted. Results that are there are kept if all of them
    are, whole, and were fitted with each other and with nothing else. It is done in this process, with one thread.

    Raises:
        FocusError: as `run`; several faces of one photo, or more than `MOST_PHOTOS` photos.
    """
    check_folder(out)
    report = FitReport() if report is None else report
    jobs = find_jobs(photos, landmarks, report)
    check_count(len(jobs))
    faces = Counter(job.path for job in jobs)
    for path, count in faces.items():
        if count > 1:
            raise FocusError(
                f"{path}: has {count} faces; photos of one person have one each: leave --faces at largest, or, with "
                "--landmarks, give a table with one row for each photo"
            )
    with one_thread():
        fitter = PhotoFitter(model, settings, witness=witness)
        made_by = fitter.made_by
        inputs = frozenset(job.path.resolve() for job in jobs)
        members = []
        for job in jobs:
            try:
                job.check_place(out, inputs)
                members.append(_Member(job, job.made_from(made_by)))
            except Exception as error:
                report.add_failure(Failed.by(job, error))
        _fit(fitter, members, out, _Share(notify, len(members), fitter.steps), report, again=again)
    return report


def check_count(count: int) -> None:
    """Refuses more photos of one person than can be fitted together.

    Raises:
        FocusError: more than `MOST_PHOTOS`.
    """
    if count > MOST_PHOTOS:
        raise FocusError(
            f"expected at most {MOST_PHOTOS} photos of one person, got {count}: all are fitted at once. Choose the "
            "sharpest, from all sides"
        )


def _fit(
    fitter: PhotoFitter, members: Sequence[_Member], out: Path, share: _Share, report: FitReport, *, again: bool
) -> None:
    begun = time.perf_counter()
    there = {} if again else _there(members, out)
    starts: dict[int, PhotoStart] = {}

    def open_photos(indices: Sequence[int]) -> None:
        for index in indices:
            try:
                starts[index] = _start(fitter, members[index].job)
                share.add(1)
            except Exception as error:
                report.add_failure(Failed.by(members[index].job, error))
                share.add(1 + fitter.steps)

    # Those that no result is there of: refused once more, or else the set is another one.
    open_photos([index for index in range(len(members)) if index not in there])
    if there and not starts:
        report.written += [
            members[index].job.written(out, stored, 0.0, there_already=True) for index, stored in there.items()
        ]
        share.finish()
        return
    open_photos(list(there))
    used = sorted(starts)
    if not used:
        return
    try:
        found = fitter.finish_together([starts[index] for index in used], lambda: share.add(1))
    except Exception as error:
        for index in used:
            report.add_failure(Failed.by(members[index].job, error))
        return
    together = [members[index] for index in used]
    fitting = (time.perf_counter() - begun) / len(together)
    for member, reconstruction in zip(together, found, strict=True):
        job, made_from = member.job, member.made_with(together)
        begun = time.perf_counter()
        try:
            replace(reconstruction, photo=read_image(job.path)).save(out, job.stem, made_from=made_from)
        except Exception as error:
            failed = Failed.by(job, error)
            report.add_failure(failed)
            if failed.full:
                return
            continue
        stored = Stored(reconstruction.occluded_fraction, reconstruction.landmarks_68, made_from)
        seconds = fitting + time.perf_counter() - begun
        report.written.append(job.written(out, stored, seconds, there_already=False))


def _start(fitter: PhotoFitter, job: Job) -> PhotoStart:
    """Without the pixels of the photo, which are many for many photos, and are read again when they are written."""
    start = fitter.start(job.path, job.points, name=job.path.name)
    nothing = np.broadcast_to(np.uint8(0), start.source.photo.shape)
    return replace(start, source=start.source._replace(photo=nothing))


def _there(members: Sequence[_Member], out: Path) -> dict[int, Stored]:
    """The results that are there of photos that were fitted with each other and with nothing else, by index."""
    stored = {index: found for index, member in enumerate(members) if (found := member.job.stored(out)) is not None}
    for found in stored.values():
        together = found.made_from.get("together") if isinstance(found.made_from, dict) else None
        if not isinstance(together, list):
            continue
        chosen = [index for index, member in enumerate(members) if member.key in together]
        if all(
            index in stored and stored[index].made_from == members[index].made_with([members[i] for i in chosen])
            for index in chosen
        ):
            return {index: stored[index] for index in chosen}
    return {}


class _Share:
    """How much of the work is done, in steps; a photo that is opened counts as one."""

    def __init__(self, notify: Callable[[Progress], None], count: int, steps: int) -> None:
        self._notify = notify
        self._name = f"{count} photos of one person"
        self._done, self._total = 0, max(count * (1 + steps), 1)

    def add(self, steps: int) -> None:
        self._done += steps
        self._notify(Progress(self._name, 0, 1, min(self._done / self._total, 1.0)))

    def finish(self) -> None:
        self.add(self._total - self._done)
