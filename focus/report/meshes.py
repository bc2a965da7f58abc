"""Coloured meshes as PLY, OBJ and GLB files, through trimesh."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MESH_SUFFIXES = (".ply", ".obj", ".glb")
_OBJ_DIGITS = 4  # of a millimetre
_METRES = 1e-3


def encode_meshes(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], colors: NDArray[np.floating]
) -> dict[str, bytes]:
    """The contents of a mesh file in each format.

    PLY and OBJ are in the unit of `vertices`, millimetres. GLB is in metres, and its colours are linear, as glTF wants
    it; its material is matt. In all of them y is up and the face looks along +z, towards the camera of a viewer.

    Args:
        vertices: ``[V, 3]`` mm.
        faces: ``[F, 3]``, counterclockwise seen from outside.
        colors: ``[V, 3]`` sRGB in [0, 1]; clamped.

    Returns:
        Suffix (of `MESH_SUFFIXES`) to contents.
    """
    import trimesh

    exchange: Any = trimesh.exchange  # partly without types

    def mesh(scale: float, rgb: NDArray[np.floating]) -> Any:
        bytes_rgb = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
        # process=False: no vertex is merged or moved, so that the files keep the model's numbering.
        return trimesh.Trimesh(vertices * scale, faces, vertex_colors=bytes_rgb, process=False)

    srgb = np.clip(np.asarray(colors, np.float64), 0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    plain = mesh(1, srgb)
    obj: str = exchange.obj.export_obj(plain, digits=_OBJ_DIGITS, header="FOCUS; unit: millimetre")
    return {
        ".ply": exchange.ply.export_ply(plain),
        ".obj": obj.encode(),
        ".glb": exchange.gltf.export_glb(
            mesh(_METRES, linear).scene(), include_normals=True, tree_postprocessor=_make_matt
        ),
    }


def _make_matt(tree: dict[str, Any]) -> None:
    """Gives the meshes of a glTF tree a material: the default of the standard is bare metal, and skin looks black."""
    tree["materials"] = [{"name": "skin", "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}]
    for entry in tree["meshes"]:
        for primitive in entry["primitives"]:
            primitive["material"] = 0
