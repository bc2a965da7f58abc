"""The folders of the NoW challenge: the image list, scans with their landmarks, and predictions, with what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.errors import FocusError
from focus.eval.now.alignment import Surface, face_region
from focus.eval.now.files import (
    LANDMARK_SUFFIXES,
    MESH_SUFFIXES,
    Mesh,
    non_manifold_edges,
    read_landmarks,
    read_mesh,
    read_picked_points,
)
from focus.face import MorphableModel
from focus.files import locate, read_text

Array = NDArray[np.float64]
Unit = Literal["mm", "cm", "m"]

MILLIMETRES: dict[Unit, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in each unit that a prediction may have."""

CHALLENGES = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
"""Folders of the images, in the order of tables; other names are kept after them."""

_EYES_MM = 90.0
"""Distance of the outer eye corners, about that of any adult; only its order of magnitude is used."""
_EYES_FACTOR = 3.0
_AWAY = 0.1
"""Landmarks lie on the surface, or near: within this share of the outer eye corners' distance, 9 mm."""
_ALIKE = 0.25
"""Seven landmarks of any two faces fit each other better than this root mean square, as a share of the same distance:
faces of our model by 0.04 on average and 0.17 at most, in wrong order by 0.17 and more.
"""
_SUSPICIOUS = 0.1
"""From here on other orders are tried."""
_CLEARLY = 0.6
"""A mirror image or another order must fit better by this factor to be believed."""

_SEVEN_OF_68 = [36, 39, 42, 45, 33, 48, 54]
"""The seven landmarks among the iBUG points: eye corners, nose base, mouth corners."""


class NowImage(NamedTuple):
    """A line of the image list: ``.../subject/challenge/file``."""

    subject: str
    challenge: str
    stem: str

    @property
    def name(self) -> str:
        """``subject/challenge/stem``: where predictions have their files."""
        return f"{self.subject}/{self.challenge}/{self.stem}"


class Scan(NamedTuple):
    """The truth of a subject, in mm."""

    mesh: Mesh
    landmarks: Array
    """``[7, 3]``."""


class Prediction(NamedTuple):
    """A method's face for an image, in the unit of its files."""

    mesh: Mesh
    landmarks: Array
    """``[7, 3]``."""


def read_image_list(path: Path) -> list[NowImage]:
    """Reads a list of images, one path in a line, such as imagepathsvalidation.txt of the dataset.

    Raises:
        FocusError: missing, empty, lines that are no such path, or images that would share their predictions' files.
    """
    lines = read_text(path, limits.TEXT_FILE).splitlines()
    found: dict[NowImage, int] = {}
    for number, line in enumerate(lines, start=1):
        parts = line.strip().replace("\\", "/").split("/")
        if parts == [""]:
            continue
        if len(parts) < 3 or any(part in ("", ".", "..") for part in parts[-3:]):
            raise FocusError(f"{path}: line {number}: expected .../subject/challenge/image.jpg, got {line.strip()!r}")
        image = NowImage(parts[-3], parts[-2], Path(parts[-1]).stem)
        if image in found:
            raise FocusError(
                f"{path}: line {number}: {image.name} is in line {found[image]} already; each image is counted once"
            )
        found[image] = number
    if not found:
        raise FocusError(f"{path}: expected paths of images, one in a line, found none")
    return list(found)


