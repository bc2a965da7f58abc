"""Interpolation of three attributes, on the fragments of the kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, pair

from focus import ops


def _inputs(mesh: Mesh, device: torch.device) -> tuple[torch.Tensor, ops.Topology, ops.Fragments]:
    topology = mesh.topology(device)
    fragments = ops.rasterize(mesh.vertices.to(device), topology, (mesh.image, mesh.image))
    return mesh.random(device, mesh.vertices.shape[1], 3), topology, fragments


def forward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    attributes, topology, fragments = _inputs(mesh, device)
    return (attributes, *fragments[:2]), lambda: (module.interpolate(attributes, topology, fragments),)


def forward_and_backward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    attributes, topology, fragments = _inputs(mesh, device)
    leaves = [attributes.requires_grad_(), fragments.barycentric.requires_grad_()]
    weights = mesh.random(device, 3, mesh.image, mesh.image)

    def run() -> Results:
        values = module.interpolate(attributes, topology, fragments)
        return values.detach(), *torch.autograd.grad(values, leaves, weights)

    return (*leaves, fragments.face_index, weights), run


def cases(device: torch.device, quick: bool) -> Iterable[Case]:
    return pair("interpolate", forward, forward_and_backward, device, quick)
