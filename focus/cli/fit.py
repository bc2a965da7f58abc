"""`focus fit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from focus.bounds import Within
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.detection import Finding, given, photo_faces
from focus.cli.faces import PROCEDURAL, load_face, photo_outcome, photo_progress
from focus.data.detection.photos import Detections, list_photos
from focus.fit import FitReport, FitSettings, run, run_person
from focus.fit.person import check_count
from focus.report.files import check_folder
from focus.train.lessons import NetworkWitness


@dataclass(kw_only=True)
class Fit(Command):
    """Reconstruct the faces of photos without a trained network."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders: of these the photos in the landmark file, or, without one, all."""
    landmarks: Path | None = None
    """Landmarks: a table (photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners), or a
    file or folder of another program (.pts, .txt, .json). Without, faces are found in the photos (extra detect).
    """
    out: Path
    """Folder of the results: mesh as PLY, OBJ and GLB, mask, overlay and JSON for each photo."""
    model: str = PROCEDURAL
    """Face model: procedural, procedural-small, or a model file."""
    start: Path | None = None
    """A checkpoint, of focus train or exported, whose network gives the mask to begin with, and is heard about all that
    follow."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make anew what is there already, whole, of the same photos, landmarks and settings."""
    workers: Annotated[int, Within(1, 1024)] = 1
    """Processes that work on photos side by side, each with one thread."""
    same_person: tyro.conf.FlagCreatePairsOff[bool] = False
    """All photos are of one person, one face each: they are fitted together and share shape and albedo."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)
    settings: Annotated[FitSettings, tyro.conf.arg(name="")] = field(default_factory=FitSettings)

    def run(self) -> Outcome:
        """Fits all photos; one that fails is skipped."""
        started = time.monotonic()
        report, found = FitReport(), Detections()
        landmarks = given(self.landmarks, self.finding)
        read = [str(path) for path in (landmarks, self.start) if path is not None]
        self.so_far = lambda: photo_outcome(report, read, started, found if landmarks is None else None)
        check_folder(self.out)
        if self.same_person and landmarks is None:  # before the search, which takes long
            check_count(len(list_photos(self.photos, self.out)[0]))
        if self.same_person and self.workers > 1:
            say("--workers is for finding faces here: the photos of one person are fitted at once, in one process")
        with bars() as update:
            if landmarks is None:  # before the model is built, which takes seconds
                self.finding.find(self.photos, self.out, update, found, workers=self.workers)
            model = load_face(self.model)
            say(f"model: {model.name} ({model.licence})")
            witness = None if self.start is None else NetworkWitness.load(self.start)
            fit = run_person if self.same_person else partial(run, workers=self.workers)
            fit(
                self.photos,
                landmarks or photo_faces(found),
                model,
                self.out,
                self.settings,
                photo_progress(update),
                again=self.again,
                report=report,
                witness=witness,
            )
        return self.so_far()


def parse(arguments: Sequence[str]) -> Fit:
    """Options of `focus fit`."""
    return parse_as(Fit, "fit", arguments)
