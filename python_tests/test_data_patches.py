"""Patches: where they lie, what fills them, and that they can be drawn again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from focus.data import PatchSettings, patched
from focus.errors import FocusError

SIZE = 20


def pictures(count: int) -> Tensor:
    """Each of one colour: picture i is (i + 1) / 10 everywhere."""
    values = (torch.arange(count) + 1) / 10
    return values[:, None, None, None].expand(count, 3, SIZE, SIZE).clone()


def hidden(images: Tensor, result: Tensor) -> Tensor:
    """``[B, H, W]``, the pixels that changed; all colours of a pixel change together."""
    changed = result != images
    assert torch.equal(changed.any(dim=1), changed.all(dim=1))
    return changed.any(dim=1)


@pytest.mark.parametrize("kind", ["cutmix", "cutout"])
def test_a_patch_is_one_rectangle_of_another_picture_or_of_grey(kind: Any) -> None:
    images = pictures(4)
    seen = 0
    for first in range(0, 200, 4):
        result = patched(images, kind, seed=1, first_index=first)
        for i, changed in enumerate(hidden(images, result)):
            if not changed.any():
                continue
            seen += 1
            rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.all(), "a rectangle without holes"
            expected = images[(i + 1) % 4, :, 0, 0] if kind == "cutmix" else torch.full((3,), 0.5)
            assert torch.equal(result[i][:, changed], expected[:, None].expand(-1, int(changed.sum())))
    assert 0.6 * 200 < seen < 0.9 * 200


def test_sizes_are_those_of_the_settings() -> None:
    images = torch.zeros(1, 3, 400, 400).expand(300, -1, -1, -1)
    settings = PatchSettings(probability=1.0, area=(0.04, 0.04), aspect=(4.0, 4.0))
    covered = hidden(images, patched(images, "cutout", seed=0, first_index=0, settings=settings)).float()
    heights, widths = covered.amax(dim=2).sum(dim=1), covered.amax(dim=1).sum(dim=1)
    # 0.04 * 400 * 400 = 6400 = 160 x 40; less where the border cuts a patch.
    assert heights.max() == pytest.approx(40, abs=1)
    assert widths.max() == pytest.approx(160, abs=1)
    assert widths.min() < 120
    whole = PatchSettings(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0))
    tiny = torch.zeros(8, 3, 1, 1)
    assert patched(tiny, "cutout", seed=0, first_index=0, settings=whole).shape == tiny.shape
    never = PatchSettings(probability=0.0)
    assert torch.equal(patched(images, "cutout", seed=0, first_index=0, settings=never), images)


def test_a_patch_follows_from_seed_and_number_alone() -> None:
    images = pictures(6)
    whole = patched(images, "cutout", seed=7, first_index=30)
    assert torch.equal(whole[2:5], patched(images[2:5], "cutout", seed=7, first_index=32))
    assert not torch.equal(whole, patched(images, "cutout", seed=8, first_index=30))
    assert torch.equal(images, pictures(6)), "the photos themselves are left alone"


def test_gradients_pass_beside_the_patch() -> None:
    images = pictures(2).requires_grad_()
    result = patched(images, "cutout", seed=0, first_index=0, settings=PatchSettings(probability=1.0))
    result.sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad.bool().all(dim=1), ~hidden(images.detach(), result.detach()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": 1.5}, r"probability: expected a number in \[0, 1\], got 1.5"),
        ({"area": (0.0, 0.1)}, "area: expected 0 < from <= to <= 1"),
        ({"area": (0.3, 0.1)}, "area"),
        ({"aspect": (0.0, 1.0)}, "aspect: expected 0 < from <= to"),
        ({"probability": float("nan")}, "probability"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FocusError, match=message):
        PatchSettings(**changes)


def test_cutmix_needs_another_photo() -> None:
    with pytest.raises(FocusError, match="at least 2 photos"):
        patched(pictures(1), "cutmix", seed=0, first_index=0)
