"""The losses on images beside their twins as torch.compile makes them: forward and backward, gradients of all images.

python benchmarks/compiled.py --threads 1 --json compiled1.json

Each is timed only where both have found the same, and takes turns, as in `peers.py`: ratios are theirs over ours, above
1 ours is faster, of processor time (on CUDA of wall time). torch.compile needs a C++ compiler on the CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _harness
import _turns
import bench_outlier_robust
import torch
from _images import Loss, loss_work
from _peers import same_vectors

from focus import ops


def losses() -> dict[str, tuple[Loss, Loss]]:
    """Ours and the twin."""
    outlier = bench_outlier_robust.loss_of
    return {
        "neighbor_min_loss": (ops.neighbor_min_loss, ops.reference.neighbor_min_loss),
        "masked_photometric_loss": (ops.masked_photometric_loss, ops.reference.masked_photometric_loss),
        "outlier_robust_loss": (outlier(ops), outlier(ops.reference)),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--seconds", default=4.0, type=float, help="of measuring each pair (default 4)")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="tiny images, once: does it run?")
    options = parser.parse_args(arguments)
    plan = _turns.QUICK if options.quick else _turns.Plan(seconds=options.seconds)
    on_cuda = options.device.type == "cuda"
    rows: list[dict[str, str | float]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        about = _harness.surroundings(options.device)
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        for batch in (1, 12):
            for name, (loss, twin) in losses().items():
                size = 16 if options.quick else 224
                torch._dynamo.reset()
                _, ours = loss_work(loss, batch, size, options.device)
                _, theirs = loss_work(torch.compile(twin, backend=options.backend), batch, size, options.device)
                _, eager = loss_work(twin, batch, size, options.device)
                why = same_vectors(ours(), theirs(), 1e-4) or same_vectors(ours(), eager(), 1e-4)
                if why is not None:
                    raise SystemExit(f"{name}: not the same results: {why}")
                wait = (lambda: torch.cuda.synchronize(options.device)) if on_cuda else (lambda: None)
                spent = _turns.take_turns((ours, theirs, eager), plan, wait)
                times = [[one.wall if on_cuda else one.processor for one in found] for found in spent]
                compiled, plain = (_turns.ratio(times[0], other) for other in times[1:])
                row: dict[str, str | float] = {
                    "name": name,
                    "size": f"{batch}x3x{size}x{size}",
                    "ours_ms": 1e3 * statistics.median(times[0]),
                    **{f"compiled_{key}": value for key, value in compiled._asdict().items()},
                    "eager_median": plain.median,
                }
                rows.append(row)
                print(
                    f"{name:24} {row['size']:>14} {row['ours_ms']:8.3f} ms; compiled / ours {compiled.median:.2f} "
                    f"({compiled.first:.2f} to {compiled.third:.2f}), eager / ours {plain.median:.2f}",
                    flush=True,
                )
    finally:
        torch.set_num_threads(before)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
