"""`focus reconstruct`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from focus import limits
from focus.bounds import Within
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.detection import Finding, given, photo_faces
from focus.cli.faces import load_face, photo_outcome, photo_progress
from focus.data.detection.photos import Detections
from focus.eval.misfit import MisfitPrior
from focus.files import digest_input
from focus.fit import FitReport
from focus.fit.folder import reconstruct_photos
from focus.reconstructor import Reconstructor
from focus.report.files import check_folder
from focus.train.run import pick_device


@dataclass(kw_only=True)
class Reconstruct(Command):
    """Reconstruct the faces of photos with a trained network."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders: of these the photos in the landmark file, or, without one, all."""
    checkpoint: Path
    """Written by focus train, or exported."""
    landmarks: Path | None = None
    """Landmarks: a table (photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners), or a
    file or folder of another program (.pts, .txt, .json). Without, faces are found in the photos (extra detect).
    They place the crop.
    """
    out: Path
    """Folder of the results: mesh as PLY, OBJ and GLB, mask, overlay and JSON for each photo."""
    model: str | None = None
    """Face model, where the one that the checkpoint names has moved: a model file."""
    misfit: Path | None = None
    """Misfit prior of this checkpoint, written by focus evaluate misfit."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make anew what is there already, whole, of the same photos, landmarks and settings."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    workers: Annotated[int, Within(1, 1024)] = 1
    """Processes that look for faces side by side."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)

    def run(self) -> Outcome:
        """Reconstructs all photos; one that fails is skipped."""
        started = time.monotonic()
        report, found = FitReport(), Detections()
        landmarks = given(self.landmarks, self.finding)
        read = [str(path) for path in (self.checkpoint, landmarks) if path is not None]
        self.so_far = lambda: photo_outcome(report, read, started, found if landmarks is None else None)
        check_folder(self.out)
        if landmarks is None:  # before networks are read
            with bars() as update:
                self.finding.find(self.photos, self.out, update, found, workers=self.workers)
        model = None if self.model is None else load_face(self.model)
        misfit = None if self.misfit is None else MisfitPrior.load(self.misfit)
        device = pick_device(self.device)
        reconstructor = Reconstructor.load(self.checkpoint, model=model, misfit=misfit, device=device)
        say(f"model: {reconstructor.model.name} ({reconstructor.model.licence})")
        made_by = {
            "checkpoint": digest_input(self.checkpoint, limits.WEIGHTS_FILE),
            "misfit": None if self.misfit is None else digest_input(self.misfit, limits.WEIGHTS_FILE),
            "model": reconstructor.model.fingerprint(),
            "device": device.type,
        }
        with bars() as update:
            reconstruct_photos(
                self.photos,
                landmarks or photo_faces(found),
                self.out,
                reconstructor.photo,
                1,
                photo_progress(update),
                made_by=made_by,
                again=self.again,
                report=report,
            )
        return self.so_far()


def parse(arguments: Sequence[str]) -> Reconstruct:
    """Options of `focus reconstruct`."""
    return parse_as(Reconstruct, "reconstruct", arguments)
