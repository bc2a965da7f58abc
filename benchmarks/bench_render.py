"""Colours of vertices to an image, with gradients: in one operator, in two, and from a posed and lit mesh on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from _harness import Case, Results
from _meshes import Mesh, Run, head, mesh_case, reduced, standard

from focus import ops
from focus.face import camera, renderer


def separate(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    """`rasterize`, then `interpolate`."""
    topology, size = mesh.topology(device), (mesh.image, mesh.image)
    leaves, weights = _leaves(mesh, device)

    def run() -> Results:
        image = module.interpolate(leaves[1], topology, module.rasterize(leaves[0], topology, size))
        return image.detach(), *torch.autograd.grad(image, leaves, weights)

    return (*leaves, weights), run


def fused(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    """`ops.render`."""
    topology, size = mesh.topology(device), (mesh.image, mesh.image)
    leaves, weights = _leaves(mesh, device)

    def run() -> Results:
        image, mask, _ = module.render(*leaves, topology, size)
        return image.detach(), mask, *torch.autograd.grad(image, leaves, weights)

    return (*leaves, weights), run


def whole(module: Any, mesh: Mesh, device: torch.device) -> tuple[Results, Run]:
    """Pose, projection, normals, light and image, by `focus.face.renderer`; gradients of all that goes in."""
    topology, size = mesh.topology(device), (mesh.image, mesh.image)
    view = camera.Camera(mesh.image)
    depth = mesh.vertices[..., 2:]
    space = torch.cat([(mesh.vertices[..., :2] - view.principal) * depth / view.focal, depth], -1)
    space = (space - torch.tensor([0.0, 0.0, camera.DEFAULT_DISTANCE])) * torch.tensor([1.0, -1.0, -1.0])
    batch = space.shape[0]
    leaves = [
        space.to(device),
        mesh.random(device, mesh.vertices.shape[1], 3),
        mesh.random(device, 3, 9),
        torch.zeros(batch, 3, device=device),
        torch.zeros(batch, 3, device=device),
    ]
    vertices, albedo, lighting, rotation, translation = (leaf.requires_grad_() for leaf in leaves)
    weights = mesh.random(device, 3, *size)

    def run() -> Results:
        posed = view.transform(vertices, rotation, translation)
        screen = view.project(posed)
        if module is ops.reference:
            colors = module.sh_shading(module.vertex_normals(posed, topology), albedo, lighting)
            fragments = module.rasterize(screen, topology, size, cull="clockwise")
            image = module.interpolate(colors, topology, fragments)
        else:
            _, colors = renderer.shade(posed, albedo, lighting, topology)
            image = renderer.draw(screen, colors, topology, size)[0]
        return image.detach(), *torch.autograd.grad(image, leaves, weights)

    return (*leaves, weights), run


def _leaves(mesh: Mesh, device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Screen vertices and attributes, and the gradient of the image."""
    attributes = mesh.random(device, mesh.vertices.shape[1], 3)
    leaves = [mesh.vertices.to(device, copy=True).requires_grad_(), attributes.requires_grad_()]
    return leaves, mesh.random(device, 3, mesh.image, mesh.image)


WORKS = {"rasterize + interpolate": separate, "render": fused, "whole render": whole}


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    for name, work in WORKS.items():
        for batch in (1, 12):
            mesh, small = (head(6, 8, batch, 16), head(6, 8, 1, 16)) if quick else (standard(batch), reduced())
            yield mesh_case(f"{name}, forward + backward", work, mesh, device, small=small)
