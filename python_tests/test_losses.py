"""Every loss against numbers worked out by hand, and the properties that training relies on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focus import losses
from focus.face import FaceParameters
from focus.losses import ReconstructionWeights, SegmentationWeights
from focus.nets import FilterBank
from focus.train import Settings


def gray(*values: float, height: int = 1) -> Tensor:
    """``[1, 3, height, N]``, a row of grey pixels, repeated downwards."""
    return torch.tensor(values).view(1, 1, 1, -1).expand(1, 3, height, -1).contiguous()


def row(*values: float) -> Tensor:
    """``[1, 1, 1, N]``, a mask."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def parameters_of(identity: Tensor, expression: Tensor, albedo: Tensor) -> FaceParameters:
    count = len(identity)
    zeros = torch.zeros
    return FaceParameters(identity, expression, albedo, zeros(count, 3), zeros(count, 3), zeros(count, 3, 9))


@dataclass
class Render:
    """The three fields of a `Rendering` that the losses read."""

    image: Tensor
    mask: Tensor
    landmarks: Tensor


def test_pixel_is_the_mean_distance_over_the_mask() -> None:
    # sqrt(3) (1 * 0.3 + 0.5 * 0.2) / 1.5
    value = losses.pixel(gray(0.5, 0.5, 0.9), gray(0.2, 0.3, 0.0), row(1, 0.5, 0))
    assert value.item() == pytest.approx(math.sqrt(3) * 0.4 / 1.5, rel=1e-6)


def test_pixel_divides_by_the_sum_over_the_batch() -> None:
    target, render = torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 1, 4)
    target[0, :, :, 0], target[1, 0] = 1.0, 0.5
    mask = torch.zeros(2, 1, 1, 4)
    mask[0, 0, 0, 0], mask[1] = 1, 1
    value = losses.pixel(target, render, mask)
    assert value.item() == pytest.approx((math.sqrt(3) + 4 * 0.5) / 5, rel=1e-6)


