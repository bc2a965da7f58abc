"""The skin detector by colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus.data import skin
from focus.data.skin import skin_mask


def _image(*colors: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(colors).T[None, :, None]


def test_skin_is_skin_and_grass_is_not() -> None:
    bright, tanned, dark = (0.92, 0.72, 0.60), (0.78, 0.57, 0.44), (0.45, 0.29, 0.21)
    grass, sky, grey = (0.2, 0.5, 0.15), (0.4, 0.6, 0.9), (0.5, 0.5, 0.5)
    values = skin_mask(_image(bright, tanned, dark, grass, sky, grey))[0, 0, 0]
    assert (values[:3] > 0.8).all()
    assert (values[3:] < 0.2).all()


def test_a_pixel_by_hand() -> None:
    """Bayes' rule with the densities written out."""
    red, green, blue = 0.7, 0.5, 0.4
    color = np.array(
        [
            16 + 65.481 * red + 128.553 * green + 24.966 * blue,
            128 - 37.797 * red - 74.203 * green + 112 * blue,
            128 + 112 * red - 93.786 * green - 18.214 * blue,
        ]
    )

    def density(mixture: skin._Mixture) -> float:
        total = 0.0
        for weight, mean, determinant, inverse in zip(*mixture, strict=True):
            centred = color - np.array(mean)
            power = -0.5 * centred @ np.array(inverse) @ centred
            total += weight * np.exp(power) / np.sqrt((2 * np.pi) ** 3 * determinant)
        return total

    yes, no = 0.8 * density(skin._SKIN), 0.2 * density(skin._NOT_SKIN)
    assert float(skin_mask(_image((red, green, blue)).double())) == pytest.approx(
        yes / (yes + no), rel=1e-6
    )  # the colour is a float32


def test_every_color_has_a_probability() -> None:
    grid = torch.cartesian_prod(*[torch.linspace(-0.5, 1.5, 9)] * 3).T[None, :, None]
    values = skin_mask(grid.requires_grad_())
    assert values.isfinite().all()
    assert not values.requires_grad
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("image", [torch.zeros(1, 4, 2, 2), torch.zeros(3, 2, 2), torch.zeros(1, 3, 2, 2).byte()])
def test_refuses_what_is_no_picture(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"skin_mask: images: expected floating point \[B, 3, H, W\], got"):
        skin_mask(image)
