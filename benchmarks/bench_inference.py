"""What trained networks take for a photo, and how many photos a second in batches, apart for each part.

python benchmarks/bench_inference.py --json inference.json
python benchmarks/bench_inference.py --preset paper --batch 2 --device cuda

The time of networks does not depend on their weights: those of `paper` are random here. "segmentation" is the network
once, as the paper times it; `focus reconstruct` asks it for the mirror image, too, and solves for the light between,
which the last rows have. Files, faces and decoding are not in these times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _harness
import _turns
import torch

from focus.face import Renderer
from focus.train import Settings
from focus.train.config import Preset
from focus.train.distributed import uses_bfloat16
from focus.train.inference import segmented
from focus.train.run import build_networks


def parts(settings: Settings, batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """The parts of a reconstruction of a batch of crops, and the whole."""
    model = settings.face.build().to(device)
    networks = build_networks(settings, model).to(device).eval()
    renderer = Renderer(model, settings.image_size)
    size = settings.image_size
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        face = networks.reconstruction(images)
        drawn = renderer(face)

    def of(work: Callable[[], object], half: bool) -> Callable[[], object]:
        def run() -> object:
            networks.reconstruction.in_bfloat16 = networks.segmentation.in_bfloat16 = half
            with torch.no_grad():
                return work()

        return run

    works: dict[str, Callable[[], object]] = {
        "encoder": lambda: networks.reconstruction(images),
        "decoding and rendering": lambda: renderer(face),
        "segmentation": lambda: networks.segmentation.logits(drawn.image, images, drawn.mask),
        "all of it, once": lambda: _once(networks, renderer, images),
        "all of it, as focus reconstruct": lambda: segmented(
            networks, model, renderer, images, relight=settings.relight
        ),
    }
    found = {name: of(work, False) for name, work in works.items()}
    if uses_bfloat16("auto", device):
        found |= {f"{name}, bfloat16": of(work, True) for name, work in works.items()}
    return found


def _once(networks: Any, renderer: Renderer, images: torch.Tensor) -> torch.Tensor:
    drawn = renderer(networks.reconstruction(images))
    mask: torch.Tensor = networks.segmentation(drawn.image, images, drawn.mask)
    return mask


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="photos", choices=get_args(Preset), help="networks (default photos)")
    parser.add_argument("--batch", default=64, type=int, help="photos of the larger batch (default 64)")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", default=1, type=int, help="threads of the CPU (default 1)")
    parser.add_argument("--seconds", default=20.0, type=float, help="of measuring each batch size (default 20)")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="small batches, once: does it run?")
    options = parser.parse_args(arguments)
    settings = Settings.preset(options.preset)
    plan = _turns.QUICK if options.quick else _turns.Plan(block=0.0, seconds=options.seconds, least=3)
    on_cuda = options.device.type == "cuda"

    def wait() -> None:
        if on_cuda:
            torch.cuda.synchronize(options.device)

    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    rows = []
    try:
        about = {**_harness.surroundings(options.device), "preset": options.preset, "pixels": settings.image_size}
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        print(f"{'part':46} {'photos':>7} {'ms':>10} {'photos a second':>16}")
        for batch in (1, 2 if options.quick else options.batch):
            works = parts(settings, batch, options.device)
            for name, spent in zip(works, _turns.take_turns(list(works.values()), plan, wait), strict=True):
                seconds = statistics.median(one.wall if on_cuda else one.processor for one in spent)
                rows.append({"part": name, "photos": batch, "ms": 1e3 * seconds, "photos_a_second": batch / seconds})
                print(f"{name:46} {batch:7} {1e3 * seconds:10.3f} {batch / seconds:16.1f}", flush=True)
    finally:
        torch.set_num_threads(before)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
