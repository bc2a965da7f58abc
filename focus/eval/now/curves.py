"""Cumulative curves of errors, beside published figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus._optional import require

LIMIT_MM = 7.0
"""End of the error axis, as in the challenge's figures."""

_STEPS = 701
_LABEL_RANGE = (4.0, 46.0)
"""Percent between which the labels of published figures are stacked."""


class Published(NamedTuple):
    """A method's figures on all images of the NoW test set, mm."""

    median: float
    mean: float
    std: float


PUBLISHED: Mapping[str, Published] = {
    "FOCUS": Published(1.04, 1.30, 1.10),
    "DECA": Published(1.09, 1.38, 1.18),
    "Deep3D": Published(1.11, 1.41, 1.21),
    "RingNet": Published(1.21, 1.53, 1.31),
    "3DDFA_V2": Published(1.23, 1.57, 1.39),
    "MGCNet": Published(1.31, 1.87, 2.63),
    "PRNet": Published(1.50, 1.98, 1.88),
}
"""Li et al., "Robust Model-based Face Reconstruction through Weakly-Supervised Outlier Segmentation" (CVPR 2023), the
comparison on the NoW test set. Its scans are not public: figures on other images do not compare one to one."""


def cumulative(errors: NDArray[np.float32], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentage ``[S]`` of errors that are at most each of the steps.

    Args:
        errors: ``[N]`` mm, N > 0.
        steps: ``[S]`` mm.
    """
    if errors.size == 0:
        raise ValueError("cumulative: expected at least one error, got none")
    ordered = np.sort(errors)
    # Compared in the errors' precision, so that an error of 0.1f is at most 0.1.
    percent: NDArray[np.float64] = (
        100 * np.searchsorted(ordered, steps.astype(ordered.dtype), side="right") / len(ordered)
    )
    return percent


def draw_curves(errors: Mapping[str, NDArray[np.float32]], *, title: str, published: bool = True) -> bytes:
    """A curve for each method: how many percent of the scan vertices are within each distance. Needs matplotlib.

    Args:
        errors: method to all of its errors, ``[N]`` mm.
        title: over the figure.
        published: also draw `PUBLISHED`, as points at their medians: half of the vertices are nearer. Not for
            the metrical protocol, which none of them followed.

    Returns:
        A PNG picture.
    """
    figure_module = require("matplotlib.figure", extra="evaluate", purpose="draw cumulative curves")
    figure = figure_module.Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = np.linspace(0, LIMIT_MM, _STEPS)
    for number, (method, values) in enumerate(errors.items()):
        style = ("-", "--", "-.", ":")[number // 10 % 4]
        label = f"{method}: median {np.median(values):.2f}, mean {values.mean(dtype=np.float64):.2f} mm"
        axes.plot(steps, cumulative(values, steps), linestyle=style, linewidth=1.8, label=label, zorder=3)
    if published:
        _draw_published(axes)
    axes.set(xlim=(0, LIMIT_MM), ylim=(0, 100), xlabel="distance of a scan vertex to the mesh (mm)")
    axes.set_ylabel("scan vertices within that distance (%)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_published(axes: object) -> None:
    """Points at (median, 50%), their names stacked to the right, each with a line to its point."""
    plot = axes.plot  # type: ignore[attr-defined]
    annotate = axes.annotate  # type: ignore[attr-defined]
    label = "published medians, NoW test set (Li et al. 2023)"
    ordered = sorted(PUBLISHED.items(), key=lambda item: item[1].median)
    plot([p.median for _, p in ordered], [50] * len(ordered), "o", color="0.25", markersize=3.5, label=label, zorder=4)
    # The leftmost point has the lowest label: lines from left to right never cross.
    for (name, figures), height in zip(ordered, np.linspace(*_LABEL_RANGE, len(ordered)), strict=True):
        annotate(
            f"{name} {figures.median:.2f}",
            xy=(figures.median, 50),
            xytext=(2.05, height),
            fontsize=7.5,
            color="0.25",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 1},
        )
