"""A face in three dimensions inside an HTML page: meshes as base64, drawn by ``assets/viewer.js``."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import torch
from torch import Tensor

from focus.face import FaceParameters, MorphableModel, Renderer
from focus.report.panels import Picture, cut_out, encode_png

ERROR_LIMIT = 5.0
"""Millimetres at the dark end of the error colours."""
_TURNTABLE_YAW = (-60, -30, 0, 30, 60)
_TURNTABLE_SIZE = 176


@dataclass(frozen=True)
class Mesh:
    """One face of the viewer; all share their triangles."""

    label: str
    vertices: Tensor
    """``[V, 3]`` mm, model space."""
    albedo: Tensor
    """``[V, 3]`` RGB."""
    errors: Tensor | None = None
    """``[V]`` mm, distance to the truth; None: zero."""


def viewer(model: MorphableModel, meshes: Sequence[Mesh], *, shown: int = 0) -> str:
    """A viewer of some faces, and a row of pictures where a browser cannot draw it.

    Args:
        model: gives the triangles.
        meshes: to choose from.
        shown: index of the one that is shown first.

    Returns:
        HTML; the page needs ``assets/viewer.js`` after it.
    """
    if not meshes:
        raise ValueError("viewer: expected at least one mesh, got none")
    centre = meshes[0].vertices.mean(dim=0)
    extent = float((meshes[0].vertices - centre).abs().max())
    content = {
        "faces": _base64(model.faces.cpu().numpy().astype("<u4")),
        "scale": round(0.86 / extent, 6),
        "meshes": [
            {
                "positions": _base64((mesh.vertices - centre).cpu().numpy().astype("<f4")),
                "colors": _base64((mesh.albedo.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()),
                "errors": _base64(_error_bytes(mesh)),
            }
            for mesh in meshes
        ],
    }
    choices = "".join(
        f'<label><input type="radio" name="mesh" value="{i}"{" checked" if i == shown else ""}>{escape(mesh.label)}'
        + (f'<span class="value">{float(mesh.errors.mean()):.2f} mm</span>' if mesh.errors is not None else "")
        + "</label>"
        for i, mesh in enumerate(meshes)
    )
    colors = "".join(
        f'<label><input type="radio" name="color" value="{value}"{" checked" if value == "skin" else ""}>{text}</label>'
        for value, text in (("skin", "skin"), ("clay", "clay"), ("error", "distance to the true face"))
    )
    strip = "".join(
        f'<img src="{data_uri(picture)}" alt="{escape(meshes[shown].label)}, turned by {yaw} degrees">'
        for yaw, picture in zip(_TURNTABLE_YAW, turntable(model, meshes[shown]), strict=True)
    )
    return (
        '<div class="viewer"><div>'
        '<canvas tabindex="0" role="img" aria-label="A face in 3D: drag, or use the arrow keys, to turn it"></canvas>'
        f'<div class="turntable">{strip}</div></div><div class="controls">'
        f"<fieldset><legend>Face</legend>{choices}</fieldset><fieldset><legend>Colour</legend>{colors}</fieldset>"
        f'<div class="scale"><span>0</span><i></i><span>{ERROR_LIMIT:g} mm</span></div></div></div>'
        f'<script type="application/json" id="meshes">{json.dumps(content)}</script>'
    )


@torch.no_grad()
def turntable(model: MorphableModel, mesh: Mesh) -> list[Picture]:
    """The face seen from five sides, under soft light from above."""
    device = model.mean_shape.device
    parameters = FaceParameters.mean(model, len(_TURNTABLE_YAW), device=device)
    lighting = parameters.lighting.clone()
    lighting[:, :, 0] *= 0.72
    lighting[:, :, 1], lighting[:, :, 2] = 0.35, -0.65  # from above and from the camera
    yaw = torch.tensor(_TURNTABLE_YAW, dtype=torch.float32, device=device).deg2rad()
    rotation = torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], dim=1)
    distance = torch.tensor([0.0, 0.0, 280.0], dtype=torch.float32, device=device).expand(len(yaw), 3)
    parameters = replace(parameters, rotation=rotation, lighting=lighting, translation=distance)
    vertices, albedo = mesh.vertices.to(device), mesh.albedo.to(device)
    rendering = Renderer(model, _TURNTABLE_SIZE)(
        parameters, vertices=vertices.expand(len(yaw), -1, -1), albedo=albedo.expand(len(yaw), -1, -1)
    )
    return [cut_out(image, mask) for image, mask in zip(rendering.image, rendering.mask, strict=True)]


def data_uri(picture: Picture) -> str:
    """A picture as the address of an image that is its own content."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode("ascii")


def _error_bytes(mesh: Mesh) -> np.ndarray:
    errors = mesh.vertices.new_zeros(len(mesh.vertices)) if mesh.errors is None else mesh.errors
    return (errors / ERROR_LIMIT).clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
