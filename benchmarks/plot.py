"""The cost against size, from what `run.py --sweep --json` wrote: with one thread, or with one and two.

python benchmarks/plot.py sweep1.json [sweep2.json] docs/images/cost.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

matplotlib.use("Agg")
from matplotlib import pyplot

# Colours that stay apart for those who do not see red and green.
LINES = {
    "rasterize, forward": ("rasterize, forward", "#0072b2"),
    "render, forward + backward": ("render", "#d55e00"),
    "rasterize + interpolate, forward + backward": ("rasterize + interpolate", "#e69f00"),
    "vertex_normals, forward + backward": ("vertex_normals", "#009e73"),
    "sh_shading, forward + backward": ("sh_shading", "#56b4e9"),
    "neighbor_min_loss 3x3, forward + backward": ("neighbor_min_loss 3x3", "#cc79a7"),
    "masked_photometric_loss, forward + backward": ("masked_photometric_loss", "#555555"),
}
PANELS = {
    "pixels": "pixels of the image (70,789 triangles)",
    "triangles": "triangles (224 x 224 pixels)",
    "batch": "batch (224 x 224 pixels, 70,789 triangles)",
}
STYLES = ("-", "--", ":")


def draw(tables: list[dict[str, Any]], target: Path) -> None:
    """One panel for each of pixels, triangles and batch, both axes logarithmic."""
    pyplot.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 4.9), sharey=True, layout="constrained")
    used: dict[str, str] = {}
    for panel, (axis, label) in zip(panels, PANELS.items(), strict=True):
        for table, style in zip(tables, STYLES, strict=False):
            for name, (title, color) in LINES.items():
                rows = [row for row in table["rows"] if (row["name"], row["axis"]) == (name, axis)]
                if rows:
                    used[title] = color
                    amounts, times = [row["amount"] for row in rows], [row["median_ms"] for row in rows]
                    panel.plot(amounts, times, style, color=color, marker="o", markersize=3.5, linewidth=1.6)
        high = max((max(line.get_xdata()) for line in panel.lines), default=1)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(label)
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.plot([high / 30, high], [0.06, 0.06 * 30], color="#bbbbbb", linewidth=1, zorder=0)
        panel.annotate("linear", (high / 3, 0.06), color="#777777", ha="left")
        if axis == "batch":
            panel.set_xticks([1, 2, 4, 8, 16, 32, 64], minor=False)
            panel.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
            panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    panels[0].set_ylabel("milliseconds (median)")
    panels[0].yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    handles = [Line2D([], [], color=color, linewidth=2, label=title) for title, color in used.items()]
    threads = [f"{table['threads']} thread{'s' if table['threads'] > 1 else ''}" for table in tables]
    if len(tables) > 1:
        handles += [
            Line2D([], [], color="black", linestyle=style, label=label)
            for style, label in zip(STYLES, threads, strict=False)
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    title = f"{tables[0]['machine']}, {' and '.join(threads)}; forward + backward unless said otherwise"
    figure.suptitle(title, fontsize=11)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    *tables, target = map(Path, arguments)
    draw([json.loads(table.read_text(encoding="utf-8")) for table in tables], target)


if __name__ == "__main__":
    main(sys.argv[1:])
