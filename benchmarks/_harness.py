"""What the benchmarks share: check against the twin, measure, print, write JSON.

A benchmark is a file bench_<name>.py with `cases(device, quick)`, which yields `Case`s. A case is timed only after its
results have been found equal to the twin's. Bytes are counted once for each input and each result, whatever is read
again, and compared with a plain copy on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

Results = tuple[torch.Tensor, ...]
Cases = Callable[[torch.device, bool], Iterable["Case"]]


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        name: what is done.
        size: on what, for example "12x3x224x224".
        ours, twin: do it and return the results, which must agree.
        tensors: what has to be read or written once.
        tolerance: of each result as a vector, relative to its length.
    """

    name: str
    size: str
    ours: Callable[[], Results]
    twin: Callable[[], Results]
    tensors: Results
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Measurement:
    """Times in milliseconds; spread is the distance of the quartiles over the median."""

    name: str
    size: str
    median_ms: float
    spread: float
    twin_ms: float
    ratio: float
    gigabytes_per_second: float
    of_copy: float


def _check(case: Case) -> None:
    for position, (actual, expected) in enumerate(zip(case.ours(), case.twin(), strict=True)):
        error = float((actual - expected).norm() / expected.norm().clamp(min=1e-30))
        if not error <= case.tolerance:
            raise SystemExit(
                f"{case.name} {case.size}: result {position} differs from the twin's by {error:.2e} of its length "
                f"(at most {case.tolerance:.0e} expected); nothing was timed"
            )


def _times(work: Callable[[], object], device: torch.device, seconds: float, least: int) -> list[float]:
    """Seconds of each run, after two to warm up."""
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    times: list[float] = []
    runs = -2
    end = time.perf_counter() + seconds
    while runs < least or time.perf_counter() < end:
        wait()
        begin = time.perf_counter()
        work()
        wait()
        if runs >= 0:
            times.append(time.perf_counter() - begin)
        runs += 1
    return times


def _copy_bandwidth(device: torch.device, quick: bool) -> float:
    """Bytes read and written in a second by a copy of 400 MB."""
    source = torch.ones(1_000_000 if quick else 100_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / statistics.median(_times(lambda: target.copy_(source), device, 0.0, 1 if quick else 7))


def measure(case: Case, device: torch.device, bandwidth: float, quick: bool) -> Measurement:
    """Checks and times one case; ends the program where the check fails."""
    _check(case)
    ours = _times(case.ours, device, *((0.0, 1) if quick else (1.0, 7)))
    twin = _times(case.twin, device, *((0.0, 1) if quick else (1.0, 3)))
    median = statistics.median(ours)
    first, _, third = statistics.quantiles(ours, n=4) if len(ours) > 1 else (median,) * 3
    rate = sum(tensor.nbytes for tensor in case.tensors) / median
    twin_median = statistics.median(twin)
    return Measurement(
        name=case.name,
        size=case.size,
        median_ms=1e3 * median,
        spread=(third - first) / median,
        twin_ms=1e3 * twin_median,
        ratio=twin_median / median,
        gigabytes_per_second=rate / 1e9,
        of_copy=rate / bandwidth,
    )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def main(benchmarks: Iterable[Cases], arguments: list[str] | None = None) -> None:
    """Runs the cases of all benchmarks and prints one table; `--json FILE` writes it too."""
    parser = argparse.ArgumentParser(description="Time the operators against their twins in torch.")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, once: does it run?")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        bandwidth = _copy_bandwidth(options.device, options.quick)
        about = {
            "machine": _machine(options.device),
            "commit": _commit(),
            "torch": importlib.metadata.version("torch"),
            "threads": options.threads,
            "copy_gigabytes_per_second": bandwidth / 1e9,
        }
        print(
            ", ".join(
                f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in about.items()
            )
        )
        print(f"{'work':44} {'size':>14} {'ms':>9} {'spread':>7} {'twin ms':>9} {'ratio':>7} {'of copy':>8}")
        rows = []
        for cases in benchmarks:
            for case in cases(options.device, options.quick):
                if options.only not in case.name:
                    continue
                row = measure(case, options.device, bandwidth, options.quick)
                rows.append(row)
                print(
                    f"{row.name:44} {row.size:>14} {row.median_ms:9.3f} {row.spread:7.0%} {row.twin_ms:9.2f} "
                    f"{row.ratio:6.1f}x {row.of_copy:8.0%}",
                    flush=True,
                )
    finally:
        torch.set_num_threads(before)
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def loss_case(
    name: str,
    ours: Callable[..., torch.Tensor],
    twin: Callable[..., torch.Tensor],
    batch: int,
    quick: bool,
    device: torch.device,
) -> Case:
    """A loss of target, reconstruction and mask, forward and backward, all three with gradients."""
    side = 16 if quick else 224
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 3, side, side), (batch, 3, side, side), (batch, 1, side, side)]
    images = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]

    def work(loss: Callable[..., torch.Tensor]) -> Results:
        value = loss(*images)
        return value.detach(), *torch.autograd.grad(value, images)

    return Case(
        name=f"{name}, forward + backward",
        size=f"{batch}x3x{side}x{side}",
        ours=lambda: work(ours),
        twin=lambda: work(twin),
        tensors=(*images, *images),
    )
