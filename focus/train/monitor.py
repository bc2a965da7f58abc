"""Watching a run: means of what its iterations gave, masks that collapse, and signals that end it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
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


class MaskGuard:
    """Notices masks that call everything face, or nothing.

    Args:
        settings: the limits.
        highest: whether there is an upper one; masks by the outlier-robust rule may well keep the whole face.
    """

    def __init__(self, settings: GuardSettings, *, highest: bool) -> None:
        self.settings, self._highest = settings, settings.highest if highest else 1.0
        self._window = Window()
        self._mean: float | None = None

    def add(self, mask: Tensor) -> None:
        """The mean mask inside the rendered face in one iteration."""
        self._window.add({"mask": mask})
        if self._window.count == self.settings.window:
            self._mean = self._window.means()["mask"]
            self._window = Window()

    def problem(self) -> str | None:
        """What is wrong with the last whole window and what to change; None if all is well."""
        limits = self.settings
        if self._mean is None or limits.lowest <= self._mean <= self._highest:
            return None
        if self._mean > limits.highest:
            what = f"above {limits.highest} (guard.highest): everything is called face"
            remedy = (
                "Raise segmentation_weights.neighbor, or lower its area and preserve; if nothing hides these faces, "
                "set guard.highest to 1."
            )
        else:
            what = f"below {limits.lowest} (guard.lowest): everything is called hidden"
            remedy = (
                "Lower segmentation_weights.neighbor, raise its area or preserve, ramp its binary (binary_ramp), or "
                "let the initialisation fit better first (stages.initialise, robust)."
            )
        return (
            f"the masks collapsed: their mean inside the face over {limits.window} iterations is {self._mean:.4f}, "
            f"{what}. {remedy}"
        )


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Inside, Ctrl-C and SIGTERM set the event and do no more; a second Ctrl-C interrupts as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # Python handles signals in the main thread only.
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
