"""Options about face models and photos that several commands share."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from focus.cli.command import Outcome, messages, say
from focus.cli.detection import tell
from focus.cli.streams import one_line
from focus.errors import FocusError, FocusWarning

if TYPE_CHECKING:
    from focus.data.detection.photos import Detections
    from focus.face import MorphableModel
    from focus.fit import FitReport, Progress

PROCEDURAL = "procedural"


def load_face(source: str, *, albedo: bool = False, landmarks68: Path | None = None) -> MorphableModel:
    """The face model of an option ``--model``.

    Args:
        source: ``procedural``, ``procedural-small``, or the path of a model file.
        albedo: give a model without colour a synthetic one.
        landmarks68: text file of the vertices of the landmarks, for a model file.
    """
    from focus.face import MorphableModel
    from focus.face.loaders import read_landmarks68

    if landmarks68 is not None and source in (PROCEDURAL, f"{PROCEDURAL}-small"):
        raise FocusError(f"--landmarks68 is for model files; the landmarks of {source} are known. Leave it out")
    if source == PROCEDURAL:
        return MorphableModel.procedural()
    if source == f"{PROCEDURAL}-small":
        return MorphableModel.procedural("small")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FocusWarning)
        model = MorphableModel.load(source, None if landmarks68 is None else read_landmarks68(landmarks68))
    for note in model.notes:
        say(f"note: {note}")
    return model.with_gaussian_process_albedo() if albedo and model.albedo_count == 0 else model


def photo_progress(update: Callable[[str, float, float, str], None]) -> Callable[[Progress], None]:
    """Shows how far a run over photos is; without a terminal, which photo it has come to."""
    plain, last = not messages().is_terminal, -1

    def notify(progress: Progress) -> None:
        nonlocal last
        if plain and progress.index > last:
            last = progress.index
            say(f"photo {progress.index + 1} of {progress.count}: {one_line(progress.name)}")
        done = progress.index + progress.fraction
        which = f" ({progress.index + 1} of {progress.count})" if progress.count > 1 else ""
        update("photos", done, progress.count, f"{progress.name}{which}")

    return notify


def photo_outcome(
    report: FitReport,
    read: list[str],
    started: float,
    found: Detections | None = None,
) -> Outcome:
    """What a run over photos tells, also one that was cut short.

    Args:
        found: what was detected for it; None: landmarks were given.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for label in ("photo", "hidden", "landmark error", "seconds"):
        table.add_column(label, justify="left" if label == "photo" else "right", overflow="fold")
    for item in report.written:
        table.add_row(
            Text(one_line(item.name)),
            f"{100 * item.occluded_fraction:.0f}%",
            f"{item.landmark_error:.1f}%" if math.isfinite(item.landmark_error) else "-",
            "there already" if item.there_already else f"{item.seconds:.1f}",
        )
    photos: list[dict[str, Any]] = [
        {
            "photo": item.name,
            "files": [str(path) for path in item.files],
            "occluded_fraction": item.occluded_fraction,
            "landmark_error_percent": item.landmark_error,
            "seconds": item.seconds,
            "there_already": item.there_already,
        }
        for item in report.written
    ]
    outcome = Outcome(
        read=read + [item.name for item in report.written],
        written=[path for item in report.written if not item.there_already for path in item.files],
        skipped=[*([] if found is None else found.skipped), *report.skipped],
        details={"photos": photos, "seconds": time.monotonic() - started},
        shown=[table] if report.written else [],
        error=report.stopped,
    )
    there = sum(item.there_already for item in report.written)
    if there:
        count = len(report.written) + len(report.skipped)
        outcome.shown.append(Text(f"{there} of {count} were there already (--again makes them anew)"))
    if found is not None:
        tell(outcome, found)
        outcome.good = False  # a table of landmarks is not what the command is for
    if report.written:
        outcome.good = not report.faults
    return outcome
