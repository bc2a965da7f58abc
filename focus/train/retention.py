"""Which checkpoints of a run stay beside the last one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from focus.errors import FocusError

BEST = "best.safetensors"
"""The checkpoint with the least validation loss."""
_NUMBERED = re.compile(r"iteration_([0-9]{7,})\.safetensors")


def retain(last: Path, *, step: int, best: bool, count: int) -> None:
    """Gives a checkpoint that has just been written the names under which it stays, and takes older ones away.

    What is taken away are numbered ones alone, when the new one has its name; the last and the best have their own.

    Args:
        last: the checkpoint.
        step: its iteration.
        best: whether none had less validation loss.
        count: how many numbered ones stay.

    Raises:
        FocusError: the file system refused. All that was there still is.
    """
    if best:
        _name_too(last, last.with_name(BEST))
    if not count:
        return
    _name_too(last, last.with_name(f"iteration_{step:07d}.safetensors"))
    numbered = [(int(found[1]), path) for path in last.parent.iterdir() if (found := _NUMBERED.fullmatch(path.name))]
    # Later ones are of iterations that a kill undid: the run goes through them again.
    stay = sorted(number for number, _ in numbered if number <= step)[-count:]
    for number, path in numbered:
        if number not in stay:
            path.unlink(missing_ok=True)


def _name_too(path: Path, name: Path) -> None:
    """Another name for a file: at any moment what was called so, or the new one, whole."""
    aside = name.with_name(f".{name.name}.{os.getpid()}")
    try:
        aside.unlink(missing_ok=True)
        try:
            os.link(path, aside)
        except OSError:  # a file system without a second name
            shutil.copyfile(path, aside)
        os.replace(aside, name)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise FocusError(f"checkpoint: {name} cannot be written: {error.strerror or error}. Make room") from error
