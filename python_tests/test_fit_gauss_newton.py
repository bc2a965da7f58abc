"""Second-order steps: derivatives against autograd, bounds, batches, the same bits twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focus import ops
from focus.face import Camera, FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.face.lighting import harmonics, harmonics_gradient
from focus.fit import FitSettings
from focus.fit.gauss_newton import PlacedFace, SurfaceBasis, bounded_steps, color_jacobian, sample_pixels
from focus.fit.landmarks import LandmarkObservation
from focus.fit.photometric import PhotometricFit

SIZE = 64
SETTINGS = FitSettings(image_size=SIZE, mask_every=2)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=8, expression=5, albedo=6)


def some_face(model: MorphableModel, seed: int = 3) -> FaceParameters:
    generator = torch.Generator().manual_seed(seed)
    parameters = FaceParameters.mean(model)
    for name in ("identity", "expression", "albedo"):
        value = getattr(parameters, name)
        value[:] = 0.6 * torch.randn(value.shape, generator=generator)
    parameters.rotation[:] = torch.tensor([0.1, -0.3, 0.15])
    parameters.lighting[:] += 0.3 * torch.randn(1, 3, 9, generator=generator)
    return parameters


def a_fit(model: MorphableModel, settings: FitSettings = SETTINGS) -> tuple[PhotometricFit, FaceParameters]:
    """Of a rendered face, and the truth."""
    truth = some_face(model)
    rendering = Renderer(model, SIZE)(truth)
    target = torch.where(rendering.mask > 0, rendering.image, 0.4).clamp(0, 1)
    locator = LandmarkLocator(model)
    points = locator(rendering.vertices, truth.rotation, rendering.screen_vertices[..., :2], truth.translation)[0]
    observation = LandmarkObservation.from_points(points, 0.5, 1.0)
    return PhotometricFit(model, locator, target, observation, 1.0, settings), truth


def test_the_gradient_of_the_harmonics() -> None:
    normals = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([torch.autograd.functional.jacobian(harmonics, normal) for normal in normals])
    torch.testing.assert_close(harmonics_gradient(normals), expected)


def test_samples_are_points_of_the_mesh(model: MorphableModel) -> None:
    rendering = Renderer(model, SIZE)(some_face(model))
    weight = rendering.mask[0, 0].clone()
    weight[:, :32] = 0
    faces = model.faces.long()
    sample = sample_pixels(weight, rendering.face_index[0], rendering.screen_vertices[0], faces, 200)
    assert len(sample.pixels) == 200
    assert int((sample.pixels % SIZE).min()) >= 32
    places = (sample.barycentric[..., None] * rendering.screen_vertices[0][sample.corners]).sum(dim=1)
    expected = torch.stack([sample.pixels % SIZE, sample.pixels // SIZE], dim=1).float()
    torch.testing.assert_close(places[:, :2], expected, atol=1e-3, rtol=0)
    assert len(
        sample_pixels(weight, rendering.face_index[0], rendering.screen_vertices[0], faces, 10**6).pixels
    ) == int(weight.sum())


def test_derivatives_of_colors(model: MorphableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd, in double, for a photo that is linear in x and y, and faces of the mesh as flat as they are."""
    model = model._replaced().double()
    parameters = some_face(model)
    camera, basis = Camera(SIZE), SurfaceBasis(model)
    vertices = model.shape(parameters.identity, parameters.expression)[0]
    face = PlacedFace.of(vertices, parameters.rotation[0], parameters.translation[0], camera)
    screen = camera.project(face.placed[None])
    index = ops.rasterize(screen, model.topology, (SIZE, SIZE), cull="clockwise").face_index[0]
    sample = sample_pixels(torch.ones(SIZE, SIZE), index, screen[0], model.faces.long(), 100)
    slope = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]], dtype=torch.float64)
    names = ("rotation", "translation", "identity", "expression", "albedo", "lighting")
    unknowns = torch.cat([getattr(parameters, name).flatten() for name in names])

    def difference(values: Tensor) -> Tensor:
        parts = torch.split(values, [getattr(parameters, name).numel() for name in names])
        rotation, translation, identity, expression, albedo, lighting = (part[None] for part in parts)
        corners = camera.transform(model.shape(identity, expression), rotation, translation)[0][sample.corners]
        share = sample.barycentric[..., None]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        shading = harmonics(F.normalize(normal, dim=1)) @ lighting.view(3, 9).T
        seen = camera.project((share * corners).sum(dim=1)[None])[0, :, :2] @ slope.T
        return seen - (share * model.albedo(albedo)[0][sample.corners]).sum(dim=1) * shading

    # Vertex normals are not those of the flat face: a table of the latter, a row for each corner of each sample.
    corners = face.placed[sample.corners]
    flat = F.normalize(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=1)
    apart = replace(sample, corners=torch.arange(300).view(100, 3))
    rows = sample.corners.flatten()
    apart_basis = SurfaceBasis(model)
    apart_basis.shape, apart_basis.albedo = basis.shape[rows], basis.albedo[rows]
    apart_face = replace(face, vertices=face.vertices[rows], placed=face.placed[rows])
    found = color_jacobian(
        apart_face,
        apart,
        slope.expand(100, 3, 2),
        flat.repeat_interleave(3, dim=0),
        model.albedo(parameters.albedo)[0][rows],
        parameters.lighting[0],
        apart_basis,
    )
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(difference, unknowns))


