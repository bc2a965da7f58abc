"""Scores of masks as tables (Table 1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from focus.eval.comparison import by_occluder
from focus.eval.results import Result

_SCORES = (
    *("accuracy", "precision", "recall", "f1", "outlier_iou"),
    *("hard_accuracy", "hard_precision", "hard_recall", "hard_f1"),
)
_HEAD = ("ACC", "PPV", "TPR", "F1", "outlier IoU", "thresholded: ACC", "PPV", "TPR", "F1")
_BY_OCCLUDER = {"f1": "F1", "outlier_iou": "Outlier IoU"}
_HALVES = ("unoccluded", "occluded", "overall")
"""In the order of the paper."""


def segmentation_details(results: Sequence[Result]) -> dict[str, Any]:
    """Means of all methods on one subset, for JSON: method (with its seed where it has several) -> halves that have
    pictures, and kinds of occluders where they are known.
    """
    several = {r.method for r in results if sum(other.method == r.method for other in results) > 1}
    return {
        f"{result.method}, seed {result.seed}" if result.method in several else result.method: {
            "halves": {half: _row(result, half) for half in _HALVES if half in result.halves},
            "occluders": {
                kind: {"pictures": count, "f1": mean, "outlier_iou": by_occluder(result, "outlier_iou")[kind][1]}
                for kind, (count, mean) in by_occluder(result, "f1").items()
            },
        }
        for result in results
    }


def segmentation_table(methods: Mapping[str, Any]) -> Table:
    """`segmentation_details` for `rich`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for title in _HEAD:
        table.add_column(title, justify="right")
    for half in next(iter(methods.values()))["halves"]:
        table.add_row(f"[dim]{half}[/dim]")
        for method, parts in methods.items():
            table.add_row(Text(f"  {method}"), *_cells(parts["halves"][half]))
    return table


def segmentation_markdown(subsets: Mapping[str, Mapping[str, Any]]) -> str:
    """Subset -> `segmentation_details`, as one page."""
    lines = []
    for subset, methods in subsets.items():
        first, names = next(iter(methods.values())), list(methods)
        lines += [f"## {subset}", "", "| | " + " | ".join(_HEAD) + " |", "|---|" + "---:|" * len(_HEAD)]
        for half in first["halves"]:
            lines.append(f"| *{half}* |" + " |" * len(_HEAD))
            lines += [f"| {m} | " + " | ".join(_cells(parts["halves"][half])) + " |" for m, parts in methods.items()]
        for value, title in _BY_OCCLUDER.items() if first["occluders"] else ():
            lines += ["", f"{title} by what is in front of the face:", ""]
            lines += ["| | pictures | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
            for kind, row in first["occluders"].items():
                values = [f"{methods[m]['occluders'][kind][value]:.3f}" for m in names]
                lines.append(f"| {kind.replace('_', ' ')} | {row['pictures']} | " + " | ".join(values) + " |")
        lines.append("")
    return "\n".join(lines)


def _row(result: Result, half: str) -> dict[str, float]:
    row = {name: float(result.of(name, half).mean()) for name in _SCORES}
    return {**row, "f1_std": float(result.of("f1", half).std())}


def _cells(row: Mapping[str, float]) -> list[str]:
    f1 = f"{row['f1']:.3f} ± {row['f1_std']:.3f}"
    return [f1 if name == "f1" else f"{row[name]:.3f}" for name in _SCORES]
