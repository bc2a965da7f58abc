"""What an iteration of training must do, counted, and how long a card with given peaks takes for it: a model.

python benchmarks/training_cost.py --preset paper

Nothing is computed: the iteration runs on tensors that have shapes alone, and each operation that torch would launch is
taken down. Its operations are those of matrix products and convolutions (torch.utils.flop_counter), its bytes those of
the tensors that it reads and writes: an upper bound, since caches hold some. An operation takes the longer of its two
times; where there is no graph, an iteration takes no less than its launches. The defaults are the published peaks of an
H200 (NVIDIA, data sheet of 2024: 989 TFLOP/s dense in bfloat16, 4.8 TB/s) and shares of them that are usual, not
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from focus.data.synthetic import SyntheticFaces
from focus.nets import FilterBank
from focus.train import Settings, Trainer
from focus.train.config import Preset
from focus.train.run import build_networks
from focus.train.schedule import Turn


@dataclass(frozen=True)
class Card:
    """What is assumed of it."""

    tflops: float = 989.0
    terabytes_per_second: float = 4.8
    share_of_tflops: float = 0.4
    share_of_bandwidth: float = 0.7
    microseconds_per_launch: float = 5.0


class Count(TorchDispatchMode):
    """Takes down what is launched."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.flops, self.bytes, self.launches, self.seconds = 0.0, 0.0, 0, 0.0
        self.by_kind: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        packet = func._overloadpacket
        if func.is_view or packet.__name__ in _NO_LAUNCH:
            return outputs
        flops = float(flop_registry[packet](*args, **kwargs, out_val=outputs)) if packet in flop_registry else 0.0
        moved = float(sum(t.numel() * t.element_size() for t in [*_tensors(args), *_tensors(outputs)]))
        card = self.card
        seconds = max(
            flops / (card.tflops * 1e12 * card.share_of_tflops),
            moved / (card.terabytes_per_second * 1e12 * card.share_of_bandwidth),
        )
        launches = len(args[0]) // 30 + 1 if packet.__name__.startswith("_foreach") else 1
        self.flops, self.bytes, self.launches = self.flops + flops, self.bytes + moved, self.launches + launches
        self.seconds += seconds
        kind = "convolutions" if flops else "optimizer" if "foreach" in str(packet) else "everything else"
        self.by_kind[kind] += seconds
        return outputs


_NO_LAUNCH = (
    *("detach", "alias", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resolve_conj"),
    *("_unsafe_view", "device"),
)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, (list, tuple)) else []


def count(settings: Settings, card: Card) -> list[tuple[Turn, Count]]:
    """For each kind of iteration of a run, one of them."""
    model = settings.face.build()
    faces = SyntheticFaces(settings.face.build(), settings.image_size, seed=1, settings=settings.data.synthetic)
    one = faces.batch(0, 1)
    batch = one[[0] * settings.batch_size]
    trainer = Trainer(settings, model, build_networks(settings, model), None, FilterBank())  # type: ignore[arg-type]
    assert trainer.model.topology is not None  # built once, before
    found: dict[tuple[str, str], tuple[Turn, Count]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        parts = [trainer.model, trainer.objectives.features, *(network for _, network in trainer.networks.items())]
        for module in [one for part in parts for one in part.modules()]:  # type: ignore[union-attr]
            for store in (module._parameters, module._buffers):
                for name, value in store.items():
                    if value is not None:
                        fake = mode.from_tensor(value.detach())
                        store[name] = torch.nn.Parameter(fake) if store is module._parameters else fake
        fake_batch = batch.map(mode.from_tensor)
        for turn in trainer.plan:
            if (turn.stage, turn.network) in found:
                continue
            trainer._begin(turn)
            trainer.learner.learn(turn, turn.start, fake_batch)  # the optimiser finds its memory
            counter = Count(card)
            with counter:
                trainer.learner.learn(turn, turn.end - 1, fake_batch)
            found[turn.stage, turn.network] = (turn, counter)
    return list(found.values())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=get_args(Preset))
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    for name, value in vars(Card()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, type=float)
    parser.add_argument("--json", type=Path, help="file to write the table to")
    options = parser.parse_args(arguments)
    card = Card(**{name: getattr(options, name) for name in vars(Card())})
    settings = replace(
        Settings.preset(options.preset), teacher="none", precision=options.precision, device="cpu", keep=0.0
    )
    settings = replace(settings, stages=replace(settings.stages, again=0))
    print(f"{options.preset}, {settings.batch_size} faces of {settings.image_size} pixels, {options.precision}; {card}")
    print(
        f"{'iteration':38} {'GFLOP':>9} {'GB moved':>9} {'launches':>9} {'graph':>10} {'eager':>10} {'of the run':>11}"
    )
    rows, hours = [], {"graph": 0.0, "eager": 0.0}
    for turn, found in count(settings, card):
        launching = found.launches * card.microseconds_per_launch * 1e-6
        graph, eager = found.seconds, max(found.seconds, launching)
        iterations = sum(
            other.length for other in _plan(settings) if (other.stage, other.network) == (turn.stage, turn.network)
        )
        hours["graph"] += graph * iterations / 3600
        hours["eager"] += eager * iterations / 3600
        kind = f"{turn.stage}, {turn.network} network"
        rows.append(
            {
                "iteration": kind,
                "gflop": found.flops / 1e9,
                "gigabytes": found.bytes / 1e9,
                "launches": found.launches,
                "graph_ms": 1e3 * graph,
                "eager_ms": 1e3 * eager,
                "iterations": iterations,
                "ms_by_kind": {name: 1e3 * value for name, value in found.by_kind.items()},
            }
        )
        print(
            f"{kind:38} {found.flops / 1e9:9.1f} {found.bytes / 1e9:9.2f} {found.launches:9} {1e3 * graph:7.2f} ms "
            f"{1e3 * eager:7.2f} ms {graph * iterations / 3600:9.2f} h"
        )
    print(f"the whole run by this model: {hours['graph']:.2f} hours with graphs, {hours['eager']:.2f} without")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"card": vars(card), "rows": rows, "hours": hours}, indent=1) + "\n")


def _plan(settings: Settings) -> tuple[Turn, ...]:
    from focus.train import plan

    return plan(settings.stages, settings.method)


if __name__ == "__main__":
    main()
