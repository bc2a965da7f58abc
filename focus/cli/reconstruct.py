"""`focus reconstruct`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from focus import limits
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.faces import load_face, photo_outcome, photo_progress
from focus.eval.misfit import MisfitPrior
from focus.files import check_input, digest_input
from focus.fit.folder import FitReport, reconstruct_photos
from focus.reconstructor import Reconstructor
from focus.train.run import pick_device


@dataclass(kw_only=True)
class Reconstruct(Command):
    """Reconstruct the faces of photos with a trained network."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders, of which the photos in the landmark file are taken."""
    checkpoint: Path
    """Written by focus train, or exported."""
    landmarks: Path
    """CSV file: photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners. They place the
    crop.
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

    def run(self) -> Outcome:
        """Reconstructs all photos; one that fails is skipped."""
        started = time.monotonic()
        check_input(self.landmarks, limits.TABLE_FILE)  # before networks are read
        model = None if self.model is None else load_face(self.model)
        misfit = None if self.misfit is None else MisfitPrior.load(self.misfit)
        device = pick_device(self.device)
        reconstructor = Reconstructor.load(self.checkpoint, model=model, misfit=misfit, device=device)
        say(f"face model: {reconstructor.model.name} ({reconstructor.model.licence})")
        made_by = {
            "checkpoint": digest_input(self.checkpoint, limits.WEIGHTS_FILE),
            "misfit": None if self.misfit is None else digest_input(self.misfit, limits.WEIGHTS_FILE),
            "model": reconstructor.model.fingerprint(),
            "device": device.type,
        }
        report = FitReport()
        self.so_far = lambda: photo_outcome(report, [str(self.checkpoint), str(self.landmarks)], started)
        with bars() as update:
            reconstruct_photos(
                self.photos,
                self.landmarks,
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
