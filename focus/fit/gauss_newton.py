"""Second-order steps on colours, landmarks and priors together.

The residual of a pixel is its colour in the photo minus that of the surface point that is drawn there. Points are held
on the surface while it moves: their colours in the photo change by the gradient of the image, their shading by the
turn of the face of the mesh that they lie on, their albedo with its coefficients. The Gauss-Newton matrix needs a
sample of the pixels only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.face import Camera, MorphableModel
from focus.face.camera import rotation_matrix
from focus.face.lighting import HARMONIC_COUNT, harmonics, harmonics_gradient

POSE_COUNT = 6


class SurfaceBasis:
    """The bases of a model by vertex, to gather those of points on the surface.

    Attributes:
        shape: ``[V, 3, K]`` mm, identity and then expression.
        albedo: ``[V, 3, Ka]``.
    """

    def __init__(self, model: MorphableModel) -> None:
        both = torch.cat([model.identity_basis, model.expression_basis])
        self.shape = both.permute(1, 2, 0).contiguous()
        self.albedo = model.albedo_basis.permute(1, 2, 0).contiguous()


@dataclass
class PlacedFace:
    """One face before the camera, as its derivatives need it.

    Attributes:
        vertices: ``[V, 3]`` mm, model space.
        placed: ``[V, 3]`` mm, camera space.
        rotation: ``[3, 3]``.
        turned: ``[3, 3, 3]``, derivatives of the rotation by its angles.
        focal: pixels.
    """

    vertices: Tensor
    placed: Tensor
    rotation: Tensor
    turned: Tensor
    focal: Tensor

    @classmethod
    def of(cls, vertices: Tensor, angles: Tensor, translation: Tensor, camera: Camera) -> PlacedFace:
        """Places vertices ``[V, 3]`` by angles ``[3]`` and a translation ``[3]``."""
        rotation = rotation_matrix(angles[None])[0]
        # Exact: the matrix is a constant plus a sine and a cosine in each angle.
        quarter = torch.pi / 2 * torch.eye(3, dtype=angles.dtype, device=angles.device)
        turned = (rotation_matrix(angles + quarter) - rotation_matrix(angles - quarter)) / 2
        placed = camera.transform(vertices[None], angles[None], translation[None])[0]
        return cls(vertices, placed, rotation, turned, vertices.new_tensor(camera.focal))

    def screen_derivative(self, points: Tensor) -> Tensor:
        """Of x and y in pixels by points ``[..., 3]`` in camera space: ``[..., 2, 3]``."""
        x, y, z = points.unbind(-1)
        zero, factor = torch.zeros_like(z), self.focal / z
        rows = (factor, zero, -factor * x / z), (zero, factor, -factor * y / z)
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

    def pull_back(self, slopes: Tensor, vertices: Tensor, basis: SurfaceBasis) -> Tensor:
        """Derivatives by pose and shape of functions of some vertices.

        Args:
            slopes: ``[N, C, I, 3]``, of C functions by the I vertices, in camera space.
            vertices: ``[N, I]``, which.
            basis: of the model.

        Returns:
            ``[N, C, 6 + K]``.
        """
        count, functions, corners = slopes.shape[:3]
        turned = torch.einsum("aij,nkj->naki", self.turned, self.vertices[vertices])  # [N, 3, I, 3]
        turn = torch.einsum("ncki,naki->nca", slopes, turned)
        shift = slopes.sum(dim=2)
        inside = (slopes @ self.rotation).view(count, functions, corners * 3)
        bend = torch.bmm(inside, basis.shape[vertices].view(count, corners * 3, -1))
        return torch.cat([turn, shift, bend], dim=2)


@dataclass
class Sample:
    """Pixels on which a face is drawn.

    Attributes:
        pixels: ``[N]`` int64, row by row.
        corners: ``[N, 3]`` int64, vertices of the face of the mesh.
        barycentric: ``[N, 3]``, where in it.
    """

    pixels: Tensor
    corners: Tensor
    barycentric: Tensor


def sample_pixels(weight: Tensor, face_index: Tensor, screen: Tensor, faces: Tensor, count: int) -> Sample:
    """An even sample of the pixels that count, without chance.

    Args:
        weight: ``[S, S]``; pixels of weight 0 are not taken.
        face_index: ``[S, S]``, -1 where nothing is drawn.
        screen: ``[V, 3]``, pixels and depth.
        faces: ``[F, 3]`` int64.
        count: how many at most.
    """
    height, width = weight.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64, device=weight.device),
        torch.arange(width, dtype=torch.float64, device=weight.device),
        indexing="ij",
    )
    # Fractional parts of multiples of the plastic number: low-discrepancy in both directions (Roberts 2018).
    order = torch.where((weight > 0) & (face_index >= 0), (0.7548776662466927 * x + 0.5698402909980532 * y) % 1, 2.0)
    chosen = torch.sort(order.flatten()).indices[: min(count, int((order < 2).sum()))]
    chosen = chosen.sort().values
    corners = faces[face_index.flatten()[chosen].long()]
    first, second, third = screen[corners][..., :2].unbind(1)
    at = torch.stack([chosen % width, torch.div(chosen, width, rounding_mode="floor")], dim=1).to(screen)
    one, two = second - first, third - first
    area = _cross(one, two)
    beta, gamma = _cross(at - first, two) / area, _cross(one, at - first) / area
    barycentric = torch.stack([1 - beta - gamma, beta, gamma], dim=1)
    return Sample(chosen, corners, barycentric)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def color_jacobian(
    face: PlacedFace,
    sample: Sample,
    gradient: Tensor,
    normals: Tensor,
    albedo: Tensor,
    lighting: Tensor,
    basis: SurfaceBasis,
) -> Tensor:
    """Derivatives of photo minus rendering at points held on the surface.

    Args:
        face: as it is placed.
        sample: N points.
        gradient: ``[N, 3, 2]``, of the colours of the photo by x and y in pixels.
        normals: ``[V, 3]``, unit length, camera space.
        albedo: ``[V, 3]``.
        lighting: ``[3, 9]``.
        basis: of the model.

    Returns:
        ``[N, 3, 6 + K + Ka + 27]``: pose, shape, albedo, lighting.
    """
    share = sample.barycentric[..., None]
    corners = face.placed[sample.corners]  # [N, 3, 3]
    normal = F.normalize((share * normals[sample.corners]).sum(dim=1), dim=1)
    color = (share * albedo[sample.corners]).sum(dim=1)  # [N, 3]
    bands = harmonics(normal)  # [N, 9]
    shading = bands @ lighting.T  # [N, 3]
    # Moving over the photo,
    moved = gradient @ face.screen_derivative((share * corners).sum(dim=1))  # [N, 3 colours, 3]
    slopes = moved[:, :, None, :] * share[:, None]  # [N, 3 colours, 3 corners, 3]
    # and turning: n = N / |N|, N = (X1 - X0) x (X2 - X0).
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = torch.linalg.cross(one, two).norm(dim=1).clamp(min=1e-12)
    turn = torch.einsum("ch,nhi->nci", lighting, harmonics_gradient(normal)) * -color[..., None]
    turn = (turn - (turn * normal[:, None]).sum(-1, keepdim=True) * normal[:, None]) / length[:, None, None]
    second, third = torch.linalg.cross(two[:, None], turn), torch.linalg.cross(turn, one[:, None])
    slopes = slopes + torch.stack([-second - third, second, third], dim=2)
    shape = face.pull_back(slopes, sample.corners, basis)
    paint = torch.einsum("nk,nkca->nca", sample.barycentric, basis.albedo[sample.corners]) * -shading[..., None]
    light = torch.einsum("nc,cd,nh->ncdh", -color, torch.eye(3, dtype=color.dtype, device=color.device), bands)
    return torch.cat([shape, paint, light.reshape(len(color), 3, 3 * HARMONIC_COUNT)], dim=2)


def bounded_steps(curvature: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """argmin_s s'Hs/2 + g's with lower <= s <= upper, of a batch, by an active set.

    Bounds that are overstepped are held, and released where the gradient points inside. Where this does not settle
    within 20 rounds the step is feasible, but not the best one; callers check that it is downhill.

    Args:
        curvature: ``[B, K, K]``, positive definite.
        gradient: ``[B, K]``.
        lower, upper: ``[B, K]``, lower <= 0 <= upper.
    """
    step = torch.zeros_like(gradient)
    # What lies on a bound and is pushed against it most likely stays there.
    moving = ~((lower == 0) & (gradient > 0)) & ~((upper == 0) & (gradient < 0))
    for _ in range(20):
        held = step.masked_fill(moving, 0)
        right = -(gradient + (curvature @ held[..., None])[..., 0]).masked_fill(~moving, 0)
        both = moving[:, :, None] & moving[:, None, :]
        reduced = torch.where(both, curvature, 0) + torch.diag_embed((~moving).to(gradient))
        step = held + torch.linalg.solve(reduced, right)
        outside = moving & ((step < lower) | (step > upper))
        step = step.clamp(lower, upper)
        slope = gradient + (curvature @ step[..., None])[..., 0]
        release = ~moving & (((step <= lower) & (slope < 0)) | ((step >= upper) & (slope > 0)))
        if not bool((outside | release).any()):
            break
        moving = (moving & ~outside) | release
    return step
