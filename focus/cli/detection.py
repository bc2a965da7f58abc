"""Options of the commands that find faces where no landmarks are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from focus import limits
from focus.cli.command import Outcome, say
from focus.data.detection.detectors import MEDIAPIPE
from focus.data.detection.photos import PICTURES, TABLE, Detections, DetectionSettings, detect_photos, list_photos
from focus.data.detection.search import parse_choice
from focus.data.images import read_image, write_image
from focus.errors import FocusError
from focus.files import check_input
from focus.fit.faces import PhotoFace, output_stems
from focus.report.panels import mark_points

_LARGEST_PICTURE = 1200

Update = Callable[[str, float, float, str], None]


@dataclass
class Finding:
    """How faces are found, where no landmarks are given."""

    faces: str = "largest"
    """Which faces of a photo: largest, all, or how many of the largest."""
    detector: str = MEDIAPIPE
    """mediapipe, or module:function of your own."""
    detector_model: Path | None = None
    """File of the detector's model: face_landmarker.task, for a MediaPipe that has none in it."""
    draw_points: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write each photo with its points, into the folder points of the results."""

    def settings(self) -> DetectionSettings:
        """Checked.

        Raises:
            FocusError: --faces is no choice.
        """
        return DetectionSettings(self.detector, self.detector_model, parse_choice(self.faces))

    def find(
        self,
        places: Sequence[Path] | Mapping[Path, str],
        out: Path,
        update: Update,
        detections: Detections,
        *,
        workers: int = 1,
        again: bool = False,
        table: str = TABLE,
    ) -> Path:
        """Finds the faces of photos and of folders of photos; writes them to a table, whose path it returns.

        Args:
            places: photos and folders; or photos with their names in the table.
            out: folder of the results, for the table.
            update: shows progress.
            detections: filled in as the work goes on.
            workers: processes.
            again: find anew what the table has.
            table: its name.
        """
        settings = self.settings()
        if isinstance(places, Mapping):
            photos = dict(places)
        else:
            photos, skipped = list_photos(places, out)
            detections.skipped += skipped

        def notify(done: int, count: int, name: str) -> None:
            update("faces", done, count, f"{name} ({done} of {count})")

        path = out / table
        detect_photos(photos, path, settings, workers=workers, notify=notify, again=again, detections=detections)
        if detections.looked:
            say(f"photos looked at for faces: {detections.looked}; landmarks: {path}")
        if self.draw_points:
            detections.written += draw_points(detections, out / PICTURES, update)
        return path


def given(landmarks: Path | None, finding: Finding) -> Path | None:
    """Landmarks as an option names them, looked at before anything takes long.

    Raises:
        FocusError: a file that cannot be read; options of a search that there will not be.
    """
    if landmarks is not None:
        for option, value in vars(finding).items():
            if value != getattr(Finding(), option):
                raise FocusError(
                    f"--{option.replace('_', '-')}: is for faces that are found; with --landmarks the rows say which "
                    "there are. Leave one of the two out"
                )
    if landmarks is not None and not landmarks.is_dir():
        check_input(landmarks, limits.TABLE_FILE)
    return landmarks


def photo_faces(detections: Detections) -> list[PhotoFace]:
    """What `focus.fit.run` takes."""
    return [(face.photo, face.points) for face in detections.faces]


def tell(outcome: Outcome, detections: Detections) -> None:
    """Adds what was detected to what a command tells."""
    outcome.written += detections.written
    outcome.details["faces"] = [
        {"photo": str(face.photo), "score": face.score, "box": None if face.box is None else list(face.box)}
        for face in detections.faces
    ]


def draw_points(detections: Detections, folder: Path, update: Update) -> list[Path]:
    """Writes each photo with the points of its faces, shrunk where it is large."""
    faces: dict[Path, list[Any]] = {}
    for face in detections.faces:
        faces.setdefault(face.photo, []).append(face.points)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FocusError(f"{folder}: cannot be made ({error.strerror or error})") from error
    written = []
    for number, (photo, stem) in enumerate(zip(faces, output_stems(list(faces)), strict=True), start=1):
        image = read_image(photo)
        factor = max(1.0, max(image.shape) / _LARGEST_PICTURE)
        height, width = (round(side / factor) for side in image.shape[:2])
        small = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        points = (np.concatenate(faces[photo]) + 0.5) / factor - 0.5
        written.append(write_image(folder / f"{stem}.jpg", mark_points(small, points)))
        update("pictures", number, len(faces), photo.name)
    return written
