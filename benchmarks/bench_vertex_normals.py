"""Normals of vertices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, pair


def forward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    vertices, topology = mesh.vertices.to(device), mesh.topology(device)
    return (vertices,), lambda: (module.vertex_normals(vertices, topology),)


def forward_and_backward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    vertices, topology = mesh.vertices.to(device, copy=True).requires_grad_(), mesh.topology(device)
    weights = mesh.random(device, *vertices.shape[1:])

    def run() -> Results:
        normals = module.vertex_normals(vertices, topology)
        return normals.detach(), *torch.autograd.grad(normals, [vertices], weights)

    return (vertices, weights), run


def cases(device: torch.device, quick: bool) -> Iterable[Case]:
    return pair("vertex_normals", forward, forward_and_backward, device, quick)
