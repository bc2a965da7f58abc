"""Independent jobs side by side, each in a process of its own with one thread of torch.

On two cores two trainings with a thread each are done before one after the other with two threads each: threads of
small networks wait for each other often. And a result does not depend on how many cores a machine has, since one
thread always adds in the same order.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from focus.errors import FocusError

Report = Callable[[Any], None]
"""What a job calls with anything that can be pickled, to tell how far it is."""


@dataclass(frozen=True)
class Job:
    """Work for a process: ``function(report, **arguments)``, a function of a module and arguments that can be
    pickled.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    has_children: bool = False
    """It starts processes of its own, such as those that draw faces."""


def processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(number: signal.Signals) -> None:
    """Asks the system for a signal when the parent of this process dies, of kill -9, too. Linux; elsewhere, nothing."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, int(number), 0, 0, 0)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it was gone before
            signal.raise_signal(number)


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    on_report: Callable[[str, Any], None] | None = None,
    failures: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Runs jobs and returns their results by name.

    They start in the order given, the next one when a process is done: put the longest first. When one fails, or on an
    interrupt, the others are stopped.

    Args:
        jobs: with names that differ.
        workers: processes at a time; None: one for each core.
        on_report: called here, in the calling process, with a job's name and what it reported.
        failures: if given, a job that a `FocusError` would be raised for does not stop the others: its name and the
            reason are put here, and it has no result.

    Raises:
        FocusError: a job raised one, ran out of disk or memory, or its process died.
        RuntimeError: a job raised anything else; the message holds its traceback.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    running: dict[Connection, tuple[Job, SpawnProcess]] = {}
    results: dict[str, Any] = {}
    limit = processors() if workers is None else workers
    if limit < 1:
        raise FocusError(f"workers: expected at least 1, got {limit}")
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                job = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(theirs, job), name=f"focus {job.name}", daemon=not job.has_children
                )
                process.start()
                theirs.close()
                running[ours] = (job, process)
            for ready in cast("list[Connection]", multiprocessing.connection.wait(list(running))):
                job, process = running[ready]
                try:
                    kind, value = pickle.loads(ready.recv_bytes())
                except EOFError:
                    process.join()
                    kind, value = (
                        "refused",
                        (
                            f"its process ended without a result (exit code {process.exitcode}); "
                            "the machine may have run out of memory"
                        ),
                    )
                if kind == "report":
                    if on_report is not None:
                        on_report(job.name, value)
                elif kind == "result" or (kind == "refused" and failures is not None):
                    (results if kind == "result" else cast("dict[str, Any]", failures))[job.name] = value
                    del running[ready]
                    ready.close()
                    process.join()
                elif kind == "refused":
                    raise FocusError(f"{job.name}: {value}")
                else:
                    raise RuntimeError(f"{job.name} failed:\n{value}")
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()
    return {job.name: results[job.name] for job in jobs if job.name in results}


def _work(connection: Connection, job: Job) -> None:
    import torch

    def send(kind: str, value: Any) -> None:
        # Plain pickle copies tensors. `Connection.send` would share their memory by file descriptors that are gone
        # once this process is.
        connection.send_bytes(pickle.dumps((kind, value)))

    torch.set_num_threads(1)
    end_with_parent(signal.SIGTERM)
    try:
        send("result", job.function(lambda value: send("report", value), **job.arguments))
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the parent is gone or is stopping everything
    except BaseException as error:
        with contextlib.suppress(BrokenPipeError):
            if isinstance(error, (FocusError, OSError, MemoryError)):  # a full disk, for example
                send("refused", str(error) or repr(error))
            else:
                send("failed", traceback.format_exc())
    finally:
        connection.close()
