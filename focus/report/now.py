"""Reconstructions in the layout of the NoW challenge's predictions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from torch import Tensor

from focus.errors import FocusError
from focus.eval.now.dataset import NowImage, seven_landmarks
from focus.eval.now.files import LANDMARK_SUFFIXES, MESH_SUFFIXES
from focus.face import MorphableModel
from focus.report.files import write_together
from focus.report.meshes import encode_meshes

MESH, LANDMARKS = ".ply", ".npy"


def write_prediction(
    folder: Path, image: NowImage, vertices: Tensor, colors: Tensor, model: MorphableModel
) -> list[Path]:
    """Writes ``folder/SUBJECT/CHALLENGE/IMAGE.ply`` and ``.npy``, which `focus evaluate now` reads: both or none.

    Args:
        folder: of the method; made if need be.
        image: which one.
        vertices: ``[V, 3]`` mm, the neutral face; its seven landmarks are taken from them.
        colors: ``[V, 3]`` in [0, 1].
        model: that these are vertices of.

    Raises:
        FocusError: the file system refused, or a mesh or landmarks of another suffix are there: nobody could tell which
            of them counts.
    """
    place = folder / image.subject / image.challenge
    for kept, suffixes in ((MESH, MESH_SUFFIXES), (LANDMARKS, LANDMARK_SUFFIXES)):
        others = [place / f"{image.stem}{suffix}" for suffix in suffixes if suffix != kept]
        found = [str(path) for path in others if path.exists()]
        if found:
            raise FocusError(f"{', '.join(found)} is there already; remove it, or choose another folder for results")
    points = vertices.detach().double().cpu().numpy()
    buffer = io.BytesIO()
    np.save(buffer, points[seven_landmarks(model)])
    mesh = encode_meshes(points, model.faces.cpu().numpy(), colors.detach().cpu().numpy())[MESH]
    return write_together(place, {f"{image.stem}{MESH}": mesh, f"{image.stem}{LANDMARKS}": buffer.getvalue()})