def test_pixel_of_two_ranks_equals_that_of_the_joined_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of 1 image each, their gradients averaged, against one process with both images."""
    generator = torch.Generator().manual_seed(0)
    target, render = torch.rand(2, 2, 3, 4, 4, generator=generator).unbind()
    mask = torch.rand(2, 1, 4, 4, generator=generator)
    mask[1] *= 0.1
    render.requires_grad_()
    mask.requires_grad_()
    joined = losses.pixel(target, render, mask)
    expected = torch.autograd.grad(joined, (render, mask))

    def sums(rank: int) -> Tensor:
        part = slice(rank, rank + 1)
        visible = mask[part].detach()
        return torch.stack(((visible * (target - render)[part].detach()).norm(dim=1).sum(), visible.sum()))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    averaged = [torch.zeros_like(value) for value in expected]
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda value, other=1 - rank: value.add_(sums(other)))
        part = slice(rank, rank + 1)
        value = losses.pixel(target[part], render[part], mask[part])
        assert value.item() == pytest.approx(joined.item(), rel=1e-5)
        for total, gradient in zip(averaged, torch.autograd.grad(value, (render, mask)), strict=True):
            total += gradient / 2
    for got, wanted in zip(averaged, expected, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-7)


def test_pixel_of_an_empty_mask_is_zero() -> None:
    assert losses.pixel(gray(1.0), gray(0.0), row(0)).item() == 0


def test_robust_counts_inliers_only() -> None:
    sigma, cutoff = 0.1, 3.0
    constant = -1.5 * math.log(2 * math.pi) - 3 * math.log(sigma)
    # Distances sqrt(3) * (0.1, 0.17, 0.18, 0.0): 0.3 is the limit; the last pixel is not of the face.
    value, inliers = losses.robust(
        gray(0.5, 0.5, 0.5, 0.5), gray(0.4, 0.33, 0.32, 0.5), row(1, 1, 1, 0), sigma=sigma, cutoff=cutoff
    )
    assert inliers.tolist() == [[[[1, 1, 0, 0]]]]
    likelihoods = [-3 * d * d / (2 * sigma**2) + constant for d in (0.1, 0.17)]
    assert value.item() == pytest.approx(-sum(likelihoods) / 4, rel=1e-4)


def test_robust_has_no_gradient_where_it_found_outliers() -> None:
    render = gray(0.4, 0.1).requires_grad_()
    value, _ = losses.robust(gray(0.5, 0.5), render, row(1, 1), sigma=0.1)
    value.backward()
    assert render.grad is not None
    assert render.grad[..., 0].flatten().tolist() == pytest.approx([-0.1 / 0.1**2 / 2] * 3, rel=1e-4)
    assert not render.grad[..., 1].any()


def test_sigma_anneals_geometrically_and_stays_in_its_range() -> None:
    sigmas = [losses.annealed_sigma(t, start=0.16, end=0.04) for t in (-1.0, 0.0, 0.5, 1.0, 2.0)]
    assert sigmas == pytest.approx([0.16, 0.16, 0.08, 0.04, 0.04])


def test_perceptual_is_one_minus_cosine() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert losses.perceptual(a, b).item() == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2, rel=1e-6)


def test_landmark_weighs_nose_and_inner_mouth_and_scales_to_224() -> None:
    target = torch.zeros(2, 68, 2)
    render = target.clone()
    render[0, 0, 0] = 3.0  # jaw: weight 1
    render[1, 28, 1] = 0.5  # nose: weight 20
    render[1, 67, 0] = 0.5  # inner mouth: weight 20
    expected = (9 + 2 * 400 * 0.25) / (2 * 68 * 2)
    assert losses.landmark(target, render, image_size=224).item() == pytest.approx(expected, rel=1e-6)
    assert losses.landmark(target, render, image_size=56).item() == pytest.approx(16 * expected, rel=1e-6)
    heavy = [k for k in range(68) if losses.landmark(*_one_off(k), image_size=224) > 1]
    assert heavy == [28, 29, 30, *range(60, 68)]


def _one_off(index: int) -> tuple[Tensor, Tensor]:
    target = torch.zeros(1, 68, 2)
    render = target.clone()
    render[0, index, 0] = 1.0
    return target, render


def test_landmark_confidence_and_missing_points() -> None:
    target = torch.zeros(1, 68, 2)
    target[0, 5] = math.nan
    render = torch.ones(1, 68, 2, requires_grad=True)
    confidence = torch.zeros(1, 68)
    confidence[0, 0] = 0.5
    value = losses.landmark(target, render, image_size=224, confidence=confidence)
    assert value.item() == pytest.approx(0.5 * 2 / 136, rel=1e-6)
    value.backward()
    assert render.grad is not None
    assert bool(torch.isfinite(render.grad).all())
    assert render.grad[0, :, 0].nonzero().flatten().tolist() == [0]


def test_regularisation() -> None:
    parameters = parameters_of(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0], [0.0]]), torch.ones(2, 4))
    assert losses.regularisation(parameters).item() == pytest.approx((1 + 4 + 9 + 8) / 2 / 224, rel=1e-6)


def test_neighbor_forgives_a_shift_by_one_pixel() -> None:
    target, render = gray(0.0, 0.6, 0.0, 0.0, height=4), gray(0.0, 0.0, 0.6, 0.0, height=4)
    ones = torch.ones(1, 1, 4, 4)
    assert losses.neighbor(target, render, ones).item() == 0
    # Against the same pixel alone the two middle columns differ by 0.6 sqrt(3).
    assert losses.neighbor(target, render, ones, window=1).item() == pytest.approx(0.3 * math.sqrt(3), rel=1e-5)
    assert losses.neighbor(target, render, ones, window=1, power=2).item() == pytest.approx(0.5 * 3 * 0.36, rel=1e-5)


def test_neighbor_searches_the_render_unless_swapped() -> None:
    # A bright pixel of the photo that is not in the render cannot be explained; the other way round it is left out.
    target, render = gray(0.0, 1.0, 0.0, height=3), torch.zeros(1, 3, 3, 3)
    ones = torch.ones(1, 1, 3, 3)
    assert losses.neighbor(target, render, ones).item() == pytest.approx(math.sqrt(3) / 3, rel=1e-5)
    assert losses.neighbor(target, render, ones, swapped=True).item() == 0


def maps(*columns: tuple[float, float]) -> Tensor:
    """``[1, 2, 1, N]``: a two-dimensional feature per position."""
    return torch.tensor(columns, dtype=torch.float32).T.reshape(1, 2, 1, -1).contiguous()


def test_distance_weighs_positions_by_their_support() -> None:
    a, b = maps((1, 0), (1, 0), (1, 0)), maps((2, 0), (0, 1), (1, 1))
    value = losses.distance(a, b, support=row(1, 0.5, 0))
    assert value.item() == pytest.approx(0.5 / 3, rel=1e-6)


def test_preserve_counts_hidden_positions_as_lost() -> None:
    full, masked = maps((1, 0), (1, 0), (1, 0), (1, 0)), maps((1, 0), (1, 1), (1, 0), (0, 1))
    value = losses.preserve(full, masked, support=row(1, 1, 0, 0), face_support=row(1, 1, 1, 0))
    assert value.item() == pytest.approx((1 - math.sqrt(0.5) + 1) / 4, rel=1e-6)


def test_nothing_to_compare_is_zero_and_has_finite_gradients() -> None:
    a, b = maps((0, 0), (1, 0)).requires_grad_(), maps((0, 0), (0, 0)).requires_grad_()
    support = row(0, 1).requires_grad_()
    (losses.distance(a, b, support) + losses.preserve(a, b, support, row(1, 1))).backward()
    for value in (a, b, support):
        assert value.grad is not None
        assert bool(torch.isfinite(value.grad).all())
    zero = torch.zeros(1, 1, 1, 2)
    assert losses.distance(a, b, zero).item() == 0
    assert losses.preserve(a, b, zero, zero).item() == 0


def test_area_is_the_hidden_share_of_each_face() -> None:
    face = torch.cat((row(1, 1, 1, 1), row(1, 0, 0, 0), row(0, 0, 0, 0)))
    mask = torch.cat((row(1, 0.5, 1, 1), row(0, 1, 1, 1), row(0, 0, 0, 0)))
    assert losses.area(face, mask).item() == pytest.approx((0.125 + 1 + 0) / 3, rel=1e-6)


def test_binary_is_largest_at_one_half() -> None:
    values = [losses.binary(row(p, p)).item() for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == pytest.approx([0, 0.25, 0.5, 0.25, 0])


def test_cross_entropy_of_the_mask_looks_at_the_face_only() -> None:
    logits = torch.tensor([0.0, 2.0, -50.0]).view(1, 1, 1, 3)
    value = losses.mask_cross_entropy(logits, row(1, 1, 1), row(1, 1, 0))
    assert value.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-2))) / 2, rel=1e-6)


def test_own_terms_pass_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    a, b, support = random(2, 3, 2, 2), random(2, 3, 2, 2), random(2, 1, 2, 2)
    face_support = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(losses.distance, (a, b, support))
    assert torch.autograd.gradcheck(losses.preserve, (a, b, support, face_support))
    assert torch.autograd.gradcheck(losses.perceptual, (random(2, 4), random(2, 4)))
    assert torch.autograd.gradcheck(losses.area, (random(2, 1, 2, 2), random(2, 1, 2, 2)))
    assert torch.autograd.gradcheck(losses.binary, (random(2, 1, 2, 2),))
    landmarks = (random(1, 68, 2), random(1, 68, 2))
    assert torch.autograd.gradcheck(lambda t, r: losses.landmark(t, r, image_size=224), landmarks)


# The sums.

SIZE = 32


def scene() -> tuple[Tensor, Tensor, Render, FaceParameters]:
    """A photo whose face is a disc, hidden at its right edge, and a render that has the whole disc right."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    face = (((x - 16) ** 2 + (y - 16) ** 2) < 144).float()[None, None]
    texture = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size=(SIZE, SIZE), mode="bilinear")
    hidden = (x >= 20).float()[None, None]
    other = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size=(SIZE, SIZE), mode="bilinear")
    target = texture * (1 - hidden) + other * hidden
    landmarks = torch.rand(1, 68, 2, generator=generator) * 16 + 8
    parameters = parameters_of(torch.ones(1, 3), torch.ones(1, 2), torch.ones(1, 1))
    return target, landmarks, Render(texture * face, face, landmarks + 1), parameters


