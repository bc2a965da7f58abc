"""What a run tells: `log.jsonl`, TensorBoard curves, validation pictures, and progress with the time left."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from focus._optional import require
from focus.data.images import write_image
from focus.errors import FocusError
from focus.files import write_files
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
        self._file = open(_rewind(folder / "log.jsonl", step), "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self._board: Any = None
        installed = importlib.util.find_spec("tensorboard") is not None
        if settings.tensorboard == "on" or (settings.tensorboard == "auto" and installed):
            require("tensorboard", extra="train", purpose="write TensorBoard curves (log.tensorboard)")
            self._board = importlib.import_module("torch.utils.tensorboard").SummaryWriter(
                folder / "tensorboard", purge_step=step + 1
            )
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        self._started = time.monotonic()

    def scalars(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """A line of JSON, and points of curves ``<kind>/<name>``."""
        line = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._started, 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def progress(self, step: int, total: int, text: str, seconds_left: float) -> None:
        """A bar on a terminal, elsewhere a line from time to time."""
        left = f"{_duration(seconds_left)} left"
        if self._console.is_terminal:
            if self._bar is None:
                columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(20), TaskProgressColumn())
                self._bar = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
                self._bar.add_task("", total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=step, description=f"{left}  {text}", refresh=True)
        elif time.monotonic() - self._last_line >= self.settings.seconds_per_line or step == total:
            self._last_line = time.monotonic()
            self.message(f"{step}/{total}  {left}  {text}")

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A PNG file in the folder ``pictures``."""
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{step:07d}_{name}.png", picture)

    def message(self, text: str) -> None:
        """One line, above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Closes the files and takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._board is not None:
            self._board.close()
        self._file.close()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _rewind(path: Path, step: int) -> Path:
    """Drops the lines after `step`, and a last line that a kill cut short."""
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step and step > 0:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        try:
            write_files({path: "".join(kept).encode()})
        except OSError as error:
            raise FocusError(
                f"{path}: cannot be written: {error.strerror or error}. It is unchanged. Make room, or resume where "
                "you may write"
            ) from error
    return path


def _duration(seconds: float) -> str:
    """``1:02:03`` or ``02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
