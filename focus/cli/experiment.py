"""`focus experiment`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.text import Text

from focus.bounds import COUNT, SCALE, SEED, WORKERS
from focus.cli import choose
from focus.cli.command import Command, Outcome, parse_as, say, shown_progress
from focus.experiment import EXPERIMENTS as CHOICES
from focus.experiment import ExperimentSettings, run_experiment
from focus.experiment.run import FACTOR
from focus.experiment.runs import FACES, TestSettings


@dataclass(kw_only=True)
class Experiment(Command):
    """What the experiments have in common."""

    out: Path
    """Folder of the results. Trained runs are kept there in runs/: an experiment that was stopped goes on, and others
    with the same folder use them, too."""
    seeds: Annotated[tuple[int, ...], SEED] = (0, 1, 2)
    """Of training."""
    schedule: Literal["small", "paper", "official"] = "small"
    """small: minutes a run on one core, from shared initial weights; paper, official: as published, for a card."""
    scale: Annotated[float, SCALE] = 1.0
    """Factor on the iterations: 0.1 for a quick look, with weak results."""
    initial: Path | None = None
    """Checkpoint that all runs start from; by default the one that ships, or for the long schedules one that is
    trained first."""
    model: str = "procedural"
    """Face model: procedural, or a model file. Another one than that of the shipped network needs --initial."""
    arcface: Path | None = None
    """ArcFace weights for the recognition features; by default the filter bank, which needs none."""
    imagenet: Path | None = None
    """ImageNet weights for the trunk of the reconstruction network, where initial weights are trained first."""
    subset: str = "general"
    """Of the fixed test set: general, extreme_light, skin_coloured or large_pose."""
    faces: Annotated[int, FACES] = 500
    """Of the subset; each is seen once with and once without an occluder."""
    misfit_faces: Annotated[int, COUNT] = 500
    """Other faces, that the misfit prior of a run is estimated from."""
    workers: Annotated[int | None, WORKERS] = None
    """Runs at a time; by default one for each core, or one on a card."""
    device: str = "cpu"
    """Where to train: cpu, cuda or auto."""

    def _run(self, name: str, **more: Any) -> Outcome:
        settings = ExperimentSettings(
            name=name,
            out=self.out,
            seeds=self.seeds,
            schedule=self.schedule,
            scale=self.scale,
            initial=self.initial,
            model=self.model,
            arcface=self.arcface,
            imagenet=self.imagenet,
            test=TestSettings(self.subset, self.faces, self.misfit_faces),
            workers=self.workers,
            device=self.device,
            **more,
        )
        with shown_progress() as progress:
            result = run_experiment(settings, progress=progress, message=say)
        outcome = Outcome(shown=result.shown, written=result.written, skipped=result.failed, details=result.details)
        outcome.shown.append(Text(f"{result.details['minutes']:.1f} minutes"))
        outcome.good = not result.failed
        return outcome


@dataclass(kw_only=True)
class _Pipelines(Experiment):
    recipes: tuple[str, ...] = ()
    """Pipelines to compare, such as FOCUS MoFA Backbone-cutmix; by default all of the experiment."""


@dataclass(kw_only=True)
class Table2(_Pipelines):
    """Every compared pipeline, with and without its misfit prior (Table 2 of the paper)."""

    def run(self) -> Outcome:
        """Trains, scores and compares."""
        return self._run("table2", recipes=self.recipes)


@dataclass(kw_only=True)
class Ablation(_Pipelines):
    """What each term of the segmentation loss is good for (Figs. 9 to 11 of the paper)."""

    def run(self) -> Outcome:
        """Trains, scores and compares."""
        return self._run("ablation", recipes=self.recipes)


@dataclass(kw_only=True)
class Hyperparameters(Experiment):
    """Each weight of the segmentation loss made smaller and larger, one at a time (Fig. 4 of the paper)."""

    factors: Annotated[tuple[float, ...], FACTOR] = (0.25, 0.5, 2.0, 4.0)
    """On each weight; the standard, 1, is always among them."""

    def run(self) -> Outcome:
        """Trains, scores and compares."""
        return self._run("hyperparameters", factors=self.factors)


_KINDS: dict[str, type[Experiment]] = {"table2": Table2, "ablation": Ablation, "hyperparameters": Hyperparameters}


def parse(arguments: Sequence[str]) -> Experiment:
    """Options of the chosen experiment. Without one, or with ``--help``, prints what there is and ends the process."""
    name, rest = choose("focus experiment", "The tables and figures of the paper.", CHOICES, arguments)
    return parse_as(_KINDS[name], f"experiment {name}", rest)
