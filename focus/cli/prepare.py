"""`focus prepare`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from focus.bounds import Within
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.detection import Finding, given, tell
from focus.data import AugmentationSettings, PhotoFolder, five_from_68, write_image
from focus.data.detection.photos import Detections
from focus.data.photos import batch_of
from focus.data.shards import MANIFEST, ShardFolder, write_shards
from focus.errors import FocusError
from focus.fit.faces import output_stems
from focus.report.files import check_folder
from focus.report.panels import Picture, grid, mark_points, to_picture
from focus.report.results import write_text

_SHEET_COLUMNS, _SHEET_ROWS = 8, 12
_TABLE, _SHEET = "landmarks.csv", "overview.png"
_DETECTED = "photo_landmarks.csv"
"""Of the photos, beside that of the crops."""


@dataclass(kw_only=True)
class Prepare(Command):
    """Align and crop photos, and show what training would see."""

    photos: tyro.conf.Positional[Path]
    """Folder of photos."""
    landmarks: Path | None = None
    """Landmarks: a table (photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners), or a
    file or folder of another program (.pts, .txt, .json). Without, faces are found in the photos (extra detect).
    """
    out: Path
    """Folder of the crops, their landmarks.csv, and overview.png."""
    image_size: Annotated[int, Within(8, 4096)] = 224
    """Side of the crops, pixels."""
    shards: Annotated[int | None, Within(1, 1_000_000)] = None
    """Write shards of so many faces each (1000 is usual) in place of a file for each crop: tar files as WebDataset has
    them, with a margin, for focus train --data.shards. What is there already is not made again.
    """
    lossless: tyro.conf.FlagCreatePairsOff[bool] = False
    """PNG in place of JPEG in shards: three to four times the size."""
    workers: Annotated[int, Within(1, 1024)] = 1
    """Processes that look for faces, or make shards, side by side."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)

    def run(self) -> Outcome:
        """Writes a crop for each photo that can be used."""
        found, landmarks = Detections(), given(self.landmarks, self.finding)
        if landmarks is None:
            check_folder(self.out)
            if not self.photos.is_dir():
                raise FocusError(f"{self.photos}: no such folder of photos")
            self.so_far = lambda: Outcome(skipped=list(found.skipped), good=False)
            with bars() as update:
                landmarks = self.finding.find(
                    [self.photos], self.out, update, found, workers=self.workers, table=_DETECTED
                )
            if not found.faces:
                return self.so_far()
        if self.shards is not None:
            return self._in_shards(landmarks, found)
        if self.lossless:
            raise FocusError("--lossless is of shards: give --shards, too")
        folder = PhotoFolder(self.photos, landmarks, self.image_size)
        *stems, _ = output_stems([*(Path(item.photo) for item in folder.items), Path(_SHEET)])
        results = [self.out / name for name in (*(f"{stem}.png" for stem in stems), _TABLE, _SHEET)]
        inputs = {landmarks.resolve(), *(item.path for item in folder.items)}
        for path in results:
            if path.resolve() in inputs:
                raise FocusError(f"{path} would be replaced by a result; choose another folder for results")
        self.out.mkdir(parents=True, exist_ok=True)
        outcome = Outcome(read=[item.name for item in folder.items], skipped=[*found.skipped, *folder.skipped])
        self.so_far = lambda: outcome
        if self.landmarks is None:
            tell(outcome, found)
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        pictures: list[Picture] = []
        with bars() as update:
            for index, (item, stem) in enumerate(zip(folder.items, stems, strict=True)):
                crop = to_picture(folder.batch([index]).image[0])
                points = item.alignment.to_crop(item.landmarks)
                outcome.written.append(write_image(self.out / f"{stem}.png", crop))
                known = item.landmark_weights > 0
                kept = points if known.all() else five_from_68(points)
                rows.writerow([f"{stem}.png", *(f"{value:.3f}" for value in kept.reshape(-1))])
                if len(pictures) < _SHEET_COLUMNS * _SHEET_ROWS:
                    pictures.append(mark_points(crop, points[known]))
                update("crops", index + 1, len(folder), item.name)
        outcome.written.append(write_text(self.out / _TABLE, table.getvalue()))
        outcome.written.append(self._sheet(pictures))
        return outcome

    def _sheet(self, pictures: list[Picture]) -> Path:
        sheet = [pictures[start : start + _SHEET_COLUMNS] for start in range(0, len(pictures), _SHEET_COLUMNS)]
        return write_image(self.out / _SHEET, grid(sheet, cell=min(self.image_size, 160)))

    def _in_shards(self, landmarks: Path, found: Detections) -> Outcome:
        if not self.photos.is_dir():
            raise FocusError(f"{self.photos}: no such folder of photos")
        sheet_file = self.out / _SHEET
        if sheet_file.exists() and not (self.out / MANIFEST).exists():
            raise FocusError(f"{sheet_file} would be replaced by a result; choose another folder for results")
        with bars() as update:
            shards, skipped = write_shards(
                self.photos,
                landmarks,
                self.out,
                self.image_size,
                faces=self.shards or 1,
                lossless=self.lossless,
                workers=self.workers,
                notify=lambda done, count, name: update("shards", done, count, name),
            )
        made = ShardFolder(str(self.out))
        first = [(number, face) for number, shard in enumerate(shards) for face in range(shard.faces)]
        pictures: list[Picture] = []
        for number, index in first[: _SHEET_COLUMNS * _SHEET_ROWS]:
            face = made.face(number, index)
            crop = to_picture(batch_of([face], self.image_size, AugmentationSettings(), [None], later=False).image[0])
            pictures.append(mark_points(crop, face.landmarks[face.landmark_weights > 0]))
        outcome = Outcome(
            read=[str(self.photos)],
            skipped=[*found.skipped, *skipped],
            written=[self.out / MANIFEST, *(self.out / shard.name for shard in shards)],
            details={"faces": made.count, "shards": len(shards)},
        )
        if self.landmarks is None:
            tell(outcome, found)
        outcome.written.append(self._sheet(pictures))
        say(f"{made.count} faces in {len(shards)} shards; to train with them: focus train --data.shards {self.out}")
        return outcome


def parse(arguments: Sequence[str]) -> Prepare:
    """Options of `focus prepare`."""
    return parse_as(Prepare, "prepare", arguments)
