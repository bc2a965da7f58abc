"""The faces of many photos: found once, kept in a table beside the results, reused where photos are the same.

``landmarks.csv`` has a row for each face, as every command reads it. ``landmarks.json`` beside it says of which photos
(their SHA-256), found by what, how sure each face is, and which photos have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus._version import __version__
from focus.data.detection.detectors import MEDIAPIPE, DetectedFace, DetectorFactory, LandmarkDetector, find_factory
from focus.data.detection.mediapipe_mesh import named_model
from focus.data.detection.search import FaceChoice, search_faces
from focus.data.images import PHOTO_SUFFIXES, read_image
from focus.data.landmark_rows import Skip
from focus.data.landmarks import read_landmarks
from focus.errors import FocusError, reason_to_skip
from focus.files import digest_input, read_text, write_files
from focus.parallel import Lost, run_each
from focus.record import MASK, OVERLAY, RECORD, parse_json

TABLE, PICTURES = "landmarks.csv", "points"
"""Names of the table and, beside it, of the folder of photos with their points."""
_FORMAT = 1
_SECONDS_BETWEEN_SAVES = 20.0
_NO_FACE = "no face was found; give its landmarks by --landmarks, or look for it with another --detector"
_NO_TEXT = "its name is not UTF-8, and a table could not name it; rename it"


@dataclass(frozen=True)
class DetectionSettings:
    """How faces are found."""

    detector: str = MEDIAPIPE
    """Name of a detector, or module:function."""
    model: Path | None = None
    """File of its model; None: its default."""
    faces: FaceChoice = "largest"
    """Which faces of a photo."""

    def described(self) -> dict[str, Any]:
        """What decides which faces are found, as JSON."""
        path, package = self.model, None
        if self.detector == MEDIAPIPE:
            path = path or named_model()
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                package = importlib.metadata.version(MEDIAPIPE)
        model = None if path is None else digest_input(path, limits.WEIGHTS_FILE)
        about = {"detector": self.detector, "package": package, "model": model, "faces": self.faces}
        return {**about, "version": __version__}


class FoundFace(NamedTuple):
    """A face in a photo."""

    photo: Path
    points: NDArray[np.float64]
    """[68, 2] pixels of the photo, as the table has them."""
    score: float | None
    """See `DetectedFace`; None: somebody changed the table."""
    box: tuple[float, ...] | None


@dataclass
class Detections:
    """What `detect_photos` found. It is filled in as the work goes on."""

    faces: list[FoundFace] = field(default_factory=list)
    """In the order of the photos, of a photo the largest first."""
    skipped: list[Skip] = field(default_factory=list)
    """Photos without a face, and those that cannot be read."""
    written: list[Path] = field(default_factory=list)
    """Files that were written."""
    looked: int = 0
    """At how many photos somebody looked; the others are in the table of an earlier run."""


@dataclass(frozen=True)
class _Look:
    """What processes do with a photo; the detector is made with the first one."""

    factory: DetectorFactory
    model: Path | None
    faces: FaceChoice
    made: list[LandmarkDetector] = field(default_factory=list)

    def __call__(self, photo: Path, report: Callable[[Any], None]) -> list[DetectedFace] | str:
        if not self.made:
            self.made.append(self.factory(self.model))
        try:
            image = read_image(photo)
        except FocusError as error:
            return str(error).removeprefix(f"{photo}: ")
        except MemoryError as error:
            return reason_to_skip(error)
        try:
            return search_faces(image, self.made[0], self.faces) or _NO_FACE
        except FocusError:
            raise  # the detector is none
        except Exception as error:  # of somebody else's code: one photo of many
            return f"the detector failed ({type(error).__name__}: {error})"


def list_photos(places: Sequence[Path], out: Path | None = None) -> tuple[dict[Path, str], list[Skip]]:
    """Photos, and those in folders and below, each once, sorted within a folder, with their names in a table: relative
    to the folder that was named, the file's own for a photo, absolute where two would have the same.

    Results are left out: the folder `out` where it is below one of the folders, masks and overlays beside the JSON
    file of their photo, and the pictures beside a table.

    Raises:
        FocusError: nothing was named.
    """
    if not places:
        raise FocusError("expected at least one photo or folder of photos, got none")
    photos: dict[Path, tuple[Path, str]] = {}
    skipped = []
    for place in places:
        if place.is_dir():
            inside = list(_photos_below(place, out))
            if not inside:
                skipped.append(Skip(str(place), "no photo in this folder"))
            for photo in inside:
                photos.setdefault(photo.resolve(), (photo, photo.relative_to(place).as_posix()))
        elif os.path.lexists(place):
            photos.setdefault(place.resolve(), (place, place.name))
        else:
            skipped.append(Skip(str(place), "no such file or folder"))
    count = Counter(name for _, name in photos.values())
    names = {
        photo: name if count[name] == 1 else Path(os.path.abspath(photo)).as_posix() for photo, name in photos.values()
    }
    return names, skipped


def _photos_below(folder: Path, out: Path | None) -> Iterator[Path]:
    left_out = None if out is None or out.resolve() == folder.resolve() else out.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if left_out is not None:
            folders[:] = [name for name in folders if Path(place, name).resolve() != left_out]
        there = set(names)
        if {TABLE, Path(TABLE).with_suffix(".json").name} <= there:
            folders[:] = [name for name in folders if name != PICTURES]
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            result = any(name.endswith(end) and name.removesuffix(end) + RECORD in there for end in (MASK, OVERLAY))
            if suffix.lower() in PHOTO_SUFFIXES and stem and not name.startswith(".") and not result:
                yield Path(place, name)


def detect_photos(
    photos: Mapping[Path, str],
    table: Path,
    settings: DetectionSettings | None = None,
    *,
    workers: int = 1,
    notify: Callable[[int, int, str], None] = lambda done, count, name: None,
    again: bool = False,
    detections: Detections | None = None,
) -> Detections:
    """Finds the faces of photos and writes them to a table; photos that are in it, unchanged, are not looked at again.

    Whoever corrects a row of the table, or takes one out, is heeded in the next run. Only that a photo has no face is
    remembered: what kept somebody from looking may be mended.

    Args:
        photos: files, and their names in the table; see `list_photos`.
        table: ``landmarks.csv``; its folder is made if need be, and ``landmarks.json`` written beside it. It is saved
            as the work goes on: a run that was stopped goes on where it was.
        settings: see `DetectionSettings`.
        workers: processes; with 1 the work is done in this one.
        notify: called with how many photos are done, of how many, and the name of the last.
        again: look at all photos anew.
        detections: filled in as the work goes on.

    Raises:
        FocusError: a detector that cannot be used, a table in the place that is not one of these, or a disk that is
            full; other settings than those of a table that somebody corrected.
    """
    settings = settings or DetectionSettings()
    found = Detections() if detections is None else detections
    found.skipped += [Skip(str(photo), _NO_TEXT) for photo, name in photos.items() if not _is_text(name)]
    photos = {photo: name for photo, name in photos.items() if _is_text(name)}
    book = _Book(table, settings, again)
    digests: dict[Path, str] = {}
    new: list[Path] = []
    for photo in photos:
        try:
            digests[photo] = digest_input(photo, limits.IMAGE_FILE)
        except FocusError as error:
            book.entries[photos[photo]] = _Entry("", [], str(error).removeprefix(f"{photo}: "))
            continue
        if again or not book.knows(photos[photo], digests[photo]):
            new.append(photo)
    saved = time.monotonic()
    look = _Look(find_factory(settings.detector), settings.model, settings.faces)
    done, whole = len(photos) - len(new), False
    try:
        for photo, answer in _answers(look, new, workers):
            found.looked += 1
            done += 1
            book.enter(photos[photo], digests[photo], answer)
            notify(done, len(photos), photo.name)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                book.save(photos.values())
                saved = time.monotonic()
        whole = True
    finally:
        if found.looked or (whole and not table.exists()):
            book.save(photos.values())
            found.written += [table, table.with_suffix(".json")]
        for photo in photos:
            entry = book.entries.get(photos[photo])
            if entry is not None:
                found.faces += [FoundFace(photo, *face) for face in entry.faces]
                if not entry.faces:
                    found.skipped.append(Skip(str(photo), entry.reason or f"no row in {table}"))
    return found


def _answers(look: _Look, photos: Sequence[Path], workers: int) -> Iterator[tuple[Path, list[DetectedFace] | str]]:
    if workers == 1 or len(photos) < 2:
        for photo in photos:
            yield photo, look(photo, lambda value: None)
        return
    for index, answer in run_each(look, photos, workers=min(workers, len(photos))):
        yield photos[index], answer.reason if isinstance(answer, Lost) else answer


class _Entry(NamedTuple):
    """A photo of the table."""

    digest: str
    """SHA-256; empty: it could not be read."""
    faces: list[tuple[NDArray[np.float64], float | None, tuple[float, ...] | None]]
    """Points, score, box."""
    reason: str | None
    """Why there are none."""


class _Book:
    """The table and what is known about it."""

    def __init__(self, table: Path, settings: DetectionSettings, again: bool) -> None:
        self._table, self._about = table, table.with_suffix(".json")
        self._made_by, self._again = settings.described(), again
        self._corrected = False
        self.entries: dict[str, _Entry] = {}
        if table.exists():
            self._read()

    def knows(self, name: str, digest: str) -> bool:
        entry = self.entries.get(name)
        return entry is not None and entry.digest == digest

    def enter(self, name: str, digest: str, answer: list[DetectedFace] | str) -> None:
        if isinstance(answer, str):
            self.entries[name] = _Entry(digest if answer == _NO_FACE else "", [], answer)
            return
        # As they will be read from the table: a second run has the same numbers.
        faces: list[tuple[NDArray[np.float64], float | None, tuple[float, ...] | None]] = [
            (np.round(face.points, 2), round(face.score, 4), tuple(round(value, 1) for value in face.box))
            for face in answer
        ]
        self.entries[name] = _Entry(digest, faces, None)

    def save(self, names: Any) -> None:
        """Writes both files; names that are given come first, in their order."""
        order = dict.fromkeys([*(name for name in names if name in self.entries), *self.entries])
        lines, photos = [], {}
        for name in order:
            entry = self.entries[name]
            lines += [_csv_line(name, points) for points, _, _ in entry.faces]
            photos[name] = {
                "sha256": entry.digest,
                "faces": [{"score": score, "box": box} for _, score, box in entry.faces],
                "reason": entry.reason,
            }
        text = "".join(lines).encode()
        about: dict[str, Any] = {"format": _FORMAT, "made_by": self._made_by, "table": hashlib.sha256(text).hexdigest()}
        about["corrected"] = self._corrected
        content = json.dumps({**about, "photos": photos}, indent=1, ensure_ascii=True) + "\n"
        try:
            self._table.parent.mkdir(parents=True, exist_ok=True)
            write_files({self._table: text, self._about: content.encode()})
        except OSError as error:
            raise FocusError(f"{self._table}: cannot be written ({error.strerror or error})") from error

    def _read(self) -> None:
        where = f"{self._table}: is there, and "
        cure = "give it by --landmarks, or choose another folder for results"
        if not self._about.exists():
            raise FocusError(f"{where}no {self._about.name} beside it says that faces were detected for it; {cure}")
        about = parse_json(read_text(self._about, limits.TABLE_FILE), self._about)
        photos = about.get("photos") if isinstance(about, dict) else None
        if not isinstance(photos, dict) or about.get("format") != _FORMAT:
            raise FocusError(f"{where}{self._about.name} beside it is not of a detection; {cure}")
        made_by = about.get("made_by")
        if self._made_by["package"] is None and isinstance(made_by, dict):
            made_by = {**made_by, "package": None}  # without a package nothing better can be found
        rows_there = self._table.stat().st_size > 0
        digest = digest_input(self._table, limits.TABLE_FILE) if rows_there else hashlib.sha256().hexdigest()
        corrected = about.get("corrected") is True or digest != about.get("table")
        if made_by != self._made_by:  # by another detector, or other faces: all anew
            if corrected and not self._again:
                raise FocusError(
                    f"{where}rows of it were corrected by hand; these faces were found in another way (another "
                    f"--faces or --detector, another version of either program), and would be found anew; {cure}, or "
                    f"delete {self._table.name} to have it made anew"
                )
            return
        self._corrected = corrected and not self._again
        rows: dict[str, list[NDArray[np.float64]]] = {}
        if rows_there:
            for row in read_landmarks(self._table).rows:
                rows.setdefault(row.name, []).append(row.points)
        for name, entry in photos.items():
            read = _entry(entry, rows.get(name, []))
            if read is not None:
                self.entries[name] = read


def _entry(entry: Any, rows: list[NDArray[np.float64]]) -> _Entry | None:
    """A photo as both files have it; None: it is damaged."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("sha256"), str):
        return None
    known = entry.get("faces")
    if not isinstance(known, list) or not all(isinstance(face, Mapping) for face in known):
        return None
    reason = entry.get("reason")
    same = len(known) == len(rows)
    faces: list[tuple[NDArray[np.float64], float | None, tuple[float, ...] | None]] = []
    for index, points in enumerate(rows):
        score, box = (known[index].get("score"), known[index].get("box")) if same else (None, None)
        faces.append(
            (
                points,
                float(score) if isinstance(score, (int, float)) else None,
                tuple(map(float, box)) if isinstance(box, list) and all(map(_is_number, box)) else None,
            )
        )
    return _Entry(entry["sha256"], faces, reason if isinstance(reason, str) else None)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _csv_line(name: str, points: NDArray[np.float64]) -> str:
    quoted = f'"{name.replace(chr(34), 2 * chr(34))}"' if any(sign in name for sign in ',"\r\n') else name
    return ",".join([quoted, *(f"{value:.2f}" for value in points.reshape(-1).tolist())]) + "\n"
