"""What taking off the misfit prior gains, face by face, on faces that it was not estimated from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus.data.synthetic import SyntheticFaces
from focus.eval.misfit import MisfitPrior
from focus.eval.now.dataset import Prediction, Scan, seven_landmarks
from focus.eval.now.evaluate import scan_errors
from focus.eval.now.files import Mesh
from focus.eval.shape import shape_error, summarise
from focus.eval.statistics import paired_tests
from focus.face import FaceParameters, MorphableModel


@dataclass(frozen=True)
class Gain:
    """Shape errors of N faces, mm."""

    without: NDArray[np.float64]
    """``[N]``, mean over the vertices of each face."""
    corrected: NDArray[np.float64]
    """``[N]``, with the prior."""
    without_vertices: Mapping[str, float]
    """median, mean and std over all vertices of all faces (`summarise`), as in Table 2 of the paper."""
    corrected_vertices: Mapping[str, float]
    """The same with the prior."""

    @classmethod
    def of(cls, without: Sequence[NDArray[np.float32]], corrected: Sequence[NDArray[np.float32]]) -> Gain:
        """From the errors of every vertex, ``[V]`` mm for each face; faces may have different numbers of vertices."""
        first, second = (np.array([errors.mean(dtype=np.float64) for errors in f]) for f in (without, corrected))
        return cls(first, second, summarise(np.concatenate(without)), summarise(np.concatenate(corrected)))

    def as_dict(self) -> dict[str, Any]:
        """Means and medians over faces, summaries over vertices, and tests of the difference of the faces' means
        (`paired_tests`), for JSON.
        """
        return {
            "faces": len(self.without),
            "without_mm": float(self.without.mean()),
            "without_median_mm": float(np.median(self.without)),
            "with_mm": float(self.corrected.mean()),
            "with_median_mm": float(np.median(self.corrected)),
            "without_vertices_mm": dict(self.without_vertices),
            "with_vertices_mm": dict(self.corrected_vertices),
            "better": float((self.corrected < self.without).mean()),
            **paired_tests(self.without, self.corrected)._asdict(),
        }


@torch.no_grad()
def vertex_gain(
    reconstruct: Callable[[Tensor], FaceParameters],
    prior: MisfitPrior,
    faces: SyntheticFaces,
    count: int,
    device: torch.device | str = "cpu",
) -> Gain:
    """Vertex by vertex (`shape_error`), on faces of the method's own model, each with something in front of it.

    Args:
        reconstruct: the method, in evaluation mode, on `device`.
        prior: of the same model as the faces.
        faces: the test set.
        count: number of faces.
        device: where the method is.
    """
    errors: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    for start in range(0, count, 32):
        batch = faces.batch(start, min(32, count - start), occluded=True)
        if batch.neutral_vertices is None:
            raise ValueError("vertex_gain: expected faces whose neutral shape is known")
        found = faces.model.neutral_shape(reconstruct(batch.image.to(device)).to("cpu").identity)
        for shape, column in zip((found, prior.apply(found)), errors, strict=True):
            column.extend(shape_error(shape, batch.neutral_vertices).numpy())
    return Gain.of(*errors)


@torch.no_grad()
def scan_gain(
    reconstruct: Callable[[Tensor], FaceParameters],
    prior: MisfitPrior,
    model: MorphableModel,
    faces: SyntheticFaces,
    count: int,
    device: torch.device | str,
    progress: Callable[[int, int], None],
) -> Gain:
    """Scan to mesh, by the protocol of NoW, on faces of another model: the two have no vertices in common.

    Args:
        reconstruct: the method, in evaluation mode, on `device`.
        prior: of the method's model.
        model: of the method.
        faces: the test set, of another model.
        count: number of faces, each with something in front of it.
        device: where the method is.
        progress: called with (faces done, faces in all).
    """
    mesh_faces, scan_faces = model.faces.cpu().long().numpy(), faces.model.faces.long().numpy()
    errors: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    for index in range(count):
        batch = faces.batch(index, 1, occluded=True)
        if batch.neutral_vertices is None:
            raise ValueError("scan_gain: expected faces whose neutral shape is known")
        truth = batch.neutral_vertices[0].double().numpy()
        scan = Scan(Mesh(truth, scan_faces), truth[seven_landmarks(faces.model)])
        neutral = model.neutral_shape(reconstruct(batch.image.to(device)).identity)
        for shape, column in zip((neutral, prior.apply(neutral)), errors, strict=True):
            vertices = shape[0].cpu().double().numpy()
            prediction = Prediction(Mesh(vertices, mesh_faces), vertices[seven_landmarks(model)])
            column.append(scan_errors(scan, prediction)[0])
        progress(index + 1, count)
    return Gain.of(*errors)
