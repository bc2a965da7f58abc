"""`focus evaluate compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.text import Text

from focus.cli.command import Command, Outcome, parse_as
from focus.errors import FocusError
from focus.eval.comparison import compare
from focus.eval.results import read_results
from focus.report.comparison import comparison_markdown, comparison_table, comparison_titles
from focus.report.results import write_json, write_text


@dataclass(kw_only=True)
class Compare(Command):
    """Tables with intervals out of files of results, of any number of runs."""

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files of results (results.jsonl)."""
    reference: str | None = None
    """Method that the others are compared with, picture by picture; by default the first."""
    out: Path | None = None
    """Folder for comparison.json and comparison.md."""

    def run(self) -> Outcome:
        """Compares all methods, subset by subset."""
        if not self.results:
            raise FocusError("focus evaluate compare: expected at least one file of results, got none")
        comparisons = compare([result for path in self.results for result in read_results(path)], self.reference)
        outcome = Outcome(read=[str(path) for path in self.results], good=True)
        for comparison, name in zip(comparisons, comparison_titles(comparisons), strict=True):
            halves = next(iter(comparison.cells.values()))
            for half in halves:
                title = f"{name}, {half} (+, -: by its 95% interval off {comparison.reference})"
                outcome.shown += [Text(title, style="bold"), comparison_table(comparison, half), Text()]
            outcome.shown += [Text(f"note: {note}") for note in comparison.notes]
        outcome.details = {"comparisons": [comparison.as_dict() for comparison in comparisons]}
        if self.out is not None:
            outcome.written = [
                write_json(self.out / "comparison.json", outcome.details),
                write_text(self.out / "comparison.md", comparison_markdown(comparisons)),
            ]
        return outcome


def parse(arguments: Sequence[str]) -> Compare:
    """Options of `focus evaluate compare`."""
    return parse_as(Compare, "evaluate compare", arguments)
