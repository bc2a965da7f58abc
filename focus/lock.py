"""One process at a time in a folder: a lock of the system, which ends with the process, however that ends.

`flock` on Linux holds on local file systems and, turned into a lock of the server, on NFS 3 and 4, there between
machines, too. Where a file system knows no locks, the work goes on without one, and says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from focus.errors import FocusError

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN)
_LARGEST = 4096
_SHOWN = 120
_PATIENCE = 0.5


@contextlib.contextmanager
def only_one(folder: Path, work: str, *, name: str = ".lock") -> Iterator[str | None]:
    """Holds the lock of a folder, which is made if need be. Child processes do not keep it.

    Args:
        folder: where nobody else may work.
        work: what is done there, for the message to others: "training".
        name: of the file that is locked; it stays, and says who held it last.

    Returns:
        None, or one line that says why there is no lock.

    Raises:
        FocusError: another process holds the lock; the message names it. Or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open(folder / name)
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        what = "is there, and no folder" if is_file else f"cannot be written ({error.strerror or error})"
        raise FocusError(f"{folder}: {what}; choose another folder") from error
    _HELD.add(handle)
    try:
        note = None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise FocusError(
                    f"{folder}: {_holder(handle, work)} is at work here; wait for it, or choose another folder"
                ) from error
            note = f"{folder}: this file system has no locks ({error.strerror}): start no second {work} here"
        _write(handle, {"work": work, **_this_process()})
        yield note
    finally:
        _HELD.discard(handle)
        os.close(handle)


_HELD: set[int] = set()


def _let_go() -> None:
    """In a forked child, which would hold the lock when its parent is gone."""
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def _open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NONBLOCK  # opening a FIFO would wait
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, f"{path.name} is no ordinary file: delete it")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # the file of another user who has worked here: it can be locked all the same
        return os.open(path, os.O_RDONLY | flags)


def _this_process() -> dict[str, Any]:
    name = Path(sys.argv[0]).name
    command = " ".join(["focus" if name == "__main__.py" else name or "python", *sys.argv[1:]])
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    shown = command if len(command) <= _SHOWN else f"{command[: _SHOWN - 3]}..."
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": shown}


def _write(handle: int, values: dict[str, Any]) -> None:
    """For people who meet the lock: it works without."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(values).encode()[:_LARGEST], 0)


def _holder(handle: int, work: str) -> str:
    """Who holds the lock, in words."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            values = json.loads(os.pread(handle, _LARGEST, 0))
            names = ("work", "pid", "host", "since", "command")
            what, pid, host, since, command = (str(values[name]) for name in names)
            return f"another {what} (process {pid} on {host}, since {since}: {command})"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return f"another {work}"
            time.sleep(0.05)  # it has just taken the lock, and is about to write
