"""Times the mesh operators on a face-like mesh, after checking their results, beside the copy bandwidth of the device.

python scripts/time_operators.py --device cuda --output timings.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from focus import _C, ops

SIDE = 189  # vertices: 35,721, faces: 70,688, about those of the Basel face model's face region
IMAGE = 224


def head(batch: int, device: torch.device) -> tuple[torch.Tensor, ops.Topology]:
    """A wavy ellipsoid over about 57% of the image, as a sheet of SIDE x SIDE vertices; each item a little moved."""
    v, u = torch.meshgrid(torch.linspace(0.02, 0.98, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    polar, around = torch.pi * v, 2 * torch.pi * u
    radius = 1 + 0.03 * torch.sin(7 * around) * torch.sin(9 * polar)
    x = 0.80 * IMAGE / 2 * radius * polar.sin() * around.cos() + (IMAGE - 1) / 2
    y = 0.88 * IMAGE / 2 * radius * polar.cos() + (IMAGE - 1) / 2
    z = 1000 + 100 * radius * polar.sin() * around.sin()
    vertices = torch.stack([x, y, z], -1).reshape(1, -1, 3) + torch.arange(batch)[:, None, None] * 0.37
    corner = (torch.arange(SIDE - 1)[:, None] * SIDE + torch.arange(SIDE - 1)).flatten()
    upper = torch.stack([corner, corner + 1, corner + SIDE], -1)
    lower = torch.stack([corner + 1, corner + SIDE + 1, corner + SIDE], -1)
    faces = torch.stack([upper, lower], 1).reshape(-1, 3)
    return vertices.to(device), ops.Topology(faces, SIDE * SIDE).to(device)


def median_ms(run: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """Median wall time of one call, the device idle before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for _ in range(repetitions + 3):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


def copy_bandwidth(device: torch.device) -> float:
    """GB/s, bytes read and bytes written, of a copy of 400 MB."""
    source = torch.ones(100_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_ms(lambda: target.copy_(source), device, 10) / 1e6


def cases(batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    vertices, topology = head(batch, device)
    leaf = vertices.clone().requires_grad_()
    fragments = ops.rasterize(leaf, topology, (IMAGE, IMAGE))
    found = ops.Fragments(*(t.detach() for t in fragments))
    attributes = torch.rand(batch, SIDE * SIDE, 3, device=device, requires_grad=True)
    normals = ops.vertex_normals(leaf, topology)
    unit = normals.detach().requires_grad_()
    light = torch.rand(batch, 3, 9, device=device, requires_grad=True)
    values = ops.interpolate(attributes, topology, fragments)
    colors = ops.sh_shading(unit, attributes, light)

    def backward(outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], object]:
        weights = [torch.rand_like(output) for output in outputs]
        return lambda: torch.autograd.grad(outputs, inputs, weights, retain_graph=True)

    def render() -> object:
        shaded = ops.sh_shading(ops.vertex_normals(leaf, topology), attributes, light)
        image = ops.interpolate(shaded, topology, ops.rasterize(leaf, topology, (IMAGE, IMAGE)))
        return torch.autograd.grad(image.sum(), [leaf, attributes, light])

    return {
        "rasterize": lambda: ops.rasterize(vertices, topology, (IMAGE, IMAGE)),
        "rasterize_backward": backward([fragments.barycentric, fragments.depth], [leaf]),
        "interpolate": lambda: ops.interpolate(attributes.detach(), topology, found),
        "interpolate_backward": backward([values], [attributes, fragments.barycentric]),
        "vertex_normals": lambda: ops.vertex_normals(vertices, topology),
        "vertex_normals_backward": backward([normals], [leaf]),
        "sh_shading": lambda: ops.sh_shading(unit.detach(), attributes.detach(), light.detach()),
        "sh_shading_backward": backward([colors], [unit, attributes, light]),
        "render_and_gradients": render,
    }


def check(device: torch.device) -> float:
    """Raises unless the device finds the CPU's picture, bit for bit; returns the covered part of the image."""
    vertices, topology = head(2, device)
    there = ops.rasterize(vertices, topology, (IMAGE, IMAGE))
    here = ops.rasterize(vertices.cpu(), topology.to("cpu"), (IMAGE, IMAGE))
    for name, a, b in zip(ops.Fragments._fields, there, here, strict=True):
        if not torch.equal(a.cpu(), b):
            raise SystemExit(
                f"{name} differs between {device} and the CPU in {int((a.cpu() != b).sum())} values; not timed"
            )
    return float((here.face_index >= 0).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--repetitions", type=int, default=20)
    arguments = parser.parse_args()
    device: torch.device = arguments.device
    on_cuda = device.type == "cuda"
    result = {
        "device": torch.cuda.get_device_name(device) if on_cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda_kernels": _C.cuda_version,
        "covered": check(device),
        "copy_gb_per_s": copy_bandwidth(device),
        "milliseconds": {
            batch: {name: median_ms(run, device, arguments.repetitions) for name, run in cases(batch, device).items()}
            for batch in arguments.batches
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
