"""Blending at the outline of an image of colours and mask, on the face index of the kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, pair

from focus import ops


def _inputs(mesh: Mesh, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, ops.Topology, torch.Tensor]:
    topology, vertices = mesh.topology(device), mesh.vertices.to(device)
    index = ops.rasterize(vertices, topology, (mesh.image, mesh.image)).face_index
    return mesh.random(device, 4, mesh.image, mesh.image), vertices, topology, index


def forward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    image, vertices, topology, index = _inputs(mesh, device)
    return (image, vertices, index), lambda: (module.antialias(image, vertices, topology, index),)


def forward_and_backward(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    image, vertices, topology, index = _inputs(mesh, device)
    leaves = [image.requires_grad_(), vertices.requires_grad_()]
    weights = 1 - mesh.random(device, 4, mesh.image, mesh.image)

    def run() -> Results:
        values = module.antialias(image, vertices, topology, index)
        return values.detach(), *torch.autograd.grad(values, leaves, weights)

    return (*leaves, index, weights), run


def cases(device: torch.device, quick: bool) -> Iterable[Case]:
    return pair("antialias", forward, forward_and_backward, device, quick, slow_twin=True, exact=1)
