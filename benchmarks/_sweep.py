"""One thing grows while all else stays: pixels, triangles, the batch, large triangles, slivers.

On the CPU two steps are those of memory: where the tensors outgrow a cache, and where one outgrows 32 MB, from which
size on glibc takes its pages from the system anew in every call. MALLOC_MMAP_MAX_=0 and
MALLOC_TRIM_THRESHOLD_=1000000000000 in the environment remove the second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import bench_interpolate
import bench_outlier_robust
import bench_rasterize
import bench_render
import bench_sh_shading
import bench_vertex_normals
import torch
from _harness import Case, Measurement
from _images import Loss, loss_case
from _meshes import Mesh, Work, head, mesh_case, quad, reduced, slivers, standard

from focus import ops

RASTERIZER: dict[str, Work] = {
    "rasterize, forward": bench_rasterize.forward,
    **{f"{name}, forward + backward": work for name, work in bench_render.WORKS.items() if name != "whole render"},
}
ON_VERTICES: dict[str, Work] = {
    "vertex_normals, forward + backward": bench_vertex_normals.forward_and_backward,
    "sh_shading, forward + backward": bench_sh_shading.forward_and_backward,
}
INTERPOLATE: dict[str, Work] = {"interpolate, forward + backward": bench_interpolate.forward_and_backward}
WHOLE: dict[str, Work] = {"whole render, forward + backward": bench_render.whole}
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "neighbor_min_loss 3x3": (partial(ops.neighbor_min_loss, window=3), partial(ops.reference.neighbor_min_loss)),
    "masked_photometric_loss": (ops.masked_photometric_loss, ops.reference.masked_photometric_loss),
    "outlier_robust_loss": (bench_outlier_robust.loss_of(ops), bench_outlier_robust.loss_of(ops.reference)),
}


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Each twin is checked on less of the same, once; on CUDA the CPU kernels check all of it."""
    sides = (16, 32) if quick else (64, 128, 256, 512, 1024, 2048)
    batches = (1, 2) if quick else (1, 2, 4, 8, 16, 32, 64)
    triangles = (100, 200) if quick else tuple(1000 * 2**k for k in range(1, 11))
    small = head(6, 8, 1, 16) if quick else reduced()

    def whole(batch: int = 1, image: int = 16 if quick else 224) -> Mesh:
        return head(6, 8, batch, image) if quick else standard(batch, image)

    def meshes(
        axis: str, works: dict[str, Work], make: Callable[[int], Mesh], amounts: tuple[int, ...], small: Mesh
    ) -> Iterator[Case]:
        for amount in amounts:
            mesh = make(amount)
            size = {"pixels": mesh.image**2, "batch": mesh.vertices.shape[0]}
            for name, work in works.items():
                exact = 3 if name.startswith("rasterize,") else 0
                yield mesh_case(
                    name,
                    work,
                    mesh,
                    device,
                    small=small,
                    exact=exact,
                    axis=axis,
                    amount=size.get(axis.split()[0], mesh.faces.shape[0]),
                )

    yield from meshes("pixels", RASTERIZER | INTERPOLATE, lambda side: whole(1, side), sides, small)
    yield from meshes("triangles", RASTERIZER | ON_VERTICES, _head_of, triangles, small)
    yield from meshes("batch", RASTERIZER | INTERPOLATE | ON_VERTICES | WHOLE, whole, batches, small)
    yield from meshes("pixels of 2 triangles", RASTERIZER, quad, sides, quad(16))
    counts = (20, 40) if quick else (1000, 2000, 4000, 8000, 16000)
    yield from meshes("slivers", RASTERIZER, slivers, counts, slivers(20, 32))
    for name, (ours, twin) in LOSSES.items():
        for side in sides:
            yield loss_case(name, ours, twin, 1, side, device, small=24, axis="pixels", amount=side * side)
        for batch in batches:
            side = 16 if quick else 224
            yield loss_case(name, ours, twin, batch, side, device, small=24, axis="batch", amount=batch)


def _head_of(triangles: int) -> Mesh:
    """A head of about so many, in the proportions of the standard one."""
    rows = max(3, round(math.sqrt(triangles / 2 / (313 / 114))))
    return head(rows, round(triangles / 2 / (rows - 1)))


def growth(rows: list[Measurement]) -> list[tuple[str, str, list[float]]]:
    """How the least time grows each time that the amount doubles, for every work and axis.

    Between amounts that are not twice each other, the factor of one doubling at a constant rate.
    """
    lines: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        lines.setdefault((row.name, row.axis), []).append(row)
    return [
        (
            name,
            axis,
            [
                (b.least_ms / a.least_ms) ** (math.log(2) / math.log(b.amount / a.amount))
                for a, b in itertools.pairwise(line)
            ],
        )
        for (name, axis), line in lines.items()
    ]
