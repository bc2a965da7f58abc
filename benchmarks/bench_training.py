"""Iterations a second of each kind of training iteration, each measure on and off, and what the faces take.

python benchmarks/bench_training.py --preset small --json training.json
python benchmarks/bench_training.py --preset paper --batch 2 --seconds 60
python benchmarks/bench_training.py --photos FOLDER --landmarks FILE --device cuda

The two sides of a measure take turns (A B A B) on the same batch, in one process, when both have come to the same
loss; ratios are those of the first over the second: above 1 the measure pays. Nothing of the data is in
these times: they stand in rows of their own, as faces a second that one process makes. `focus train --profile` says
where the time of a whole run goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _harness
import _turns
import torch

from focus.data import PhotoFolder
from focus.data.batches import FaceBatch
from focus.data.synthetic import SyntheticFaces
from focus.face import MorphableModel
from focus.nets import FilterBank
from focus.train import Settings, Trainer
from focus.train.capture import WARM_UP
from focus.train.config import MeasureSettings, Preset
from focus.train.distributed import uses_bfloat16
from focus.train.run import build_networks
from focus.train.schedule import Turn
from focus.train.sources import Mover, PhotoSource, SyntheticSource

PLAIN = MeasureSettings(channels_last=False, fused=False)


def measures(settings: Settings, device: torch.device, compiled: bool) -> dict[str, tuple[Settings, Settings]]:
    """What is compared: the settings without a measure, and with it."""
    single = replace(settings, precision="float32")
    usual = replace(single, measures=MeasureSettings())
    found = {
        "channels_last": (replace(usual, measures=replace(usual.measures, channels_last=False)), usual),
        "fused optimiser": (replace(usual, measures=replace(usual.measures, fused=False)), usual),
        "two parts": (usual, replace(usual, measures=replace(usual.measures, parts=2))),
    }
    if compiled:
        found["compile"] = (usual, replace(usual, measures=replace(usual.measures, compile=True)))
    if uses_bfloat16("auto", device):
        found["bfloat16"] = (usual, replace(usual, precision="bfloat16"))
    if device.type == "cuda":
        half = replace(usual, precision="auto")
        found["graph"] = (half, replace(half, measures=replace(half.measures, graph=True)))
    best = replace(usual, precision="auto")
    return {**found, "all of the defaults": (replace(single, measures=PLAIN), best)}


def iteration(
    settings: Settings, model: MorphableModel, turn: Turn, batch: FaceBatch, device: torch.device
) -> Callable[[], torch.Tensor]:
    """One iteration of a kind, on one batch, again and again; with optimisers and networks of its own."""

    class Nothing:
        def batch(self, step: int) -> FaceBatch:
            raise AssertionError("the batch is given")

    trainer = Trainer(settings, model, build_networks(settings, model), Nothing(), FilterBank(), device=device)
    trainer._begin(turn)
    return lambda: trainer.learner.learn(turn, turn.start, batch)["loss"]


def kinds(settings: Settings, model: MorphableModel) -> list[Turn]:
    """A turn of each kind; of the stage initialise its end, where the robust likelihood is at work."""
    trainer = Trainer(settings, model, build_networks(settings, model), None, FilterBank())  # type: ignore[arg-type]
    found: dict[tuple[str, str], Turn] = {}
    for turn in trainer.plan:
        found.setdefault((turn.stage, turn.network), turn)
    # Long enough for a graph to pay.
    return [replace(turn, start=turn.end - 1, length=1 << 20, before=turn.length - 1) for turn in found.values()]


def require_same(name: str, works: list[Callable[[], torch.Tensor]]) -> None:
    """Ends the program where two ways of an iteration do not come to the same loss."""
    count = WARM_UP + 3 if name == "graph" else 1
    first, second = ([float(work()) for _ in range(count)][-1] for work in works)
    if not abs(second - first) <= _TOLERANCES.get(name, 1e-3) * abs(first):
        raise SystemExit(f"{name}: a loss of {second:.5g} where {first:.5g} was expected; nothing more was timed")


_TOLERANCES = {"two parts": 0.2, "bfloat16": 0.1, "all of the defaults": 0.1, "graph": 0.05}
"""Relative. Parts have other random numbers, and BatchNorm sees each alone."""


def faces_a_second(draw: Callable[[int], FaceBatch], seconds: float) -> float:
    """Of a source, batch after batch."""
    draw(0)
    count, begin, step = 0, time.perf_counter(), 1
    while count == 0 or time.perf_counter() - begin < seconds:
        count += len(draw(step))
        step += 1
    return count / (time.perf_counter() - begin)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=get_args(Preset), help="settings (default small)")
    parser.add_argument("--batch", type=int, help="faces of an iteration (default: those of the preset)")
    parser.add_argument("--photos", type=Path, help="folder of photos, whose crops are timed, too")
    parser.add_argument("--landmarks", type=Path, help="their landmarks")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: minutes")
    parser.add_argument("--seconds", default=20.0, type=float, help="of measuring each pair (default 20)")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="tiny faces, once: does it run?")
    options = parser.parse_args(arguments)
    settings = replace(Settings.preset(options.preset), teacher="none", device=str(options.device), threads=0)
    stages = replace(settings.stages, again=0)
    settings = replace(settings, stages=stages, keep=0.0, batch_size=options.batch or settings.batch_size)
    if options.quick:
        settings = replace(settings, image_size=32, batch_size=2, network=Settings.preset("small").network)
    plan = _turns.QUICK if options.quick else _turns.Plan(block=0.0, seconds=options.seconds, least=5)
    on_cuda = options.device.type == "cuda"

    def wait() -> None:
        if on_cuda:
            torch.cuda.synchronize(options.device)

    rows: list[dict[str, Any]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        about = {**_harness.surroundings(options.device), "preset": options.preset, "batch": settings.batch_size}
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        model = settings.face.build()
        faces = SyntheticFaces(model, settings.image_size, seed=1, settings=settings.data.synthetic)
        seconds = 0.0 if options.quick else min(options.seconds, 10.0)
        for name, draw in _sources(settings, faces, options.photos, options.landmarks, options.device).items():
            rate = faces_a_second(draw, seconds)
            rows.append({"source": name, "faces_a_second": rate})
            print(f"{name:30} {rate:9.1f} faces a second", flush=True)
        batch = faces.batch(0, settings.batch_size).to(options.device)
        print(f"{'iteration':38} {'measure':20} {'without':>12} {'with':>12} {'ratio':>7}  quartiles")
        for turn in kinds(settings, model):
            for name, pair in measures(settings, options.device, options.compile).items():
                works = [iteration(one, model, turn, batch, options.device) for one in pair]
                require_same(name, works)
                spent = _turns.take_turns(works, plan, wait)
                times = [[one.wall if on_cuda else one.processor for one in side] for side in spent]
                ratio = _turns.ratio(times[1], times[0])
                milliseconds = [1e3 * statistics.median(side) for side in times]
                kind = f"{turn.stage}, {turn.network} network"
                rows.append(
                    {
                        "iteration": kind,
                        "measure": name,
                        "without_ms": milliseconds[0],
                        "with_ms": milliseconds[1],
                        "ratio": ratio._asdict(),
                    }
                )
                print(
                    f"{kind:38} {name:20} {milliseconds[0]:9.1f} ms {milliseconds[1]:9.1f} ms {ratio.median:6.2f}x  "
                    f"{ratio.first:.2f} to {ratio.third:.2f}",
                    flush=True,
                )
    finally:
        torch.set_num_threads(before)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def _sources(
    settings: Settings, faces: SyntheticFaces, photos: Path | None, landmarks: Path | None, device: torch.device
) -> dict[str, Callable[[int], FaceBatch]]:
    found = {"synthetic faces": SyntheticSource(faces, settings.batch_size).batch}
    if photos is not None and landmarks is not None:
        folder = PhotoFolder(photos, landmarks, settings.image_size)
        for name, augment in (("photos, as they are", False), ("photos, changed at random", True)):
            source = PhotoSource(folder, list(range(len(folder))), settings.batch_size, seed=0, augment=augment)
            found[name] = source.batch
        source, move = PhotoSource(folder.later, list(range(len(folder))), settings.batch_size, seed=0), Mover(device)

        def moved(step: int) -> FaceBatch:
            batch = move(source.batch(step))
            batch.image.sum().item()  # it is there
            return batch

        found["photos, changed on the device"] = moved
    return found


if __name__ == "__main__":
    main()
