"""Pose and shape from landmarks alone, and the landmarks that follow the outline of the face."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.camera import rotation_matrix
from focus.face.contour import JAW_COUNT, LandmarkLocator
from focus.fit.gauss_newton import bounded_steps
from focus.fit.landmarks import LandmarkFit, LandmarkObservation, initial_pose
from focus.fit.region import crop_model, face_region

SIZE = 224


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=12, expression=8, albedo=4)


@pytest.fixture(scope="module")
def locator(model: MorphableModel) -> LandmarkLocator:
    return LandmarkLocator(model)


def pose(model: MorphableModel, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> FaceParameters:
    parameters = FaceParameters.mean(model)
    parameters.rotation[:] = torch.tensor([pitch, yaw, roll])
    parameters.translation[:] = torch.tensor([6.0, -4.0, 60.0])
    return parameters


def project(model: MorphableModel, locator: LandmarkLocator, parameters: FaceParameters) -> Tensor:
    """[68, 2] pixels."""
    camera = Camera(SIZE)
    points = locator(model.shape(parameters.identity, parameters.expression), parameters.rotation)
    return camera.project(camera.transform(points, parameters.rotation, parameters.translation))[0, :, :2]


def five(points: Tensor) -> Tensor:
    return torch.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), points[30], points[48], points[54]])


def observe(points: Tensor) -> LandmarkObservation:
    return LandmarkObservation.from_points(points, sigma=2.0, jaw_sigma=3.0)


def test_points_of_the_jaw_may_lie_along_its_line() -> None:
    points = torch.zeros(68, 2, dtype=torch.float64)
    points[:JAW_COUNT, 1] = 4 * torch.arange(JAW_COUNT)  # a jaw straight down
    observation = observe(points)
    along, across = (observation.residual(points + torch.tensor(shift)) for shift in ((0.0, 9.0), (9.0, 0.0)))
    torch.testing.assert_close(across[:JAW_COUNT].norm(dim=1), torch.full((JAW_COUNT,), 3.0).double())
    torch.testing.assert_close(along[:JAW_COUNT].norm(dim=1), torch.full((JAW_COUNT,), 1.0).double())
    torch.testing.assert_close(along[JAW_COUNT:].norm(dim=1), torch.full((68 - JAW_COUNT,), 4.5).double())


@pytest.mark.parametrize("count", [68, 5])
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.2, -0.5, 0.3), (-0.3, 0.6, -0.4)])
def test_initial_pose(
    model: MorphableModel, locator: LandmarkLocator, angles: tuple[float, float, float], count: int
) -> None:
    truth = pose(model, *angles)
    points = project(model, locator, truth)
    rotation, translation = initial_pose(
        observe(points if count == 68 else five(points)), model.mean_shape[model.landmarks68].double(), Camera(SIZE)
    )
    # The camera of the closed form knows no perspective, which turns a face by up to its angle off the axis.
    torch.testing.assert_close(rotation.float(), truth.rotation[0], atol=0.05, rtol=0)
    torch.testing.assert_close(translation.float()[:2], truth.translation[0, :2], atol=3.0, rtol=0)
    torch.testing.assert_close(translation.float()[2], truth.translation[0, 2], atol=30.0, rtol=0)


def test_fit_recovers_pose_and_landmarks(model: MorphableModel, locator: LandmarkLocator) -> None:
    generator = torch.Generator().manual_seed(1)
    truth = pose(model, 0.15, -0.5, 0.2)
    truth.identity[:] = 0.7 * torch.randn(1, model.identity_count, generator=generator)
    truth.expression[:] = 0.5 * torch.randn(1, model.expression_count, generator=generator)
    points = project(model, locator, truth)
    fit = LandmarkFit(model, locator, Camera(SIZE), observe(points), expression_sigma=1.0)
    start = pose(model, 0.1, -0.4, 0.15)
    rigid = fit.solve(start, pose_only=True)
    assert torch.equal(rigid.identity, start.identity)
    result = fit.solve(rigid)
    error = (project(model, locator, result) - points).norm(dim=1)
    assert error.mean() < 0.7
    assert (project(model, locator, rigid) - points).norm(dim=1).mean() > 2 * error.mean()
    torch.testing.assert_close(result.rotation, truth.rotation, atol=0.04, rtol=0)


def test_jacobian_against_differences(model: MorphableModel, locator: LandmarkLocator) -> None:
    truth = pose(model, 0.1, 0.3, -0.2)
    for points in (project(model, locator, truth), five(project(model, locator, truth))):
        fit = LandmarkFit(model, locator, Camera(SIZE), observe(points), expression_sigma=1.0)
        unknowns = fit._pack(truth) + 0.1
        basis = fit._landmark_basis(unknowns)
        step = 1e-5 * torch.eye(len(unknowns), dtype=torch.float64)
        differences = [
            (fit._residual(unknowns + row, basis) - fit._residual(unknowns - row, basis)) / 2e-5 for row in step
        ]
        torch.testing.assert_close(
            fit._jacobian(unknowns, basis), torch.stack(differences, dim=2), rtol=1e-5, atol=1e-6
        )


def test_one_wrong_landmark_does_not_spoil_the_others(model: MorphableModel, locator: LandmarkLocator) -> None:
    truth = pose(model, 0.1, 0.3, 0.0)
    points = project(model, locator, truth)
    wrong = points.clone()
    wrong[30] += torch.tensor([40.0, -25.0])
    fit = LandmarkFit(model, locator, Camera(SIZE), observe(wrong), expression_sigma=1.0)
    result = fit.solve(fit.solve(pose(model), pose_only=True))
    others = torch.arange(68) != 30
    assert (project(model, locator, result) - points)[others].norm(dim=1).mean() < 1.5


def test_blend_shapes_stay_in_their_interval(model: MorphableModel) -> None:
    blend = MorphableModel(
        mean_shape=model.mean_shape,
        identity_basis=model.identity_basis[:2],
        expression_basis=model.expression_basis,
        mean_albedo=model.mean_albedo,
        albedo_basis=model.albedo_basis,
        faces=model.faces,
        landmarks68=model.landmarks68,
        expression_prior="unit_interval",
    )
    locator = LandmarkLocator(blend)
    truth = pose(blend)
    truth.expression[0, :3] = torch.tensor([1.8, -1.2, 0.4])
    fit = LandmarkFit(blend, locator, Camera(SIZE), observe(project(blend, locator, truth)), expression_sigma=0.5)
    placed = fit.solve(pose(blend), pose_only=True)
    assert torch.equal(placed.expression, pose(blend).expression)
    assert torch.equal(placed.identity, pose(blend).identity)
    expression = fit.solve(pose(blend)).expression
    assert expression.min() == 0
    assert expression.max() <= 1
    assert (expression > 0).any()


def test_bounded_step_is_optimal() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        root = torch.randn(9, 9, generator=generator, dtype=torch.float64)
        curvature = root @ root.T + 0.1 * torch.eye(9, dtype=torch.float64)
        gradient = 3 * torch.randn(9, generator=generator, dtype=torch.float64)
        lower = -torch.rand(9, generator=generator, dtype=torch.float64)
        upper = torch.rand(9, generator=generator, dtype=torch.float64)
        step = torch.zeros(9, dtype=torch.float64)  # the last is not free
        step[:8] = bounded_steps(curvature[None, :8, :8], gradient[None, :8], lower[None, :8], upper[None, :8])[0]
        slope = gradient + curvature @ step
        for value, low, high, rise in zip(step[:8], lower, upper, slope, strict=False):
            assert low <= value <= high
            if low < value < high:
                assert abs(rise) < 1e-9
            else:
                assert rise >= 0 if value == low else rise <= 0


def test_jaw_landmarks_seen_from_the_front_are_their_vertices(model: MorphableModel, locator: LandmarkLocator) -> None:
    points = locator(model.mean_shape[None], torch.zeros(1, 3))[0]
    torch.testing.assert_close(points[JAW_COUNT:], model.mean_shape[model.landmarks68[JAW_COUNT:]])
    moved = (points - model.mean_shape[model.landmarks68])[:JAW_COUNT].norm(dim=1)
    assert moved.max() < 3  # mm


@pytest.mark.parametrize("yaw", [-0.7, 0.7])
def test_jaw_landmarks_of_the_far_side_are_on_the_outline(
    model: MorphableModel, locator: LandmarkLocator, yaw: float
) -> None:
    # Positive yaw turns the face towards the image's right: its right side (landmarks 9-16) is the far one.
    truth = pose(model, yaw=yaw)
    points = project(model, locator, truth)
    camera = Camera(SIZE)
    region = face_region(model)
    screen = camera.project(camera.transform(model.mean_shape[None], truth.rotation, truth.translation))[0, region]
    side = 1 if yaw > 0 else -1
    far = range(11, 15) if yaw > 0 else range(2, 6)
    for index in far:
        level = (screen[:, 1] - points[index, 1]).abs() < 3
        outline = (side * screen[level, 0]).max()
        assert abs(side * points[index, 0] - outline) < 4, index
    hidden = model.mean_shape[model.landmarks68]
    hidden = camera.project(camera.transform(hidden[None], truth.rotation, truth.translation))[0, :, :2]
    assert (points - hidden)[list(far)].norm(dim=1).mean() > 5  # where the jaw itself is, behind the cheek


def test_locator_takes_batches_and_passes_gradients(model: MorphableModel, locator: LandmarkLocator) -> None:
    vertices = model.mean_shape.expand(2, -1, -1).clone().requires_grad_()
    rotation = torch.tensor([[0.0, 0.6, 0.0], [0.0, 0.0, 0.0]])
    points = locator(vertices, rotation)
    assert points.shape == (2, 68, 3)
    single = locator(vertices[1:], rotation[1:])
    torch.testing.assert_close(points[1:], single, rtol=0, atol=0)
    points.sum().backward()
    assert vertices.grad is not None
    # Weights on the two ends of an edge sum to one.
    torch.testing.assert_close(vertices.grad.sum(dim=1), torch.full((2, 3), 68.0))


def test_face_region_and_its_model(model: MorphableModel) -> None:
    region = face_region(model)
    assert region[model.landmarks68].all()
    below = model.mean_shape[:, 1] < model.mean_shape[model.landmarks68[8], 1] - 6
    assert below.any()
    assert not region[below].any()
    small = crop_model(model, region)
    assert small.vertex_count == int(region.sum())
    identity, expression = torch.randn(1, model.identity_count), torch.randn(1, model.expression_count)
    expected = model.shape(identity, expression)
    torch.testing.assert_close(small.shape(identity, expression), expected[:, region])
    torch.testing.assert_close(small.shape(identity, expression)[:, small.landmarks68], expected[:, model.landmarks68])
    corners = small.mean_shape[small.faces.long()]
    kept = region[model.faces.long()].all(dim=1)
    torch.testing.assert_close(corners, model.mean_shape[model.faces[kept].long()])


def test_from_near_the_outline_lies_further_in_front(model: MorphableModel, locator: LandmarkLocator) -> None:
    """Each jaw point is the outermost of its candidates in the picture of a camera at that distance."""
    face = pose(model, yaw=0.6)
    vertices = model.shape(face.identity, face.expression)
    rotation = rotation_matrix(face.rotation)
    differ = []
    for distance in (300.0, 2000.0):
        translation = torch.tensor([[0.0, 0.0, distance - 1000]])
        points = locator(vertices, face.rotation, translation=translation)[0, :JAW_COUNT]
        candidates = torch.lerp(
            vertices[0][locator.ends[..., 0]], vertices[0][locator.ends[..., 1]], locator.fractions[..., None]
        )

        def reach(places: Tensor, translation: Tensor = translation) -> Tensor:
            screen = Camera(SIZE).project(Camera.transform(places[None], face.rotation, translation))[0, :, :2]
            outward = locator.outward @ rotation[0, :2].T
            return (screen.view(JAW_COUNT, -1, 2) * outward[:, None]).sum(dim=2)

        torch.testing.assert_close(reach(points)[:, 0], reach(candidates.flatten(0, 1)).amax(dim=1))
        differ.append(points)
    moved = (differ[0] - differ[1])[:, 2]
    assert float(moved.min()) > -0.5
    assert float(moved.max()) > 3  # mm towards the camera, on the side that is turned away