@pytest.fixture(scope="module")
def features() -> FilterBank:
    return FilterBank()


def test_preserve_grows_when_the_mask_shrinks(features: FilterBank) -> None:
    target, _, render, _ = scene()
    full_map, face_support = features.feature_map(target), features.feature_support(render.mask)
    x = torch.arange(SIZE)
    values = []
    for edge in (32, 26, 20, 14, 8, 0):
        visible = render.mask * (x < edge)
        masked = features.feature_map(target * visible)
        values.append(losses.preserve(full_map, masked, features.feature_support(visible), face_support).item())
    assert values == sorted(values)
    assert values[0] < 0.35 * values[-1]
    assert values[-1] == pytest.approx(face_support.mean().item())


def test_equal_pictures_have_no_distance(features: FilterBank) -> None:
    target, _, render, _ = scene()
    feature_map, support = features.feature_map(target * render.mask), features.feature_support(render.mask)
    assert losses.distance(feature_map, feature_map, support).item() == pytest.approx(0, abs=1e-6)


def test_hiding_what_is_hidden_is_the_better_mask(features: FilterBank) -> None:
    """L_S prefers the true mask to all face, to no face and to the inverse."""
    target, _, render, _ = scene()
    true = (torch.arange(SIZE) < 20).float().expand(1, 1, SIZE, SIZE)
    candidates = {"true": true, "all": torch.ones_like(true), "none": torch.zeros_like(true), "inverse": 1 - true}
    scores = {
        name: losses.segmentation_loss(
            target=target,
            rendering=render,  # type: ignore[arg-type]
            mask=mask,
            features=features,
            weights=SegmentationWeights(),
        )[0].item()
        for name, mask in candidates.items()
    }
    assert min(scores, key=lambda name: scores[name]) == "true", scores


