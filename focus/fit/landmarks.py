"""Pose, identity and expression from landmarks: a small nonlinear least-squares problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.camera import DEFAULT_DISTANCE, angles_of, rotation_matrix
from focus.face.contour import JAW_COUNT, LandmarkLocator
from focus.fit.gauss_newton import bounded_steps

_POSE_COUNT = 6
_ALONG_JAW = 3.0
"""How much further points of the jaw may lie along the outline than across it: nothing on it says where they belong."""
_DAMPING = 1e-3
_STEPS = 12
OUTLIER_DEVIATION = 2.5
"""Landmarks further off than this many standard deviations count by their distance, not by its square (Huber)."""


@dataclass(frozen=True)
class LandmarkObservation:
    """Points of a photo, each a mean of some of the 68 landmarks.

    Attributes:
        points: ``[N, 2]`` float64, pixels of the crop.
        selection: ``[N, 68]`` float64, rows that sum to 1.
        whitening: ``[N, 2, 2]`` float64, takes errors in pixels to standard deviations.
    """

    points: Tensor
    selection: Tensor
    whitening: Tensor

    @classmethod
    def from_points(cls, points: Tensor, sigma: float, jaw_sigma: float) -> LandmarkObservation:
        """Takes 68 iBUG points, or 5: the eye centres (means of the eye corners), nose tip and mouth corners."""
        points = points.double()
        if len(points) == 5:
            selection = torch.zeros(5, 68, dtype=torch.float64, device="cpu")
            for row, indices in enumerate(((36, 39), (42, 45), (30,), (48,), (54,))):
                selection[row, list(indices)] = 1 / len(indices)
            return cls(points, selection, torch.eye(2, dtype=torch.float64, device="cpu").repeat(5, 1, 1) / sigma)
        whitening = torch.eye(2, dtype=torch.float64, device="cpu").repeat(68, 1, 1) / sigma
        jaw = points[:JAW_COUNT]
        along = F.normalize(torch.cat([jaw[1:2] - jaw[:1], jaw[2:] - jaw[:-2], jaw[-1:] - jaw[-2:-1]]), dim=1)
        along = along[:, :, None] * along[:, None]
        across = torch.eye(2, dtype=torch.float64, device="cpu") - along
        whitening[:JAW_COUNT] = (across + along / _ALONG_JAW) / jaw_sigma
        return cls(points, torch.eye(68, dtype=torch.float64, device="cpu"), whitening)

    def resized(self, size: int, new_size: int) -> LandmarkObservation:
        """The same in the pixels of a crop of another size; pixel centres are at integers in both."""
        scale = new_size / size
        return LandmarkObservation((self.points + 0.5) * scale - 0.5, self.selection, self.whitening / scale)

    def residual(self, landmarks: Tensor) -> Tensor:
        """Differences in standard deviations: ``[68, 2]`` pixels to ``[N, 2]``."""
        error = self.selection.to(landmarks) @ landmarks - self.points.to(landmarks)
        return (self.whitening.to(landmarks) @ error[..., None])[..., 0]


def initial_pose(observation: LandmarkObservation, vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Pose of a rigid face: a scaled orthographic camera by linear least squares.

    Args:
        observation: the points; those of the jaw are left out, where there are others.
        vertices: ``[68, 3]`` float64 mm, the landmarks in model space.
        camera: gives the depth that belongs to a scale.

    Returns:
        Angles ``[3]`` and translation ``[3]`` in the sense of `FaceParameters`.
    """
    inner = observation.selection[:, :JAW_COUNT].sum(dim=1) == 0
    points = observation.points[inner] - camera.principal - observation.points.new_tensor(camera.offset)
    corners = observation.selection[inner] @ vertices
    design = torch.cat([corners, torch.ones_like(corners[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, points).solution.T  # [2, 4]
    left, scales, right = torch.linalg.svd(solution[:, :3], full_matrices=False)
    x_axis, y_axis = left @ right
    scale = scales.mean()
    rotation = torch.stack([x_axis, y_axis, torch.linalg.cross(x_axis, y_axis)])
    angles = angles_of(rotation[None])[0]
    depth = camera.focal / scale
    translation = torch.cat([solution[:, 3] / scale, (depth - DEFAULT_DISTANCE)[None]])
    return angles, translation


class LandmarkFit:
    """Maximum a posteriori pose, identity and expression given landmarks, by the Levenberg-Marquardt method.

    Args:
        model: the face.
        locator: of its landmarks.
        camera: of the crop.
        observation: the points.
        expression_sigma: standard deviation a priori of the expression coefficients (those of the identity have 1).
    """

    def __init__(
        self,
        model: MorphableModel,
        locator: LandmarkLocator,
        camera: Camera,
        observation: LandmarkObservation,
        expression_sigma: float,
    ) -> None:
        self.model, self.locator, self.camera, self.observation = model, locator, camera, observation
        precision = torch.ones(
            _POSE_COUNT + model.identity_count + model.expression_count, dtype=torch.float64, device="cpu"
        )
        precision[:_POSE_COUNT] = 0
        precision[_POSE_COUNT + model.identity_count :] = expression_sigma**-2
        self.precision = precision
        self.bounds = (torch.full_like(precision, -torch.inf), torch.full_like(precision, torch.inf))
        if model.expression_prior == "unit_interval":
            for bound, value in zip(self.bounds, (0, 1), strict=True):
                bound[_POSE_COUNT + model.identity_count :] = value

    def solve(self, parameters: FaceParameters, *, pose_only: bool = False, tolerance: float = 1e-6) -> FaceParameters:
        """Improves one face (B = 1) until a step gains no more than a part of the energy, or for a number of steps."""
        unknowns = self._pack(parameters)
        moving = slice(_POSE_COUNT if pose_only else None)
        damping = _DAMPING
        for _ in range(_STEPS):
            basis = self._landmark_basis(unknowns)
            residual, jacobian = self._residual(unknowns, basis), self._jacobian(unknowns, basis)
            weight = (OUTLIER_DEVIATION / residual.norm(dim=1).clamp(min=OUTLIER_DEVIATION)).sqrt()[:, None]
            residual, jacobian = (weight * residual).flatten(), (weight[..., None] * jacobian).flatten(0, 1)
            curvature = jacobian.T @ jacobian + torch.diag(self.precision)
            gradient = jacobian.T @ residual + self.precision * unknowns
            energy = self._energy(unknowns, residual)
            for _ in range(8):
                damped = curvature + damping * torch.diag(curvature.diagonal())
                values = (damped[moving, moving], gradient[moving], *((b - unknowns)[moving] for b in self.bounds))
                trial = unknowns.clone()
                trial[moving] += bounded_steps(*(value[None] for value in values))[0]
                trial_energy = self._energy(trial, (weight * self._residual(trial, basis)).flatten())
                if trial_energy <= energy:
                    break
                damping *= 8
            else:
                break
            unknowns, damping = trial, max(damping / 8, 1e-9)
            if energy - trial_energy < tolerance * energy:
                break
        return self._unpack(unknowns, parameters)

    def misfit(self, parameters: FaceParameters) -> float:
        """RMS distance of the landmarks from the points, relative to that of the points from their mean."""
        unknowns = self._pack(parameters)
        _, placed = self._place(unknowns, self._landmark_basis(unknowns))
        distance = self.observation.selection @ self.camera.project(placed)[:, :2] - self.observation.points
        extent = self.observation.points - self.observation.points.mean(dim=0)
        return float(distance.norm() / extent.norm())

    def energy(self, parameters: FaceParameters) -> float:
        """Minus the logarithm of the posterior, up to a constant."""
        unknowns = self._pack(parameters)
        deviation = self._residual(unknowns, self._landmark_basis(unknowns)).norm(dim=1)
        inside = deviation.clamp(max=OUTLIER_DEVIATION)
        robust = 0.5 * inside.square() + OUTLIER_DEVIATION * (deviation - inside)
        return float(robust.sum() + 0.5 * (self.precision * unknowns.square()).sum())

    def _energy(self, unknowns: Tensor, residual: Tensor) -> Tensor:
        return residual.square().sum() + (self.precision * unknowns.square()).sum()

    def _pack(self, parameters: FaceParameters) -> Tensor:
        parts = (parameters.rotation, parameters.translation, parameters.identity, parameters.expression)
        return torch.cat(parts, dim=1)[0].double()

    def _unpack(self, unknowns: Tensor, like: FaceParameters) -> FaceParameters:
        sizes = [3, 3, self.model.identity_count, self.model.expression_count]
        rotation, translation, identity, expression = (
            part[None].to(like.identity) for part in torch.split(unknowns, sizes)
        )
        return FaceParameters(identity, expression, like.albedo, rotation, translation, like.lighting)

    def _landmark_basis(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[68, 3]`` and basis ``[K, 68, 3]`` of the landmarks, where pose and shape put them on the mesh."""
        model = self.model
        coefficients = unknowns[None, _POSE_COUNT:].to(model.mean_shape)
        vertices = model.shape(coefficients[:, : model.identity_count], coefficients[:, model.identity_count :])
        ends, fractions = self.locator.locate(vertices, unknowns[None, :3], unknowns[None, 3:_POSE_COUNT])
        first, second = ends[0].unbind(1)
        fraction = fractions[0, :, None]
        parts = (model.mean_shape[None], model.identity_basis, model.expression_basis)
        both = torch.cat([torch.lerp(part[:, first], part[:, second], fraction) for part in parts]).double().cpu()
        return both[0], both[1:]

    def _place(self, unknowns: Tensor, basis: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The landmarks ``[68, 3]`` in model space and in camera space, mm."""
        mean, components = basis
        points = mean + torch.einsum("k,kpi->pi", unknowns[_POSE_COUNT:], components)
        return points, self.camera.transform(points[None], unknowns[None, :3], unknowns[None, 3:_POSE_COUNT])[0]

    def _residual(self, unknowns: Tensor, basis: tuple[Tensor, Tensor]) -> Tensor:
        """``[N, 2]`` standard deviations."""
        _, placed = self._place(unknowns, basis)
        return self.observation.residual(self.camera.project(placed)[:, :2])

    def _jacobian(self, unknowns: Tensor, basis: tuple[Tensor, Tensor]) -> Tensor:
        """Derivatives of `_residual` with respect to the unknowns, ``[N, 2, K]``."""
        points, placed = self._place(unknowns, basis)
        rotation = rotation_matrix(unknowns[None, :3])[0]
        # Exact: the matrix is a constant plus a sine and a cosine in each angle.
        quarter = torch.pi / 2 * torch.eye(3, dtype=unknowns.dtype, device=unknowns.device)
        turned = (
            rotation_matrix(unknowns[:3] + quarter) - rotation_matrix(unknowns[:3] - quarter)
        ) / 2  # [angle, 3, 3]
        moved = torch.cat(  # of the landmarks in camera space, [68, 3, K]
            [
                torch.einsum("aij,pj->pia", turned, points),
                torch.eye(3, dtype=points.dtype, device=points.device).expand(len(points), -1, -1),
                torch.einsum("ij,kpj->pik", rotation, basis[1]),
            ],
            dim=2,
        )
        depth = placed[:, 2, None, None]
        pixels = self.camera.focal / depth * (moved[:, :2] - placed[:, :2, None] / depth * moved[:, 2:])
        selected = torch.einsum("np,pik->nik", self.observation.selection, pixels)
        return self.observation.whitening @ selected
