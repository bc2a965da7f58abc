"""Small good files of every kind with some bytes changed, by `fuzz_files.py`."""

from __future__ import annotations

from pathlib import Path

from fuzz_files import READERS, fuzz
from torture_outcome import Outcome, warm_up

KEPT = Path("build/fuzz/files")


def run(folder: Path, seed: int, seconds: float) -> list[Outcome]:
    """See the module; findings are kept in `KEPT`, of the folder where the program was started."""
    warm_up()
    outcomes = []
    for name in READERS:
        counts = fuzz(name, seed=seed, keep=KEPT, seconds=seconds / len(READERS))
        outcome = Outcome(f"changed bytes in a file for the reader {name}", sum(counts.values()), counts)
        outcome.wrong = [f"a finding of {name}, kept in {KEPT}"] * counts["finding"]
        outcomes.append(outcome)
    return outcomes
