"""Our operators beside those of other libraries, as far as they are installed: DRTK, Sim3DR, PyTorch3D, nvdiffrast.

python benchmarks/peers.py --batch 1 --json peers1.json
python benchmarks/peers.py --batch 12 --only "70,789 faces, 224 px"

Each pair is timed only where both have found the same, and takes turns: ours, theirs, theirs, ours. Ratios are theirs
over ours, of processor time (on CUDA of wall time), so that above 1 ours is faster; the median round and the quartiles.
What is not installed is left out, and said. None of these libraries is needed for anything else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _harness
import _turns
import torch
from _meshes import Mesh, head, standard
from _peers import PEERS, Comparison, Peer, find

SIZES: tuple[tuple[Callable[[int, int], Mesh], int], ...] = (
    (lambda batch, image: head(57, 161, batch, image), 224),  # 18,032 faces
    (standard, 224),
    (standard, 512),
    (standard, 1024),
    (lambda batch, image: head(302, 831, batch, image), 224),  # 500,262 faces
    (lambda batch, image: head(302, 831, batch, image), 1024),
)


@dataclass(frozen=True)
class Row:
    """Milliseconds of a call, and theirs over ours, round by round."""

    peer: str
    what: str
    size: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    first_quartile: float
    third_quartile: float
    wall_ratio: float
    rounds: int


@dataclass(frozen=True)
class Refused:
    """What was not timed, and why."""

    peer: str
    what: str
    size: str
    why: str


def meshes(batch: int, quick: bool) -> Iterator[Mesh]:
    if quick:
        yield head(6, 8, batch, 16)
        return
    for make, image in SIZES:
        yield make(batch, image)


def compare(peer: Peer, mesh: Mesh, device: torch.device, plan: _turns.Plan) -> Iterator[Row | Refused]:
    """All that the peer does with a mesh. What it raises is its own, and ends nothing."""
    if device.type == "cpu" and mesh.faces.shape[0] > peer.most_faces:
        yield Refused(peer.name, "all", mesh.size, f"a call takes minutes beyond {peer.most_faces:,} faces")
        return
    try:
        for comparison in peer.comparisons(find(peer.module, peer.parts), mesh, device):
            why = comparison.disagreement()
            if why is None:
                yield _timed(peer, comparison, mesh, device, plan)
            else:
                yield Refused(peer.name, comparison.what, mesh.size, f"not the same results: {why}")
    except Exception as error:
        yield Refused(peer.name, "all that follows", mesh.size, f"{type(error).__name__}: {error}")


def _timed(peer: Peer, comparison: Comparison, mesh: Mesh, device: torch.device, plan: _turns.Plan) -> Row:
    works = (comparison.ours, comparison.theirs)
    on_cuda = device.type == "cuda"
    if on_cuda:
        ours, theirs = _turns.take_turns(works, plan, lambda: torch.cuda.synchronize(device))
    else:
        ours, theirs = _turns.take_turns(works, plan)
    walls = [[spent.wall for spent in found] for found in (ours, theirs)]
    times = walls if on_cuda else [[spent.processor for spent in found] for found in (ours, theirs)]
    found = _turns.ratio(*times)
    return Row(
        peer=peer.name,
        what=comparison.what,
        size=mesh.size,
        ours_ms=1e3 * statistics.median(times[0]),
        theirs_ms=1e3 * statistics.median(times[1]),
        ratio=found.median,
        first_quartile=found.first,
        third_quartile=found.third,
        wall_ratio=_turns.ratio(*walls).median,
        rounds=len(ours),
    )


HEADER = (
    f"{'peer':11} {'work':45} {'size':28} {'ours, ms':>10} {'theirs, ms':>11} {'ratio':>7} {'quartiles':>16} "
    f"{'of wall':>8} {'rounds':>6}"
)


def _line(found: Row | Refused) -> str:
    begin = f"{found.peer:11} {found.what:45} {found.size:28}"
    if isinstance(found, Refused):
        return f"{begin} not timed: {found.why}"
    quartiles = f"{found.first_quartile:.2f} to {found.third_quartile:.2f}"
    return (
        f"{begin} {found.ours_ms:10.3f} {found.theirs_ms:11.3f} {found.ratio:7.2f} {quartiles:>16} "
        f"{found.wall_ratio:8.2f} {found.rounds:6}"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--batch", default=1, type=int, help="images in a batch (default 1)")
    parser.add_argument("--only", default="", help='only meshes and images of this size, say "70,789 faces, 224 px"')
    parser.add_argument("--seconds", default=2.0, type=float, help="of measuring each pair (default 2)")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="a tiny mesh, once: does it run?")
    options = parser.parse_args(arguments)
    plan = _turns.QUICK if options.quick else _turns.Plan(seconds=options.seconds)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        about = _harness.surroundings(options.device)
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        obstacles = {peer.name: peer.obstacle(options.device) for peer in PEERS}
        for name, why in obstacles.items():
            if why is not None:
                print(f"{name}: left out: {why}")
        present = [peer for peer in PEERS if obstacles[peer.name] is None]
        found: list[Row | Refused] = []

        def save() -> None:
            """After each row: what ends the program loses none."""
            if options.json is None:
                return
            table = {
                **about,
                "left_out": {name: why for name, why in obstacles.items() if why is not None},
                "rows": [asdict(row) for row in found if isinstance(row, Row)],
                "refused": [asdict(row) for row in found if isinstance(row, Refused)],
            }
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(table, indent=1) + "\n")

        if present:
            print(HEADER)
        for mesh in meshes(options.batch, options.quick):
            for peer in present if options.only in mesh.size else ():
                for row in compare(peer, mesh, options.device, plan):
                    found.append(row)
                    print(_line(row), flush=True)
                    save()
        save()
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