def test_segmentation_sum_is_the_weighted_terms_and_skips_zero_weights(features: FilterBank) -> None:
    target, _, render, _ = scene()
    mask = torch.full((1, 1, SIZE, SIZE), 0.7, requires_grad=True)
    weights = SegmentationWeights()
    arguments = {"target": target, "rendering": render, "mask": mask, "features": features}
    total, terms = losses.segmentation_loss(weights=weights, **arguments)  # type: ignore[arg-type]
    assert set(terms) == {"neighbor", "distance", "preserve", "area", "binary"}
    assert total.item() == pytest.approx(sum(getattr(weights, k) * v.item() for k, v in terms.items()), rel=1e-5)
    assert not any(term.requires_grad for term in terms.values())
    assert terms["area"].item() == pytest.approx(0.3, abs=1e-5)
    total.backward()
    assert mask.grad is not None
    assert bool(torch.isfinite(mask.grad).all())
    one = SegmentationWeights(neighbor=0, distance=0, area=1, preserve=0, binary=0)
    _, terms = losses.segmentation_loss(weights=one, **arguments)  # type: ignore[arg-type]
    assert set(terms) == {"area"}


def test_segmentation_loss_leaves_the_render_alone(features: FilterBank) -> None:
    target, _, render, _ = scene()
    render.image.requires_grad_()
    mask = torch.full((1, 1, SIZE, SIZE), 0.7, requires_grad=True)
    total, _ = losses.segmentation_loss(
        target=target,
        rendering=render,  # type: ignore[arg-type]
        mask=mask,
        features=features,
        weights=SegmentationWeights(),
    )
    total.backward()
    assert render.image.grad is None
    assert mask.grad is not None


def reconstruction(features: FilterBank, render: Render, **arguments: object) -> tuple[Tensor, dict[str, Tensor]]:
    target, landmarks, _, parameters = scene()
    return losses.reconstruction_loss(
        target=target,
        target_landmarks=landmarks,
        rendering=render,  # type: ignore[arg-type]
        parameters=parameters,
        features=features,
        **{"weights": ReconstructionWeights(), **arguments},  # type: ignore[arg-type]
    )