@dataclass(frozen=True)
class NowDataset:
    """The scans.

    Args:
        scans: folder with a folder for each subject, which holds one OBJ file; or the root of the dataset, which holds
            that folder as ``scans``.
        landmarks: folder with a folder for each subject, which holds one .pp file; None: ``scans_lmks_onlypp`` beside
            the scans, or, where there is none, the folder of the scans itself.
    """

    scans: Path
    landmarks: Path | None = None

    def folders(self) -> tuple[Path, Path]:
        """Folders of scans and of landmarks. Raises `FocusError` where one is missing."""
        scans = self.scans / "scans" if (self.scans / "scans").is_dir() else self.scans
        beside = scans.parent / "scans_lmks_onlypp"
        landmarks = self.landmarks or (beside if beside.is_dir() else scans)
        for folder, what in ((scans, "scans"), (landmarks, "landmarks of the scans")):
            if not folder.is_dir():
                raise FocusError(f"{folder}: no such folder of {what}")
        return scans, landmarks

    def load(self, subject: str) -> Scan:
        """Reads a scan with its landmarks.

        Raises:
            FocusError: missing, ambiguous or damaged files, a scan not in millimetres, or not where its landmarks are.
        """
        scans, landmarks = self.folders()
        path = _only(locate(scans, subject), ".obj", "scan")
        points = read_picked_points(_only(locate(landmarks, subject), ".pp", "landmarks"))
        unit = detect_unit(points)
        if unit != "mm":
            raise FocusError(
                f"{path}: the outer eye corners are {_eyes(points):.3g} apart, which is {_in_words(unit)}; expected a "
                "scan in mm, since errors are reported in its unit"
            )
        mesh = read_mesh(path)
        centre, radius = face_region(points)
        if not (np.linalg.norm(mesh.vertices - centre, axis=1) <= radius).any():
            raise FocusError(
                f"{path}: no vertex within {radius:.3g} mm of the face's centre by its landmarks; expected scan and "
                "landmarks in one place and unit"
            )
        nearest, eyes = _away(points, mesh), _eyes(points)
        if nearest.max() > _AWAY * eyes:
            raise FocusError(
                f"{path}: landmark {int(nearest.argmax())} is {nearest.max() / eyes:.2f} of the eyes' distance away "
                "from the scan; expected scan and landmarks in one place and unit"
            )
        return Scan(mesh, points)


def seven_landmarks(model: MorphableModel) -> NDArray[np.int64]:
    """``[7]``, the vertices of the challenge's landmarks: the model's own, or those of the iBUG points."""
    points = model.landmarks68[_SEVEN_OF_68] if model.landmarks7 is None else model.landmarks7
    return points.cpu().numpy()


def scan_notes(scan: Scan) -> list[str]:
    """What is odd about a scan and does not keep it from being measured."""
    notes = []
    if non_manifold_edges(scan.mesh.faces):
        notes.append("non-manifold scan (edges with more than two faces): measured all the same, at its vertices")
    if len(np.unique(scan.mesh.faces)) < len(scan.mesh.vertices):
        notes.append("scan with vertices that no face uses: they are measured, too, as the challenge does")
    return notes


def load_prediction(folder: Path, image: NowImage) -> Prediction:
    """Reads ``folder/subject/challenge/stem`` .obj or .ply, and .npy or .txt.

    Raises:
        FocusError: missing files, two where one is expected, or damaged.
    """
    place = locate(folder, Path(image.subject, image.challenge))
    mesh = _one_of(place, image.stem, MESH_SUFFIXES, "mesh")
    landmarks = _one_of(place, image.stem, LANDMARK_SUFFIXES, "landmarks")
    return Prediction(read_mesh(mesh), read_landmarks(landmarks))


def check_prediction(prediction: Prediction, scan: Scan, *, unit: Unit, metrical: bool) -> list[str]:
    """Refuses what cannot be measured, and returns what is odd about the rest.

    Args:
        prediction: what a method says.
        scan: what is true.
        unit: in which the prediction is said to be.
        metrical: whether the unit matters.

    Raises:
        FocusError: landmarks that coincide, mirror those of the scan, come in another order, are not those of a face or
            not on the mesh; with `metrical`, another unit.
    """
    mesh, landmarks = prediction
    eyes = _eyes(landmarks)
    if eyes == 0:
        raise FocusError("landmarks: both outer eye corners are in one place")
    _check_order(landmarks, scan.landmarks)
    nearest = _away(landmarks, mesh)
    if nearest.max() > _AWAY * eyes:
        worst = int(nearest.argmax())
        raise FocusError(
            f"landmark {worst} is {nearest[worst] / eyes:.2f} of the eyes' distance away from the mesh; expected "
            "points on it: are mesh and landmarks in the same unit and place?"
        )
    detected, notes = detect_unit(landmarks), []
    if detected != unit:
        seen = f"outer eye corners {eyes:.3g} apart: {_in_words(detected)}, not {unit}"
        if metrical:
            raise FocusError(f"{seen}; convert the meshes, or say in which unit they are (--units)")
        notes.append(f"{_in_words(detected)} and not {unit}, by its size: the scale is aligned and does not count")
    if non_manifold_edges(mesh.faces):
        notes.append("non-manifold mesh (edges with more than two faces): measured all the same")
    return notes


