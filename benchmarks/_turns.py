"""Times of pieces of work that take turns, for machines that have other work to do.

What else the machine does changes within seconds, and hits all pieces alike when each runs every few milliseconds: so
ratios are taken round by round. Processor time of the process, too, since wall time counts what others do.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Wait = Callable[[], object]


class Spent(NamedTuple):
    """Seconds of one call: of processors, all threads together, and of the clock on the wall."""

    processor: float
    wall: float


@dataclass(frozen=True)
class Plan:
    """How long to measure: blocks of calls that last `block` seconds, `least` rounds, more until `seconds` are over."""

    block: float = 0.004
    seconds: float = 2.0
    least: int = 7


QUICK = Plan(block=0.0, seconds=0.0, least=1)
"""Does it run?"""


def _nothing() -> None:
    """On the CPU nothing is left to wait for."""


def take_turns(works: Sequence[Callable[[], object]], plan: Plan, wait: Wait = _nothing) -> list[list[Spent]]:
    """For each piece of work what a call took in each round. The order is turned in every second round."""
    calls = [_calls(work, plan.block, wait) for work in works]
    spent: list[list[Spent]] = [[] for _ in works]
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + plan.seconds
        while len(spent[0]) < plan.least or time.perf_counter() < end:
            order = range(len(works)) if len(spent[0]) % 2 == 0 else reversed(range(len(works)))
            for position in order:
                spent[position].append(_block(works[position], calls[position], wait))
    finally:
        if collecting:
            gc.enable()
    return spent


def _calls(work: Callable[[], object], block: float, wait: Wait) -> int:
    """How many calls last as long as a block; these calls warm it up."""
    calls = 1
    while calls * _block(work, calls, wait).wall < block:
        calls *= 2
    return calls


def _block(work: Callable[[], object], calls: int, wait: Wait) -> Spent:
    wait()
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return Spent((time.process_time() - processor) / calls, (time.perf_counter() - wall) / calls)


class Ratio(NamedTuple):
    """Of other work to ours, in the median round, and the quartiles."""

    median: float
    first: float
    third: float


def ratio(ours: Sequence[float], other: Sequence[float]) -> Ratio:
    """Round by round."""
    ratios = [b / a for a, b in zip(ours, other, strict=True)]
    middle = statistics.median(ratios)
    if len(ratios) == 1:
        return Ratio(middle, middle, middle)
    first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, first, third)
