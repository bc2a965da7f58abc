"""Recognition features: the filter bank's promises, and ArcFace from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from focus.nets import ArcFaceFeatures, FilterBank
from focus.nets.arcface import IResNet


@pytest.fixture(scope="module")
def bank() -> FilterBank:
    return FilterBank()


@pytest.fixture(scope="module")
def arcface() -> ArcFaceFeatures:
    """One block per stage: the same code as IResNet-50, a quarter of its time."""
    torch.manual_seed(0)
    return ArcFaceFeatures(IResNet((1, 1, 1, 1)), "test")


def smooth_images(count: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(0.1 + 0.8 * noise, size=(size, size), mode="bilinear", align_corners=False)


def face_landmarks(size: int = 64, count: int = 1) -> torch.Tensor:
    """68 points spread over the middle of the image, eyes above the mouth."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(count, 68, 2, generator=generator) * 0.1
    for indices, center in (
        ((36, 39), (0.35, 0.4)),
        ((42, 45), (0.65, 0.4)),
        ((30,), (0.5, 0.55)),
        ((48,), (0.4, 0.7)),
    ):
        points[:, list(indices)] += torch.tensor(center)
    points[:, 54] += torch.tensor((0.6, 0.7))
    return points * size


@pytest.mark.parametrize("size", [(64, 64), (72, 72), (61, 90), (1, 1)])
def test_map_and_support_have_half_the_resolution(bank: FilterBank, size: tuple[int, int]) -> None:
    features, support = bank.feature_map(torch.rand(2, 3, *size)), bank.feature_support(torch.rand(2, 1, *size))
    expected = tuple(4 * -(-side // 8) for side in size)
    assert features.shape == (2, 32, *expected)
    assert support.shape == (2, 1, *expected)


def test_an_edge_answers_in_its_direction_at_every_scale(bank: FilterBank) -> None:
    image = torch.full((1, 3, 64, 64), 0.2)
    image[..., 32:] = 0.6  # brighter to the right: direction 0
    edges = bank.feature_map(image)[0, :24].view(3, 8, 32, 32)[:, :, 16, 16]
    assert edges.argmax(dim=1).tolist() == [0, 0, 0]
    assert torch.allclose(edges[:, 1], edges[:, 7], atol=1e-6)
    assert bool((edges[:, 2:7].abs() < 1e-6).all())
    flipped = bank.feature_map(image.flip(-1))[0, :24].view(3, 8, 32, 32)[:, :, 16, 15]
    assert torch.allclose(flipped.roll(4, dims=1), edges, atol=1e-6)


def test_colors_answer_in_their_channels(bank: FilterBank) -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(-1, -1, 32, 32)
    red_green, yellow_blue, green_red, blue_yellow = bank.feature_map(red)[0, 24:28, 8, 8].tolist()
    assert red_green == pytest.approx(0.6 / (0.4 + 1 / 255), rel=1e-5)
    assert yellow_blue == pytest.approx(0.3 / (0.4 + 1 / 255), rel=1e-5)
    assert (green_red, blue_yellow) == (0, 0)


def test_light_does_not_matter(bank: FilterBank) -> None:
    images = smooth_images(4)
    bright, dim = bank.feature_map(images), bank.feature_map(0.5 * images)
    assert float(F.cosine_similarity(bright, dim, dim=1).min()) > 0.995
    landmarks = face_landmarks(count=4)
    cosine = (bank.embed(images, landmarks) * bank.embed(0.5 * images, landmarks)).sum(dim=1)
    assert float(cosine.min()) > 0.999


def test_different_images_are_told_apart(bank: FilterBank) -> None:
    landmarks = face_landmarks(count=4)
    embeddings = bank.embed(smooth_images(4), landmarks)
    assert embeddings.shape == (4, 512)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(4), atol=1e-5)
    cosines = (embeddings @ embeddings.T).fill_diagonal_(0)
    assert float(cosines.max()) < 0.9


def test_black_is_zero_and_its_gradient_is_finite(bank: FilterBank) -> None:
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    features = bank.feature_map(image)
    assert not features.any()
    embedding = bank.embed(image, face_landmarks())
    assert not embedding.any()
    (features.sum() + embedding.sum()).backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())


def test_renders_below_zero_stay_finite(bank: FilterBank) -> None:
    image = torch.full((1, 3, 32, 32), -1 / 255, requires_grad=True)
    bank.feature_map(image).sum().backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())


