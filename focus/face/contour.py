"""Landmarks of the jaw line that follow the outline of the face.

The iBUG points 0-16 are drawn where the face ends in the picture. On the far side of a face that is turned away, this
is not where the jaw of the model ends: the cheek hides it. Each of these points therefore has a path over the skin,
from the jaw vertex inwards, and stands for the point of its path that is outermost in the picture ("landmark
marching", Zhu, Lei, Yan, Yi and Li, CVPR 2015). Seen from the front, that is the jaw vertex itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from focus.face.camera import DEFAULT_DISTANCE, rotation_matrix
from focus.face.model import LANDMARK_COUNT, MorphableModel
from focus.isolation import own_state

JAW_COUNT = 17
_NOSE, _MOUTH_CORNERS = slice(27, 36), (48, 54)
_INNERMOST = 0.35
"""Paths end at this fraction of the way from the middle of the face to the jaw."""


class LandmarkLocator:
    """Where the 68 landmarks of a posed face are: points on edges of the mesh.

    Args:
        model: its landmarks and mean shape define the paths.

    Attributes:
        ends: ``[17, C, 2]`` int64, the vertices of the edge of each candidate; the first candidate is the jaw vertex.
        fractions: ``[17, C]``, the way from the first vertex to the second, 0 to 1.
        outward: ``[17, 3]``, unit vectors in model space from the middle of the face through each jaw landmark.
    """

    @own_state(grad=False)
    def __init__(self, model: MorphableModel) -> None:
        self._landmarks = model.landmarks68
        mean = model.mean_shape.double()
        points = mean[model.landmarks68]  # [68, 3]
        middle = points[_NOSE, 0].mean()
        mouth = points[list(_MOUTH_CORNERS), 1].mean()
        faces = model.faces.long()
        edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
        keys = torch.unique(edges[:, 0] * model.vertex_count + edges[:, 1])  # much faster than unique rows
        edges = torch.stack([keys // model.vertex_count, keys % model.vertex_count], dim=1)
        paths, outward = [], []
        for index in range(JAW_COUNT):
            jaw = points[index]
            # Above the mouth the paths are level: radial ones would run from the ears down to the nose.
            center = torch.stack([middle, torch.maximum(jaw[1], mouth)])
            direction = torch.nn.functional.normalize(jaw[:2] - center, dim=0)
            outward.append(torch.nn.functional.pad(direction, (0, 1)))
            paths.append(self._path(int(model.landmarks68[index]), mean, edges, center, direction))
        count = max(len(fractions) for _, fractions in paths)
        self.ends = torch.stack([_padded(ends, count) for ends, _ in paths])
        self.fractions = torch.stack([_padded(fractions, count) for _, fractions in paths]).to(model.mean_shape)
        self.outward = torch.stack(outward).to(model.mean_shape)

    @staticmethod
    def _path(jaw: int, mean: Tensor, edges: Tensor, center: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Where edges cross the plane of `direction` and z through the jaw vertex, in front of it and inside."""
        relative = mean[:, :2] - center
        side = (relative - relative[jaw]) @ torch.stack([-direction[1], direction[0]])  # [V] mm from the plane
        first, second = side[edges].unbind(1)
        edges, first, second = (value[(first < 0) != (second < 0)] for value in (edges, first, second))
        fraction = first / (first - second)
        crossing = torch.lerp(mean[edges[:, 0]], mean[edges[:, 1]], fraction[:, None])
        along = (crossing[:, :2] - center) @ direction
        reach = relative[jaw] @ direction
        kept = (crossing[:, 2] > mean[jaw, 2]) & (along < reach) & (along > _INNERMOST * reach)
        start = edges.new_tensor([[jaw, jaw]])
        return torch.cat([start, edges[kept]]), torch.cat([fraction.new_zeros(1), fraction[kept]])

    def locate(self, vertices: Tensor, rotation: Tensor, translation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The edges on which the landmarks of posed faces lie.

        Args:
            vertices: ``[B, V, 3]`` mm, model space.
            rotation: ``[B, 3]`` rad.
            translation: ``[B, 3]`` mm, in the sense of `FaceParameters`: where the camera is, which from near sees less
                of a face; None: far away.

        Returns:
            The vertices of each edge ``[B, 68, 2]`` int64, and the way from the first to the second ``[B, 68]``. A
            choice, and so without gradient.
        """
        with torch.no_grad():
            ends = self.ends.to(vertices.device)
            fractions = self.fractions.to(vertices)
            matrices = rotation_matrix(rotation.to(vertices))  # [B, 3, 3]
            candidates = torch.lerp(vertices[:, ends[..., 0]], vertices[:, ends[..., 1]], fractions[..., None])
            placed = torch.einsum("bij,bkcj->bkci", matrices, candidates)
            screen = placed[..., :2]
            if translation is not None:
                placed = placed + translation.to(vertices)[:, None, None]
                screen = placed[..., :2] / (placed[..., 2:] + DEFAULT_DISTANCE).clamp(min=1.0)
            outward = torch.einsum("bij,kj->bki", matrices[:, :2], self.outward.to(vertices))
            best = torch.einsum("bkci,bki->bkc", screen, outward).argmax(dim=2)  # [B, 17]
            rows = torch.arange(JAW_COUNT, dtype=torch.int64, device=best.device)
            fixed = self._landmarks[JAW_COUNT:].to(best.device)[:, None].expand(-1, 2)
            all_ends = torch.cat([ends[rows, best], fixed.expand(len(best), -1, -1)], dim=1)
            all_fractions = torch.nn.functional.pad(fractions[rows, best], (0, LANDMARK_COUNT - JAW_COUNT))
            return all_ends, all_fractions

    def __call__(
        self,
        vertices: Tensor,
        rotation: Tensor,
        values: Tensor | None = None,
        translation: Tensor | None = None,
    ) -> Tensor:
        """The landmarks of posed faces.

        Args:
            vertices: ``[B, V, 3]`` mm, model space.
            rotation: ``[B, 3]`` rad.
            values: ``[B, V, C]`` to read at the landmarks, for example screen positions; None reads `vertices`.
            translation: see `locate`.

        Returns:
            ``[B, 68, C]``; differentiable in the values.
        """
        values = vertices if values is None else values
        ends, fractions = self.locate(vertices, rotation, translation)
        first, second = (values.gather(1, ends[..., k, None].expand(-1, -1, values.shape[2])) for k in (0, 1))
        return torch.lerp(first, second, fractions[..., None])


def _padded(values: Tensor, count: int) -> Tensor:
    """Repeats the first entry at the end until there are `count`."""
    return torch.cat([values, values[:1].expand(count - len(values), *values.shape[1:])])
