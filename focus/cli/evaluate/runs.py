"""`focus evaluate runs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.text import Text

from focus.cli.command import Command, Outcome, parse_as
from focus.errors import FocusError
from focus.eval.claims import check_claims
from focus.report.results import read_sealed, write_json, write_text
from focus.report.tables import average, findings_markdown, findings_table, markdown_table, terminal_table

_RUN_FILES = ("metrics.json", "per_image.json")


@dataclass(kw_only=True)
class Runs(Command):
    """One table, and the claims, over several runs of the demo."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of focus demo."""
    out: Path | None = None
    """Folder for metrics.json and results.md."""

    def run(self) -> Outcome:
        """Averages the tables, and draws intervals over images and runs."""
        if not self.runs:
            raise FocusError("focus evaluate runs: expected at least one folder of focus demo, got none")
        tables, images = ([read_sealed(folder / name) for folder in self.runs] for name in _RUN_FILES)
        try:
            metrics, findings = average([table["methods"] for table in tables]), check_claims(images)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise FocusError(
                f"focus evaluate runs: expected {' and '.join(_RUN_FILES)} of one version of focus demo in each "
                f"folder, got something else ({error!r}); run the demo again"
            ) from error
        outcome = Outcome(
            read=[str(folder) for folder in self.runs],
            good=True,
            shown=[terminal_table(metrics), Text(), findings_table(findings)],
            details={"methods": metrics, "claims": [found.as_dict() for found in findings]},
        )
        if self.out is not None:
            text = f"{markdown_table(metrics)}\n{findings_markdown(findings)}"
            outcome.written = [
                write_json(self.out / "metrics.json", outcome.details),
                write_text(self.out / "results.md", text),
            ]
        return outcome


def parse(arguments: Sequence[str]) -> Runs:
    """Options of `focus evaluate runs`."""
    return parse_as(Runs, "evaluate runs", arguments)
