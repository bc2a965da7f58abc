"""Coloured meshes as PLY, OBJ and GLB files, through trimesh."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focus import ops

MESH_SUFFIXES = (".ply", ".obj", ".glb")
_OBJ_DIGITS = 4  # of a millimetre
_METRES = 1e-3
_COLORS = "_COLORS"  # those that begin with an underscore are written as they are


def encode_meshes(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], colors: NDArray[np.floating]
) -> dict[str, bytes]:
    """The contents of a mesh file in each format.

    PLY and OBJ are in the unit of `vertices`, millimetres. GLB is in metres, and its colours are linear, as glTF wants
    it, in floats; its material is matt, and its normals have unit length. (trimesh shows such colours as
    ``visual.vertex_attributes["color"]``, or with ``skip_materials=True``.) In all of them y is up and the face looks
    along +z, towards the camera of a viewer.

    Args:
        vertices: ``[V, 3]`` mm.
        faces: ``[F, 3]``, counterclockwise seen from outside.
        colors: ``[V, 3]`` sRGB in [0, 1]; clamped.

    Returns:
        Suffix (of `MESH_SUFFIXES`) to contents.
    """
    import trimesh

    exchange: Any = trimesh.exchange  # partly without types

    def mesh(scale: float, **properties: Any) -> Any:
        # process=False: no vertex is merged or moved, so that the files keep the model's numbering.
        return trimesh.Trimesh(vertices * scale, faces, process=False, **properties)

    srgb = np.clip(np.asarray(colors, np.float64), 0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    plain = mesh(1, vertex_colors=np.rint(srgb * 255).astype(np.uint8))
    # trimesh writes colours with 8 bits, which in linear light are too few for dark skin and hair: they go in as an
    # attribute of floats, and `_finish` gives it its name. (With 16 bits trimesh reads other colours.) Its own normals
    # need scipy, and are 0 at vertices without a face.
    lit = mesh(
        _METRES,
        vertex_normals=_normals(vertices, faces),
        vertex_attributes={_COLORS: linear.astype(np.float32)},
    )
    obj: str = exchange.obj.export_obj(
        plain, include_normals=False, digits=_OBJ_DIGITS, header="FOCUS; unit: millimetre"
    )
    return {
        ".ply": exchange.ply.export_ply(plain, vertex_normal=False),
        ".obj": obj.encode(),
        ".glb": exchange.gltf.export_glb(lit.scene(), include_normals=True, tree_postprocessor=_finish),
    }


def _normals(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """``[V, 3]`` of unit length, as glTF wants all of them; towards the viewer where no face says more."""
    normals = ops.vertex_normals(
        torch.from_numpy(np.array(vertices, np.float64))[None], torch.from_numpy(np.array(faces, np.int64))
    )[0].numpy()
    normals[~normals.any(axis=1)] = (0, 0, 1)
    return normals


def _finish(tree: dict[str, Any]) -> None:
    """Names the colours of a glTF tree, and gives its meshes a material: the default of the standard is bare metal, and
    skin looks black.
    """
    tree["materials"] = [{"name": "skin", "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}]
    for entry in tree["meshes"]:
        for primitive in entry["primitives"]:
            primitive["material"] = 0
            primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop(_COLORS)
