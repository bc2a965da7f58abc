"""What a run tells: `log.jsonl`, TensorBoard curves, validation pictures, and progress with the time left."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from focus import limits
from focus._optional import require
from focus.data.images import write_image
from focus.errors import FocusError
from focus.files import read_input, write_files
from focus.sealed import DamagedError, open_any_json, seal_json
from focus.train.config import LogSettings


class Logger(Protocol):
    """What a trainer tells about a run."""

    def scalars(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Numbers after iteration `step`; `kind` is a stage and network, or ``validation``."""

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """How far the run is."""

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Validation faces, ``[H, W, 3]``."""

    def message(self, text: str) -> None:
        """One line for people."""


class SilentLogger:
    """Tells nothing."""

    def scalars(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """See `Logger`; so for the others."""

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class RunLogger:
    """Writes into the folder of a run, and shows progress.

    Args:
        folder: of the run; made if need be.
        settings: what is written.
        step: where the run goes on; later lines of `log.jsonl` (of iterations that a kill undid) are dropped.
        console: where progress goes; None: standard error.
    """

    def __init__(self, folder: Path, settings: LogSettings, *, step: int = 0, console: Console | None = None) -> None:
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk refused is not tried again with every later line.
        damaged = _rewind(folder / "log.jsonl", step)
        self._file = open(folder / "log.jsonl", "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._torn = False
        self._given_up: set[str] = set()
        self._console = console or _Console(stderr=True)
        self._curves: _Curves | None = None
        installed = importlib.util.find_spec("tensorboard") is not None
        if settings.tensorboard == "on" or (settings.tensorboard == "auto" and installed):
            require("tensorboard", extra="train", purpose="write TensorBoard curves (log.tensorboard)")
            with self._or_told("TensorBoard curves"):
                self._curves = _Curves(folder / "tensorboard", purge_step=step + 1)
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        self._started = time.monotonic()
        if damaged:
            self.message(f"{folder / 'log.jsonl'}: damaged lines were dropped: {damaged}")

    def scalars(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """A line of JSON, and points of curves ``<kind>/<name>``."""
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._started, 3), **numbers}
        with self._or_told("log.jsonl"):
            data = b"\n" * self._torn + seal_json(line).encode() + b"\n"
            self._torn = True
            written = self._file.write(data)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
        if self._curves is not None and "TensorBoard curves" not in self._given_up:
            with self._or_told("TensorBoard curves"):
                self._curves.add(step, {f"{kind}/{name}": value for name, value in values.items()})

    @contextlib.contextmanager
    def _or_told(self, what: str) -> Iterator[None]:
        """What is written for people ends no run: where it cannot be written, that is said once."""
        try:
            yield
        except (OSError, FocusError, ValueError) as error:
            if what not in self._given_up:
                self._given_up.add(what)
                reason = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
                self.message(f"{what} cannot be written ({reason}); training goes on without")

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """A bar on a terminal, elsewhere a line from time to time."""
        left = f"{_duration(seconds_left)} left"
        if self._console.is_terminal:
            with self._while_somebody_listens():
                if self._bar is None:
                    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(20), TaskProgressColumn())
                    self._bar = Progress(
                        *columns,
                        TextColumn("{task.description}"),
                        console=self._console,
                        transient=True,
                        auto_refresh=False,  # no thread that meets the end of the terminal
                    )
                    self._bar.add_task("", total=total)
                    self._bar.start()
                self._bar.update(self._bar.task_ids[0], completed=step, description=f"{left}  {text}", refresh=True)
        elif time.monotonic() - self._last_line >= self.settings.seconds_per_line or step == total:
            self._last_line = time.monotonic()
            self.message(f"{step}/{total}  {left}  {text}")

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A PNG file in the folder ``pictures``."""
        folder = self.folder / "pictures"
        with self._or_told("validation pictures"):
            folder.mkdir(exist_ok=True)
            write_image(folder / f"{step:07d}_{name}.png", picture)

    def message(self, text: str) -> None:
        """One line, above the bar."""
        with self._while_somebody_listens():
            encoding = self._console.encoding
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def _while_somebody_listens(self) -> Iterator[None]:
        """A terminal that is closed, or a pipe that nobody reads, ends no run."""
        if self._console.quiet:
            return (yield)
        try:
            yield
        except (OSError, ValueError, SystemExit):  # rich turns a broken pipe into an exit
            self._console.quiet = True

    def close(self) -> None:
        """Closes the files and takes the bar away."""
        if self._bar is not None:
            with self._while_somebody_listens():
                self._bar.stop()
            self._bar = None
        if self._curves is not None:
            with self._or_told("TensorBoard curves"):
                self._curves.close()
        with self._or_told("log.jsonl"):
            self._file.close()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Console(Console):
    """A console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        """rich would end the process, and throw the standard output away."""
        self.quiet = True


class _Curves:
    """TensorBoard's files of curves, written at once. `SummaryWriter` has a thread for it, which dies with a traceback
    when the disk is full.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        protocol = "tensorboard.compat.proto"
        self._event = importlib.import_module(f"{protocol}.event_pb2")
        self._summary = importlib.import_module(f"{protocol}.summary_pb2")
        writer = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(folder / name, "wb", buffering=0)  # noqa: SIM115 - open as long as the run
        self._writer = writer(self._file)
        self._write(file_version="brain.Event:2")
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._write(step=purge_step, session_log=start)  # hides the points of iterations that a kill undid

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        points = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary.Summary(value=points))

    def _write(self, **content: Any) -> None:
        self._writer.write(self._event.Event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; those that a kill cut short, or that were damaged, are left out. Null is NaN.

    Raises:
        FocusError: the file cannot be read.
    """
    return [
        {name: math.nan if value is None else value for name, value in values.items()}
        for _, values in _lines(path)
        if values is not None
    ]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line, and what it says; None for one that is damaged. Lines of before checksums have none."""
    for line in filter(None, read_input(path, limits.LOG_FILE).split(b"\n")):
        try:
            values = open_any_json(line)
        except DamagedError:
            values = {}
        step, known = values.get("step"), isinstance(values.get("kind"), str)
        yield line, values if known and type(step) is int and step >= 0 else None


def _rewind(path: Path, step: int) -> int:
    """Drops the lines after `step`, and those that are damaged, such as a last line that a kill cut short.

    Returns:
        How many were damaged.
    """
    damaged = 0
    if path.exists():
        lines = list(_lines(path)) if step > 0 else []
        damaged = sum(values is None for _, values in lines)
        kept = [line + b"\n" for line, values in lines if values is not None and values["step"] <= step]
        try:
            write_files({path: b"".join(kept)})
        except OSError as error:
            raise FocusError(
                f"{path}: cannot be written: {error.strerror or error}. It is unchanged. Make room, or resume where "
                "you may write"
            ) from error
    return damaged


def _duration(seconds: float) -> str:
    """``1:02:03`` or ``02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
