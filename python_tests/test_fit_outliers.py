"""Light and mask for a given face: the closed-form half of a fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.face.lighting import ambient_lighting, directional_lighting
from focus.fit.lighting import solve_lighting
from focus.fit.outliers import prior_log_odds, sigma_factor, visible_probability, without_specks

SIZE = 96
SIGMA, CUTOFF = 0.05, 3.0


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


def test_a_painted_square_is_masked(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    truth = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    truth[..., 50:72, 30:55] = True
    target = torch.where(truth, torch.tensor([0.2, 0.3, 0.5])[None, :, None, None], rendering.image)
    visible = visible_probability(noisy(target), rendering.image, rendering.mask, SIGMA, CUTOFF)
    assert outlier_iou(visible, truth, rendering.mask) > 0.85
    assert not visible[rendering.mask == 0].any()
    assert visible.min() >= 0
    assert visible.max() <= 1


def test_what_agrees_is_visible(model: MorphableModel) -> None:
    _, rendering = render(model, side_light())
    visible = visible_probability(noisy(rendering.image), rendering.image, rendering.mask, SIGMA, CUTOFF)
    assert (visible >= 0.5)[rendering.mask > 0].all()


def test_gloss_and_shadow_are_not_outliers_but_tint_is(model: MorphableModel) -> None:
    _, rendering = render(model, ambient_lighting(1))
    square = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    square[..., 30:45, 35:60] = True

    def masked(changed: Tensor) -> Tensor:
        target = torch.where(square, changed, rendering.image)
        return (visible_probability(target, rendering.image, rendering.mask, 0.03, CUTOFF) < 0.5) & square

    assert not masked(rendering.image + 0.15).any()
    assert not masked(rendering.image * 0.85).any()
    tinted = rendering.image + 0.15 * torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None]
    assert masked(tinted).sum() > 0.8 * square.sum()


def test_neighbours_of_like_colour_share_a_label(model: MorphableModel) -> None:
    """One outlier pixel that looks like its neighbours in the photo is noise; the same evidence in a block is not."""
    _, rendering = render(model, ambient_lighting(1))
    reconstruction = rendering.image.clone()
    reconstruction[..., 40:43, 45:48] += torch.tensor([-0.15, 0.0, 0.15])[None, :, None, None]
    visible = visible_probability(rendering.image, reconstruction, rendering.mask, 0.04, CUTOFF)
    assert (visible >= 0.5)[rendering.mask > 0].all()


def test_specks_are_removed_and_pieces_stay() -> None:
    face = torch.ones(1, 1, 64, 64)
    visible = torch.ones(1, 1, 64, 64)
    visible[..., 5:8, 5:8] = 0.1  # 9 of 4096 pixels
    visible[..., 30:50, 30:33] = 0.2  # 60 pixels
    diagonal = torch.arange(10, 22)
    visible[0, 0, diagonal, diagonal + 40] = 0.3  # 12 pixels that touch at corners, and three times as many beside them
    visible[0, 0, diagonal, diagonal + 41] = 0.3
    visible[0, 0, diagonal, diagonal + 42] = 0.3
    visible[0, 0, diagonal, diagonal + 39] = 0.3
    result = without_specks(visible, face)
    expected = visible.clone()
    expected[..., 5:8, 5:8] = 1
    assert torch.equal(result, expected)
    assert torch.equal(without_specks(expected, face), expected)


def test_fields_of_the_face(model: MorphableModel) -> None:
    factor, odds = sigma_factor(model), prior_log_odds(model)
    assert factor.shape == odds.shape == (model.vertex_count, 1)
    eye, chin = int(model.landmarks68[37]), int(model.landmarks68[8])
    assert factor[eye] > 1.9
    assert factor[chin] < 1.05
    assert odds[int(model.landmarks68[30])] == 2
    assert odds.min() < 0
