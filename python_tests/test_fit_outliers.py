"""Light, albedo and mask for a given face: the closed-form half of a fit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.face.lighting import ambient_lighting, directional_lighting
from focus.fit.appearance import PixelFace, fit_appearance
from focus.fit.lighting import solve_lighting
from focus.fit.outliers import Neighborhood, visible_probability, without_specks
from focus.fit.pieces import pieces_of_crop
from focus.fit.starts import agreement, find_start, segments
from focus.fit.structure import local_correlation
from focus.fit.witnesses import NAMES, WEIGHTS, vertex_fields, witnesses

SIZE = 96


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=2, expression=2, albedo=2)


def render(model: MorphableModel, lighting: Tensor) -> tuple[FaceParameters, Rendering]:
    parameters = FaceParameters.mean(model)
    parameters.translation[:] = torch.tensor([0.0, 0.0, 60.0])
    parameters.lighting = lighting
    return parameters, Renderer(model, SIZE)(parameters)


def side_light() -> Tensor:
    return directional_lighting(
        torch.tensor([[0.7, -0.3, -1.0]]), torch.tensor([[0.7, 0.65, 0.6]]), torch.full((1, 3), 0.4)
    )


def shaded(model: MorphableModel, parameters: FaceParameters, lighting: Tensor) -> Tensor:
    return Renderer(model, SIZE)(FaceParameters(**{**dict(parameters.items()), "lighting": lighting})).image


@pytest.mark.parametrize("hidden", [False, True])
def test_lighting_is_found_again(model: MorphableModel, hidden: bool) -> None:
    parameters, rendering = render(model, side_light())
    target = rendering.image.clone()
    if hidden:
        target[:, :, :, 60:] = torch.tensor([0.1, 0.5, 0.2])[None, :, None, None]  # a third of the face
    lighting = solve_lighting(
        target, rendering, model.albedo(parameters.albedo), model.faces, torch.ones(1, 1, SIZE, SIZE)
    )
    assert lighting.shape == (1, 3, 9)
    seen = rendering.mask.clone()
    seen[..., 60:] = 0
    difference = ((shaded(model, parameters, lighting) - rendering.image) * seen).abs().sum() / (3 * seen.sum())
    ambient = ((shaded(model, parameters, ambient_lighting(1)) - rendering.image) * seen).abs().sum() / (3 * seen.sum())
    assert difference < 0.03  # the prior keeps the light softer
    assert ambient > 0.1


def test_lighting_without_a_pixel_is_the_prior(model: MorphableModel) -> None:
    parameters, rendering = render(model, side_light())
    lighting = solve_lighting(
        rendering.image, rendering, model.albedo(parameters.albedo), model.faces, torch.zeros(1, 1, SIZE, SIZE)
    )
    torch.testing.assert_close(lighting, ambient_lighting(1))


def test_untrusted_pixels_do_not_count(model: MorphableModel) -> None:
    parameters, rendering = render(model, side_light())
    target, weight = rendering.image.clone(), torch.ones(1, 1, SIZE, SIZE)
    target[..., :48] = 0
    weight[..., :48] = 0
    arguments = (rendering, model.albedo(parameters.albedo), model.faces, weight)
    torch.testing.assert_close(solve_lighting(target, *arguments), solve_lighting(rendering.image, *arguments))


def outlier_iou(found: Tensor, truth: Tensor, face: Tensor) -> float:
    found, truth = (found < 0.5) & (face > 0), truth & (face > 0)
    return float((found & truth).sum() / (found | truth).sum())


def noisy(image: Tensor, amount: float = 0.02) -> Tensor:
    return image + amount * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))


def by_pixel(model: MorphableModel, rendering: Rendering, target: Tensor) -> PixelFace:
    return PixelFace.draw(target, rendering, model, vertex_fields(model), pieces_of_crop(target))


def mask_of(model: MorphableModel, rendering: Rendering, target: Tensor, rounds: int = 3) -> Tensor:
    """The mask for the right reconstruction, from the start in which all is seen."""
    face, neighborhood = by_pixel(model, rendering, target), Neighborhood(target, rendering.mask)
    visible = torch.ones(1, len(face.pixels))
    for _ in range(rounds):
        visible = visible_probability(face, face.of(rendering.image), visible, neighborhood)
    return face.image(visible)[None]


def square(top: int, bottom: int, left: int, right: int) -> Tensor:
    truth = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    truth[..., top:bottom, left:right] = True
    return truth


def test_a_painted_square_is_masked(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    truth = square(50, 72, 30, 55)
    target = torch.where(truth, torch.tensor([0.2, 0.3, 0.5])[None, :, None, None], rendering.image)
    visible = mask_of(model, rendering, noisy(target))
    assert outlier_iou(visible, truth, rendering.mask) > 0.85
    assert not visible[rendering.mask == 0].any()
    assert visible.min() >= 0
    assert visible.max() <= 1


def test_what_agrees_is_visible(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    visible = mask_of(model, rendering, noisy(rendering.image))
    assert (visible >= 0.5)[rendering.mask > 0].float().mean() > 0.97


def test_gloss_and_shadow_are_not_outliers_but_tint_is(model: MorphableModel) -> None:
    _, rendering = render(model, ambient_lighting(1))
    there = square(30, 45, 35, 60)

    def masked(changed: Tensor) -> Tensor:
        target = torch.where(there, changed, rendering.image)
        return (mask_of(model, rendering, noisy(target)) < 0.5) & there

    assert masked(rendering.image + 0.1).sum() < 0.05 * there.sum()
    assert masked(rendering.image * 0.85).sum() < 0.05 * there.sum()
    tinted = rendering.image + 0.15 * torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None]
    assert masked(tinted).sum() > 0.8 * there.sum()


def test_neighbours_of_like_colour_share_a_label(model: MorphableModel) -> None:
    """One spot of evidence against the face that looks like its neighbours in the photo is noise."""
    _, rendering = render(model, ambient_lighting(1))
    evidence = torch.full((1, 1, SIZE, SIZE), 1.5)
    evidence[..., 40:43, 45:48] = -1.5
    settled = Neighborhood(rendering.image, rendering.mask).settle(evidence)
    assert (settled >= 0.5)[rendering.mask > 0].all()
    apart = torch.where(square(40, 43, 45, 48), 1 - rendering.image, rendering.image)
    settled = Neighborhood(apart, rendering.mask).settle(evidence)
    assert (settled < 0.5)[..., 40:43, 45:48].all()


def test_a_batch_of_masks_is_its_masks_one_by_one(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    target = noisy(torch.where(square(50, 72, 30, 55), 0.3, rendering.image))
    face, neighborhood = by_pixel(model, rendering, target), Neighborhood(target, rendering.mask)
    starts = segments(face)
    together = fit_appearance(face, starts + 1e-3)
    masks = visible_probability(face, together.colors, starts, neighborhood)
    for number, start in enumerate(starts):
        alone = fit_appearance(face, start[None] + 1e-3)
        torch.testing.assert_close(alone.colors[0], together.colors[number], rtol=1e-3, atol=1e-4)
        one = visible_probability(face, together.colors[number, None], start[None], neighborhood)
        torch.testing.assert_close(one[0], masks[number], rtol=1e-3, atol=1e-3)


def test_light_and_albedo_are_found_again_by_pixel(model: MorphableModel) -> None:
    parameters, _ = render(model, side_light())
    parameters.albedo[:] = 0.8
    rendering = Renderer(model, SIZE)(parameters)
    face = by_pixel(model, rendering, rendering.image)
    found = fit_appearance(face, torch.ones(1, len(face.pixels)))
    assert (found.colors[0] - face.photo).abs().mean() < 0.01
    half = (face.pixels % SIZE < SIZE // 2).float()[None]
    hidden = by_pixel(model, rendering, torch.where(torch.arange(SIZE) < SIZE // 2, rendering.image, 0.0))
    of_half = fit_appearance(hidden, half)
    assert ((of_half.colors[0] - face.photo).abs().mean(dim=0) * half[0]).sum() / half.sum() < 0.01


@pytest.mark.parametrize("color", [(0.1, 0.12, 0.2), (0.75, 0.85, 0.95), (0.4, 0.5, 0.35)])
def test_the_larger_part_of_a_face_may_be_hidden(model: MorphableModel, color: tuple[float, ...]) -> None:
    """Cloth from the nose down and hair over the forehead: the strip between them is the face, not the rest."""
    _, rendering = render(model, side_light())
    marks = rendering.landmarks[0]
    nose, brows = int(marks[29, 1]), int(marks[17:27, 1].min()) - 2
    truth = square(nose, SIZE, 0, SIZE) | square(0, brows, 0, SIZE)
    assert (truth & (rendering.mask > 0)).sum() > 0.5 * rendering.mask.sum()
    target = torch.where(square(nose, SIZE, 0, SIZE), torch.tensor(color)[None, :, None, None], rendering.image)
    target = torch.where(square(0, brows, 0, SIZE), torch.tensor([0.08, 0.06, 0.05])[None, :, None, None], target)
    face = by_pixel(model, rendering, noisy(target))
    visible = find_start(face, noisy(target), rendering.mask, marks)
    assert outlier_iou(visible, truth, rendering.mask) > 0.8


def test_a_right_mask_agrees_better_than_the_same_mask_inverted(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    truth = square(int(rendering.landmarks[0, 29, 1]), SIZE, 0, SIZE)
    target = noisy(torch.where(truth, torch.tensor([0.3, 0.4, 0.6])[None, :, None, None], rendering.image))
    face = by_pixel(model, rendering, target)
    seen = 1 - face.of(truth[0].float())
    both = torch.cat([seen, 1 - seen])
    good, inverted = agreement(face, fit_appearance(face, both + 1e-3).colors, both)
    assert good > inverted + 0.2


def test_segments_cover_the_face_once_and_are_the_same_each_time(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    face = by_pixel(model, rendering, torch.where(square(50, 72, 30, 55), 0.0, rendering.image))
    parts = segments(face)
    assert torch.equal(parts.sum(dim=0), torch.ones(len(face.pixels)))
    assert torch.equal(parts, segments(face))
    black = face.of(square(50, 72, 30, 55)[0].float())
    best = max(float((part * black).sum() / torch.maximum(part, black).sum()) for part in parts)
    assert best > 0.9


def test_a_face_of_one_colour_has_a_mask(model: MorphableModel) -> None:
    _, rendering = render(model, ambient_lighting(1))
    target = torch.full_like(rendering.image, 0.5)
    visible = find_start(by_pixel(model, rendering, target), target, rendering.mask, rendering.landmarks[0])
    assert torch.isfinite(visible).all()


def test_correlation_needs_structure_and_no_light(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    face = by_pixel(model, rendering, rendering.image)
    same, in_photo, in_face = local_correlation(face, (0.5 * rendering.image + 0.2).flatten(2)[..., face.pixels], 8.0)
    assert same[0][in_photo[0] > 0.8].min() > 0.6
    assert in_photo.max() <= 1
    assert in_face.min() >= 0
    flat, _, nothing = local_correlation(face, torch.full((1, 3, len(face.pixels)), 0.5), 8.0)
    assert flat.abs().max() < 0.01  # rounding
    assert nothing.max() < 0.01
    opposite, *_ = local_correlation(face, (1 - rendering.image).flatten(2)[..., face.pixels], 8.0)
    assert opposite[0][in_photo[0] > 0.8].max() < -0.6


def test_every_witness_has_a_weight_and_a_scale(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    target = noisy(torch.where(square(50, 72, 30, 55), 0.9, rendering.image))
    face = by_pixel(model, rendering, target)
    said = witnesses(face, face.of(rendering.image), torch.full((1, len(face.pixels)), 0.5))
    assert said.shape == (1, len(NAMES), len(face.pixels))
    assert len(WEIGHTS) == len(NAMES) == len(set(NAMES))
    assert said.abs().max() <= 4


def test_what_goes_on_outside_of_the_face_is_not_the_face(model: MorphableModel) -> None:
    """Hair over the forehead has the colour of the hair beside it; in the middle of the face that says nothing."""
    _, rendering = render(model, ambient_lighting(1))
    hair = torch.tensor([0.15, 0.1, 0.08]).view(1, 3, 1, 1)
    top = int((rendering.mask[0, 0] > 0).nonzero()[:, 0].min())
    band, middle = square(top, top + 10, 0, SIZE), square(45, 55, 40, 56)
    drawn = rendering.mask > 0
    target = torch.where(drawn & ~band & ~middle, torch.tensor([0.8, 0.6, 0.5]).view(1, 3, 1, 1), hair)
    face = by_pixel(model, rendering, target)
    visible = face.of((drawn & ~band & ~middle)[0].float())
    said = dict(zip(NAMES, witnesses(face, face.of(rendering.image), visible).unbind(1), strict=True))
    for name in ("colors round the face", "colors near by"):
        heard = face.image(said[name])[0]
        over = heard[(drawn & band)[0, 0]]
        assert over.min() < -0.3
        assert over.max() < 0.05
        assert heard[middle[0, 0]].abs().max() < 0.1  # far from what is round the face
        ring = drawn & ~band & (F.avg_pool2d(drawn.float(), 5, stride=1, padding=2) < 1)
        assert heard[ring[0, 0]].mean() > 0.2


def test_strictness_counts_against_the_face(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    face = by_pixel(model, rendering, noisy(rendering.image))
    half = torch.full((1, len(face.pixels)), 0.5)
    neighborhood = Neighborhood(rendering.image, rendering.mask)
    kind, strict = (visible_probability(face, face.of(rendering.image), half, neighborhood, value) for value in (0, 3))
    assert (strict <= kind).all()
    assert strict.mean() < kind.mean()


def test_specks_are_removed_and_pieces_stay() -> None:
    face = torch.ones(1, 1, 64, 64)
    visible = torch.ones(1, 1, 64, 64)
    visible[..., 5:7, 5:7] = 0.1  # 4 of 4096 pixels
    visible[..., 30:50, 30:33] = 0.2  # 60 pixels
    diagonal = torch.arange(10, 22)
    visible[0, 0, diagonal, diagonal + 40] = 0.3  # 12 pixels that touch at corners, and three times as many beside them
    visible[0, 0, diagonal, diagonal + 41] = 0.3
    visible[0, 0, diagonal, diagonal + 42] = 0.3
    visible[0, 0, diagonal, diagonal + 39] = 0.3
    result = without_specks(visible, face)
    expected = visible.clone()
    expected[..., 5:7, 5:7] = 1
    assert torch.equal(result, expected)
    assert torch.equal(without_specks(expected, face), expected)


def test_fields_of_the_face(model: MorphableModel) -> None:
    border, noise, brow, eye = vertex_fields(model).unbind(1)
    marks = model.landmarks68
    assert noise[marks[37]] > 1.9
    assert noise[marks[8]] < 1.05
    assert border[marks[30]] == 0
    assert border.max() > 1
    for near, number in ((brow, 19), (eye, 37)):
        assert near[marks[number]] == 1
        assert near[marks[8]] < 0.1
