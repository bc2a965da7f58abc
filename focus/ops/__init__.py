"""Fast differentiable operators on meshes and images, for the CPU and CUDA.

Each is a torch operator (``torch.ops.focus.*``) that works with autograd, both modes and vmap of ``torch.func``,
``torch.compile(fullgraph=True)`` and autocast, and has a twin in pure torch under the same name in
`focus.ops.reference`. Images are `[B, C, H, W]`, pixel centres at integer coordinates.
"""

from focus.ops import reference
from focus.ops.antialias import antialias
from focus.ops.interpolate import interpolate
from focus.ops.masked_photometric import masked_photometric_loss
from focus.ops.neighbor_min import neighbor_min, neighbor_min_loss
from focus.ops.outlier_robust import outlier_robust_loss
from focus.ops.rasterize import Fragments, rasterize
from focus.ops.render import render
from focus.ops.sh_shading import sh_shading
from focus.ops.topology import Topology
from focus.ops.vertex_normals import vertex_normals

__all__ = [
    "Fragments",
    "Topology",
    "antialias",
    "interpolate",
    "masked_photometric_loss",
    "neighbor_min",
    "neighbor_min_loss",
    "outlier_robust_loss",
    "rasterize",
    "reference",
    "render",
    "sh_shading",
    "vertex_normals",
]