def detect_unit(landmarks: Array) -> Unit | None:
    """The unit in which these are landmarks of a face; None: none of them. Only the order of magnitude decides."""
    for unit, factor in MILLIMETRES.items():
        if 1 / _EYES_FACTOR <= _eyes(landmarks) * factor / _EYES_MM < _EYES_FACTOR:
            return unit
    return None


def _away(points: Array, mesh: Mesh) -> Array:
    """Distance ``[N]`` of each of ``[N, 3]`` to the surface, or that to its vertices where they are near enough."""
    nearest = np.array([np.linalg.norm(mesh.vertices - point, axis=1).min() for point in points])
    if nearest.max() <= _AWAY * _eyes(points):
        return nearest
    return Surface(mesh.vertices, mesh.faces).closest(points).distances


def summarise_notes(notes: Sequence[tuple[str, str]]) -> list[str]:
    """(image or subject, note) pairs, each note once with how many have it."""
    counts = Counter(note for _, note in notes)
    first = {note: name for name, note in reversed(notes)}
    return [f"{note} ({count}: {first[note]}{', ...' if count > 1 else ''})" for note, count in counts.items()]


def _eyes(landmarks: Array) -> float:
    return float(np.linalg.norm(landmarks[0] - landmarks[3]))


def _in_words(unit: Unit | None) -> str:
    names = {"mm": "in mm", "cm": "in cm", "m": "in m"}
    return names.get(cast(str, unit), "in none of mm, cm and m")


def _check_order(landmarks: Array, truth: Array) -> None:
    """Raises `FocusError` where a mirror image or another order of the landmarks fits the truth clearly better, or
    nothing fits.
    """
    here, mirrored = (float(_misfits((landmarks * sign)[None], truth)[0]) for sign in ([1, 1, 1], [-1, 1, 1]))
    expected = (
        "expected the eye corners from the image's left to its right, nose base, mouth corners from left to right"
    )
    if here > _SUSPICIOUS / 2 and mirrored < _CLEARLY * here:
        raise FocusError(
            f"landmarks fit those of the scan best as a mirror image: {expected}; check their order, and the axes of "
            "the mesh"
        )
    if here > _SUSPICIOUS:
        orders = np.array(list(permutations(range(len(truth)))))
        misfits = _misfits(landmarks[orders], truth)
        best = int(misfits.argmin())
        if misfits[best] < _CLEARLY * here:
            raise FocusError(
                f"landmarks fit those of the scan better in the order {' '.join(map(str, orders[best]))} (from 0; "
                f"{misfits[best]:.2f} of the eyes' distance away in place of {here:.2f}): {expected}"
            )
    if here > _ALIKE:
        raise FocusError(
            f"landmarks are {here:.2f} of the eyes' distance away from those of the scan, aligned as well as can be: "
            f"{expected}"
        )


def _misfits(landmarks: Array, truth: Array) -> Array:
    """Root mean square distance ``[K]`` of ``[K, N, 3]``, each moved by its best similarity, to ``[N, 3]``, as a share
    of the distance of the truth's outer eye corners.
    """
    moved = landmarks - landmarks.mean(axis=1, keepdims=True)
    fixed = truth - truth.mean(axis=0)
    u, singular, vh = np.linalg.svd(fixed.T @ moved)
    singular[:, 2] *= np.sign(np.linalg.det(u @ vh))
    explained = singular.sum(axis=1) ** 2 / np.square(moved).sum(axis=(1, 2))
    squared = np.maximum(np.square(fixed).sum() - explained, 0)
    misfits: Array = np.sqrt(squared / len(truth)) / _eyes(truth)
    return misfits


def _only(folder: Path, suffix: str, what: str) -> Path:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() == suffix) if folder.is_dir() else []
    if len(found) != 1:
        names = f": {', '.join(path.name for path in found)}" if found else ""
        raise FocusError(f"{folder}: expected one {suffix} file ({what}), found {len(found) or 'none'}{names}")
    return found[0]


def _one_of(folder: Path, stem: str, suffixes: Sequence[str], what: str) -> Path:
    candidates = [locate(folder, f"{stem}{suffix}") for suffix in suffixes]
    found = [path for path in candidates if path.exists()]
    if len(found) > 1:
        raise FocusError(f"{folder}: both {' and '.join(path.name for path in found)}; which is the {what}? Remove one")
    if not found:
        names = " or ".join(path.name for path in candidates)
        raise FocusError(f"{folder}: no {what}: expected {names}")
    return found[0]
