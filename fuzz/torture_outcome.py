"""What the stages of `torture.py` share: what a stage found, and commands that run in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TRAINING = """
--image-size 32 --batch-size 2 --threads 1 --network.encoder.widths 8 16 32 --network.encoder.stem-width 8
--network.segmentation.filters 4 8 8 8 --data.distinct 16 --data.validation 4 --stages.initialise 30
--stages.segmentation 10 --stages.joint 60 --stages.cycle 20 --stages.segmentation-in-cycle 8 --log.every 2
--log.checkpoint-every 3 --log.validate-every 7 --log.pictures 0 --log.tensorboard off --guard.lowest 0
--guard.highest 1
"""
TRAINING = _TRAINING.split()
"""A training of some seconds."""
FITTING = ["--model", "procedural-small", "--image-size", "48", "--coarse-steps", "2", "--fine-steps", "2"]
"""A fit of less than a second for each photo."""


@dataclass
class Outcome:
    """One kind of fault."""

    kind: str
    """What was done to what."""
    tried: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    """What FOCUS did -> how often."""
    wrong: list[str] = field(default_factory=list)
    """What it had promised not to do."""

    def add(self, happened: str, wrong: str | None = None) -> None:
        """Counts one try."""
        self.tried += 1
        self.happened[happened] += 1
        if wrong is not None:
            self.wrong.append(wrong)

    def __str__(self) -> str:
        text = f"{self.kind}: {self.tried} tried; " + ", ".join(
            f"{n} {what}" for what, n in self.happened.most_common()
        )
        return "\n    WRONG: ".join([text, *self.wrong[:5]])


def photos_with_landmarks(folder: Path, count: int) -> Path:
    """Draws some synthetic photos and their landmarks.csv; returns that file."""
    from focus.data import SyntheticFaces, SyntheticSettings, write_image
    from focus.face import MorphableModel

    folder.mkdir(parents=True, exist_ok=True)
    faces = SyntheticFaces(MorphableModel.procedural("small"), 96, 3, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, count)
    rows = []
    for i in range(count):
        write_image(folder / f"photo{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        rows.append(",".join([f"photo{i}.png", *(f"{x:.2f}" for x in batch.landmarks[i].flatten().tolist())]))
    table = folder / "landmarks.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def forked(work: Callable[[], int], output: Path | int) -> int:
    """Starts `work` in a forked process that leads a group of its own; returns its number.

    Forked, since importing torch takes longer than the work. This process must not have computed anything with torch in
    several threads before. All that `work` prints goes to `output`, a file or an open descriptor; its result becomes
    the exit code, 70 that of an exception.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        target = output if isinstance(output, int) else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        import torch

        torch.set_num_threads(1)
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 70
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(*arguments: object) -> Callable[[], int]:
    """`focus ARGUMENTS`, for `forked`."""

    def work() -> int:
        from focus.cli import main

        return main([str(argument) for argument in arguments])

    return work


def finish(child: int, seconds: float) -> int:
    """Waits for a process: its exit code, or minus the signal that ended it; after `seconds` it is killed: -1000."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1000


def run_command(arguments: Sequence[object], output: Path, seconds: float = 300) -> int:
    """A command, to its end."""
    return finish(forked(command(*arguments), output), seconds)


def warm_up() -> None:
    """Imports what every command needs, once, before processes are forked."""
    import focus.cli.command
    import focus.cli.fit
    import focus.cli.model
    import focus.cli.prepare
    import focus.cli.train  # noqa: F401