def test_steps_stay_in_bounds() -> None:
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(3, 6, 6, dtype=torch.float64, generator=generator)
    curvature = root @ root.mT + torch.eye(6, dtype=torch.float64)
    gradient = 3 * torch.randn(3, 6, dtype=torch.float64, generator=generator)
    lower, upper = -torch.rand(3, 6, dtype=torch.float64, generator=generator), torch.full((3, 6), 0.1).double()
    step = bounded_steps(curvature, gradient, lower, upper)
    assert bool(((step >= lower) & (step <= upper)).all())
    slope = gradient + (curvature @ step[..., None])[..., 0]  # no descent is left but through a bound
    assert float(slope[(step > lower) & (step < upper)].abs().max()) < 1e-9
    assert bool((slope[step == lower] >= 0).all())
    assert bool((slope[step == upper] <= 0).all())
    assert bool((step == lower).any())
    assert bool((step == upper).any())
    free = bounded_steps(curvature, gradient, torch.full_like(lower, -torch.inf), torch.full_like(upper, torch.inf))
    torch.testing.assert_close(free, -torch.linalg.solve(curvature, gradient))


@pytest.mark.parametrize("antialias", [False, True])
def test_a_few_steps_find_the_face(model: MorphableModel, antialias: bool) -> None:
    fit, truth = a_fit(model, replace(SETTINGS, antialias=antialias))
    start = replace(FaceParameters.mean(model), rotation=truth.rotation + 0.05)
    visible = torch.ones(1, 1, SIZE, SIZE)
    found = fit.descend(start, 10, visible)
    best = float(fit.energy(truth, visible))
    assert float(fit.energy(found.parameters, visible)) < 1.15 * best
    assert float(fit.energy(fit.estimate(start, visible).parameters, visible)) > 2 * best


def test_a_batch_is_its_fits_and_the_same_twice(model: MorphableModel) -> None:
    fit, truth = a_fit(model)
    starts = FaceParameters.cat(
        [replace(FaceParameters.mean(model), rotation=truth.rotation + x) for x in (0.05, -0.1)]
    )
    masks = torch.ones(2, 1, SIZE, SIZE)
    masks[1, :, :, 32:] = 0.01
    both = fit.descend(starts, 4, masks)
    again = fit.descend(starts, 4, masks)
    for (name, value), (_, other) in zip(both.parameters.items(), again.parameters.items(), strict=True):
        assert torch.equal(value, other), name
    assert torch.equal(both.visible, again.visible)
    for b in range(2):
        single = fit.descend(starts[b], 4, masks[b, None])
        for (name, value), (_, other) in zip(both.parameters.items(), single.parameters.items(), strict=True):
            # Sums over the basis are in another order for a batch.
            torch.testing.assert_close(value[b, None], other, atol=2e-3, rtol=2e-3, msg=name)
    assert not torch.equal(both.parameters.identity[0], both.parameters.identity[1])


def test_hidden_landmarks_count_half(model: MorphableModel) -> None:
    fit, truth = a_fit(model)
    y = fit.observation.points[:, 1]
    moved = LandmarkObservation(fit.observation.points + 0.3, fit.observation.selection, fit.observation.whitening)
    fit = PhotometricFit(model, fit.locator, fit.target, moved, 1.0, SETTINGS)
    rendering = Renderer(model, SIZE)(truth)
    all_seen = torch.ones(1, 1, SIZE, SIZE)
    upper = all_seen.clone()
    upper[..., int(y.median()) :, :] = 0
    trust, whole = fit._landmark_trust(rendering, upper)[0], fit._landmark_trust(rendering, all_seen)[0]
    torch.testing.assert_close(whole, torch.ones(68))
    torch.testing.assert_close(trust[y < y.median() - 4], torch.ones(int((y < y.median() - 4).sum())))
    torch.testing.assert_close(trust[y > y.median() + 4], torch.full((int((y > y.median() + 4).sum()),), 0.5))
    assert fit.energy(truth, upper) < fit.energy(truth, all_seen)
    # The gradient that the steps use is that of the energy, whatever the mask is.
    mask = upper * 0.5 + 0.25
    _, slopes = fit.systems(truth, fit.energies(truth, mask)[1], mask)
    exact = fit._exact_slopes(truth, mask)
    assert torch.nn.functional.cosine_similarity(slopes, exact).item() > 0.9


def test_expressions_stay_between_0_and_1(model: MorphableModel) -> None:
    fit, truth = a_fit(model._replaced(expression_prior="unit_interval"))
    start = replace(FaceParameters.mean(model), rotation=truth.rotation)
    found = fit.descend(start, 6, torch.ones(1, 1, SIZE, SIZE)).parameters.expression
    assert float(truth.expression.min()) < -0.1
    assert float(found.min()) == 0
    assert float(found.max()) <= 1
