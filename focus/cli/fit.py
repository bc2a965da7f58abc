"""`focus fit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from focus import limits
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.faces import PROCEDURAL, load_face, photo_outcome, photo_progress
from focus.files import check_input
from focus.fit import FitReport, FitSettings, run


@dataclass(kw_only=True)
class Fit(Command):
    """Reconstruct the faces of photos without a trained network."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders, of which the photos in the landmark file are taken."""
    landmarks: Path
    """CSV file: photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners."""
    out: Path
    """Folder of the results: mesh as PLY, OBJ and GLB, mask, overlay and JSON for each photo."""
    model: str = PROCEDURAL
    """Face model: procedural, procedural-small, or a model file."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make anew what is there already, whole, of the same photos, landmarks and settings."""
    settings: Annotated[FitSettings, tyro.conf.arg(name="")] = field(default_factory=FitSettings)

    def run(self) -> Outcome:
        """Fits all photos; one that fails is skipped."""
        started = time.monotonic()
        check_input(self.landmarks, limits.TABLE_FILE)  # before the model is built, which takes seconds
        model = load_face(self.model)
        say(f"face model: {model.name} ({model.licence})")
        report = FitReport()
        self.so_far = lambda: photo_outcome(report, [str(self.landmarks)], started)
        with bars() as update:
            notify = photo_progress(update)
            run(
                self.photos,
                self.landmarks,
                model,
                self.out,
                self.settings,
                notify,
                again=self.again,
                report=report,
            )
        return self.so_far()


def parse(arguments: Sequence[str]) -> Fit:
    """Options of `focus fit`."""
    return parse_as(Fit, "fit", arguments)
