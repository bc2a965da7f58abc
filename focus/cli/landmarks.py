"""`focus landmarks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text

from focus.bounds import Within
from focus.cli.command import Command, Outcome, bars, parse_as
from focus.cli.detection import Finding, tell
from focus.cli.streams import one_line
from focus.data.detection.photos import Detections
from focus.report.files import check_folder

_SHOWN = 40


@dataclass(kw_only=True)
class Landmarks(Command):
    """Find the faces of photos and their landmarks, for all other commands."""

    photos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photos, or folders of photos."""
    out: Path
    """Folder of landmarks.csv, a row for each face, and landmarks.json, of what and how sure it is."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Look anew at photos that are in the table, unchanged."""
    workers: Annotated[int, Within(1, 1024)] = 1
    """Processes that look at photos side by side."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)

    def run(self) -> Outcome:
        """Finds the faces of all photos; one without a face is listed."""
        check_folder(self.out)
        found = Detections()
        self.so_far = lambda: self._outcome(found)
        with bars() as update:
            self.finding.find(self.photos, self.out, update, found, workers=self.workers, again=self.again)
        return self.so_far()

    def _outcome(self, found: Detections) -> Outcome:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for label in ("photo", "score", "width"):
            table.add_column(label, justify="left" if label == "photo" else "right", overflow="fold")
        for face in found.faces[:_SHOWN]:
            width = "-" if face.box is None else f"{face.box[2] - face.box[0]:.0f}"
            table.add_row(Text(one_line(str(face.photo))), "-" if face.score is None else f"{face.score:.2f}", width)
        outcome = Outcome(
            read=[str(path) for path in dict.fromkeys(face.photo for face in found.faces)],
            skipped=list(found.skipped),
            shown=[table] if found.faces else [],
            good=bool(found.faces),
        )
        if len(found.faces) > _SHOWN:
            outcome.shown.append(Text(f"and {len(found.faces) - _SHOWN} more"))
        tell(outcome, found)
        return outcome


def parse(arguments: Sequence[str]) -> Landmarks:
    """Options of `focus landmarks`."""
    return parse_as(Landmarks, "landmarks", arguments)
