"""`focus evaluate predictions`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from focus.bounds import Within
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.detection import Finding
from focus.cli.faces import load_face
from focus.data.detection.photos import Detections
from focus.data.images import read_image
from focus.data.landmarks import LandmarkRow, Skip, five_from_68, name_parts, read_landmarks
from focus.errors import FocusError, out_of_memory, reason_to_skip
from focus.eval.mask_files import PICTURE_SUFFIXES
from focus.eval.misfit import MisfitPrior
from focus.eval.now import NowImage, points_in_box, read_box, read_image_list
from focus.files import locate
from focus.reconstruction import Reconstruction
from focus.reconstructor import Reconstructor
from focus.report.now import LANDMARKS, write_prediction
from focus.train.distributed import pick_device


@dataclass(kw_only=True)
class Predictions(Command):
    """Reconstruct the images of the NoW challenge, in the layout that focus evaluate now reads (docs/now.md)."""

    checkpoint: tyro.conf.Positional[Path]
    """Written by focus train, or exported."""
    images: Path
    """List of images, one .../SUBJECT/CHALLENGE/IMAGE.jpg in a line."""
    photos: Path
    """Folder of the images, SUBJECT/CHALLENGE/IMAGE.jpg."""
    boxes: Path | None = None
    """Folder of their face boxes, SUBJECT/CHALLENGE/IMAGE.npy; by default detected_face beside the folder of images."""
    landmarks: Path | None = None
    """SUBJECT/CHALLENGE/IMAGE.jpg, then x and y of 68 or 5 points, as for focus reconstruct; images that it names need
    no box.
    """
    detect: tyro.conf.FlagCreatePairsOff[bool] = False
    """Find the faces (extra detect) although there are boxes; without boxes and landmarks they are found anyway. An
    image without a face then needs a box.
    """
    workers: Annotated[int, Within(1, 1024)] = 1
    """Processes that look for faces side by side."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)
    passes: Annotated[int, Within(1, 1000)] = 3
    """Reconstructions of an image that has a box: the first by the box, each other by the landmarks of the one before.
    """
    misfit: Path | None = None
    """Misfit prior of this checkpoint, written by focus evaluate misfit."""
    model: str | None = None
    """Face model, where the one that the checkpoint names has moved: a model file."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path
    """Folder for SUBJECT/CHALLENGE/IMAGE.ply, the neutral face in mm, and IMAGE.npy, its seven landmarks."""

    def run(self) -> Outcome:
        """Reconstructs all images of the list; one that fails is skipped."""
        images = read_image_list(self.images)
        if not self.photos.is_dir():
            raise FocusError(f"{self.photos}: no such folder of images")
        boxes = self.boxes or self.photos.parent / "detected_face"
        if self.boxes is not None and not boxes.is_dir():
            raise FocusError(f"{boxes}: no such folder of face boxes")
        if self.out.resolve() == boxes.resolve():
            raise FocusError(f"{self.out}: results ({LANDMARKS}) would replace the face boxes; choose another folder")
        found = Detections()
        self.so_far = lambda: Outcome(skipped=list(found.skipped))
        landmarks = self.landmarks
        if landmarks is None and (self.detect or not boxes.is_dir()):
            landmarks = self._find(images, found)
        nothing = landmarks is None or (self.landmarks is None and not found.faces)
        table, skipped = ([], []) if nothing or landmarks is None else read_landmarks(landmarks)
        points, unknown = _by_image(table, images, self.photos)
        model = None if self.model is None else load_face(self.model)
        misfit = None if self.misfit is None else MisfitPrior.load(self.misfit)
        reconstructor = Reconstructor.load(self.checkpoint, model=model, misfit=misfit, device=pick_device(self.device))
        say(f"model: {reconstructor.model.name} ({reconstructor.model.licence})")
        outcome = Outcome(read=[str(self.checkpoint)], skipped=[*found.skipped, *skipped, *unknown])
        self.so_far = lambda: outcome
        faults = 0
        with bars() as update:
            for number, image in enumerate(images, start=1):
                try:
                    made = self._reconstruct(image, points, boxes, reconstructor)
                    outcome.written += write_prediction(
                        self.out, image, made.neutral_vertices, made.colors, reconstructor.model
                    )
                    outcome.read.append(image.name)
                except Exception as error:
                    outcome.skipped.append(Skip(image.name, reason_to_skip(error)))
                    faults += not isinstance(error, FocusError) and not out_of_memory(error)
                update("images", number, len(images), image.name)
        if faults:
            outcome.good = False
        return outcome

    def _find(self, images: Sequence[NowImage], found: Detections) -> Path:
        """Detects the faces of the images of the list."""
        names = {}
        for image in images:
            with contextlib.suppress(FocusError):  # it is listed when it is to be reconstructed
                path = _photo(self.photos, image)
                names[path] = path.relative_to(self.photos).as_posix()
        with bars() as update:
            return self.finding.find(names, self.out, update, found, workers=self.workers)

    def _reconstruct(
        self,
        image: NowImage,
        landmarks: Mapping[str, NDArray[np.float64]],
        boxes: Path,
        reconstructor: Reconstructor,
    ) -> Reconstruction:
        path = _photo(self.photos, image)
        if image.name in landmarks:
            return reconstructor.photo(path, landmarks[image.name])
        points = points_in_box(read_box(locate(boxes, f"{image.name}.npy")), reconstructor.model)
        photo = read_image(path)  # once: decoding takes longer than all passes
        found = reconstructor.photo(photo, points, name=path.name)
        for _ in range(self.passes - 1):
            try:
                found = reconstructor.photo(photo, five_from_68(found.landmarks_68), name=path.name)
            except FocusError:  # landmarks that are no face any more: the last one that was stands
                break
        return found


def _by_image(
    rows: Sequence[LandmarkRow], images: Sequence[NowImage], photos: Path
) -> tuple[dict[str, NDArray[np.float64]], list[Skip]]:
    """Landmarks by the names of the images, which have no suffix, and the rows that belong to none."""
    names = {name_parts(image.name): image.name for image in images}
    by_name = {image.name: image for image in images}
    points: dict[str, NDArray[np.float64]] = {}
    unknown = []
    for row, values in ((row.name, row) for row in rows):
        parts = name_parts(row)
        name = names.get(parts, names.get((*parts[:-1], parts[-1].rpartition(".")[0]) if parts else ()))
        if name is None:
            unknown.append(Skip(row, "landmarks of an image that is not in the list (SUBJECT/CHALLENGE/IMAGE.jpg)"))
        elif name in points:
            raise FocusError(f"{row}: a second row of landmarks for the image {name}; leave one of them out")
        else:
            points[name] = values.on(_photo(photos, by_name[name])) if values.fractions else values.points
    return points, unknown


def _photo(folder: Path, image: NowImage) -> Path:
    """The file of an image, whatever its format."""
    place = locate(folder, Path(image.subject, image.challenge))
    files = sorted(place.iterdir()) if place.is_dir() else []
    stem = name_parts(image.stem)
    found = [path for path in files if name_parts(path.stem) == stem and path.suffix.lower() in PICTURE_SUFFIXES]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FocusError(f"{place / image.stem}: expected one picture of this name, found {names}")
    return found[0]


def parse(arguments: Sequence[str]) -> Predictions:
    """Options of `focus evaluate predictions`."""
    return parse_as(Predictions, "evaluate predictions", arguments)