def test_reconstruction_sum_is_the_weighted_terms(features: FilterBank) -> None:
    render = scene()[2]
    weights = ReconstructionWeights()
    total, terms = reconstruction(features, render, mask=torch.full_like(render.mask, 0.5))
    assert set(terms) == {"pixel", "perceptual", "landmark", "regularisation", "area"}
    assert total.item() == pytest.approx(sum(getattr(weights, k) * v.item() for k, v in terms.items()), rel=1e-5)
    assert terms["regularisation"].item() == pytest.approx(6 / 224, rel=1e-5)
    assert terms["landmark"].item() == pytest.approx(7**2 * (57 + 11 * 400) / 68, rel=1e-5)
    assert terms["area"].item() == pytest.approx(0.5, rel=1e-5)


def test_reconstruction_without_a_mask_and_with_the_robust_likelihood(features: FilterBank) -> None:
    render = scene()[2]
    assert set(reconstruction(features, render)[1]) == {"pixel", "perceptual", "landmark", "regularisation"}
    _, terms = reconstruction(features, render, robust_sigma=0.1)
    assert set(terms) == {"robust", "perceptual", "landmark", "regularisation"}
    only = ReconstructionWeights(pixel=0, perceptual=0, landmark=1, regularisation=0, area=0)
    assert set(reconstruction(features, render, weights=only)[1]) == {"landmark"}
    with pytest.raises(ValueError, match="got both"):
        reconstruction(features, render, mask=render.mask, robust_sigma=0.1)


def test_area_reaches_the_render_through_the_mask_only(features: FilterBank) -> None:
    render = scene()[2]
    render.image.requires_grad_()
    only_area = ReconstructionWeights(pixel=0, perceptual=0, landmark=0, regularisation=0)
    mask = torch.sigmoid(render.image.sum(dim=1, keepdim=True))
    reconstruction(features, render, weights=only_area, mask=mask)[0].backward()
    assert render.image.grad is not None
    assert render.image.grad.any()
    total, _ = reconstruction(features, render, weights=only_area, mask=mask.detach())
    assert not total.requires_grad


def test_pixel_loss_reaches_the_mask_on_request_only(features: FilterBank) -> None:
    render = scene()[2]
    only_pixel = ReconstructionWeights(perceptual=0, landmark=0, regularisation=0, area=0)
    mask = torch.full_like(render.mask, 0.5).requires_grad_()
    assert reconstruction(features, render, weights=only_pixel, mask=mask)[0].requires_grad
    assert not reconstruction(features, render, weights=only_pixel, mask=mask, mask_gradient=False)[0].requires_grad


def test_a_pixel_pays_beyond_the_threshold(features: FilterBank) -> None:
    """A flat photo and a flat render, d apart on a block: the block is better hidden just where the formula says."""
    weights = SegmentationWeights(distance=0, preserve=0, binary=10)  # binary is 0 for masks of 0 and 1
    face = torch.zeros(1, 1, 20, 20)
    face[..., 2:17, 2:17] = 1
    threshold = losses.hiding_threshold(weights, 225 / 400)
    assert threshold == pytest.approx(0.5 * 400 / 225 / 15)
    target = torch.full((1, 3, 20, 20), 0.5)
    hidden = torch.ones_like(face)
    hidden[..., 6:10, 6:10] = 0
    for factor, better in ((0.99, torch.ones_like(face)), (1.01, hidden)):
        image = target.clone()
        image[..., 5:11, 5:11] += factor * threshold / math.sqrt(3)  # its rim finds the rest of the render nearby
        render = Render(image * face, face, torch.zeros(1, 68, 2))
        values = [
            losses.segmentation_loss(target=target, rendering=render, mask=mask, features=features, weights=weights)[0]  # type: ignore[arg-type]
            for mask in (torch.ones_like(face), hidden)
        ]
        assert torch.equal(better, torch.ones_like(face) if values[0] < values[1] else hidden)


