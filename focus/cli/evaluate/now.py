"""`focus evaluate now`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from focus._optional import require
from focus.bounds import WORKERS
from focus.cli.command import Command, Outcome, bars, named_values, parse_as
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.eval.now import NowDataset, NowEvaluation, NowSettings, draw_curves, evaluate_now, read_image_list
from focus.eval.now.dataset import MILLIMETRES, Unit
from focus.eval.now.evaluate import REFINEMENT_POINTS
from focus.report.files import check_folder, write_together
from focus.report.results import plain


@dataclass(kw_only=True)
class Now(Command):
    """Score meshes against the scans of the NoW challenge (docs/now.md)."""

    scans: Path
    """Folder of scans, SUBJECT/*.obj, or the root of the dataset."""
    landmarks: Path | None = None
    """Folder of the scans' landmarks, SUBJECT/*.pp; by default scans_lmks_onlypp beside the scans, else among them."""
    images: Path
    """List of images, one .../SUBJECT/CHALLENGE/IMAGE.jpg in a line."""
    predictions: tuple[str, ...]
    """NAME=DIR for each method; DIR/SUBJECT/CHALLENGE/IMAGE .obj or .ply, and seven landmarks, .npy or .txt."""
    units: tuple[str, ...] = ()
    """NAME=mm, cm or m: the unit of a method's meshes, mm by default; only counts with --metrical."""
    metrical: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sizes count: do not align the scale."""
    refine: bool = True
    """Minimise the distance of scan and mesh after the landmarks were aligned, as the challenge does."""
    refinement_points: Annotated[int, REFINEMENT_POINTS] = 10_000
    """Most vertices of a scan that the refinement uses; the error always uses all."""
    partial: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave images that cannot be measured out for all methods, and go on."""
    out: Path | None = None
    """Folder for metrics.json, errors.npz and curves.png."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes at a time; by default one for each core."""

    def run(self) -> Outcome:
        """Checks everything first, then measures."""
        predictions = {name: Path(folder) for name, folder in named_values("predictions", self.predictions).items()}
        units = named_values("units", self.units)
        for name, unit in units.items():
            if unit not in MILLIMETRES:
                raise FocusError(f"--units: expected {name}=mm, cm or m, got {name}={unit}")
        settings = NowSettings(
            metrical=self.metrical,
            refine=self.refine,
            refinement_points=self.refinement_points,
            units={name: cast(Unit, unit) for name, unit in units.items()},
        )
        if self.out is not None:
            require("matplotlib", extra="evaluate", purpose="draw cumulative curves")  # before the work, not after it
            check_folder(self.out)
        images = read_image_list(self.images)
        with bars() as update:
            evaluation = evaluate_now(
                NowDataset(self.scans, self.landmarks),
                images,
                predictions,
                settings,
                partial=self.partial,
                workers=self.workers,
                progress=lambda what, done, total: update(what, done, total, ""),
            )
        outcome = Outcome(good=True, details=_details(evaluation, settings), shown=[_table(evaluation)])
        outcome.read = [f"{name}: {folder}" for name, folder in predictions.items()]
        outcome.skipped = [Skip(name, reason) for name, reason in evaluation.skipped]
        outcome.shown += [Text(f"note: {note}") for note in evaluation.notes]
        outcome.shown.append(Text(f"{evaluation.scans_per_second:.2f} scans per second"))
        if self.out is not None:
            outcome.written = write_together(
                self.out,
                {
                    "errors.npz": _errors(evaluation),
                    "curves.png": draw_curves(
                        {method: evaluation.all_errors(method) for method in evaluation.errors},
                        title=f"{_protocol(settings)}, {len(evaluation.images)} images",
                        published=self.refine and not self.metrical,
                    ),
                    "metrics.json": (json.dumps(plain(outcome.details), indent=1, allow_nan=False) + "\n").encode(),
                },
            )
        return outcome


def _protocol(settings: NowSettings) -> str:
    kind = "NoW protocol, metrical" if settings.metrical else "NoW protocol"
    return kind if settings.refine else f"{kind}, landmarks only"


def _details(evaluation: NowEvaluation, settings: NowSettings) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for method, errors in evaluation.errors.items():
        rows = {name: evaluation.summary(method, name) for name in evaluation.challenges()}
        images = [
            {
                "name": image.name,
                "vertices": len(values),
                "median": float(np.median(values)),
                "mean": float(values.mean(dtype=np.float64)),
                "std": float(values.std(dtype=np.float64)),
            }
            for image, values in zip(evaluation.images, errors, strict=True)
        ]
        methods[method] = {"all": evaluation.summary(method), "challenges": rows, "images": images}
    return {
        "unit": "mm",
        "metrical": settings.metrical,
        "refine": settings.refine,
        "refinement_points": settings.refinement_points,
        "methods": methods,
        "notes": list(evaluation.notes),
        "left_out": [{"image": image, "reason": reason} for image, reason in evaluation.skipped],
        "scans_per_second": evaluation.scans_per_second,
    }


def _table(evaluation: NowEvaluation) -> Table:
    table = Table("method", "images", "number", "vertices", "median mm", "mean mm", "std mm", box=None, pad_edge=False)
    table.header_style = "dim"
    challenges = evaluation.challenges()
    for method in evaluation.errors:
        for name in [None, *challenges] if len(challenges) > 1 else [None]:
            row = evaluation.summary(method, name)
            figures = (f"{row[key]:.3f}" for key in ("median", "mean", "std"))
            table.add_row(
                Text(method if name is None else ""),
                name or "all",
                f"{row['images']:.0f}",
                f"{row['vertices']:,.0f}",
                *figures,
            )
    return table


def _errors(evaluation: NowEvaluation) -> bytes:
    """images ``[N]``, and for each method its errors, one image after the other, with where each of them begins."""
    arrays: dict[str, NDArray[Any]] = {"images": np.array([image.name for image in evaluation.images])}
    lengths = [len(values) for values in next(iter(evaluation.errors.values()))]
    # The scans decide how many vertices are measured: the bounds are those of every method.
    arrays["bounds"] = np.concatenate([[0], np.cumsum(lengths)])
    for method in evaluation.errors:
        arrays[f"errors {method}"] = evaluation.all_errors(method)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def parse(arguments: Sequence[str]) -> Now:
    """Options of `focus evaluate now`."""
    return parse_as(Now, "evaluate now", arguments)