def test_embedding_follows_the_face(bank: FilterBank) -> None:
    """A face that moves with its landmarks keeps its embedding; one that leaves them behind does not."""
    image, landmarks = smooth_images(1, size=96), face_landmarks(64) + 16
    moved = image.roll((-8, 6), dims=(2, 3))
    still = bank.embed(image, landmarks)
    followed = bank.embed(moved, landmarks + torch.tensor([6.0, -8.0]))
    left = bank.embed(moved, landmarks)
    assert float((still * followed).sum()) > 0.999
    assert float((still * left).sum()) < 0.95


def test_embedding_has_gradients_for_image_and_landmarks(bank: FilterBank) -> None:
    image, landmarks = smooth_images(1).requires_grad_(), face_landmarks().requires_grad_()
    other = bank.embed(smooth_images(1, seed=9), face_landmarks())
    (bank.embed(image, landmarks) * other).sum().backward()
    for value in (image, landmarks):
        assert value.grad is not None
        assert bool(torch.isfinite(value.grad).all())
        assert value.grad.any()


def test_map_passes_gradcheck() -> None:
    bank = FilterBank().double()
    image = smooth_images(1, size=8).double().requires_grad_()
    assert torch.autograd.gradcheck(bank.feature_map, (image,), atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("extractor", ["bank", "arcface"])
def test_support_is_how_far_the_mask_fills_the_surroundings(extractor: str, request: pytest.FixtureRequest) -> None:
    features = request.getfixturevalue(extractor)
    ones = torch.ones(1, 1, 112, 112)
    assert bool((features.feature_support(ones) == 1).all())
    assert not features.feature_support(0 * ones).any()
    half = ones.clone()
    half[..., 56:] = 0
    row = features.feature_support(half)[0, 0, 28]
    assert bool((row.diff() <= 0).all())
    assert row[20] == 1
    assert row[36] == 0
    assert float(row[27]) > 0.5 > float(row[28])
    assert torch.allclose(features.feature_support(0.5 * ones), torch.tensor(0.5))


def test_arcface_map_embedding_and_names(arcface: ArcFaceFeatures) -> None:
    assert arcface.feature_map(torch.rand(1, 3, 112, 112)).shape == (1, 64, 56, 56)
    images = smooth_images(1, size=80).requires_grad_()
    assert arcface.feature_map(images).shape == (1, 64, 56, 56)
    embedding = arcface.embed(images, face_landmarks(80))
    assert embedding.shape == (1, 512)
    assert float(embedding.detach().norm()) == pytest.approx(1, abs=1e-5)
    embedding[0, 0].backward()
    assert images.grad is not None
    assert images.grad.any()
    with torch.device("meta"):
        network = IResNet()
    assert sum(p.numel() for p in network.parameters()) == 43_590_848
    names = set(network.state_dict())
    assert [len(network.get_submodule(f"layer{k}")) for k in (1, 2, 3, 4)] == [3, 4, 14, 3]  # type: ignore[arg-type]
    for name in (
        "conv1.weight",
        "bn1.running_mean",
        "prelu.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_var",
        "layer3.13.bn1.weight",
        "layer3.13.conv1.weight",
        "layer3.13.prelu.weight",
        "layer3.13.conv2.weight",
        "layer3.13.bn3.bias",
        "bn2.weight",
        "fc.weight",
        "features.weight",
        "features.running_mean",
    ):
        assert name in names, name
    assert "layer1.1.downsample.0.weight" not in names


def test_arcface_is_never_trained(arcface: ArcFaceFeatures) -> None:
    assert not any(p.requires_grad for p in arcface.parameters())
    assert not any(m.training for m in arcface.train().modules())


def test_each_extractor_says_what_it_is(bank: FilterBank, arcface: ArcFaceFeatures) -> None:
    assert "weight-free" in bank.description
    assert arcface.description == "test"


def test_arcface_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3), "head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"does not fit IResNet: .* missing: .*; 1 unexpected: head.weight"):
        ArcFaceFeatures.load(path)


def test_where_the_grey_is_zero_it_still_has_its_gradient() -> None:
    """As a little above 0, in whatever version of torch: renders may have colours below 0 that cancel."""
    images = torch.tensor([0.5, 0.0, -0.5]).view(1, 3, 1, 1).repeat(1, 1, 16, 16)
    gradients = []
    for brightness in (0.0, 1e-7):
        leaf = (images + brightness).requires_grad_()
        colors = FilterBank().feature_map(leaf)[:, 24:]
        gradients.append(torch.autograd.grad(colors.sum(), leaf)[0])
    assert float(gradients[0].abs().max()) > 1
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)
