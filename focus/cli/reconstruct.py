"""`focus reconstruct`."""

from __future__ import annotations

import contextlib
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
from focus.errors import FocusError
from focus.eval.misfit import MisfitPrior
from focus.face import MorphableModel
from focus.files import digest_input
from focus.fit import FitReport, FitSettings, run
from focus.fit.faces import PhotoFace
from focus.fit.folder import reconstruct_photos
from focus.fit.results import one_thread
from focus.reconstructor import Reconstructor
from focus.report.files import check_folder
from focus.train import shipped_checkpoint
from focus.train.distributed import pick_device
from focus.train.lessons import NetworkWitness

REFINING = FitSettings(coarse_steps=4, fine_steps=4)
"""Fewer steps than `focus fit` takes, whose first masks are worse."""


@dataclass(kw_only=True)
class Reconstruct(Command):
    """Reconstruct the faces of photos with a trained network."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders: of these the photos in the landmark file, or, without one, all."""
    checkpoint: Path | None = None
    """Written by focus train, or exported. Without, the network that comes with FOCUS."""
    landmarks: Path | None = None
    """Landmarks: a table (photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners), or a
    file or folder of another program (.pts, .txt, .json). Without, faces are found in the photos (extra detect).
    They place the crop.
    """
    out: Path
    """Folder of the results: mesh as PLY, OBJ and GLB, mask, overlay and JSON for each photo."""
    model: str | None = None
    """Face model, where the one that the checkpoint names has moved: a model file."""
    refine: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fit the photo, as focus fit does, beginning with the mask of the network, which is also heard afterwards: slower,
    and nearer to the photo."""
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
        if self.refine and self.misfit is not None:
            raise FocusError("--misfit is measured for what a network says, and --refine goes on from there; give one")
        if self.refine and self.device not in ("auto", "cpu"):
            raise FocusError(f"--device {self.device}: fits, which --refine goes on with, run on the CPU; leave it out")
        checkpoint = self._network()
        read = [str(path) for path in (self.checkpoint, landmarks) if path is not None]
        self.so_far = lambda: photo_outcome(report, read, started, found if landmarks is None else None)
        check_folder(self.out)
        if landmarks is None:  # before networks are read
            with bars() as update:
                self.finding.find(self.photos, self.out, update, found, workers=self.workers)
        model = None if self.model is None else load_face(self.model)
        misfit = None if self.misfit is None else MisfitPrior.load(self.misfit)
        device = pick_device(self.device)
        if self.refine:
            return self._refine(checkpoint, model, landmarks or photo_faces(found), report)
        reconstructor = Reconstructor.load(checkpoint, model=model, misfit=misfit, device=device)
        say(f"model: {reconstructor.model.name} ({reconstructor.model.licence})")
        made_by = {
            "checkpoint": digest_input(checkpoint, limits.WEIGHTS_FILE),
            "misfit": None if self.misfit is None else digest_input(self.misfit, limits.WEIGHTS_FILE),
            "model": reconstructor.model.fingerprint(),
            "device": device.type,
        }
        # Threads of small networks wait for each other more than they help.
        with bars() as update, one_thread() if device.type == "cpu" else contextlib.nullcontext():
            reconstruct_photos(
                self.photos,
                landmarks or photo_faces(found),
                self.out,
                reconstructor,
                1,
                photo_progress(update),
                made_by=made_by,
                again=self.again,
                report=report,
            )
        return self.so_far()

    def _network(self) -> Path:
        """The checkpoint: that of the option, or the one that comes with FOCUS."""
        if self.checkpoint is not None:
            return self.checkpoint
        shipped = shipped_checkpoint("photos")
        if shipped is None:
            raise FocusError("focus reconstruct: this build has no network of its own: name one by --checkpoint")
        say("network: the one that comes with FOCUS, which has seen drawn faces alone (--checkpoint takes another one)")
        return shipped

    def _refine(
        self, checkpoint: Path, model: MorphableModel | None, landmarks: Path | list[PhotoFace], report: FitReport
    ) -> Outcome:
        """Fits that begin where the network says."""
        witness = NetworkWitness.load(checkpoint, model)
        whole = witness.settings.face.whole(model)
        say(f"model: {whole.name} ({whole.licence})")
        with bars() as update:
            run(
                self.photos,
                landmarks,
                whole,
                self.out,
                REFINING,
                photo_progress(update),
                again=self.again,
                workers=self.workers,
                report=report,
                witness=witness,
            )
        return self.so_far()


def parse(arguments: Sequence[str]) -> Reconstruct:
    """Options of `focus reconstruct`."""
    return parse_as(Reconstruct, "reconstruct", arguments)
