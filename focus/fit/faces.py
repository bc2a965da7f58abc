"""Which landmarks belong to which photo, and what the files of its results are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focus.data.landmarks import LandmarkRow, Skip, find_faces, name_parts
from focus.errors import FocusError

PhotoFace = tuple[Path, NDArray[np.float64]]
"""A photo and the landmarks of one of its faces, [68, 2] or [5, 2] pixels. Faces of one photo have equal paths."""


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


def find_photo_faces(photos: Sequence[Path], rows: Sequence[LandmarkRow], skipped: list[Skip]) -> list[PhotoFace]:
    """Every face of the photos, each once.

    Args:
        photos: files and folders.
        rows: of the landmark file.
        skipped: filled in with what cannot be used.
    """
    if not photos:
        raise FocusError("expected at least one photo or folder of photos, got none")
    by_name: dict[tuple[str, ...], list[LandmarkRow]] = {}
    for row in rows:
        by_name.setdefault(name_parts(row.name), []).append(row)
    found: dict[Path, dict[bytes, PhotoFace]] = {}  # photo -> points -> face
    for photo in photos:
        if photo.is_dir():
            inside: dict[Path, dict[bytes, PhotoFace]] = {}
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
