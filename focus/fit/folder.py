"""Many photos: which landmarks belong to which, what their files are called, and what could not be used."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import Skip, five_from_68, read_landmarks, resolve_photo
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.fit.photo import PhotoFitter
from focus.fit.settings import FitSettings
from focus.reconstruction import RESULT_SUFFIXES, Reconstruction


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


@dataclass
class FitReport:
    """What `run` did."""

    written: list[Written] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    """Rows of the landmark file that cannot be read, then photos that failed, with the reason."""


class Reconstruct(Protocol):
    """From a photo and its landmarks to a reconstruction, as `PhotoFitter` and `Reconstructor.photo` do it."""

    def __call__(
        self, image: str | Path, landmarks: NDArray[np.float64], *, name: str, notify: Callable[[], None]
    ) -> Reconstruction: ...


def run(
    photos: Sequence[Path],
    landmarks: Path,
    model: MorphableModel,
    out: Path,
    settings: FitSettings | None = None,
    notify: Callable[[Progress], None] = lambda progress: None,
) -> FitReport:
    """Fits photos and writes the files of each (`Reconstruction.save`); prints nothing.

    Args:
        photos: files; a folder stands for those of its photos that the landmark file names.
        landmarks: CSV, see `read_landmarks`.
        model: the face model.
        out: folder for the results; made if need be.
        settings: see `FitSettings`.
        notify: called with the progress.

    Returns:
        What was written, and what was skipped and why. A photo that fails does not stop the others.

    Raises:
        FocusError: an unusable landmark file, no photo at all, or a file where `out` should be.
    """
    fitter = PhotoFitter(model, settings)
    return reconstruct_photos(photos, landmarks, out, fitter, fitter.steps, notify)


def reconstruct_photos(
    photos: Sequence[Path],
    landmarks: Path,
    out: Path,
    reconstruct: Reconstruct,
    steps: int,
    notify: Callable[[Progress], None] = lambda progress: None,
) -> FitReport:
    """As `run`, with any way to reconstruct a photo, which calls its `notify` `steps` times."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():  # found before the work, not after it
            raise FocusError(f"{out}: expected a folder for the results, but {place} is a file; choose another folder")
    table = read_landmarks(landmarks)
    report = FitReport(skipped=list(table.skipped))
    jobs = _find_landmarks(photos, table.points, report.skipped)
    stems = output_stems([path for path, _ in jobs])
    inputs = {path.resolve() for path, _ in jobs}
    for index, ((path, points), stem) in enumerate(zip(jobs, stems, strict=True)):
        done = 0

        def step(name: str = path.name, index: int = index) -> None:
            nonlocal done
            done += 1
            notify(Progress(name, index, len(jobs), done / max(steps, 1)))

        start = time.perf_counter()
        try:
            overwritten = inputs & {(out / f"{stem}{suffix}").resolve() for suffix in RESULT_SUFFIXES}
            if overwritten:
                raise FocusError(
                    f"its result {min(overwritten)} would replace a photo; choose another folder for results"
                )
            reconstruction = reconstruct(path, points, name=path.name, notify=step)
            files = reconstruction.save(out, stem)
        except FocusError as error:
            report.skipped.append(Skip(str(path), str(error).removeprefix(f"{path}: ")))
            continue
        report.written.append(
            Written(
                name=str(path),
                files=files,
                occluded_fraction=reconstruction.occluded_fraction,
                landmark_error=landmark_error(points, reconstruction.landmarks_68),
                seconds=time.perf_counter() - start,
            )
        )
    return report


def landmark_error(given: NDArray[np.float64], reconstructed: NDArray[np.float64]) -> float:
    """Mean distance of points, in % of the distance of the outer eye corners (of the eye centres where 5 are given).

    Args:
        given: ``[68, 2]`` or ``[5, 2]``.
        reconstructed: ``[68, 2]``.
    """
    if len(given) == 5:
        reconstructed, (left, right) = five_from_68(reconstructed), (0, 1)
    else:
        left, right = 36, 45
    distance = np.linalg.norm(given - reconstructed, axis=1).mean()
    return float(100 * distance / np.linalg.norm(given[left] - given[right]))


def output_stems(photos: Sequence[Path]) -> list[str]:
    """A stem for the files of each photo, all different, also where upper and lower case are the same.

    The photo's own where it is the only one of that name, else with its suffix (``a_jpg``, ``a_png``) and, if need be,
    a number (``a_jpg_2``).
    """
    count = Counter(path.stem.casefold() for path in photos)
    taken = {stem for stem, times in count.items() if times == 1}
    stems = []
    for path in photos:
        stem = path.stem
        if count[stem.casefold()] > 1:
            base = stem = f"{path.stem}_{path.suffix.lstrip('.').lower()}".rstrip("_")
            number = 2
            while stem.casefold() in taken:
                stem, number = f"{base}_{number}", number + 1
            taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _find_landmarks(
    photos: Sequence[Path], points: dict[str, NDArray[np.float64]], skipped: list[Skip]
) -> list[tuple[Path, NDArray[np.float64]]]:
    """(photo, landmarks) of every photo that has some, each photo once."""
    if not photos:
        raise FocusError("expected at least one photo or folder of photos, got none")
    found: dict[Path, tuple[Path, NDArray[np.float64]]] = {}
    for photo in photos:
        if photo.is_dir():
            for name, values in points.items():
                try:
                    path = resolve_photo(photo, name)
                except FocusError as error:
                    skipped.append(Skip(name, str(error)))
                    continue
                found.setdefault(path.resolve(), (photo / name, values))
            continue
        # The row that agrees with most of the path, from its end; "a.jpg" is a row for every photo of that name.
        matches = [name for name in points if Path(name).parts == photo.parts[-len(Path(name).parts) :]]
        if matches:
            found.setdefault(photo.resolve(), (photo, points[max(matches, key=lambda name: len(Path(name).parts))]))
        else:
            reason = "the landmark file has no row for it" if photo.exists() else "no such file or folder"
            skipped.append(Skip(str(photo), reason))
    return list(found.values())
