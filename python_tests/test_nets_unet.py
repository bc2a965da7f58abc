"""The segmentation network: its size, odd images, and what it answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from focus.nets import NetworkSettings, SegmentationNetwork, SegmentationSettings


@pytest.fixture(scope="module")
def small() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(NetworkSettings.preset("small").segmentation).eval()


def test_paper_network_has_the_stated_size() -> None:
    with torch.device("meta"):
        network = SegmentationNetwork(SegmentationSettings())
    assert sum(p.numel() for p in network.parameters()) == 34_528_769
    dropout = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropout == [0.0, 0.0, 0.0, 0.5, 0.5]


def test_paper_network_halves_four_times_and_comes_back() -> None:
    with torch.device("meta"):
        network = SegmentationNetwork(SegmentationSettings())
        sizes = []
        for block in network.down:
            block.register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[1:])))
        mask = network(torch.empty(1, 3, 224, 224), torch.empty(1, 3, 224, 224))
    assert sizes == [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14)]
    assert mask.shape == (1, 1, 224, 224)


@pytest.mark.parametrize("size", [(64, 64), (61, 47), (72, 80), (1, 1), (9, 64)])
def test_any_size_works(small: SegmentationNetwork, size: tuple[int, int]) -> None:
    rendered, target = torch.rand(2, 2, 3, *size).unbind()
    mask = small(rendered, target)
    assert mask.shape == (2, 1, *size)
    assert bool(((mask > 0) & (mask < 1)).all())


def test_padding_does_not_change_a_size_that_fits(small: SegmentationNetwork) -> None:
    """An image extended by hand as documented gives the same mask as the network's own extension."""
    rendered, target = torch.rand(2, 1, 3, 60, 64).unbind()
    extended = [torch.cat((image, image[:, :, -1:].expand(-1, -1, 4, -1)), dim=2) for image in (rendered, target)]
    assert torch.allclose(small(rendered, target), small(*extended)[:, :, :60], atol=1e-6)


def test_mask_is_the_sigmoid_of_the_logits_and_the_gain_is_in_them(small: SegmentationNetwork) -> None:
    rendered, target = torch.rand(2, 1, 3, 64, 64).unbind()
    logits = small.logits(rendered, target)
    assert torch.equal(small(rendered, target), logits.sigmoid())
    plain = SegmentationNetwork(dataclasses.replace(small.settings, gain=1.0)).eval()
    plain.load_state_dict(small.state_dict())
    assert torch.allclose(logits, 5 * plain.logits(rendered, target), atol=1e-5)


def test_a_pixel_of_the_mask_depends_on_the_images_near_it() -> None:
    torch.manual_seed(0)
    settings = SegmentationSettings(filters=(8, 8), dropout=0.0)
    network = SegmentationNetwork(settings).eval()
    rendered, target = torch.rand(2, 1, 3, 64, 64).unbind()
    rendered.requires_grad_()
    target.requires_grad_()
    network.logits(rendered, target)[0, 0, 20, 40].backward()
    for image in (rendered, target):
        assert image.grad is not None
        reached = image.grad[0].abs().sum(dim=0).nonzero()
        assert [20, 40] in reached.tolist()
        assert bool(((reached - torch.tensor([20, 40])).abs() <= 24).all())


def test_paste_shows_the_photo_outside_the_face(small: SegmentationNetwork) -> None:
    pasting = SegmentationNetwork(dataclasses.replace(small.settings, paste=True)).eval()
    pasting.load_state_dict(small.state_dict())
    rendered, target = torch.rand(2, 1, 3, 64, 64).unbind()
    face = torch.zeros(1, 1, 64, 64)
    face[:, :, 10:40, 20:50] = 1
    expected = small(torch.where(face > 0, rendered, target), target)
    assert torch.allclose(pasting(rendered * face, target, face), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"paste needs .* got none"):
        pasting(rendered, target)
    with pytest.raises(ValueError, match=r"paste needs .* got \[1, 64, 64\]"):
        pasting(rendered, target, face[0])


def test_wrong_shapes_are_refused(small: SegmentationNetwork) -> None:
    with pytest.raises(ValueError, match="the same shape"):
        small(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 32))
    with pytest.raises(ValueError, match="the same shape"):
        small(torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="filters"):
        SegmentationSettings(filters=(8,))
    with pytest.raises(ValueError, match="dropout"):
        SegmentationSettings(dropout=1.0)


def test_it_learns_a_simple_mask() -> None:
    """A square of another colour is found after a few steps: the layers are joined up."""
    torch.manual_seed(0)
    network = SegmentationNetwork(SegmentationSettings(filters=(8, 16), dropout=0.0))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        rendered = 0.4 * torch.rand(4, 3, 1, 1).expand(-1, -1, 16, 16)
        expected = torch.ones(4, 1, 16, 16)
        corners = torch.randint(0, 9, (4, 2)).tolist()
        for image, (top, left) in enumerate(corners):
            expected[image, :, top : top + 8, left : left + 8] = 0
        target = torch.where(expected > 0, rendered, rendered + 0.5)
        loss = F.binary_cross_entropy_with_logits(network.logits(rendered, target), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.25
