"""`focus evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.table import Table
from rich.text import Text

from focus.cli.command import Command, Outcome, bars, parse_as
from focus.data.images import read_image
from focus.data.landmarks import Skip
from focus.demo.jobs import TRAINED, build_methods, method_of, test_set
from focus.errors import FocusError
from focus.eval import evaluate, mask_scores, outlier_iou
from focus.eval.claims import check_claims
from focus.report.results import read_json, write_json, write_text
from focus.report.tables import average, findings_markdown, findings_table, markdown_table, terminal_table
from focus.train import Trained, load_trained
from focus.train.run import pick_device

_RUN_FILES = ("metrics.json", "per_image.json")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(kw_only=True)
class Evaluate(Command):
    """Score checkpoints on the synthetic benchmark, masks against true masks, or runs of the demo together."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Checkpoints to score on synthetic test faces, with the mask rule of the method that each was trained by."""
    seed: int = 0
    """Of the test faces."""
    faces: int = 500
    """Number of test faces; each is seen once with and once without an occluder."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    runs: tuple[Path, ...] = ()
    """In place of checkpoints: folders of focus demo, for a table and claims over all of them."""
    masks: Path | None = None
    """In place of checkpoints: folder of masks (bright = the face is seen), to compare with --truth."""
    truth: Path | None = None
    """Folder of true masks with the same file stems."""
    region: Path | None = None
    """Folder of the pixels that count, usually the rendered face; by default the whole picture."""
    out: Path | None = None
    """Folder for metrics.json, and for results.md of several runs."""

    def run(self) -> Outcome:
        """Does the one of the three that was asked for."""
        chosen: list[Callable[[], Outcome]] = []
        if self.checkpoints:
            chosen.append(self._score_checkpoints)
        if self.runs:
            chosen.append(self._pool_runs)
        if self.masks is not None or self.truth is not None:
            chosen.append(self._compare_masks)
        if len(chosen) != 1:
            raise FocusError(
                "focus evaluate: expected either checkpoints, or --runs, or --masks and --truth, "
                f"got {len(chosen) or 'none'} of them"
            )
        return chosen[0]()

    def _score_checkpoints(self) -> Outcome:
        device = pick_device(self.device)
        loaded = [load_trained(path, device=device) for path in self.checkpoints]
        first = loaded[0]
        for trained in loaded[1:]:
            first.checkpoint.check_model(trained.model)
            if trained.settings.image_size != first.settings.image_size:
                raise FocusError(
                    f"{trained.checkpoint.path}: made for {trained.settings.image_size} pixels, "
                    f"{first.checkpoint.path} for {first.settings.image_size}; score them one by one"
                )
        names = _names(loaded)
        methods = build_methods(first, {})
        methods += [method_of(trained, name) for trained, name in zip(loaded, names, strict=True)]
        with bars() as update:
            result = evaluate(
                methods,
                test_set(first, self.seed),
                self.faces,
                device=device,
                progress=lambda done, total: update("test pictures", done, total, ""),
            )
        metrics = result.metrics()
        outcome = Outcome(read=[str(path) for path in self.checkpoints], good=True, shown=[terminal_table(metrics)])
        outcome.details = {"seed": self.seed, "methods": metrics}
        if self.out is not None:
            outcome.written = [
                write_json(self.out / "metrics.json", outcome.details),
                write_json(self.out / "per_image.json", {"seed": self.seed, **result.per_image()}),
            ]
        return outcome

    def _pool_runs(self) -> Outcome:
        tables, images = ([read_json(folder / name) for folder in self.runs] for name in _RUN_FILES)
        try:
            metrics, findings = average([table["methods"] for table in tables]), check_claims(images)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise FocusError(
                f"focus evaluate: --runs: expected {' and '.join(_RUN_FILES)} of one version of focus demo in each "
                f"folder, got something else ({error!r}); run the demo again"
            ) from error
        outcome = Outcome(
            read=[str(folder) for folder in self.runs],
            good=True,
            shown=[terminal_table(metrics), Text(), findings_table(findings)],
            details={"methods": metrics, "claims": [found.as_dict() for found in findings]},
        )
        if self.out is not None:
            text = f"{markdown_table(metrics)}\n{findings_markdown(findings)}"
            outcome.written = [
                write_json(self.out / "metrics.json", outcome.details),
                write_text(self.out / "results.md", text),
            ]
        return outcome

    def _compare_masks(self) -> Outcome:
        if self.masks is None or self.truth is None:
            raise FocusError("focus evaluate: --masks and --truth belong together: give both")
        predicted, true = _pictures(self.masks), _pictures(self.truth)
        region = None if self.region is None else _pictures(self.region)
        outcome = Outcome(good=True)
        images: list[dict[str, Any]] = []
        for stem, path in sorted(predicted.items()):
            try:
                images.append({"name": path.name, **_mask_values(path, true.get(stem), region, stem)})
                outcome.read.append(str(path))
            except FocusError as error:
                outcome.skipped.append(Skip(path.name, str(error)))
        missing = sorted(set(true) - set(predicted))
        outcome.skipped += [Skip(true[stem].name, "no predicted mask of this name") for stem in missing]
        if not images:
            outcome.good = False
            return outcome
        keys = [key for key in images[0] if key != "name"]
        means = {key: float(np.mean([image[key] for image in images])) for key in keys}
        means["f1_std"] = float(np.std([image["f1"] for image in images]))
        table = Table("mean of", *keys, box=None, pad_edge=False, header_style="dim")
        table.add_row(f"{len(images)} masks", *(f"{means[key]:.3f}" for key in keys))
        outcome.shown, outcome.details = [table], {"mean": means, "images": images}
        if self.out is not None:
            outcome.written = [write_json(self.out / "metrics.json", outcome.details)]
        return outcome


def _names(loaded: Sequence[Trained]) -> list[str]:
    """The names of the table where each method comes once, else with the path."""
    titles = {method: title for title, method in TRAINED.items()}
    own = [titles[trained.settings.method] for trained in loaded]
    return [
        name if own.count(name) == 1 else f"{name} {trained.checkpoint.path}"
        for name, trained in zip(own, loaded, strict=True)
    ]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FocusError(f"{folder}: no such folder of masks")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURES}
    if not found:
        raise FocusError(f"{folder}: expected pictures ({', '.join(_PICTURES)}), found none")
    return found


def _mask_values(path: Path, true: Path | None, region: dict[str, Path] | None, stem: str) -> dict[str, float]:
    if true is None:
        raise FocusError("no true mask of this name")
    if region is not None and stem not in region:
        raise FocusError("no region of this name")
    predicted, visible = _read_mask(path), (_read_mask(true) >= 0.5).float()
    counted = torch.ones_like(visible) if region is None else (_read_mask(region[stem]) >= 0.5).float()
    if not predicted.shape == visible.shape == counted.shape:
        sizes = [f"{mask.shape[3]} x {mask.shape[2]}" for mask in (predicted, visible, counted)]
        raise FocusError(f"mask, true mask and region differ in size: {', '.join(sizes)}")
    scores = mask_scores(predicted, visible, counted)._asdict()
    return {
        **{name: float(value) for name, value in scores.items()},
        "outlier_iou": float(outlier_iou(predicted, visible, counted)),
    }


def _read_mask(path: Path) -> torch.Tensor:
    """``[1, 1, H, W]`` in [0, 1]."""
    return torch.from_numpy(read_image(path)).float().mean(dim=2)[None, None] / 255


def parse(arguments: Sequence[str]) -> Evaluate:
    """Options of `focus evaluate`."""
    return parse_as(Evaluate, "evaluate", arguments)
