"""`focus evaluate misfit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table
from rich.text import Text

from focus.bounds import COUNT, SEED, Within
from focus.cli.command import Command, Outcome, bars, parse_as, say
from focus.cli.evaluate.checkpoints import load_alike, names_of
from focus.cli.faces import load_face
from focus.data.synthetic import SyntheticFaces
from focus.demo.jobs import test_set
from focus.errors import FocusError
from focus.eval.benchmark import TEST_SEED_OFFSET
from focus.eval.misfit import ESTIMATION_SEED_OFFSET, estimate_misfit
from focus.eval.misfit_gain import scan_gain, vertex_gain
from focus.face import MorphableModel
from focus.report.files import check_folder, write_together
from focus.report.misfit import misfit_figure
from focus.report.results import write_json
from focus.train import Trained
from focus.train.distributed import pick_device


@dataclass(kw_only=True)
class Misfit(Command):
    """Estimate what a network gets wrong about every face, and test taking it off (FOCUS-MP)."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Trained networks; a prior is estimated and tested for each."""
    faces: Annotated[int, COUNT] = 1000
    """To estimate from."""
    test_faces: Annotated[int, Within(2, COUNT.high)] = 500
    """To test on: the test faces of focus evaluate checkpoints, with something in front of them."""
    seed: Annotated[int, SEED] = 0
    """Of both; the two sets have no face in common."""
    test_model: str | None = None
    """Also test on faces of another model, such as an ICT-FaceKit file: by the protocol of NoW, scan to mesh."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path
    """Folder for NAME.misfit.safetensors, NAME.misfit.png and misfit.json."""

    def run(self) -> Outcome:
        """Estimates, saves, draws and tests."""
        if not self.checkpoints:
            raise FocusError("focus evaluate misfit: expected at least one checkpoint, got none")
        check_folder(self.out)
        device = pick_device(self.device)
        loaded = load_alike(self.checkpoints, device)
        other = None if self.test_model is None else load_face(self.test_model)
        outcome = Outcome(read=[str(path) for path in self.checkpoints])
        self.so_far = lambda: outcome
        table = Table(box=None, pad_edge=False, header_style="dim")
        title = "median, mean, std of shape error, mm"
        for column in (title, "without", "with", "better on", "paired t, p", "Wilcoxon, p"):
            table.add_column(column, justify="left" if column == title else "right")
        names = names_of(loaded)
        with bars() as update:
            for trained, name, stem in zip(loaded, names, _stems(names), strict=True):
                row = self._one(trained, name, stem, other, device, outcome, update)
                for where, values in row["tests"].items():
                    table.add_row(
                        Text(f"{name}, {where}"),
                        _summary(values["without_vertices_mm"]),
                        _summary(values["with_vertices_mm"]),
                        f"{100 * values['better']:.0f}%",
                        f"{values['t_p']:.2g}",
                        f"{values['wilcoxon_p']:.2g}",
                    )
                outcome.details[name] = row
        outcome.shown = [table]
        outcome.written.append(write_json(self.out / "misfit.json", outcome.details))
        return outcome

    def _one(
        self,
        trained: Trained,
        name: str,
        stem: str,
        other: MorphableModel | None,
        device: torch.device,
        outcome: Outcome,
        update: Callable[[str, float, float, str], None],
    ) -> dict[str, Any]:
        settings, reconstruct = trained.settings, trained.networks.reconstruction
        faces = SyntheticFaces(
            trained.model, settings.image_size, ESTIMATION_SEED_OFFSET + self.seed, settings.data.synthetic
        )
        prior = estimate_misfit(
            reconstruct,
            faces,
            self.faces,
            source=f"{name}, {trained.checkpoint.path.name}",
            device=device,
            progress=lambda done, total: update(f"{name}: faces", done, total, ""),
        )
        tests = {
            "the same model": vertex_gain(reconstruct, prior, test_set(trained, self.seed), self.test_faces, device)
        }
        if other is not None:
            world = SyntheticFaces(other, settings.image_size, TEST_SEED_OFFSET + self.seed, settings.data.synthetic)
            progress: Callable[[int, int], None] = lambda done, total: update(f"{name}: scans", done, total, "")  # noqa: E731
            tests[other.name] = scan_gain(reconstruct, prior, trained.model, world, self.test_faces, device, progress)
        length = prior.offsets.norm(dim=1)
        say(f"{name}: mean length of the misfit {float(length.mean()):.3f} mm, at most {float(length.max()):.3f}")
        title = f"{name}: misfit over {self.faces} faces, mean length {float(length.mean()):.2f} mm"
        outcome.written.append(prior.save(self.out / f"{stem}.misfit.safetensors"))
        outcome.written += write_together(
            self.out, {f"{stem}.misfit.png": misfit_figure(trained.model, prior.offsets, title)}
        )
        return {
            "faces": self.faces,
            "seed": self.seed,
            "mean_length_mm": float(length.mean()),
            "largest_length_mm": float(length.max()),
            "tests": {where: gain.as_dict() for where, gain in tests.items()},
        }


def _stems(names: Sequence[str]) -> list[str]:
    """Of the files of each: letters, digits and ``-_.`` of its name, and a number where two would be the same."""
    stems: list[str] = []
    for name in names:
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        number, free = 1, stem
        while free in stems:
            number += 1
            free = f"{stem}-{number}"
        stems.append(free)
    return stems


def _summary(vertices: Mapping[str, float]) -> str:
    return ", ".join(f"{vertices[name]:.3f}" for name in ("median", "mean", "std"))


def parse(arguments: Sequence[str]) -> Misfit:
    """Options of `focus evaluate misfit`."""
    return parse_as(Misfit, "evaluate misfit", arguments)
