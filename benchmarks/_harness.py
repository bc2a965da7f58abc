"""What the benchmarks share: check against the twin, measure, print, write JSON.

A benchmark is a file bench_<name>.py with `cases(device, quick)`, which yields `Case`s. A case is timed only after its
results have been found equal to the twin's. Bytes are those that must move: of a loss in each of its two passes, of a
mesh once for each input and each result; they are compared with a plain copy on the same machine with as many threads.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

import focus
from focus import _C

Results = tuple[torch.Tensor, ...]
Cases = Callable[[torch.device, bool], Iterable["Case"]]


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        name: what is done.
        size: on what, for example "12x3x224x224".
        ours, twin: do it and return the results, which must agree.
        moved: bytes that have to be read or written.
        tolerance: of each result as a vector, relative to its length.
        released: the twin as the released code of FOCUS writes it, where that costs something else.
        reduced: less of the same work, in whose place the twin is checked and timed: the twin is None then.
        on_cpu: the same by the CPU kernels, for CUDA; the first `exact` results must agree in every bit.
        axis, amount: in a sweep, what is swept and how much of it there is.
    """

    name: str
    size: str
    ours: Callable[[], Results]
    twin: Callable[[], Results] | None
    moved: int
    tolerance: float = 1e-4
    released: Callable[[], Results] | None = None
    reduced: Case | None = None
    on_cpu: Callable[[], Results] | None = None
    exact: int = 0
    axis: str = ""
    amount: int = 0


@dataclass(frozen=True)
class Measurement:
    """Times in milliseconds; spread is the distance of the quartiles over the median.

    Where `ratio_size` is not `size`, the twin takes too long on `size`: `ours_ms`, `twin_ms` and their ratio are then
    those of `ratio_size`. `released_*` is None where there is no other formulation, all of the twin in a sweep.
    """

    name: str
    size: str
    axis: str
    amount: int
    median_ms: float
    spread: float
    least_ms: float
    gigabytes_per_second: float
    of_copy: float
    ratio_size: str | None = None
    ours_ms: float | None = None
    twin_ms: float | None = None
    ratio: float | None = None
    released_ms: float | None = None
    released_ratio: float | None = None


def _times(work: Callable[[], object], device: torch.device, seconds: float, least: int, warm: int = 2) -> list[float]:
    """Seconds of each run, after some to warm up."""
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    for _ in range(warm):
        work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        wait()
        begin = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begin)
    return times


def copy_bandwidth(device: torch.device, quick: bool) -> float:
    """Bytes read and written in a second by a copy of 400 MB."""
    source = torch.ones(1_000_000 if quick else 100_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / statistics.median(_times(lambda: target.copy_(source), device, 0.0, 1 if quick else 7))


class Meter:
    """Checks and times cases on one device. The same reduced case is checked and timed once."""

    def __init__(self, device: torch.device, *, quick: bool, sweep: bool = False) -> None:
        self.device = device
        self.quick = quick
        self.sweep = sweep
        self.bandwidth = copy_bandwidth(device, quick)
        self._reduced: dict[tuple[str, str], dict[str, float | str | None]] = {}

    def measure(self, case: Case) -> Measurement:
        """Ends the program where the check fails."""
        self._check_cuda(case)
        small = case.reduced or case
        key = (small.name, small.size)
        twin = self._reduced.get(key) if case.reduced else None
        if twin is None:
            _check(small)
            twin = {} if self.sweep else self._twin(small)
            self._reduced[key] = twin
        times = self._ours(case)
        median = statistics.median(times)
        first, _, third = statistics.quantiles(times, n=4) if len(times) > 1 else (median,) * 3
        rate = case.moved / median
        return Measurement(
            name=case.name,
            size=case.size,
            axis=case.axis,
            amount=case.amount,
            median_ms=1e3 * median,
            spread=(third - first) / median,
            least_ms=1e3 * min(times),
            gigabytes_per_second=rate / 1e9,
            of_copy=rate / self.bandwidth,
            **twin,  # type: ignore[arg-type]
        )

    def _ours(self, case: Case) -> list[float]:
        if self.quick:
            return _times(case.ours, self.device, 0.0, 1)
        return _times(case.ours, self.device, *((0.3, 3, 1) if self.sweep else (1.0, 7)))

    def _twin(self, case: Case) -> dict[str, float | str | None]:
        def median(work: Callable[[], Results] | None) -> float | None:
            if work is None:
                return None
            return 1e3 * statistics.median(_times(work, self.device, *((0.0, 1, 0) if self.quick else (1.0, 1, 1))))

        ours, twin, released = 1e3 * statistics.median(self._ours(case)), median(case.twin), median(case.released)
        return {
            "ratio_size": case.size,
            "ours_ms": ours,
            "twin_ms": twin,
            "ratio": twin and twin / ours,
            "released_ms": released,
            "released_ratio": released and released / ours,
        }

    def _check_cuda(self, case: Case) -> None:
        if case.on_cpu is None:
            return
        here, there = case.on_cpu(), tuple(result.cpu() for result in case.ours())
        for position in range(case.exact):
            if not torch.equal(here[position], there[position]):
                count = int((here[position] != there[position]).sum())
                _refuse(case, position, f"differs from the CPU's in {count} values")
        _compare(case, there, here, "the CPU's", 1e-4)


def _refuse(case: Case, position: int, how: str) -> None:
    raise SystemExit(f"{case.name} {case.size}: result {position} {how}; nothing more was timed")


def _compare(case: Case, results: Results, references: Results, whose: str, tolerance: float) -> None:
    for position, (actual, expected) in enumerate(zip(results, references, strict=True)):
        error = float((actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))
        if not error <= tolerance:
            how = f"differs from {whose} by {error:.2e} of its length (at most {tolerance:.0e} expected)"
            _refuse(case, position, how)


def _check(case: Case) -> None:
    results = case.ours()
    if case.twin:
        _compare(case, results, case.twin(), "the twin's", case.tolerance)
    if case.released:
        _compare(case, results, case.released(), "the released formulation's", case.tolerance)


About = dict[str, str | int | float | bool | None]


def about(meter: Meter) -> About:
    """What the times depend on."""
    return {**surroundings(meter.device), "copy_gigabytes_per_second": meter.bandwidth / 1e9}


def surroundings(device: torch.device) -> About:
    """The same without a measurement."""
    return {
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "system": platform.platform(),
        "commit": _commit(),
        "focus": focus.__version__,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "compiler": _C.compiler,
        "cuda": _C.cuda_version,
        "threads": torch.get_num_threads(),
        "avx2": _C.uses_avx2(),
        "avx512": _C.uses_avx512(),
    }


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"
