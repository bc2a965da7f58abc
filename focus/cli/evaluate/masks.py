"""`focus evaluate masks`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from focus import limits
from focus.cli.command import Command, Outcome, parse_as
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.eval.benchmark import mask_values
from focus.eval.mask_files import find_pictures, mask_of, read_mask, read_true_mask, refuse_labels
from focus.eval.results import Result, append_results, known_results
from focus.eval.testset import refuse_name
from focus.experiment.provenance import commit
from focus.files import digest_input
from focus.report.files import check_folder
from focus.report.results import write_json


@dataclass(kw_only=True)
class Masks(Command):
    """Score a folder of masks against true masks."""

    masks: tyro.conf.Positional[Path]
    """Folder of masks: bright = the face is seen; NAME_mask.png, as focus reconstruct writes them, will do."""
    truth: Path
    """Folder of true masks with the same file stems."""
    region: Path | None = None
    """Folder of the pixels that count, usually the rendered face; by default the whole picture."""
    name: str | None = None
    """Of the program whose masks these are, in results; by default the name of their folder."""
    out: Path | None = None
    """Folder for metrics.json, and for results.jsonl (added to what is there), which focus evaluate compare reads."""

    def run(self) -> Outcome:
        """Scores every mask that has a true one."""
        before: set[tuple[str, int, str, int, str]] = set()
        if self.out is not None:
            refuse_name(self.truth)
            before = {result.key for result in known_results(check_folder(self.out) / "results.jsonl")}
        predicted, true = find_pictures(self.masks), find_pictures(self.truth)
        region = None if self.region is None else find_pictures(self.region)
        outcome = Outcome(good=True)
        images: list[dict[str, Any]] = []
        stems: list[str] = []
        pairs = {stem: path for stem in true if (path := mask_of(predicted, stem)) is not None}
        name, brightest = self.name or self.masks.resolve().name, 0
        for stem, path in pairs.items():
            try:
                mask = read_mask(path)
                images.append({"name": path.name, **_mask_values(mask, true[stem], region, stem)})
                stems.append(stem)
                brightest = max(brightest, int(mask.max()))
                outcome.read.append(str(path))
            except FocusError as error:
                outcome.skipped.append(Skip(path.name, str(error)))
        used = {*pairs.values(), *(overlay for stem in pairs if (overlay := predicted.get(f"{stem}_overlay")))}
        outcome.skipped += [
            Skip(path.name, "no true mask of this name") for path in predicted.values() if path not in used
        ]
        outcome.skipped += [Skip(true[s].name, "no predicted mask of this name") for s in true if s not in pairs]
        if not images:
            outcome.good = False
            return outcome
        refuse_labels(name, brightest)
        keys = [key for key in images[0] if key != "name"]
        means = {key: float(np.mean([image[key] for image in images])) for key in keys}
        means["f1_std"] = float(np.std([image["f1"] for image in images]))
        table = Table("mean of", *keys, box=None, pad_edge=False, header_style="dim")
        table.add_row(f"{len(images)} masks", *(f"{means[key]:.3f}" for key in keys))
        outcome.shown, outcome.details = [table], {"mean": means, "images": images}
        if self.out is not None:
            result = self._result(name, stems, images, true)
            if result.key in before:
                outcome.shown.append(Text(f"note: takes the place of the results of {name} of before (--name)"))
            outcome.written = [
                append_results(self.out / "results.jsonl", [result]),
                write_json(self.out / "metrics.json", outcome.details),
            ]
        return outcome

    def _result(
        self, name: str, stems: Sequence[str], images: Sequence[dict[str, Any]], true: dict[str, Path]
    ) -> Result:
        # A region is usually each method's own, so its pixels are no part of what names the test set.
        counted = "everything" if self.region is None else "a region"
        content = [[stem, digest_input(true[stem], limits.IMAGE_FILE)] for stem in stems]
        return Result(
            method=name,
            seed=0,
            subset=self.truth.resolve().name,
            version=0,
            digest=hashlib.sha256(json.dumps([counted, content]).encode()).hexdigest(),
            commit=commit(),
            names=tuple(stems),
            occluded=(),
            occluder=(),
            yaw=(),
            values={key: tuple(image[key] for image in images) for key in images[0] if key != "name"},
        )


def _mask_values(mask: NDArray[np.uint8], true: Path, region: dict[str, Path] | None, stem: str) -> dict[str, float]:
    if region is not None and stem not in region:
        raise FocusError("no region of this name")
    predicted, visible = _tensor(mask), (_tensor(read_true_mask(true)) >= 0.5).float()
    counted = torch.ones_like(visible) if region is None else (_tensor(read_true_mask(region[stem])) >= 0.5).float()
    if not predicted.shape == visible.shape == counted.shape:
        sizes = [f"{mask.shape[3]} x {mask.shape[2]}" for mask in (predicted, visible, counted)]
        raise FocusError(f"mask, true mask and region differ in size: {', '.join(sizes)}")
    return {name: float(value) for name, value in mask_values(predicted, visible, counted).items()}


def _tensor(mask: NDArray[np.uint8]) -> torch.Tensor:
    """``[1, 1, H, W]`` in [0, 1]."""
    return torch.from_numpy(mask).float()[None, None] / 255


def parse(arguments: Sequence[str]) -> Masks:
    """Options of `focus evaluate masks`."""
    return parse_as(Masks, "evaluate masks", arguments)
