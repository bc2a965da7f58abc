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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, cast

from focus.errors import FocusError, fault

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


@dataclass(frozen=True)
class Lost:
    """What there is in place of an answer: the process died over an item, twice, or raised what nobody foresaw."""

    reason: str


def run_each(
    work: Callable[[Any, Report], Any],
    items: Sequence[Any],
    *,
    workers: int,
    on_report: Callable[[int, Any], None] = lambda index, value: None,
) -> Iterator[tuple[int, Any]]:
    """Calls ``work(item, report)`` for each item in processes that stay, and yields (index, answer) as they come.

    The processes ignore what a terminal sends to all of a group; this one answers it and ends them, and they end with
    it, however it ends. One that dies is replaced; the item is tried once more, since the machine's memory may have run
    out for the sake of another.

    Args:
        work: can be pickled; each process has a copy.
        items: can be pickled.
        workers: processes, at least 1.
        on_report: called here with the index of an item and what `report` was called with.

    Raises:
        FocusError: `work` raised one: for all items alike.
    """
    if workers < 1:
        raise FocusError(f"workers: expected at least 1, got {workers}")
    context = multiprocessing.get_context("spawn")
    payload = pickle.dumps(work)  # once, by value: torch's own way shares memory that a killed process leaves behind
    waiting = list(range(len(items)))[::-1]
    tried: dict[int, int] = {}
    running: dict[Connection, tuple[SpawnProcess, int]] = {}

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name="focus worker", daemon=True)
        process.start()
        theirs.close()
        ours.send_bytes(payload)
        hand_out(ours, process)

    def hand_out(connection: Connection, process: SpawnProcess) -> None:
        index = waiting.pop()
        tried[index] = tried.get(index, 0) + 1
        running[connection] = (process, index)
        with contextlib.suppress(OSError):  # it is gone, which is found out below
            connection.send_bytes(pickle.dumps(items[index]))

    try:
        while waiting and len(running) < workers:
            start()
        while running:
            for ready in cast("list[Connection]", multiprocessing.connection.wait(list(running))):
                process, index = running[ready]
                try:
                    kind, value = pickle.loads(ready.recv_bytes())
                except (EOFError, OSError):
                    del running[ready]
                    ready.close()
                    process.join()
                    if tried[index] > 1:
                        yield index, Lost(f"its process died (exit code {process.exitcode}), twice")
                    else:
                        waiting.append(index)
                    if waiting:
                        start()
                    continue
                if kind == "report":
                    on_report(index, value)
                    continue
                if kind == "refused":
                    raise FocusError(value)
                yield index, (value if kind == "result" else Lost(value))
                del running[ready]
                if waiting:
                    hand_out(ready, process)
                else:
                    ready.close()
                    process.join()
    finally:
        for connection, (process, _) in running.items():
            process.terminate()
            connection.close()
        for process, _ in running.values():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


_PATIENCE = 10.0
"""Seconds for a process to tidy up."""


def _serve(connection: Connection) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise)  # files that are half written are taken away
    torch.set_num_threads(1)
    end_with_parent(signal.SIGTERM)
    try:
        work = pickle.loads(connection.recv_bytes())
        while True:
            item = pickle.loads(connection.recv_bytes())
            try:
                answer = ("result", work(item, lambda value: connection.send_bytes(pickle.dumps(("report", value)))))
            except FocusError as error:
                answer = ("refused", str(error))
            except Exception as error:
                answer = ("failed", fault(error))
            connection.send_bytes(pickle.dumps(answer))
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # there is nothing left to do, or the parent is gone or stops everything
    finally:
        connection.close()


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
