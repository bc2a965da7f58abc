"""A disk that is full at any byte: a message, the files of before, and nothing half."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from torture_outcome import FITTING, TRAINING, Outcome, command, finish, forked, photos_with_landmarks, warm_up


def run(folder: Path, seed: int, seconds: float) -> list[Outcome]:
    """See the module. What runs full is the limit of a process on the size of its files, which every system has."""
    warm_up()
    source = random.Random(seed)
    started = time.monotonic()
    output = folder / "output"
    photos = folder / "photos"
    finish(forked(lambda: int(not photos_with_landmarks(photos, 2).exists()), output), 120)
    table = photos / "landmarks.csv"
    commands: dict[str, list[object]] = {
        "train": ["train", *TRAINING, "--resume", "--out"],
        "fit": ["fit", photos, "--landmarks", table, *FITTING, "--out"],
        "prepare": ["prepare", photos, "--landmarks", table, "--out"],
    }
    outcomes = {name: Outcome(f"focus {name}, the disk full at some byte") for name in commands}
    tries = 0
    while tries < 3 or time.monotonic() - started < seconds:
        tries += 1
        for name, arguments in commands.items():
            limit = round(10 ** source.uniform(0, 5.5))
            place = folder / f"{name}{tries}"
            code, text = _under_limit(command(*arguments, place), limit)
            left = [path for path in place.rglob(".*") if path.is_file() and "partial" in path.name]
            problem = None
            if "Traceback" in text or code < 0 or code == 70:
                problem = f"files of {limit} bytes at most: exit {code}: {text[-300:]}"
            elif left:
                problem = f"files of {limit} bytes at most: left {left[0].name}"
            happened = {0: "went on: nothing was too large", 1: "said so, exit 1", 2: "said so, exit 2"}.get(
                code, f"exit {code}"
            )
            outcomes[name].add(happened if problem is None else "not as promised", problem)
            shutil.rmtree(place, ignore_errors=True)
    return list(outcomes.values())


def _under_limit(work: Callable[[], int], limit: int) -> tuple[int, str]:
    """Exit code, and what was printed: into a pipe, which has no limit of this kind, and holds all of it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    child = forked(_limited(work, limit), writing)
    os.close(writing)
    code = finish(child, 120)
    with open(reading, "rb") as file:
        return code, file.read().decode(errors="replace")


def _limited(work: Callable[[], int], limit: int) -> Callable[[], int]:
    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        return work()

    return limited
