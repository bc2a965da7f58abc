"""`focus evaluate checkpoints`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from focus.bounds import COUNT, SEED
from focus.cli.command import Command, Outcome, bars, parse_as
from focus.demo.jobs import build_methods, test_set
from focus.errors import FocusError
from focus.eval import evaluate
from focus.experiment.recipes import title_of
from focus.experiment.training import method_of
from focus.report.files import check_folder
from focus.report.results import write_sealed
from focus.report.tables import terminal_table
from focus.train import Trained, load_trained
from focus.train.distributed import pick_device


@dataclass(kw_only=True)
class Checkpoints(Command):
    """Score trained networks on synthetic test faces, where the truth is known."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Checkpoints to score, with the mask rule of the method that each was trained by."""
    seed: Annotated[int, SEED] = 0
    """Of the test faces."""
    faces: Annotated[int, COUNT] = 500
    """Number of test faces; each is seen once with and once without an occluder."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path | None = None
    """Folder for metrics.json and per_image.json."""

    def run(self) -> Outcome:
        """Scores all of them on the same pictures."""
        if not self.checkpoints:
            raise FocusError("focus evaluate checkpoints: expected at least one checkpoint, got none")
        if self.out is not None:
            check_folder(self.out)
        device = pick_device(self.device)
        loaded = load_alike(self.checkpoints, device)
        first = loaded[0]
        methods = build_methods(first, {})
        methods += [method_of(trained, name) for trained, name in zip(loaded, names_of(loaded), strict=True)]
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
                write_sealed(self.out / "metrics.json", outcome.details),
                write_sealed(self.out / "per_image.json", {"seed": self.seed, **result.per_image()}),
            ]
        return outcome


def load_alike(paths: Sequence[Path], device: torch.device) -> list[Trained]:
    """Networks for one face model and image size.

    Raises:
        FocusError: no usable checkpoint, or one that does not fit the first.
    """
    loaded = [load_trained(path, device=device) for path in paths]
    first = loaded[0]
    for trained in loaded[1:]:
        first.checkpoint.check_model(trained.model)
        if trained.settings.image_size != first.settings.image_size:
            raise FocusError(
                f"{trained.checkpoint.path}: made for {trained.settings.image_size} pixels, "
                f"{first.checkpoint.path} for {first.settings.image_size}; score them one by one"
            )
    return loaded


def names_of(loaded: Sequence[Trained]) -> list[str]:
    """A name for each network: that of its method where no other has it, else with folder and file."""
    titles = [title_of(trained.settings) for trained in loaded]
    paths = [trained.checkpoint.path for trained in loaded]
    names = [
        title if titles.count(title) == 1 else f"{title} {'/'.join(path.parts[-2:])}"
        for title, path in zip(titles, paths, strict=True)
    ]
    # Folders of one name in different places, and the same file twice.
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def parse(arguments: Sequence[str]) -> Checkpoints:
    """Options of `focus evaluate checkpoints`."""
    return parse_as(Checkpoints, "evaluate checkpoints", arguments)
