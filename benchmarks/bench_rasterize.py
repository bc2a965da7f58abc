"""The rasterizer alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, pair


def forward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    vertices, topology = mesh.vertices.to(device), mesh.topology(device)
    return (vertices,), lambda: module.rasterize(vertices, topology, (mesh.image, mesh.image))


def forward_and_backward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    vertices, topology = mesh.vertices.to(device, copy=True).requires_grad_(), mesh.topology(device)
    size = (mesh.image, mesh.image)
    weights = [mesh.random(device, *size, 3), mesh.random(device, *size)]

    def run() -> Results:
        fragments = module.rasterize(vertices, topology, size)
        gradients = torch.autograd.grad([fragments.barycentric, fragments.depth], [vertices], weights)
        return tuple(result.detach() for result in (*fragments, *gradients))

    return (vertices, *weights), run


def cases(device: torch.device, quick: bool) -> Iterable[Case]:
    return pair("rasterize", forward, forward_and_backward, device, quick, slow_twin=True, exact=3)
