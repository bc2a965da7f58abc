"""Experiments on paper: tables in Markdown and for the terminal, figures, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from focus._optional import require
from focus.eval.benchmark import HALVES
from focus.eval.claims import Claim, Finding, check_claims
from focus.eval.comparison import compare
from focus.eval.misfit import PRIOR_SUFFIX
from focus.eval.results import Result
from focus.eval.statistics import Interval, paired_bootstrap, paired_tests
from focus.report.comparison import comparison_markdown
from focus.report.panels import Picture, encode_png, grid, overlay_mask, to_picture
from focus.report.tables import Metrics, average, findings_markdown, findings_table, markdown_table, terminal_table

ETAS = ("neighbor", "distance", "area", "preserve", "binary")
"""Weights of L_S, in the order of the paper."""
_CURVES = {"accuracy": "ACC", "precision": "precision", "recall": "recall", "f1": "F1"}
_MORE_FACE = {"neighbor": -1, "distance": -1, "area": 1, "preserve": 1}
"""Whether more of a weight calls more of the face seen, by the paper; `binary` hardly matters."""


@dataclass(frozen=True)
class Seen:
    """B faces as one pipeline sees them."""

    image: Tensor
    """``[B, 3, S, S]``, the reconstruction."""
    face: Tensor
    """``[B, 1, S, S]`` in {0, 1}, where it is."""
    mask: Tensor
    """``[B, 1, S, S]`` in [0, 1]."""


@dataclass(frozen=True)
class Examples:
    """B test faces, and how each pipeline sees them."""

    photo: Tensor
    """``[B, 3, S, S]``."""
    face: Tensor
    """``[B, 1, S, S]``, the true face, hidden part included."""
    visible: Tensor
    """``[B, 1, S, S]``, its visible part."""
    unoccluded: Tensor
    """``[B, 3, S, S]``, the face alone, as the model renders it; valid in `face`."""
    seen: Mapping[str, Seen]
    """By name."""


@dataclass(frozen=True)
class Report:
    """What is written and shown of an experiment."""

    files: Mapping[str, bytes]
    """End of the name of a file -> content."""
    details: dict[str, Any]
    """For JSON."""
    shown: list[Any]
    """For `rich`."""


@dataclass(frozen=True)
class Pipelines:
    """Results of `table2` or `ablation`."""

    about: Mapping[str, Any]
    """What was run, for JSON and the head of the report."""
    metrics: Mapping[str, Sequence[Metrics]]
    """Name -> for each seed what `focus.experiment.runs.Scores.metrics` holds."""
    results: Sequence[Result]
    """All of them, picture by picture."""
    examples: Examples


@dataclass(frozen=True)
class Sweep:
    """Results of `hyperparameters`."""

    about: Mapping[str, Any]
    """See `Pipelines`."""
    weights: Mapping[str, float]
    """The standard: weight of L_S -> its value."""
    points: Mapping[str, tuple[str, float] | None]
    """Name of a run -> (which weight, factor on it); None: the standard."""
    metrics: Mapping[str, Sequence[Metrics]]
    """See `Pipelines`."""
    results: Sequence[Result]
    examples: Examples


def pipelines_report(data: Pipelines) -> Report:
    """Tables, claims and pictures of several pipelines."""
    rows = {name: average(list(runs)) for name, runs in data.metrics.items()}
    plain: Metrics = {name: row[name] for name, row in rows.items()}
    priors = {name: _prior_rows(name, row, data.results) for name, row in rows.items()}
    findings = _findings(list(rows), data.results)
    reference = "FOCUS" if "FOCUS" in rows else next(iter(rows))
    comparisons = compare([r for r in data.results if not r.method.endswith(PRIOR_SUFFIX)], reference)
    text = "\n".join(
        [
            _head(data.about),
            "Means over the seeds; F1 with its standard deviation over pictures, shape errors over all vertices of all "
            "pictures.\n",
            markdown_table(plain),
            "## Misfit prior\n",
            "Shape error in mm (median, mean, std) without and with it, estimated for every run from "
            f"{data.about['misfit_faces']} other faces. p: two-sided, paired, of the mean error of each picture over "
            "the seeds.\n",
            _prior_markdown(priors),
            *(["## Aims\n", _aims_markdown(plain["FOCUS"], priors["FOCUS"])] if "FOCUS" in rows else []),
            "## Claims\n",
            "A claim holds or fails where the interval over pictures, for these runs, is on one side of 0; the last "
            "interval draws the runs, too.\n",
            findings_markdown(findings) if findings else "None of these pipelines is part of a claim.\n",
            f"## Against {reference}\n",
            comparison_markdown(comparisons).replace("## ", "### "),
        ]
    )
    shown: list[Any] = [terminal_table(plain), Text(), _prior_table(priors), Text()]
    if findings:
        shown += [findings_table(findings), Text()]
    details = {
        **data.about,
        "methods": {name: part for row in rows.values() for name, part in row.items()},
        "misfit_prior": priors,
        "claims": [found.as_dict() for found in findings],
        "comparisons": [comparison.as_dict() for comparison in comparisons],
    }
    files = {
        ".md": text.encode(),
        "-masks.png": encode_png(masks_sheet(data.examples)),
        "-faces.png": encode_png(faces_sheet(data.examples)),
    }
    return Report(files, details, shown)


def masks_sheet(examples: Examples) -> Picture:
    """One face in each row: the photo, the truth, and the mask of every pipeline; what it hides is coloured."""
    rows = []
    for i, photo in enumerate(examples.photo):
        row = [to_picture(photo), overlay_mask(photo, examples.visible[i], examples.face[i])]
        row += [overlay_mask(photo, seen.mask[i], seen.face[i]) for seen in examples.seen.values()]
        rows.append(row)
    return grid(rows, column_labels=_labels(examples, "truth"), cell=128)


def faces_sheet(examples: Examples) -> Picture:
    """One face in each row: the photo, and the true face and the reconstruction of every pipeline laid over it."""
    rows = []
    for i, photo in enumerate(examples.photo):
        row = [to_picture(photo), to_picture(_laid_over(photo, examples.unoccluded[i], examples.face[i]))]
        row += [to_picture(_laid_over(photo, s.image[i], s.face[i])) for s in examples.seen.values()]
        rows.append(row)
    return grid(rows, column_labels=_labels(examples, "true face"), cell=128)


def _laid_over(photo: Tensor, image: Tensor, face: Tensor) -> Tensor:
    return photo * (1 - face) + image * face


def _labels(examples: Examples, *more: str) -> list[str]:
    return ["photo", *more, *(name.removeprefix("Backbone-") for name in examples.seen)]


def _claims(names: Sequence[str]) -> list[Claim]:
    """What the paper reports, of these pipelines."""
    claims = [
        Claim("FOCUS", other, metric)
        for other in ("Pretrained", "Baseline", "Neighbour", "Perceptual", "Deep3D")
        for metric in ("outlier_iou", "f1")
    ]
    claims.append(Claim("FOCUS", "Deep3D", "f1", half="overall"))
    claims += [
        Claim("FOCUS", other, metric)
        for other in ("MoFA", "Backbone-cutmix", "Backbone-cutout")
        for metric in ("shape_error_mm", "appearance_rmse")
    ]
    claims += [Claim(name + PRIOR_SUFFIX, name, "shape_error_mm") for name in names]
    present = {*names, *(name + PRIOR_SUFFIX for name in names)}
    return [claim for claim in claims if {claim.first, claim.second} <= present]


def _findings(names: Sequence[str], results: Sequence[Result]) -> list[Finding]:
    """Every claim over the seeds that both of its pipelines have; without any, it is left out."""
    found = []
    for claim in _claims(names):
        pair = [{r.seed: r for r in results if r.method == name} for name in (claim.first, claim.second)]
        runs = [
            {"occluded": results[0].occluded, "methods": {r[seed].method: r[seed].values for r in pair}}
            for seed in sorted(pair[0].keys() & pair[1].keys())
        ]
        if runs:
            found += check_claims(runs, [claim], same_images=True)
    return found


AIM_F1, AIM_F1_STD, AIM_RATIO = 0.95, 0.05, 1.05
"""What we would like FOCUS to reach: F1 over all pictures, its standard deviation over them at most, and the mean shape
error on occluded faces over that on the same faces without occluder at most."""


def _aims_markdown(row: Mapping[str, Any], prior: Mapping[str, Any]) -> str:
    f1, deviation, ratio = row["overall"]["f1"], row["overall"]["f1_std"], _ratio(prior)
    lines = ["| FOCUS | is | aim | |", "|---|---:|---:|---|"]
    for title, value, aim, good in (
        ("F1, all pictures", f1, f"at least {AIM_F1}", f1 >= AIM_F1),
        ("its standard deviation over pictures", deviation, f"at most {AIM_F1_STD}", deviation <= AIM_F1_STD),
        ("shape error, occluded / unoccluded", ratio, f"at most {AIM_RATIO}", ratio <= AIM_RATIO),
    ):
        lines.append(f"| {title} | {value:.3f} | {aim} | {'reached' if good else 'missed'} |")
    return "\n".join(lines) + "\n"


def _by_picture(results: Sequence[Result], method: str, value: str, half: str) -> NDArray[np.float64]:
    """``[N]``, means over the seeds: the same pictures in several runs are not several pictures."""
    columns = [result.of(value, half) for result in results if result.method == method]
    mean: NDArray[np.float64] = np.mean(columns, axis=0)
    return mean


def _prior_rows(name: str, row: Metrics, results: Sequence[Result]) -> dict[str, Any]:
    """Half -> shape errors without and with the prior, and the tests of their difference."""
    found = {}
    for half in HALVES:
        values = [_by_picture(results, method, "shape_error_mm", half) for method in (name, name + PRIOR_SUFFIX)]
        found[half] = {
            "without_mm": row[name][half]["shape_error_mm"],
            "with_mm": row[name + PRIOR_SUFFIX][half]["shape_error_mm"],
            **paired_tests(*values)._asdict(),
        }
    return found


def _prior_cells(values: Mapping[str, Any]) -> list[str]:
    cells = [f"{values[side][key]:.2f}" for side in ("without_mm", "with_mm") for key in ("median", "mean", "std")]
    return [*cells, f"{values['t_p']:.1g}", f"{values['wilcoxon_p']:.1g}"]


_PRIOR_HEAD = ("median", "mean", "std", "with: median", "mean", "std", "t-test, p", "Wilcoxon, p")


def _ratio(halves: Mapping[str, Any]) -> float:
    """Mean shape error on occluded faces over that on the same faces without occluder."""
    return float(halves["occluded"]["without_mm"]["mean"] / halves["unoccluded"]["without_mm"]["mean"])


def _prior_markdown(priors: Mapping[str, Any]) -> str:
    lines = ["| | " + " | ".join(_PRIOR_HEAD) + " |", "|---|" + "---:|" * len(_PRIOR_HEAD)]
    for half in ("unoccluded", "occluded"):
        lines.append(f"| *{half}* |" + " |" * len(_PRIOR_HEAD))
        lines += [f"| {name} | " + " | ".join(_prior_cells(halves[half])) + " |" for name, halves in priors.items()]
    ratios = ", ".join(f"{name} {_ratio(halves):.3f}" for name, halves in priors.items())
    return "\n".join(lines) + f"\n\nMean shape error on occluded faces over that on unoccluded ones: {ratios}.\n"


def _prior_table(priors: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("shape error, mm, and its misfit prior")
    for title in _PRIOR_HEAD:
        table.add_column(title, justify="right")
    for half in ("unoccluded", "occluded"):
        table.add_row(f"[dim]{half}[/dim]")
        for name, halves in priors.items():
            table.add_row(f"  {name}", *_prior_cells(halves[half]))
    return table


def sweep_report(data: Sweep) -> Report:
    """Table, directions and figure of one weight changed at a time."""
    rows = {name: average(list(runs))[name]["overall"] for name, runs in data.metrics.items()}
    curves = {
        eta: sorted(
            (_factor(point, eta), name) for name, point in data.points.items() if point is None or point[0] == eta
        )
        for eta in ETAS
    }
    directions = {eta: _direction([name for _, name in curves[eta]], data.results) for eta in ETAS}
    head = ("factor", "weight", "ACC", "PPV", "TPR", "F1", "outlier IoU")
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("all pictures")
    for title in head:
        table.add_column(title, justify="right")
    for eta, points in curves.items():
        for factor, name in points:
            cells = [f"{factor:g}", f"{factor * data.weights[eta]:g}", *_score_cells(rows[name])]
            lines.append(f"| {eta}{', standard' if factor == 1 else ''} | " + " | ".join(cells) + " |")
            table.add_row(eta, *cells, style="bold" if factor == 1 else "")
    trend = [
        "| more of | recall at the smallest | at the largest | difference | 95% interval | expected | |",
        "|---|---:|---:|---:|---:|---|---|",
        *(_direction_line(eta, found, directions) for eta, found in directions.items()),
    ]
    text = "\n".join(
        [
            _head(data.about),
            "One weight of L_S at a time, the others at their standard. Scores over all test pictures, means over the "
            "seeds.\n",
            *lines,
            "\n## Directions\n",
            "Recall: the share of the visible face that the masks call face. Pictures paired, the smallest against the "
            "largest value.\n",
            *trend,
            "",
        ]
    )
    details = {
        **data.about,
        "standard": dict(data.weights),
        "runs": {name: {"point": data.points[name], "overall": row} for name, row in rows.items()},
        "directions": {eta: None if d is None else d[2]._asdict() for eta, d in directions.items()},
    }
    return Report({".md": text.encode(), ".png": _sweep_figure(data, curves, rows)}, details, [table])


def _factor(point: tuple[str, float] | None, eta: str) -> float:
    return point[1] if point is not None and point[0] == eta else 1.0


def _score_cells(row: Mapping[str, Any]) -> list[str]:
    f1 = f"{row['f1']:.3f} ± {row['f1_std']:.3f}"
    return [*(f"{row[key]:.3f}" for key in ("accuracy", "precision", "recall")), f1, f"{row['outlier_iou']:.3f}"]


def _direction(names: Sequence[str], results: Sequence[Result]) -> tuple[float, float, Interval] | None:
    """Recall at the smallest and largest value of a weight, and the difference; None where there is one value."""
    if len(names) < 2:
        return None
    low, high = ({r.seed: r.of("recall") for r in results if r.method == name} for name in (names[0], names[-1]))
    seeds = sorted(low.keys() & high.keys())
    if not seeds:
        return None
    first, second = [high[seed] for seed in seeds], [low[seed] for seed in seeds]
    means = (float(np.mean([v.mean() for v in second])), float(np.mean([v.mean() for v in first])))
    return *means, paired_bootstrap(first, second, same_images=True)


def _direction_line(
    eta: str, found: tuple[float, float, Interval] | None, all_found: Mapping[str, tuple[float, float, Interval] | None]
) -> str:
    if found is None:
        return f"| {eta} | | | | | | one value |"
    low, high, change = found
    if eta in _MORE_FACE:
        expected = "falls" if _MORE_FACE[eta] < 0 else "rises"
        verdict = {1: "holds", 0: "open", -1: "fails"}[change.sign * _MORE_FACE[eta]]
    else:
        expected = "moves least"
        others = [abs(d[2].mean) for name, d in all_found.items() if name != eta and d is not None]
        verdict = "holds" if others and abs(change.mean) < min(others) else "fails"
    interval = f"{change.low:+.3f} to {change.high:+.3f}"
    return f"| {eta} | {low:.3f} | {high:.3f} | {change.mean:+.3f} | {interval} | {expected} | {verdict} |"


def _sweep_figure(
    data: Sweep, curves: Mapping[str, Sequence[tuple[float, str]]], rows: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """Scores over each weight, the standard marked, and masks of some faces below (Fig. 4 of the paper), as PNG."""
    most, faces = max(map(len, curves.values())), len(data.examples.photo)
    width, plot = 3.4, 2.7  # inches
    cell = width / most
    figure = require("matplotlib.figure", extra="report", purpose="draw figures").Figure(
        (cell + width * len(ETAS), plot + cell * faces + 0.6), layout="constrained"
    )
    (corner, *top), (beside, *bottom) = figure.subplots(
        2, 1 + len(ETAS), width_ratios=[cell] + [width] * len(ETAS), height_ratios=[plot, cell * faces]
    )
    lowest = min(row[key] for row in rows.values() for key in _CURVES)
    for axes, below, eta in zip(top, bottom, ETAS, strict=True):
        points = curves[eta]
        positions = range(len(points))  # evenly: 0 may be among the values
        for key, title in _CURVES.items():
            values = [rows[name][key] for _, name in points]
            axes.plot(positions, values, "o-", markersize=3.5, linewidth=1.3, label=title)
        labels = [f"{factor * data.weights[eta]:.3g}" for factor, _ in points]
        factors = [factor for factor, _ in points]
        if 1.0 in factors:  # it may have failed
            labels[factors.index(1.0)] += "\nstandard"
            axes.axvline(factors.index(1.0), color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        axes.set_xticks(positions, labels, fontsize=8)
        axes.set_title(f"weight of L_{eta}", fontsize=10)
        axes.set_ylim(max(0.0, lowest - 0.04), 1.005)
        if axes is not top[0]:
            axes.tick_params(labelleft=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        # Each mask below its point.
        _show(below, _mask_strip(data.examples, [name for _, name in points]), len(points), faces)
        axes.set_xlim(-0.5, len(points) - 0.5)
    _show(beside, grid([[to_picture(photo)] for photo in data.examples.photo], cell=96), 1, faces)
    corner.set_axis_off()
    corner.legend(*top[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="center")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def _show(axes: Any, picture: Picture, columns: int, rows: int) -> None:
    axes.imshow(picture, extent=(-0.5, columns - 0.5, 0, rows), aspect="auto", interpolation="antialiased")
    axes.set_axis_off()


def _mask_strip(examples: Examples, names: Sequence[str]) -> Picture:
    """One face in each row, its mask for each value of a weight."""
    return grid(
        [
            [overlay_mask(photo, examples.seen[n].mask[i], examples.seen[n].face[i]) for n in names]
            for i, photo in enumerate(examples.photo)
        ],
        cell=96,
    )


def _head(about: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, about["seeds"]))
    scale = "" if about["scale"] == 1 else f" x {about['scale']:g}"
    commits = ", ".join(m if m.startswith("version") else f"commit {m[:10]}{m[40:]}" for m in about["trained_by"])
    return (
        f"# {about['experiment']}\n\n"
        f"Schedule {about['schedule']}{scale}, seeds {seeds}. Test set {about['subset']}, digest "
        f"`{about['digest'][:16]}`: {about['faces']} faces, each with and without an occluder. Trained by {commits}. "
        f"{about['machine']}.\n"
    )
