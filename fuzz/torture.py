"""Kills, a full disk, flipped bits and hostile files: what FOCUS promises of them, tried (`make torture`).

    python fuzz/torture.py [--minutes 12] [--seed 0] [--only kills disk flips hostile mutations] [--out FILE.json]

Every stage prints a line for each kind of fault: how many were tried, what happened, and how often it was not what
docs/reliability.md promises. The process exits with 1 if anything was not. The same seed tries the same faults; kills
fall where time lets them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the stages lie beside this file, which is no package

import torture_disk
import torture_flips
import torture_hostile
import torture_kills
import torture_mutations
from torture_outcome import Outcome

STAGES: dict[str, tuple[Callable[[Path, int, float], list[Outcome]], float]] = {
    "kills": (torture_kills.run, 0.35),
    "disk": (torture_disk.run, 0.1),
    "flips": (torture_flips.run, 0.15),
    "hostile": (torture_hostile.run, 0.15),
    "mutations": (torture_mutations.run, 0.25),
}
"""Stage -> what runs it (folder to work in, seed, seconds), and its part of the time."""


def main() -> int:
    """Runs the stages and says what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="for all stages together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--out", type=Path, help="file for the outcomes, as JSON")
    options = parser.parse_args()
    whole = sum(share for name, (_, share) in STAGES.items() if name in options.only)
    outcomes: list[Outcome] = []
    for name in options.only:
        run, share = STAGES[name]
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"focus-torture-{name}-") as folder:
            found = run(Path(folder), options.seed, 60 * options.minutes * share / whole)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        for outcome in found:
            print(f"  {outcome}", flush=True)
        outcomes += found
    if options.out is not None:
        options.out.write_text(json.dumps([outcome.__dict__ for outcome in outcomes], indent=1) + "\n")
    wrong = sum(len(outcome.wrong) for outcome in outcomes)
    print(f"{sum(outcome.tried for outcome in outcomes):,} faults tried, {wrong} not as promised")
    return 1 if wrong or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
