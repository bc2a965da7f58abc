"""Work for the processes of test_cli_parallel: a module of its own, since a new interpreter must find it by name."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from focus.errors import FocusError


def double(report: Callable[[Any], None], value: torch.Tensor) -> dict[str, Any]:
    report(("threads", torch.get_num_threads()))
    report(("value", value))
    return {"doubled": 2 * value}


def refuse(report: Callable[[Any], None]) -> None:
    raise FocusError("bad file")


def fail(report: Callable[[Any], None]) -> None:
    raise KeyError("a fault of ours")


def fill_disk(report: Callable[[Any], None]) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "out/log.jsonl")


def die(report: Callable[[Any], None]) -> None:
    os._exit(9)


def wait(report: Callable[[Any], None]) -> None:
    report("waiting")
    time.sleep(60)
