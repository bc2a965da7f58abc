"""`focus evaluate pose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table
from rich.text import Text

from focus.bounds import Within
from focus.cli.command import Command, Outcome, parse_as
from focus.errors import FocusError
from focus.eval.comparison import by_yaw, runs_of
from focus.eval.misfit import PRIOR_SUFFIX
from focus.eval.results import Result, read_results
from focus.report.comparison import join_equal, yaw_figure
from focus.report.files import write_together
from focus.report.results import write_json


@dataclass(kw_only=True)
class Pose(Command):
    """Errors over the yaw of the face, with and without something in front of it."""

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files of results (results.jsonl)."""
    subset: str = "general"
    """Of the test set; large_pose has faces at all angles."""
    value: Literal["shape_error_mm", "appearance_rmse", "f1", "outlier_iou"] = "shape_error_mm"
    """What is drawn."""
    width: Annotated[float, Within(1, 180)] = 10.0
    """Of a bin, degrees, 1 to 180."""
    methods: tuple[str, ...] = ()
    """To draw, by name; by default all but those with a misfit prior taken off (NAME-MP)."""
    out: Path
    """Folder for pose.json and pose.png."""

    def run(self) -> Outcome:
        """Bins the faces of every method, each face with its mean over the training seeds."""
        if not self.results:
            raise FocusError("focus evaluate pose: expected at least one file of results, got none")
        found = [result for path in self.results for result in read_results(path)]
        names = list(dict.fromkeys(result.method for result in found))
        unknown = sorted(set(self.methods) - set(names))
        if unknown:
            raise FocusError(f"focus evaluate pose: methods: expected some of {', '.join(names)}, got {unknown}")
        chosen = self.methods or [name for name in names if not name.endswith(PRIOR_SUFFIX)]
        methods: dict[str, list[Result]] = {}
        for result in found:
            if result.subset == self.subset and self.value in result.values and result.yaw and result.method in chosen:
                methods.setdefault(result.method, []).append(result)
        if not methods:
            have = ", ".join(sorted({result.subset for result in found}))
            raise FocusError(
                f"focus evaluate pose: no result of the subset {self.subset!r} with {self.value} and known yaw; there "
                f"are {have}"
            )
        missing = sorted(set(self.methods) - set(methods))
        if missing:
            raise FocusError(
                f"focus evaluate pose: methods: {', '.join(missing)} with no result of the subset {self.subset!r} with "
                f"{self.value} and known yaw; evaluate them on it, or leave them out"
            )
        runs = [result for of_method in methods.values() for result in of_method]
        runs_of(runs)  # refuses what was measured on other pictures, or comes twice
        halves = [half for half in ("unoccluded", "occluded") if all(result.half(half).any() for result in runs)]
        if not halves:
            raise FocusError(
                f"focus evaluate pose: nobody said which pictures of {self.subset!r} are occluded; expected results on "
                "the test set"
            )
        curves = {
            half: {method: by_yaw(of_method, self.value, half, self.width) for method, of_method in methods.items()}
            for half in halves
        }
        outcome = Outcome(read=[str(path) for path in self.results])
        for half, of_half in join_equal(curves).items():
            table = Table(half, "yaw", "faces", "mean", "std", box=None, pad_edge=False, header_style="dim")
            for method, bins in of_half.items():
                for part in bins:
                    span = f"{part.low:+.0f} to {part.low + part.width:+.0f}"
                    table.add_row(Text(method), span, str(part.count), f"{part.mean:.3f}", f"{part.deviation:.3f}")
            outcome.shown.append(table)
        outcome.details = {
            "subset": self.subset,
            "value": self.value,
            "bins": {h: {m: [asdict(part) for part in bins] for m, bins in c.items()} for h, c in curves.items()},
        }
        picture = yaw_figure(curves, self.value)
        outcome.written = [write_json(self.out / "pose.json", outcome.details)]
        outcome.written += write_together(self.out, {"pose.png": picture})
        return outcome


def parse(arguments: Sequence[str]) -> Pose:
    """Options of `focus evaluate pose`."""
    return parse_as(Pose, "evaluate pose", arguments)
