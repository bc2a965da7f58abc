"""Runs every benchmark of this folder, prints one table, and writes it as JSON.

python benchmarks/run.py --threads 2 --json table.json
python benchmarks/run.py --device cuda
python benchmarks/run.py --sweep --json sweep.json          # for plot.py
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import _harness  # noqa: E402
import _sweep  # noqa: E402
import torch  # noqa: E402


def load_cases() -> list[_harness.Cases]:
    """The `cases` function of each bench_*.py that has one."""
    modules = [importlib.import_module(path.stem) for path in sorted(FOLDER.glob("bench_*.py"))]
    return [module.cases for module in modules if hasattr(module, "cases")]


def main(benchmarks: Iterable[_harness.Cases] | None = None, arguments: list[str] | None = None) -> None:
    """Runs the cases of the benchmarks, by default of all of this folder or of the sweep."""
    parser = argparse.ArgumentParser(description="Time the operators against their twins in torch.")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, once: does it run?")
    parser.add_argument("--sweep", action="store_true", help="the cost against size, without the twins' times")
    options = parser.parse_args(arguments)
    if options.json:  # a folder that cannot be made should show before all the timing
        options.json.parent.mkdir(parents=True, exist_ok=True)
    if benchmarks is None:
        benchmarks = [_sweep.cases] if options.sweep else load_cases()
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        meter = _harness.Meter(options.device, quick=options.quick, sweep=options.sweep)
        about = _harness.about(meter)
        print(", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in about.items()))
        print(_SWEEP_HEADER if options.sweep else _HEADER)
        rows = []
        for cases in benchmarks:
            for case in cases(options.device, options.quick):
                if options.only in case.name:
                    row = meter.measure(case)
                    rows.append(row)
                    print(_sweep_line(row) if options.sweep else _line(row), flush=True)
    finally:
        torch.set_num_threads(before)
    if options.sweep:
        _print_growth(rows)
    elif any(row.ratio_size != row.size for row in rows):
        smaller = sorted({str(row.ratio_size) for row in rows if row.ratio_size != row.size})
        print("* measured on less, since the twin takes one face after another:", "; ".join(smaller))
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


_HEADER = (
    f"{'work':46} {'size':>25} {'ms':>9} {'spread':>7} {'of copy':>8} {'twin ms':>9} {'ratio':>8} {'released':>9} "
    f"{'ratio':>8}"
)
_SWEEP_HEADER = f"{'work':46} {'axis':22} {'amount':>9} {'ms':>9} {'spread':>7} {'ns each':>10} {'of copy':>8}"


def _line(row: _harness.Measurement) -> str:
    mark = "*" if row.ratio_size != row.size else " "
    twin = f"{row.twin_ms:9.2f} {row.ratio:6.1f}x{mark}"
    released = "" if row.released_ms is None else f"{row.released_ms:9.2f} {row.released_ratio:6.1f}x"
    return f"{row.name:46} {row.size:>25} {row.median_ms:9.3f} {row.spread:7.0%} {row.of_copy:8.1%} {twin} {released}"


def _sweep_line(row: _harness.Measurement) -> str:
    each = 1e6 * row.median_ms / row.amount
    return (
        f"{row.name:46} {row.axis:22} {row.amount:9,} {row.median_ms:9.3f} {row.spread:7.0%} {each:10.2f} "
        f"{row.of_copy:8.1%}"
    )


LINEAR = 2.1  # 2, and 5% for the noise of two measurements


def _print_growth(rows: list[_harness.Measurement]) -> None:
    print(f"\nHow many times the least time grows with each doubling (linear cost: 2.00; above {LINEAR}: *)")
    for name, axis, factors in _sweep.growth(rows):
        steps = " ".join(f"{factor:5.2f}{'*' if factor > LINEAR else ' '}" for factor in factors)
        print(f"{name:46} {axis:22} {steps}")


if __name__ == "__main__":
    main()
