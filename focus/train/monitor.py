"""Watching a run: means of what its iterations gave, masks that collapse, and signals that end it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from focus.train.config import GuardSettings
from focus.train.distributed import place, total


class Window:
    """Sums of values over iterations, on their device: nothing waits for the device until they are read."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._started = 0.0
        self.waited = 0.0
        """Seconds."""

    @contextlib.contextmanager
    def waiting(self, *, idle: bool) -> Iterator[None]:
        """Inside, nothing is computed, if nothing is left for the device to do."""
        begin = time.perf_counter()
        yield
        self.waited += (time.perf_counter() - begin) * idle

    def start(self) -> None:
        """Called before each iteration; the first call starts the clock."""
        if not self.count:
            self._started = time.perf_counter()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Scalars of one iteration. One that is not finite makes the mean so, however many follow."""
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Means over the iterations that gave a value, and over the processes."""
        if not self._sums:
            return {}
        sums = total(torch.stack(list(self._sums.values())).float()).tolist()
        size = place()[1]
        return {name: value / (self._counts[name] * size) for name, value in zip(self._sums, sums, strict=True)}

    def seconds(self) -> float:
        """Per iteration; to be asked after `means`, which waits for the device."""
        return (time.perf_counter() - self._started) / max(self.count, 1)


EMPTY_MASK = 0.1
"""A mask that keeps less of the rendered face than this is empty. No occluder hides so much of a face that can still be
fitted: in the synthetic world at least a third stays to be seen."""

EMPTY_IMAGES = 0.1
"""More than this part of the images with an empty mask is a collapse, whatever the mean of all masks is."""


def empty_images(mask: Tensor, face: Tensor) -> Tensor:
    """Part of the images whose mask is empty, a scalar without gradient; a face outside the picture is not counted.

    Args:
        mask: ``[B, 1, S, S]`` in [0, 1].
        face: ``[B, 1, S, S]``, the rendered faces.
    """
    area = face.sum(dim=(1, 2, 3))
    empty = ((mask * face).sum(dim=(1, 2, 3)) < EMPTY_MASK * area) & (area > 0)
    return empty.to(mask).mean().detach()


class MaskGuard:
    """Notices masks that call everything face, or nothing, on all images or on many of them.

    The mean alone does not show the second: where hiding a pixel costs too little, L_S decides for each image, by how
    well its reconstruction fits, between a good mask and a black one, and a mean of 0.6 looks healthy.

    Args:
        settings: the limits. A lowest mean of 0 allows images without a mask, too.
        highest: whether the masks are learnt by L_S, and there is an upper limit; masks by the outlier-robust rule may
            well keep the whole face.
    """

    def __init__(self, settings: GuardSettings, *, highest: bool) -> None:
        self.settings, self._learnt = settings, highest
        self._window = Window()
        self._means: dict[str, float] = {}

    def add(self, mask: Tensor, empty: Tensor | None = None) -> None:
        """Of one iteration: the mean mask inside the rendered face and, where it is known, the part of empty images."""
        self._window.add({"mask": mask} if empty is None else {"mask": mask, "empty": empty})
        if self._window.count == self.settings.window:
            self._means = self._window.means()
            self._window = Window()

    def problem(self) -> str | None:
        """What is wrong with the last whole window and what to change; None if all is well."""
        limits = self.settings
        if not self._means:
            return None
        mean, empty = self._means["mask"], self._means.get("empty", 0.0)
        if self._learnt and mean > limits.highest:
            what = f"above {limits.highest} (guard.highest): everything is called face"
            remedy = (
                "Lower segmentation_weights.area, then preserve, or raise its neighbor or distance, ramp its binary "
                "(binary_ramp); if nothing hides these faces, set guard.highest to 1."
            )
        elif not mean >= limits.lowest:
            what = f"below {limits.lowest} (guard.lowest): everything is called hidden"
            remedy = self._remedy_for_hidden()
        elif self._learnt and limits.lowest > 0 and empty > EMPTY_IMAGES:
            what = (
                f"but {empty:.0%} of the images keep less than {EMPTY_MASK:.0%} of their face, more than "
                f"{EMPTY_IMAGES:.0%}: whole images are called hidden"
            )
            remedy = self._remedy_for_hidden() + " If many faces are hidden altogether, set guard.lowest to 0."
        else:
            return None
        if self._learnt:
            remedy += (
                " Other weights need a new run, which may start (setting start) from a checkpoint of before, such as "
                "that of the end of the stage segmentation."
            )
        return (
            f"the masks collapsed: their mean inside the face over {limits.window} iterations is {mean:.4f}, "
            f"{what}. {remedy}"
        )

    def _remedy_for_hidden(self) -> str:
        if not self._learnt:
            return (
                "These masks do not come from L_S: let the initialisation fit better first (stages.initialise, "
                "robust.anneal), or call less an outlier (robust.sigma, robust.cutoff)."
            )
        return (
            "Raise segmentation_weights.area, then preserve, or lower its neighbor or distance, ramp its binary "
            "(binary_ramp), or let the initialisation fit better first (stages.initialise, robust)."
        )


class Stop(threading.Event):
    """Set by a signal that asks the run to end."""

    number: int | None = None
    """Of the first one that came."""


@dataclass(frozen=True)
class Ending:
    """How a signal ended a run before its end."""

    number: int
    """Of the signal."""
    text: str
    """One line: which signal, after which iteration, and how to go on."""

    @classmethod
    def by(cls, number: int | None, step: int, total: int) -> Ending:
        """Of a signal to this process; None: to another process of the run, which is taken for SIGTERM."""
        number = number or signal.SIGTERM
        return cls(
            number,
            f"stopped by {signal.Signals(number).name} after iteration {step} of {total}; to go on: resume "
            "(focus train: the same command with --resume)",
        )


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, Ctrl-C, SIGTERM and the end of the terminal set the event and do no more; a third Ctrl-C interrupts.

    Signals that the caller ignores (nohup, background jobs of a shell) stay ignored.
    """
    stopped = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # Python handles signals in the main thread only.
        return
    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        if stopped.number is None:
            stopped.number = number
        stopped.set()
        interrupts += number == signal.SIGINT
        if number == signal.SIGINT and interrupts == 2:
            with contextlib.suppress(OSError):  # no stream of Python: one of them may be in the middle of a line
                os.write(2, b"the checkpoint is written after this iteration; once more Ctrl-C ends at once, without\n")
            signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handled = [number for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield stopped
    finally:
        for number in handled:
            signal.signal(number, previous[number])
