"""The procedural face: proportions, symmetry, triangles, bases, and that both details mean the same."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor

from focus import ops
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer, template_shapes
from focus.face.lighting import directional_lighting
from focus.face.procedural import template_landmarks
from focus.face.template_mesh import EYEBALL, SKIN, TEETH, TemplateMesh, build_mesh

IDENTITY_NAMES, EXPRESSION_NAMES = template_shapes.identity_names(), template_shapes.expression_names()
MIRROR = torch.tensor([-1.0, 1.0, 1.0])
# iBUG: which landmark is the mirror image of which.
TWINS = [16 - i for i in range(17)] + [43 - i for i in range(17, 27)] + [27, 28, 29, 30, 35, 34, 33, 32, 31]
TWINS += [
    45,
    44,
    43,
    42,
    47,
    46,
    39,
    38,
    37,
    36,
    41,
    40,
    54,
    53,
    52,
    51,
    50,
    49,
    48,
    59,
    58,
    57,
    56,
    55,
    64,
    63,
    62,
    61,
    60,
    67,
    66,
    65,
]


@pytest.fixture(scope="session")
def full_model() -> MorphableModel:
    return MorphableModel.procedural("full")


@pytest.fixture(scope="session")
def small_model() -> MorphableModel:
    return MorphableModel.procedural("small")


@pytest.fixture(scope="session", params=["small", "full"])
def model(request: pytest.FixtureRequest) -> MorphableModel:
    chosen: MorphableModel = request.getfixturevalue(f"{request.param}_model")
    return chosen


@pytest.fixture(scope="session")
def mesh(model: MorphableModel) -> TemplateMesh:
    return build_mesh("small" if "small" in model.name else "full")


def _face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    corners = vertices[..., faces.long(), :]
    return torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])


def _random(model: MorphableModel, count: int, seed: int) -> FaceParameters:
    generator = torch.Generator().manual_seed(seed)
    parameters = FaceParameters.mean(model, count)
    for name in ("identity", "expression", "albedo"):
        value = getattr(parameters, name)
        setattr(parameters, name, torch.randn(value.shape, generator=generator))
    return parameters


def test_sizes(small_model: MorphableModel, full_model: MorphableModel) -> None:
    assert 2000 < small_model.vertex_count < 3000
    assert 20_000 < full_model.vertex_count < 35_000
    for model in (small_model, full_model):
        assert (model.identity_count, model.expression_count, model.albedo_count) == (80, 46, 80)
    assert MorphableModel.procedural("small", identity=12, albedo=0).albedo_basis.shape[0] == 0
    with pytest.raises(FocusError, match="'small' or 'full', got 'huge'"):
        MorphableModel.procedural("huge")  # type: ignore[arg-type]


def test_building_is_quick() -> None:
    from focus.face import procedural

    begin = time.process_time()
    procedural._arrays.__wrapped__("small")
    assert time.process_time() - begin < 5  # about 0.5 s


def test_proportions_are_human(full_model: MorphableModel) -> None:
    points = full_model.mean_shape[full_model.landmarks68]

    def distance(first: int, second: int) -> float:
        return float((points[first] - points[second]).norm())

    # Farkas 1994, means of adults in mm with a band of about two standard deviations.
    assert distance(36, 45) == pytest.approx(90, abs=7)  # biocular
    assert distance(39, 42) == pytest.approx(32, abs=4)  # intercanthal
    assert distance(48, 54) == pytest.approx(51, abs=5)  # mouth width
    assert float(points[27, 1] - points[33, 1]) == pytest.approx(50, abs=6)  # nose height
    assert float(points[27, 1] - points[8, 1]) == pytest.approx(120, abs=9)  # face height
    assert float(points[30, 2] - points[33, 2]) == pytest.approx(18, abs=5)  # nose protrusion
    width = float(full_model.mean_shape[:, 0].max() - full_model.mean_shape[:, 0].min())
    assert width == pytest.approx(139, abs=9)  # bizygomatic


def test_profile_has_brow_nose_lips_and_chin(full_model: MorphableModel) -> None:
    middle = full_model.mean_shape[build_mesh("full").part == SKIN]
    middle = middle[middle[:, 0].abs() < 1e-4]

    def depth(y: float) -> float:
        return float(middle[(middle[:, 1] - y).abs().argmin(), 2])

    brow, nasion, tip, under, upper_lip, between, lower_lip, fold, chin, throat = (
        depth(y) for y in (54, 39, 1, -19, -29, -33.9, -39, -48, -66, -96)
    )
    assert brow > nasion + 0.5
    assert tip > nasion + 15
    assert tip > under + 12
    assert upper_lip > under
    assert upper_lip > between + 1
    assert lower_lip > between + 1
    assert lower_lip > fold + 2
    assert chin > fold + 1
    assert chin > throat + 30


def test_mean_is_its_own_mirror_image(model: MorphableModel, mesh: TemplateMesh) -> None:
    mirror = torch.from_numpy(mesh.mirror)
    assert bool((mirror[mirror] == torch.arange(len(mirror))).all())
    torch.testing.assert_close(model.mean_shape[mirror] * MIRROR, model.mean_shape, rtol=0, atol=1e-4)
    on_axis = model.mean_shape[mirror == torch.arange(len(mirror)), 0]
    assert float(on_axis.abs().max()) < 1e-4


def test_symmetric_components(model: MorphableModel, mesh: TemplateMesh) -> None:
    mirror = torch.from_numpy(mesh.mirror)
    skewed = {name for name in IDENTITY_NAMES if "to the side" in name}
    for i, component in enumerate(model.identity_basis):
        name = IDENTITY_NAMES[i] if i < len(IDENTITY_NAMES) else ""
        if name not in skewed:
            torch.testing.assert_close(component[mirror] * MIRROR, component, rtol=0, atol=2e-3)
    assert len(skewed) == 2


def test_landmarks_are_mirrored_and_in_order(model: MorphableModel, mesh: TemplateMesh) -> None:
    landmarks = model.landmarks68
    assert sorted(TWINS) == list(range(68))
    assert torch.equal(torch.from_numpy(mesh.mirror)[landmarks], landmarks[torch.tensor(TWINS)])
    assert (mesh.part[landmarks.numpy()] == SKIN).all()
    points = model.mean_shape[landmarks]
    x, y = points[:, 0], points[:, 1]
    assert bool((x[:16] < x[1:17]).all()) or bool((x[2:15] > x[1:14]).all())  # jaw from the image's left to its right
    assert bool((x[17:26] < x[18:27]).all())  # brows
    assert bool((y[27:30] > y[28:31]).all())  # nose downwards
    assert bool((x[31:35] < x[32:36]).all())
    for corner, top, bottom in ((36, (37, 38), (41, 40)), (42, (43, 44), (47, 46))):
        assert float(y[list(top)].min()) > float(y[corner]) > float(y[list(bottom)].max())
    assert bool((x[48:54] < x[49:55]).all())
    assert bool((x[54:59] > x[55:60]).all())
    assert bool((x[60:64] < x[61:65]).all())
    assert bool((x[65] > x[66]) & (x[66] > x[67]))
    assert float(y[8]) == float(y[:17].min())
    assert model.landmarks7 is not None
    assert torch.equal(model.landmarks7, landmarks[torch.tensor([36, 39, 42, 45, 33, 48, 54])])


def test_inner_lip_landmarks_part_when_the_jaw_opens(model: MorphableModel) -> None:
    expression = torch.zeros(2, model.expression_count)
    expression[1, EXPRESSION_NAMES.index("jaw open")] = 2
    shape = model.shape(torch.zeros(2, model.identity_count), expression)[:, model.landmarks68]
    gap = shape[:, [61, 62, 63], 1] - shape[:, [67, 66, 65], 1]
    assert float(gap[0].abs().max()) < 0.5
    assert float(gap[1].min()) > 3
    assert float((shape[1, 36:48] - shape[0, 36:48]).norm()) < 1e-3  # the eyes stay


def test_blink_closes_the_eyes_and_leaves_the_eyeballs(model: MorphableModel, mesh: TemplateMesh) -> None:
    blink = model.expression_basis[EXPRESSION_NAMES.index("blink")]
    upper, lower = model.landmarks68[[37, 38, 43, 44]], model.landmarks68[[41, 40, 47, 46]]
    assert bool((blink[upper, 1] < -2).all())
    assert bool((blink[lower, 1].abs() < 1).all())
    assert not blink[torch.from_numpy(mesh.part == EYEBALL)].any()


def test_triangles_of_the_mean(model: MorphableModel, mesh: TemplateMesh) -> None:
    normals = _face_normals(model.mean_shape, model.faces)
    assert float(normals.norm(dim=1).min()) / 2 > 1e-3  # mm^2
    part = torch.from_numpy(mesh.part)[model.faces[:, 0].long()]
    centres = model.mean_shape[model.faces.long()].mean(1) + torch.tensor([0.0, 0.0, 92.0])
    outwards = centres - torch.tensor([0.0, 20.0, 0.0])
    skin = (part == SKIN) & (centres[:, 1] > -70)
    facing = (torch.nn.functional.normalize(normals, dim=1) * torch.nn.functional.normalize(outwards, dim=1)).sum(1)
    assert float((facing[skin] > 0).float().mean()) > 0.97  # the rest: nostrils, the underside of the nose, lips
    balls = part == EYEBALL
    assert bool((normals[balls, 2] > 0).all())


def test_every_edge_has_at_most_two_sides(model: MorphableModel) -> None:
    faces = model.faces.long()
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    directed = edges[:, 0] * model.vertex_count + edges[:, 1]
    assert len(directed.unique()) == len(directed)  # consistent orientation: no directed edge twice


def test_no_triangle_turns_over_in_random_faces(model: MorphableModel) -> None:
    parameters = _random(model, 12, seed=3)
    mean = _face_normals(model.mean_shape, model.faces)
    neutral = _face_normals(model.neutral_shape(parameters.identity), model.faces)
    assert bool(((neutral * mean).sum(-1) > 0).all())
    moved = _face_normals(model.shape(parameters.identity, parameters.expression), model.faces)
    turned = ((moved * mean).sum(-1) <= 0).float().mean(-1)
    assert float(turned.max()) < 1e-3  # folds at the corners of lids and lips


def test_identity_varies_like_people(model: MorphableModel, mesh: TemplateMesh) -> None:
    skin = torch.from_numpy(mesh.part == SKIN)
    offsets = torch.einsum("bk,kvc->bvc", _random(model, 40, seed=4).identity, model.identity_basis[:, skin])
    points = model.mean_shape[skin] + offsets
    errors = []
    for shape in points:  # similarity alignment (Umeyama 1991)
        a, b = shape - shape.mean(0), model.mean_shape[skin] - model.mean_shape[skin].mean(0)
        u, s, v = torch.linalg.svd(b.T @ a)
        aligned = (a @ (u @ v).T) * (s.sum() / (a**2).sum())
        errors.append(float((aligned - b).norm(dim=1).square().mean().sqrt()))
    assert 3.0 <= float(np.mean(errors)) <= 4.2


def test_the_first_components_carry_most(model: MorphableModel) -> None:
    power = model.identity_basis.square().sum((1, 2))
    assert float(power[:12].sum() / power.sum()) > 0.5


def test_both_details_are_the_same_face(small_model: MorphableModel, full_model: MorphableModel) -> None:
    small, full = (_random(m, 4, seed=5) for m in (small_model, full_model))
    assert torch.equal(small.identity, full.identity)
    shapes = [
        m.shape(p.identity, 0.5 * p.expression)[:, m.landmarks68] for m, p in ((small_model, small), (full_model, full))
    ]
    means = [m.mean_shape[m.landmarks68] for m in (small_model, full_model)]
    # Landmarks fall on the nearest vertex: compare how they move, not where they are.
    moved = [shape - mean for shape, mean in zip(shapes, means, strict=True)]
    assert float((moved[0] - moved[1]).norm(dim=-1).mean()) < 0.6
    assert float((means[0] - means[1]).norm(dim=-1).mean()) < 3.0
    light = directional_lighting(torch.tensor([[0.3, -0.5, -1.0]] * 4), torch.ones(4, 3) * 0.7, torch.ones(4, 3) * 0.4)
    images, masks = [], []
    for m, p in ((small_model, small), (full_model, full)):
        p.expression *= 0.5
        p.lighting = light
        rendering = Renderer(m, 64)(p)
        images.append(rendering.image)
        masks.append(rendering.mask)
    both = masks[0] * masks[1]
    assert float(both.sum() / torch.maximum(*masks).sum()) > 0.97
    assert float(((images[0] - images[1]).abs() * both).sum() / both.sum() / 3) < 0.03


def test_albedo_has_skin_lips_brows_and_eyes(model: MorphableModel, mesh: TemplateMesh) -> None:
    mean = model.mean_albedo
    assert float(mean.min()) >= 0
    assert float(mean.max()) <= 1
    points = model.mean_shape

    def colour(x: float, y: float, part: int = SKIN) -> Tensor:
        distance = (points[:, :2] - torch.tensor([x, y])).square().sum(1)
        return mean[torch.where(torch.from_numpy(mesh.part == part), distance, torch.inf).argmin()]

    cheek, lip, brow = colour(35, 0), colour(0, -40), colour(22, 54)
    pupil, sclera = colour(31.4, 33.9, EYEBALL), colour(39.5, 32.5, EYEBALL)
    assert cheek[0] > cheek[1] > cheek[2]
    assert lip[0] / lip[1] > 1.1 * cheek[0] / cheek[1]
    assert brow.sum() < 0.75 * cheek.sum()
    assert pupil.sum() < 0.3 * cheek.sum()
    assert sclera.max() - sclera.min() < 0.12


def test_first_albedo_components_are_melanin_and_blood(model: MorphableModel) -> None:
    coefficients = torch.zeros(4, model.albedo_count)
    coefficients[0, 0], coefficients[1, 0], coefficients[2, 1] = -2.0, 2.0, 2.0
    dark, light, red, mean = model.albedo(coefficients)[:, model.landmarks68[30]]
    assert float(dark.mean()) < 0.3 < 0.6 < float(light.mean())
    assert red[0] > mean[0]
    assert red[1] < mean[1]
    teeth = build_mesh("small" if "small" in model.name else "full").part == TEETH
    assert not model.albedo_basis[0][torch.from_numpy(teeth)].any()


def test_random_albedos_stay_near_colours(model: MorphableModel) -> None:
    albedo = model.albedo(_random(model, 30, seed=6).albedo)
    outside = ((albedo < -0.02) | (albedo > 1.02)).any(-1).float().mean()
    assert float(outside) < 0.03


def test_render_of_the_mean(small_model: MorphableModel, device: torch.device) -> None:
    model = MorphableModel.procedural("small").to(device)
    parameters = FaceParameters.mean(model, 2)
    parameters.identity.requires_grad_()
    rendering = Renderer(model, 64)(parameters)
    assert rendering.image.shape == (2, 3, 64, 64)
    assert rendering.image.device.type == device.type
    assert set(rendering.mask.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float(rendering.mask.mean()) < 0.7
    assert not (rendering.image * (1 - rendering.mask)).any()
    assert rendering.landmarks.shape == (2, 68, 2)
    torch.testing.assert_close(rendering.normals.norm(dim=-1), torch.ones_like(rendering.normals[..., 0]))
    x, y = rendering.landmarks[0].round().long().T
    inner = torch.tensor([*range(27, 68)])
    assert bool(rendering.mask[0, 0, y[inner], x[inner]].all())
    rendering.image.sum().backward()
    assert parameters.identity.grad is not None
    assert bool(parameters.identity.grad.any())


def test_renderer_overrides(small_model: MorphableModel) -> None:
    renderer = Renderer(small_model, 32)
    parameters = FaceParameters.mean(small_model)
    white = torch.ones(1, small_model.vertex_count, 3)
    shifted = small_model.mean_shape[None] + torch.tensor([30.0, 0.0, 0.0])
    rendering = renderer(parameters, vertices=shifted, albedo=white)
    assert torch.equal(rendering.vertices, shifted)
    inside = rendering.image[:, :, rendering.mask[0, 0] > 0]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.7 * 2 * np.pi * 0.28209479))
    plain = renderer(parameters)
    moved = (rendering.landmarks - plain.landmarks).mean(1)[0]
    assert float(moved[0]) == pytest.approx(30 * renderer.camera.focal / 1000, rel=0.05)


def test_an_antialiased_mask_is_soft_and_has_gradients(small_model: MorphableModel) -> None:
    parameters = FaceParameters.mean(small_model)
    hard = Renderer(small_model, 32)(parameters)
    vertices = small_model.mean_shape[None].clone().requires_grad_()
    soft = Renderer(small_model, 32, antialias=True)(parameters, vertices=vertices)
    assert bool(((soft.mask > 0) & (soft.mask < 1)).any())
    assert float(soft.mask.detach().sum()) == pytest.approx(float(hard.mask.sum()), rel=0.05)
    assert torch.equal(soft.face_index, hard.face_index)
    # Before black the picture is the blended one; at the outline the colours are those of the face, not of a dark rim.
    inputs = torch.cat([hard.image, hard.mask], 1), soft.screen_vertices, small_model.topology, soft.face_index
    picture = ops.antialias(*inputs)[:, :3]
    torch.testing.assert_close(soft.mask * soft.image, picture, rtol=0, atol=1e-5)
    brightness, outline = soft.image.detach().mean(1, keepdim=True), (soft.mask > 0.01) & (soft.mask < 1)
    assert float(brightness[outline].min()) > 0.9 * float(hard.image.mean(1, keepdim=True)[hard.mask > 0].min()) > 0.02
    soft.mask.sum().backward()
    assert vertices.grad is not None
    assert bool(vertices.grad.any())


def test_truncation_keeps_the_first_components(small_model: MorphableModel) -> None:
    short = small_model.truncated(12, 6)
    assert (short.identity_count, short.expression_count, short.albedo_count) == (12, 6, 80)
    assert torch.equal(short.identity_basis, small_model.identity_basis[:12])
    assert torch.equal(small_model.truncated(np.uint8(12)).identity_basis, short.identity_basis)  # type: ignore[arg-type]
    for wrong in (-1, 5.0, "5", True, np.array([5])):
        with pytest.raises(FocusError, match=r"identity: expected 0 or more components, a whole number"):
            small_model.truncated(wrong)  # type: ignore[arg-type]
        with pytest.raises(FocusError, match=r"albedo: expected 0 or more components"):
            small_model.with_gaussian_process_albedo(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identity: expected 0 to 80 components, got 81"):
        small_model.truncated(81)
    with pytest.raises(ValueError, match=r"expected shape \[B, 12\], got \[1, 80\]"):
        short.neutral_shape(torch.zeros(1, 80))


def test_fingerprint_tells_models_apart(small_model: MorphableModel) -> None:
    arguments = {name: buffer.clone() for name, buffer in small_model.named_buffers()}
    plain = MorphableModel(**arguments)
    prints = [plain.fingerprint(), small_model.fingerprint(), small_model.truncated(12).fingerprint()]
    arguments["mean_shape"][5, 1] += 1e-3
    prints.append(MorphableModel(**arguments).fingerprint())
    assert len(set(prints)) == 4
    assert all(len(p) == 64 for p in prints)
    # The last bits of what code builds differ between machines; its fingerprint does not.
    rebuilt = MorphableModel(**arguments, recipe=small_model.recipe)
    assert rebuilt.fingerprint() == small_model.fingerprint()


def test_topology_is_built_once_and_follows_the_device(small_model: MorphableModel, device: torch.device) -> None:
    model = small_model.truncated(1, 1, 1).to(device)
    assert model.topology is model.topology
    assert model.topology.faces.device.type == device.type


def test_painted_albedo_follows_the_landmarks(small_model: MorphableModel) -> None:
    painted = small_model.with_gaussian_process_albedo(15)
    assert painted.albedo_count == 15
    assert "synthetic" in painted.name
    assert painted.fingerprint() != small_model.fingerprint()
    assert float((painted.mean_albedo - small_model.mean_albedo).abs().mean()) < 0.06
    assert template_landmarks().shape == (68, 3)


def test_lids_shade_painted_eyes(small_model: MorphableModel) -> None:
    painted, own = (
        model.mean_albedo.mean(dim=1) for model in (small_model.with_gaussian_process_albedo(1), small_model)
    )
    left, right = small_model.mean_shape[small_model.landmarks68[36:48]].view(2, 6, 3).mean(dim=1)
    for middle in (left, right):
        white = ((small_model.mean_shape - middle).norm(dim=1) < 12) & (own > 0.7)
        assert white.sum() >= 4
        assert 0.4 < float((painted[white] / own[white]).mean()) < 0.9


def test_painted_nostrils_are_in_the_nose(small_model: MorphableModel) -> None:
    """Also where the landmarks of the base of the nose are set lower, on the upper lip, as some models have them."""
    mean = small_model.mean_shape
    x, y, z = mean.T
    landmarks = small_model.landmarks68.clone()
    lowered = mean[landmarks[31:36], :2] - mean.new_tensor([0.0, 4.0])
    landmarks[31:36] = torch.cdist(lowered, mean[:, :2]).masked_fill(z < 0, torch.inf).argmin(dim=1)
    brightness = small_model._replaced(landmarks68=landmarks).with_gaussian_process_albedo(3).mean_albedo.mean(dim=1)
    lip = (x.abs() < 14) & (y > -22) & (y < -13) & (z > 0)
    nostrils = (small_model.mean_albedo.mean(dim=1) < 0.2) & (x.abs() < 10) & (y > -13) & (y < 0) & (z > 0)
    assert nostrils.sum() >= 2
    assert float(brightness[lip].min()) > 0.3
    assert float(brightness[nostrils].min()) < 0.15


def test_painting_needs_landmarks_of_a_face(small_model: MorphableModel) -> None:
    same = small_model._replaced(landmarks68=torch.zeros_like(small_model.landmarks68))
    with pytest.raises(FocusError, match="landmarks68: expected points of a face"):
        same.with_gaussian_process_albedo()
