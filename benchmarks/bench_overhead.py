"""What a call costs that has next to nothing to do: images of 8 x 8 pixels, a mesh of ten vertices.

python benchmarks/bench_overhead.py --json overhead.json

Every operator without a gradient, with a graph made and not used ("recorded"), and with its backward pass, in
microseconds of processor time and with one thread. Beside them operators of torch itself and, where it is installed,
those of DRTK. All take turns, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _harness
import _peers
import _turns
import torch
from torch.nn import functional

from focus import ops

SIDE = 8
# A fan of eight faces round the middle of the image; the last vertex belongs to none.
ANGLES = torch.arange(8) * torch.pi / 4
RIM = torch.stack([3.5 + 3.2 * ANGLES.cos(), 3.5 + 3.2 * ANGLES.sin(), torch.full((8,), 900.0)], -1)
VERTICES = torch.cat([RIM, torch.tensor([[3.5, 3.5, 880.0], [0.0, 0.0, 900.0]])])[None]
FACES = torch.tensor([[8, i, (i + 1) % 8] for i in range(8)])

Outputs = torch.Tensor | Sequence[torch.Tensor]


@dataclass(frozen=True)
class Call:
    """`function(*inputs)`, differentiated in all inputs; of its outputs those are that floating and recorded."""

    who: str
    name: str
    function: Callable[..., Outputs]
    inputs: tuple[torch.Tensor, ...]

    def ways(self) -> dict[str, Callable[[], object]]:
        """What is timed: those of `WAYS` that make sense."""
        leaves = [tensor.clone().requires_grad_() for tensor in self.inputs]
        found: dict[str, Callable[[], object]] = {"forward": functools.partial(self.function, *self.inputs)}
        outputs = _recorded(self.function(*leaves))
        if not outputs:
            return found
        weights = [torch.ones_like(output) for output in outputs]

        def both() -> object:
            return torch.autograd.grad(_recorded(self.function(*leaves)), leaves, weights)

        return found | {"recorded": functools.partial(self.function, *leaves), "forward + backward": both}


WAYS = ("forward", "recorded", "forward + backward")


def _recorded(outputs: Outputs) -> list[torch.Tensor]:
    found = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return [output for output in found if output.requires_grad]


def ours() -> list[Call]:
    """Every operator of `focus.ops`."""
    size = (SIDE, SIDE)
    mesh = ops.Topology(FACES, VERTICES.shape[1])
    colors, light = torch.rand(1, VERTICES.shape[1], 3), torch.rand(1, 3, 9)
    fragments = ops.rasterize(VERTICES, mesh, size)
    image, mask, face_index = ops.render(VERTICES, colors, mesh, size)
    images = (torch.rand_like(image), image, mask)

    def interpolate(attributes: torch.Tensor, barycentric: torch.Tensor) -> Outputs:
        return ops.interpolate(attributes, mesh, fragments._replace(barycentric=barycentric))

    calls: dict[str, tuple[Callable[..., Outputs], tuple[torch.Tensor, ...]]] = {
        "rasterize": (lambda v: ops.rasterize(v, mesh, size), (VERTICES,)),
        "interpolate": (interpolate, (colors, fragments.barycentric)),
        "render": (lambda v, c: ops.render(v, c, mesh, size), (VERTICES, colors)),
        "antialias": (lambda i, v: ops.antialias(i, v, mesh, face_index), (image, VERTICES)),
        "vertex_normals": (lambda v: ops.vertex_normals(v, mesh), (VERTICES,)),
        "sh_shading": (ops.sh_shading, (ops.vertex_normals(VERTICES, mesh), colors, light)),
        "neighbor_min": (ops.neighbor_min, images),
        "neighbor_min_loss": (ops.neighbor_min_loss, images),
        "masked_photometric_loss": (ops.masked_photometric_loss, images),
        "outlier_robust_loss": (ops.outlier_robust_loss, images),
        "render, plain faces": (lambda v, c: ops.render(v, c, FACES, size), (VERTICES, colors)),
    }
    return [Call("focus", name, function, inputs) for name, (function, inputs) in calls.items()]


def torchs() -> list[Call]:
    """Operators of torch that everybody knows."""
    image, grid = torch.rand(1, 3, SIDE, SIDE), 2 * torch.rand(1, SIDE, SIDE, 2) - 1
    rows = torch.rand(1, VERTICES.shape[1], 3)

    def sample(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return functional.grid_sample(image, grid, align_corners=False)

    return [
        Call("torch", REFERENCE, functools.partial(functional.conv2d, padding=1), (image, torch.rand(3, 3, 3, 3))),
        Call("torch", "grid_sample", sample, (image, grid)),
        Call("torch", "mul", torch.mul, (image, image)),
        Call("torch", "cross", torch.linalg.cross, (VERTICES, rows)),
        Call("torch", "mse_loss", functional.mse_loss, (image, image)),
    ]


REFERENCE = "conv2d 3x3"
"""What ratios are taken to."""


def drtks() -> list[Call]:
    """Of DRTK what draws the same mesh."""
    drtk = _peers.find("drtk", _peers.DRTK_PARTS)
    if isinstance(drtk, str):
        print(f"DRTK: {drtk}")
        return []
    faces, size = FACES.int()[None].contiguous(), (SIDE, SIDE)
    colors = torch.rand(1, VERTICES.shape[1], 3)
    shown = drtk.rasterize(VERTICES, faces, *size)
    _, inside = drtk.render(VERTICES, faces, shown)

    def whole(vertices: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        index = drtk.rasterize(vertices, faces, *size)
        _, inside = drtk.render(vertices, faces, index)
        image: torch.Tensor = drtk.interpolate(colors, faces, index, inside)
        return image

    return [
        Call("DRTK", "rasterize", lambda v: drtk.rasterize(v, faces, *size), (VERTICES,)),
        Call("DRTK", "render", lambda v: drtk.render(v, faces, shown), (VERTICES,)),
        Call("DRTK", "interpolate", lambda c, b: drtk.interpolate(c, faces, shown, b), (colors, inside)),
        Call("DRTK", WHOLE, whole, (VERTICES, colors)),
    ]


WHOLE = "rasterize + render + interpolate"


@dataclass(frozen=True)
class Row:
    """Microseconds of one way to call: the least of all rounds, since what else a machine does only adds to so little
    work; and how many times that of the reference. Quartiles of the rounds tell how busy it was."""

    who: str
    name: str
    way: str
    microseconds: float
    of_reference: float
    first_quartile: float
    median: float
    third_quartile: float


def measure(calls: Sequence[Call], plan: _turns.Plan) -> list[Row]:
    rows = []
    for way in WAYS:
        timed = [(call, work) for call in calls for key, work in call.ways().items() if key == way]
        spent = [[one.processor for one in found] for found in _turns.take_turns([work for _, work in timed], plan)]
        (reference,) = (min(times) for (call, _), times in zip(timed, spent, strict=True) if call.name == REFERENCE)
        for (call, _), times in zip(timed, spent, strict=True):
            quartiles = (1e6 * value for value in _quartiles(times))
            rows.append(Row(call.who, call.name, way, 1e6 * min(times), min(times) / reference, *quartiles))
    return rows


def _quartiles(times: list[float]) -> tuple[float, float, float]:
    if len(times) == 1:
        return (times[0],) * 3
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return first, statistics.median(times), third


def _print(rows: list[Row]) -> None:
    print(f"{'microseconds':42}" + "".join(f"{way:>20}" for way in WAYS) + f"   times {REFERENCE}, each")
    for who, name in dict.fromkeys((row.who, row.name) for row in rows):
        of = {row.way: row for row in rows if (row.who, row.name) == (who, name)}
        times = "".join(f"{of[way].microseconds:20.1f}" if way in of else f"{'':20}" for way in WAYS)
        ratios = " ".join(f"{of[way].of_reference:6.2f}" if way in of else f"{'':6}" for way in WAYS)
        print(f"{who + ': ' + name:42}{times}   {ratios}")
    found = {(row.who, row.name, row.way): row.microseconds for row in rows}
    for way in WAYS:
        if ("DRTK", WHOLE, way) in found:
            share = found["DRTK", WHOLE, way] / found["focus", "render", way]
            print(f"DRTK's {WHOLE} / our render, {way}: {share:.2f}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring each of the three ways (default 20)")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="once: does it run?")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = _turns.QUICK if options.quick else _turns.Plan(block=0.002, seconds=options.seconds)
        rows = measure([*ours(), *torchs(), *drtks()], plan)
        _print(rows)
        if options.json:
            table = {**_harness.surroundings(torch.device("cpu")), "rows": [asdict(row) for row in rows]}
            options.json.write_text(json.dumps(table, indent=1) + "\n")
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
