"""The misfit prior on the face."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from focus import ops
from focus._optional import require
from focus.face import Camera, MorphableModel
from focus.face.renderer import draw, shade

_SIZE = 480
_VIEWS = {"front": 0.0, "side": 1.1}
"""Title -> yaw in radians."""


@torch.no_grad()
def misfit_figure(model: MorphableModel, offsets: Tensor, title: str) -> bytes:
    """The mean face, coloured by how far the misfit lies outside of it, from the front and from a side, as PNG.

    Args:
        model: the face.
        offsets: ``[V, 3]`` mm. Along the surface they are not seen: what the colours leave out is told by the title.
        title: over the figure.

    Raises:
        FocusError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="evaluate", purpose="draw the misfit prior")
    figure = require("matplotlib.figure", extra="evaluate", purpose="draw the misfit prior").Figure((8.4, 4.4))
    shape = model.mean_shape.cpu()[None]
    outward = (ops.vertex_normals(shape, model.topology)[0] * offsets.cpu()).sum(dim=1)
    limit = max(float(np.quantile(outward.abs().numpy(), 0.995)), 1e-3)
    scale = matplotlib.colors.Normalize(-limit, limit)
    colors = torch.from_numpy(matplotlib.colormaps["RdBu_r"](scale(outward.numpy()))[:, :3].astype(np.float32))
    panels = figure.subplots(1, len(_VIEWS) + 1, width_ratios=[1] * len(_VIEWS) + [0.04])
    camera = Camera(_SIZE)
    light = shape.new_zeros(1, 3, 9)
    light[:, :, 0] = 0.85 / 0.282095  # even light, and a little from above, so that the form is seen
    light[:, :, 1] = 0.12
    light[:, :, 2] = -0.25
    for axes, (name, yaw) in zip(panels, _VIEWS.items(), strict=False):
        placed = camera.transform(shape, shape.new_tensor([[0.0, yaw, 0.0]]), shape.new_tensor([[0.0, 0.0, 60.0]]))
        placed[..., :2] -= (placed[..., :2].amin(dim=1) + placed[..., :2].amax(dim=1))[:, None] / 2
        _, shaded = shade(placed, colors[None], light, model.topology)
        image, mask, _ = draw(camera.project(placed), shaded, model.topology, (_SIZE, _SIZE))
        axes.imshow((image + 1 - mask)[0].clamp(0, 1).permute(1, 2, 0).numpy())
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    mappable = matplotlib.cm.ScalarMappable(scale, "RdBu_r")
    figure.colorbar(mappable, cax=panels[-1], label="outside (+) or inside (-) of the true face, mm")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
