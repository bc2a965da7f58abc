"""One training run in a process of its own: fresh, or from where it was stopped."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from focus import parallel
from focus.errors import FocusError
from focus.eval.benchmark import Method, mean_face, whole_face
from focus.train.checkpoint import Trained
from focus.train.config import LogSettings, Settings
from focus.train.log import RunLogger
from focus.train.methods import mask_rule
from focus.train.run import train
from focus.train.schedule import Turn
from focus.train.trainer import Trainer

DISTINCT_FACES = 4000
"""Training faces: drawing one costs as much as training on it, and a few rounds over this many do not wear them out."""


def short_schedule(initial: Path, seed: int, training: Settings | None = None) -> Settings:
    """A run from trained initial weights on one core, minutes long.

    Args:
        initial: checkpoint of the initial weights.
        seed: of faces and of the segmentation network's first weights.
        training: what it is made of; None: the preset `small`.
    """
    base = replace(training or Settings.preset("small"), seed=seed, threads=1, workers=0)
    data, stages = replace(base.data, distinct=DISTINCT_FACES), replace(base.stages, initialise=0)
    return replace(base, start=initial, data=data, stages=stages)


class JobLogger(RunLogger):
    """Writes the files of a run, and tells progress to the process that shows it."""

    def __init__(self, report: parallel.Report, folder: Path, settings: LogSettings, step: int = 0) -> None:
        super().__init__(folder, replace(settings, pictures=0, tensorboard="off"), step=step)
        self._report = report

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """To the parent."""
        self._report((step, total, text))

    def message(self, text: str) -> None:
        """Into a file of the run."""
        with contextlib.suppress(OSError), open(self.folder / "messages.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")


def train_run(
    report: parallel.Report,
    settings: Settings,
    folder: Path,
    *,
    after_turn: Callable[[Trainer, Turn], None] | None = None,
) -> None:
    """Trains to the end; goes on with a run of the same settings that the folder holds.

    Raises:
        FocusError: as `focus.train.train`, or a signal ended the run.
    """
    make_logger = functools.partial(JobLogger, report)
    if not train(settings, folder, resume=True, after_turn=after_turn, make_logger=make_logger):
        raise FocusError("stopped by a signal")


def method_of(trained: Trained, name: str) -> Method:
    """A trained network with the mask rule of the method that it was trained by."""
    settings, networks = trained.settings, trained.networks
    robust = settings.robust
    rule = mask_rule(settings.method, networks.segmentation, sigma=robust.sigma, cutoff=robust.cutoff)
    return Method(name, networks.reconstruction, rule)


def mean_face_of(trained: Trained, name: str = "MeanFace") -> Method:
    """Nothing learnt: the mean face in the pose and light that a network finds, and no mask."""
    return Method(name, mean_face(trained.networks.reconstruction), whole_face)
