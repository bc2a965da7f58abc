"""Comparisons of methods as tables and figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO

from rich.table import Table
from rich.text import Text

from focus._optional import require
from focus.eval.claims import LABELS, LARGER_IS_BETTER, UNITS
from focus.eval.comparison import Cell, Comparison, YawBin

_DIGITS = {"shape_error_mm": 2, "appearance_rmse": 4}


def comparison_table(comparison: Comparison, half: str) -> Table:
    """One half of a subset, for `rich`: means, marked where the 95% interval of the difference to the reference lies
    on one side of zero.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    table.add_column("")
    columns = _columns(comparison, half)
    for value in columns:
        table.add_column(_title(value), justify="right")
    for method, halves in comparison.cells.items():
        row = halves[half]
        table.add_row(Text(method), *(_rich_text(row[value], value) if value in row else "" for value in columns))
    return table


def comparison_titles(comparisons: Sequence[Comparison]) -> list[str]:
    """Their subsets; where there are several of one subset, on other test sets, with the start of the digest."""
    names = [comparison.subset for comparison in comparisons]
    return [
        f"{comparison.subset} ({comparison.digest[:12]})" if names.count(comparison.subset) > 1 else comparison.subset
        for comparison in comparisons
    ]


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """All subsets and halves: mean, 95% interval, and difference to the reference."""
    parts = []
    for comparison, title in zip(comparisons, comparison_titles(comparisons), strict=True):
        parts.append(f"## {title}\n")
        runs = ", ".join(f"{name} {len(seeds)}" for name, seeds in comparison.seeds.items())
        parts.append(
            f"Version {comparison.version}, digest `{comparison.digest[:16]}`, {comparison.pictures} pictures; runs: "
            f"{runs}. In square brackets the 95% bootstrap interval of the mean, in round ones that of the paired "
            f"difference to {comparison.reference}.\n"
        )
        for half in next(iter(comparison.cells.values())):
            columns = _columns(comparison, half)
            parts.append(f"| {half} | " + " | ".join(_title(value) for value in columns) + " |")
            parts.append("|---|" + "---:|" * len(columns))
            for method, halves in comparison.cells.items():
                row = halves[half]
                cells = [_text(row[value], value) if value in row else "" for value in columns]
                parts.append(f"| {method} | " + " | ".join(cells) + " |")
            parts.append("")
        parts += [f"Note: {note}.\n" for note in comparison.notes]
    return "\n".join(parts)


def yaw_figure(curves: Mapping[str, Mapping[str, Sequence[YawBin]]], value: str) -> bytes:
    """Error bars over yaw (Fig. 3 of the paper), one panel for each half, as PNG.

    Args:
        curves: half -> method -> bins. The bar is the standard deviation over faces. Methods that are the same
            everywhere, as masks on one reconstruction are in its shape, are drawn once, under the names of all.
        value: what is drawn.

    Raises:
        FocusError: matplotlib is not installed.
    """
    # The figure alone, without pyplot: that would look for a screen.
    curves = join_equal(curves)
    count = max(map(len, curves.values()))
    size = (max(5.2, 0.4 * count) * len(curves), 3.8)
    figure = require("matplotlib.figure", extra="report", purpose="draw figures").Figure(size)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)
    for axes, (half, methods) in zip(panels[0], curves.items(), strict=True):
        for number, (method, bins) in enumerate(methods.items()):
            # Side by side within a bin, so that bars do not hide each other.
            shift = (number - (len(methods) - 1) / 2) * 0.6 * bins[0].width / max(len(methods), 1)
            axes.errorbar(
                [part.low + part.width / 2 + shift for part in bins],
                [part.mean for part in bins],
                yerr=[part.deviation for part in bins],
                fmt="o",
                # Ten colours, then again with other lines.
                color=f"C{number % 10}",
                linestyle=("-", "--", ":", "-.")[number // 10 % 4],
                markersize=3,
                linewidth=1,
                capsize=2,
                label=method,
            )
        axes.set_title(half, fontsize=10)
        axes.set_xlabel("yaw, degrees")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel(_title(value))
    panels[0][0].set_ylim(bottom=0)
    handles, labels = panels[0][0].get_legend_handles_labels()
    # As many names in a row as the longest of them lets into the width, at about 14 letters an inch.
    letters = int(14 * figure.get_figwidth()) - 8
    labels = [textwrap.fill(label, letters) for label in labels]
    columns = max(1, min(len(labels), (letters + 8) // (max(map(len, labels)) + 8)))
    lines = max(label.count("\n") for label in labels) + math.ceil(len(labels) / columns)
    below = 0.1 + 0.21 * lines  # inches
    figure.set_figheight(size[1] + below)
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, below / (size[1] + below), 1, 1))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def join_equal(curves: Mapping[str, Mapping[str, Sequence[YawBin]]]) -> dict[str, dict[str, Sequence[YawBin]]]:
    """Half -> method -> bins, with methods whose bins are equal in every half under one name, ``a = b = c``."""
    groups: dict[tuple[tuple[YawBin, ...], ...], list[str]] = {}
    for method in next(iter(curves.values()), {}):
        groups.setdefault(tuple(tuple(of_half[method]) for of_half in curves.values()), []).append(method)
    return {
        half: {" = ".join(methods): of_half[methods[0]] for methods in groups.values()}
        for half, of_half in curves.items()
    }


def _columns(comparison: Comparison, half: str) -> list[str]:
    return [value for value in LABELS if any(value in halves[half] for halves in comparison.cells.values())]


def _title(value: str) -> str:
    unit = UNITS.get(value, "").strip()
    return f"{LABELS[value]}, {unit}" if unit else LABELS[value]


def _text(cell: Cell, value: str) -> str:
    digits = _DIGITS.get(value, 3)
    mean, deviation = f"{cell.mean.mean:.{digits}f}", f" ± {cell.deviation:.{digits}f}" if value == "f1" else ""
    text = f"{mean}{deviation} [{cell.mean.low:.{digits}f}, {cell.mean.high:.{digits}f}]"
    if cell.difference is None:
        return text
    digits += value == "shape_error_mm"
    d = cell.difference
    return f"{text} ({d.low:+.{digits}f}, {d.high:+.{digits}f})"


def _rich_text(cell: Cell, value: str) -> str:
    digits = _DIGITS.get(value, 3)
    text = f"{cell.mean.mean:.{digits}f}"
    if value == "f1":
        text += f" ± {cell.deviation:.{digits}f}"
    if cell.difference is None or cell.difference.sign == 0:
        return text
    better = cell.difference.sign == (1 if LARGER_IS_BETTER[value] else -1)
    return f"[green]{text} +[/green]" if better else f"[red]{text} -[/red]"
