"""Where the time of training goes: a table for each kind of iteration, and traces for the profiler of torch."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from focus.train.config import Settings, StageSettings

WARM_UP = 3
"""Iterations of each kind that are not counted: memory is found, kernels are chosen."""
TRACED = 2
"""Iterations of each kind in a trace; they are not counted either."""
_REST = "everything else"


@dataclass(frozen=True)
class Row:
    """What one phase of an iteration takes."""

    phase: str
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Table:
    """What an iteration of one kind takes, in the mean."""

    kind: str
    iterations: int
    milliseconds: float
    rows: tuple[Row, ...]

    def share(self, *phases: str) -> float:
        """Of all phases whose name begins with one of these."""
        return sum(row.share for row in self.rows if row.phase.startswith(phases))

    @property
    def text(self) -> str:
        """For people."""
        width = max(len(row.phase) for row in self.rows)
        rate = 1e3 / self.milliseconds
        lines = [f"{self.kind}: {self.milliseconds:.1f} ms, {rate:.2f} iterations a second (of {self.iterations})"]
        lines += [f"  {row.phase:<{width}}  {row.milliseconds:9.2f} ms  {row.share:6.1%}" for row in self.rows]
        return "\n".join(lines)


class PhaseTimer:
    """Measures iterations; a `focus.phases.Listener`.

    On a card times are those between events in its stream: the work of the card, and its waiting for the processor.

    Args:
        device: where the networks are.
        folder: for traces, ``trace_<kind>.json.gz``; None: none are written.
    """

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        self._card, self._folder = device.type == "cuda", folder
        self._seen: dict[str, int] = {}
        self._kind: str | None = None
        self._marks: list[tuple[str, Any]] = []
        self._open: list[str] = []
        self._closed = False
        """Whether the phase under way is to be seen as one."""
        self._recorded: list[Any] = []
        self._times: dict[str, dict[str, float]] = {}
        self._counts: dict[str, int] = {}
        self._trace: Any = None
        self.traces: list[Path] = []
        """What was written."""

    @contextlib.contextmanager
    def iteration(self, kind: str) -> Iterator[None]:
        """See `Listener`."""
        number = self._seen[kind] = self._seen.get(kind, 0) + 1
        traced = self._folder is not None and WARM_UP < number <= WARM_UP + TRACED
        if traced and self._trace is None:
            self._trace = self._profiler()
            self._trace.__enter__()
        self._kind, self._marks, self._open = kind, [], []
        self._enter(_REST)
        try:
            yield
        finally:
            self._leave()
            if traced:
                if number == WARM_UP + TRACED:
                    self._write_trace(kind)
            elif number > WARM_UP:
                self._count(kind)
            self._kind = None

    @contextlib.contextmanager
    def phase(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """See `Listener`."""
        if self._kind is None or self._closed:
            yield
            return
        self._enter(name)
        self._closed = whole
        try:
            yield
        finally:
            self._closed = False
            self._leave()

    def switch(self, name: str) -> None:
        """See `Listener`."""
        if self._kind is not None and len(self._open) > 1 and not self._closed:
            self._leave()
            self._enter(name)

    def _enter(self, name: str) -> None:
        self._open.append(name)
        self._mark(name)
        if self._trace is not None:
            self._recorded.append(torch.profiler.record_function(name))
            self._recorded[-1].__enter__()

    def _leave(self) -> None:
        if self._trace is not None:
            self._recorded.pop().__exit__(None, None, None)
        self._open.pop()
        self._mark(self._open[-1] if self._open else "")

    def _mark(self, name: str) -> None:
        """From here on the time is that of `name`."""
        now: Any = time.perf_counter()
        if self._card:
            now = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            now.record()
        self._marks.append((name, now))

    def _count(self, kind: str) -> None:
        if self._card:
            self._marks[-1][1].synchronize()
        times = self._times.setdefault(kind, {})
        for (name, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            took = begin.elapsed_time(end) if self._card else 1e3 * (end - begin)
            times[name] = times.get(name, 0.0) + took
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def _profiler(self) -> Any:
        # Else it announces itself, and its end, on the terminal; asked for at each start.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._card:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        return torch.profiler.profile(activities=activities)

    def _write_trace(self, kind: str) -> None:
        trace, self._trace = self._trace, None
        trace.__exit__(None, None, None)
        folder = self._folder or Path()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"trace_{kind.replace(', ', '_').replace(' ', '_')}.json.gz"
        trace.export_chrome_trace(str(path))
        self.traces.append(path)

    def tables(self) -> list[Table]:
        """What was measured, in the order of its first iterations; a kind without enough of them is left out."""
        found = []
        for kind, times in self._times.items():
            count, total = self._counts[kind], sum(times.values())
            rest = times.get(_REST, 0.0)
            named = {name: value for name, value in times.items() if name != _REST}
            rows = tuple(Row(name, value / count, value / total) for name, value in {**named, _REST: rest}.items())
            found.append(Table(kind, count, total / count, rows))
        return found


def shortened(settings: Settings, iterations: int) -> Settings:
    """The run with a few iterations of each of its kinds, to be measured.

    Second lessons (`stages.again`) are left out: their iterations are those of the stage segmentation.

    Args:
        settings: the run.
        iterations: of each kind that are counted.
    """
    count, stages = iterations + WARM_UP + TRACED, settings.stages
    both = 2 * count
    few = StageSettings(
        initialise=min(stages.initialise, 1) * count,
        segmentation=min(stages.segmentation, 1) * count,
        joint=min(stages.joint, 1) * both,
        adapt=min(stages.adapt, 1) * both,
        cycle=both,
        segmentation_in_cycle=count,
        again=0,
    )
    log = replace(settings.log, checkpoint_every=2**31 - 1, validate_every=2**31 - 1, pictures=0, tensorboard="off")
    guard = replace(settings.guard, lowest=0.0, highest=1.0)
    # Within a graph nobody sees where the time goes.
    measures = replace(settings.measures, graph=False)
    return replace(settings, stages=few, log=log, guard=guard, measures=measures, keep=0.0)


def to_json(tables: list[Table], about: dict[str, Any]) -> str:
    """The tables for programs."""
    return json.dumps({"about": about, "kinds": [asdict(table) for table in tables]}, indent=1) + "\n"
