"""Many photos: which landmarks belong to which, what their files are called, and what could not be used."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import LandmarkRow, Skip, find_faces, five_from_68, name_parts, read_landmarks
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
    jobs = _find_landmarks(photos, table.rows, report.skipped)
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
        if matches:
            found.setdefault(photo.resolve(), {row.points.tobytes(): (photo, row.points) for row in matches})
        else:
            reason = "the landmark file has no row for it" if photo.exists() else "no such file or folder"
            skipped.append(Skip(str(photo), reason))
    return [face for faces in found.values() for face in faces.values()]


def _rows_of(photo: Path, by_name: Mapping[tuple[str, ...], list[LandmarkRow]]) -> list[LandmarkRow]:
    """The rows that agree with most of the path, from its end; "a.jpg" is a row for every photo of that name."""
    written, absolute = name_parts(photo), name_parts(os.path.abspath(photo))
    for length in range(max(len(written), len(absolute)), 0, -1):
        for parts in (written, absolute):
            if length <= len(parts) and parts[-length:] in by_name:
                return by_name[parts[-length:]]
    return []
