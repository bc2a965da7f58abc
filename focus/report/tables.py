"""The table of the benchmark, for the terminal, a page and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from focus.eval.benchmark import HALVES
from focus.eval.claims import LABELS, LARGER_IS_BETTER, UNITS, Finding

UPPER_BOUND = "Oracle"
"""Not a competitor: it is trained with the true masks, and its mask scores are those of the true mask."""
TAUGHT = (UPPER_BOUND, "Backbone-Supervised")
"""Trained with the true masks, and therefore not compared."""
_MASK_COLUMNS = 5
_HALF_TITLES = {"occluded": "occluded faces", "unoccluded": "the same faces, unoccluded", "overall": "both"}

Metrics = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The part "methods" of metrics.json."""


@dataclass(frozen=True)
class Column:
    """A number of the table."""

    label: str
    value: Callable[[Mapping[str, Any]], float]
    digits: int
    larger_is_better: bool
    deviation: Callable[[Mapping[str, Any]], float] | None = None
    """Shown after a plus-minus sign."""
    compared: bool = True
    """Mark the best method."""

    def text(self, row: Mapping[str, Any]) -> str:
        """The number as people read it."""
        text = f"{self.value(row):.{self.digits}f}"
        return text if self.deviation is None else f"{text} ± {self.deviation(row):.{self.digits}f}"


COLUMNS = (
    Column("ACC", lambda row: row["accuracy"], 3, True),
    Column("PPV", lambda row: row["precision"], 3, True),
    Column("TPR", lambda row: row["recall"], 3, True, compared=False),
    Column("F1", lambda row: row["f1"], 3, True, deviation=lambda row: row["f1_std"]),
    Column("outlier IoU", lambda row: row["outlier_iou"], 3, True),
    Column("shape median, mm", lambda row: row["shape_error_mm"]["median"], 2, False),
    Column("mean", lambda row: row["shape_error_mm"]["mean"], 2, False),
    Column("std", lambda row: row["shape_error_mm"]["std"], 2, False, compared=False),
    Column("appearance RMSE", lambda row: row["appearance_rmse"], 4, False),
)


def is_best(column: Column, method: str, half: str, metrics: Metrics) -> bool:
    """Whether a method has the best number of a column, as shown. The upper bound does not compete; not all may win."""
    rivals = {
        name: round(column.value(rows[half]), column.digits) for name, rows in metrics.items() if name not in TAUGHT
    }
    if method not in rivals or not column.compared or len(set(rivals.values())) < 2:
        return False
    return rivals[method] == (max if column.larger_is_better else min)(rivals.values())


def terminal_table(metrics: Metrics, halves: Sequence[str] = HALVES) -> Table:
    """For `rich`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column.label, justify="right")
    for half in halves:
        table.add_row(f"[dim]{half}[/dim]")
        for method, rows in metrics.items():
            cells = [
                f"[bold]{column.text(rows[half])}[/bold]"
                if is_best(column, method, half, metrics)
                else column.text(rows[half])
                for column in COLUMNS
            ]
            table.add_row(Text(f"  {method}"), *cells)
    return table


def markdown_table(metrics: Metrics, halves: Sequence[str] = HALVES) -> str:
    """For docs/results.md."""
    lines = [
        "| | " + " | ".join(column.label for column in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for half in halves:
        lines.append(f"| *{half}* |" + " |" * len(COLUMNS))
        for method, rows in metrics.items():
            cells = [
                f"**{column.text(rows[half])}**" if is_best(column, method, half, metrics) else column.text(rows[half])
                for column in COLUMNS
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def html_table(metrics: Metrics, halves: Sequence[str] = HALVES) -> str:
    """For a page with ``assets/page.css``."""
    head = "".join(f'<th scope="col">{escape(column.label)}</th>' for column in COLUMNS)
    bodies = []
    for half in halves:
        rows = [f'<tr><th class="half" scope="rowgroup" colspan="{len(COLUMNS) + 1}">{_HALF_TITLES[half]}</th></tr>']
        for method, values in metrics.items():
            cells = []
            for number, column in enumerate(COLUMNS):
                given = method == UPPER_BOUND and number < _MASK_COLUMNS
                style = "best" if is_best(column, method, half, metrics) else "given" if given else ""
                main, _, deviation = column.text(values[half]).partition(" ± ")
                text = f"{main} <small>± {deviation}</small>" if deviation else main
                cells.append(f'<td class="{style}">{text}</td>' if style else f"<td>{text}</td>")
            name = method.lower()
            rows.append(
                f'<tr class="{escape(name)}"><th scope="row" class="chip">{escape(method)}</th>{"".join(cells)}</tr>'
            )
        bodies.append(f'<tbody class="half">{"".join(rows)}</tbody>')
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>{"".join(bodies)}</table></div>'


def average(runs: Sequence[Metrics]) -> Metrics:
    """Means over runs of everything in the tables of several runs with the same methods.

    Raises:
        KeyError, TypeError: runs that are not such tables.
    """
    first = runs[0]

    def merge(path: tuple[str, ...], value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: merge((*path, key), part) for key, part in value.items()}
        numbers = []
        for run in runs:
            part: Any = run
            for key in path:
                part = part[key]
            numbers.append(part)
        return float(np.mean(numbers))

    names = [name for name in first if all(name in run for run in runs)]
    merged: Metrics = {name: merge((name,), first[name]) for name in names}
    return merged


def findings_table(findings: Sequence[Finding]) -> Table:
    """Claims and what came out, for `rich`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for label in ("on the occluded half", "first", "second", "difference", "95% interval", ""):
        table.add_column(label, justify="left" if label in ("on the occluded half", "") else "right")
    colors = {"holds": "green", "open": "yellow", "fails": "red"}
    for found in findings:
        texts = finding_texts(found)
        verdict = f"[{colors[found.verdict]}]{found.verdict}[/{colors[found.verdict]}]"
        table.add_row(Text(str(found.claim)), *texts, verdict)
    return table


def findings_markdown(findings: Sequence[Finding]) -> str:
    """Claims and what came out, for docs/results.md."""
    lines = [
        "| on the occluded half | first | second | difference | 95% interval, images | runs and images | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for found in findings:
        digits = finding_digits(found)
        both = (
            ""
            if found.across_runs is None
            else f"{found.across_runs.low:+.{digits}f} to {found.across_runs.high:+.{digits}f}"
        )
        lines.append("| " + " | ".join([str(found.claim), *finding_texts(found), both, found.verdict]) + " |")
    return "\n".join(lines) + "\n"


def finding_texts(found: Finding) -> list[str]:
    """First, second, difference and interval as people read them."""
    digits, unit = finding_digits(found), UNITS.get(found.claim.metric, "")
    low, high = found.difference.low, found.difference.high
    return [
        f"{found.first:.{digits}f}{unit}",
        f"{found.second:.{digits}f}{unit}",
        f"{found.difference.mean:+.{digits}f}",
        f"{low:+.{digits}f} to {high:+.{digits}f}",
    ]


def finding_digits(found: Finding) -> int:
    """Decimals that a metric is shown with."""
    return {"appearance_rmse": 4, "shape_error_mm": 3}.get(found.claim.metric, 3)


def direction(metric: str) -> str:
    """ "higher" or "lower": which way is better."""
    return "higher" if LARGER_IS_BETTER[metric] else "lower"


def label(metric: str) -> str:
    """A metric's name with its unit."""
    unit = UNITS.get(metric, "").strip()
    return f"{LABELS[metric]}, {unit}" if unit else LABELS[metric]
