"""Shading of vertices with spherical harmonics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, pair

from focus import ops


def _inputs(mesh: Mesh, device: torch.device) -> list[torch.Tensor]:
    normals = ops.vertex_normals(mesh.vertices.to(device), mesh.topology(device))
    return [normals, mesh.random(device, mesh.vertices.shape[1], 3), mesh.random(device, 3, 9)]


def forward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    inputs = _inputs(mesh, device)
    return tuple(inputs), lambda: (module.sh_shading(*inputs),)


def forward_and_backward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    leaves = [tensor.requires_grad_() for tensor in _inputs(mesh, device)]
    weights = mesh.random(device, *leaves[0].shape[1:])

    def run() -> Results:
        colors = module.sh_shading(*leaves)
        return colors.detach(), *torch.autograd.grad(colors, leaves, weights)

    return (*leaves, weights), run


def cases(device: torch.device, quick: bool) -> Iterable[Case]:
    return pair("sh_shading", forward, forward_and_backward, device, quick)
