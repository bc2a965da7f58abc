"""What a command has from the system: its two streams, whatever they can show, and the signals that end it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C raises `KeyboardInterrupt`, so that whoever tidies up does it for both.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


_DEFAULTS: dict[int, Any] = {
    number: signal.SIG_DFL
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    if number is not None
}


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped`. Whoever set or ignored them before (nohup, a program around us) is heeded."""
    taken = []
    if threading.current_thread() is threading.main_thread():
        for number, default in _DEFAULTS.items():
            if signal.getsignal(number) == default:
                signal.signal(number, _stop)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is _stop:
                signal.signal(number, _DEFAULTS[number])


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Nothing cuts the report of a command short: a second signal has nothing left to stop."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *_DEFAULTS):
            if signal.getsignal(number) in (_stop, signal.default_int_handler):
                before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def showing_everything() -> Iterator[None]:
    r"""What a stream has no character for is shown as ``\x``, ``\u`` and a number; a closed standard error swallows."""
    changed: list[tuple[Any, str]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            errors = stream.errors
            with contextlib.suppress(OSError, ValueError):  # a descriptor that was exchanged, full or closed meanwhile
                stream.reconfigure(errors="backslashreplace")
                changed.append((stream, errors))
    errors_before = sys.stderr
    if errors_before is None:
        sys.stderr = io.StringIO()
    try:
        yield
    finally:
        sys.stderr = errors_before
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


class Messages:
    """Standard error for messages and progress, which never stop the work: what cannot be written is not."""

    def __init__(self) -> None:
        self._stream: TextIO = sys.stderr
        self.encoding = getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """All of it, or as much as can be."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """What is written appears."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether people look at a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Of the stream."""
        return self._stream.fileno()


class Page(io.TextIOWrapper):
    """Text that is kept, and written by somebody for a stream: for its encoding, and with colours if it has them."""

    def __init__(self, like: TextIO | None) -> None:
        self._kept = io.BytesIO()
        self._colours = like is not None and like.isatty()
        encoding = getattr(like, "encoding", None) or "utf-8"
        super().__init__(self._kept, encoding=encoding, errors="backslashreplace", newline="\n")

    def isatty(self) -> bool:
        """Whether it is written for a terminal."""
        return self._colours

    def text(self) -> str:
        """What was written."""
        self.flush()
        return self._kept.getvalue().decode(self.encoding)


def complain(text: str) -> None:
    """One line on standard error."""
    messages = Messages()
    messages.write(f"{text}\n")
    messages.flush()


def write_report(text: str) -> str | None:
    """Writes to standard output, to the last byte.

    Returns:
        Why it cannot be written; None if it was, or if nobody reads it any more (``| head``).
    """
    stream = sys.stdout
    try:
        if stream is None:
            raise OSError(errno.EBADF, "it is closed")
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        _give_up(stream)
        if isinstance(error, BrokenPipeError):
            return None
        return getattr(error, "strerror", None) or str(error)
    return None


def _give_up(stream: TextIO | None) -> None:
    """What is left in the buffer goes nowhere; else Python complains once more when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        finally:
            os.close(nowhere)


_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
_CONTROL_IN_TEXT = {number: shown for number, shown in _CONTROL.items() if chr(number) not in "\n\t"}


def one_line(text: str) -> str:
    r"""A name as terminals can show it: a line feed in it is ``\x0a``, and it moves and colours nothing."""
    return text.translate(_CONTROL)


def harmless(text: str) -> str:
    """A message of several lines, in which names move and colour nothing."""
    return text.translate(_CONTROL_IN_TEXT)