def test_binary_keeps_a_grey_mask_on_its_side(features: FilterBank) -> None:
    """At one value for the whole face, L_S pulls it across one half beyond binary / neighbor from the threshold."""
    weights = SegmentationWeights(distance=0, preserve=0, binary=3)
    face = torch.ones(1, 1, 20, 20)
    threshold, target = losses.hiding_threshold(weights, 1.0), torch.full((1, 3, 20, 20), 0.5)
    barrier = weights.binary / weights.neighbor
    for distance, value, falls in (
        (threshold + 0.9 * barrier, 0.6, False),
        (threshold + 1.1 * barrier, 0.6, True),
        (threshold + 0.1 * barrier, 0.4, True),
        (0.0, 0.4, True),  # nearer to the threshold than the barrier: not even a perfect pixel comes back
    ):
        render = Render(target + distance / math.sqrt(3), face, torch.zeros(1, 68, 2))
        mask = torch.full_like(face, value).requires_grad_()
        loss, _ = losses.segmentation_loss(
            target=target, rendering=render, mask=mask, features=features, weights=weights  # type: ignore[arg-type]
        )  # fmt: skip
        (slope,) = torch.autograd.grad(loss, mask)
        assert (slope.sum() > 0) == falls


@pytest.mark.parametrize("preset", ["paper", "official", "small"])
def test_black_against_all_face_is_a_matter_of_the_threshold(features: FilterBank, preset: Any) -> None:
    """With means over the face of one image, and for every term, on random pictures."""
    weights = Settings.preset(preset).segmentation_weights
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(1, 3, 8, 8, generator=generator)
    target = F.interpolate(target, size=64, mode="bilinear", align_corners=False)
    face = torch.zeros(1, 1, 64, 64)
    face[..., 12:52, 16:48] = 1
    fraction = face.mean().item()
    render = Render((target + 0.2 * torch.rand(1, 3, 64, 64, generator=generator)) * face, face, torch.zeros(1, 68, 2))
    (all_face, shown), (black, blank) = (
        losses.segmentation_loss(target=target, rendering=render, mask=mask, features=features, weights=weights)  # type: ignore[arg-type]
        for mask in (torch.ones_like(face), torch.zeros_like(face))
    )
    assert [blank[name].item() for name in ("neighbor", "distance", "binary", "area")] == [0, 0, 0, 1]
    assert black.item() == pytest.approx(weights.area + weights.preserve * blank["preserve"].item())
    threshold = losses.hiding_threshold(
        weights,
        fraction,
        kept=(blank["preserve"] - shown["preserve"]).item() / fraction,
        mismatch=shown["distance"].item() / fraction,
    )
    distance = shown["neighbor"].item() / fraction
    assert threshold > 0
    expected = weights.neighbor * fraction * (distance - threshold)
    assert (all_face - black).item() == pytest.approx(expected, abs=1e-5)


def test_threshold_at_its_ends() -> None:
    weights = SegmentationWeights()
    assert losses.hiding_threshold(replace(weights, area=0, preserve=0), 0.5) == 0
    assert losses.hiding_threshold(weights, 0.5, kept=0, mismatch=1) == 0  # features that fit nowhere
    assert losses.hiding_threshold(replace(weights, neighbor=0), 0.5) == math.inf
    once, squared = (losses.hiding_threshold(replace(weights, neighbor_power=power), 0.5) for power in (1, 2))  # type: ignore[arg-type]
    assert squared == pytest.approx(math.sqrt(once))
    with pytest.raises(ValueError, match="expected a number in"):
        losses.hiding_threshold(weights, 0.0)


def test_paper_and_official_weights() -> None:
    assert ReconstructionWeights() == ReconstructionWeights(0.5, 0.5, 0.25, 5e-4, 0.1, 0.06)
    assert SegmentationWeights() == SegmentationWeights(15, 3, 0.5, 2.5, 10, 3, 1, False)
    assert SegmentationWeights.official() == SegmentationWeights(15, 3, 0.5, 0.25, 10, 5, 1, True)


def test_counts_at_their_floor_have_the_gradient_of_the_count() -> None:
    """At max(count, 1) = count = 1, as the kernels have it, in whatever version of torch."""
    face = row(0.5, 0.5, 0).requires_grad_()
    mask, logits = row(0.25, 0.5, 1), row(0.2, -0.3, 0)
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    for value, parts in (
        (losses.area(face, mask), 1 - mask),
        (losses.mask_cross_entropy(logits, mask, face), entropy),
    ):
        (gradient,) = torch.autograd.grad(value, face)
        torch.testing.assert_close(gradient, parts - value.detach())
    (gradient,) = torch.autograd.grad(losses.area(face * 0.9, mask), face)
    torch.testing.assert_close(gradient, 0.9 * (1 - mask))  # below, the floor is a constant
