"""How a photo and a reconstruction agree beyond their colours: correlation in windows, and edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.fit.appearance import PixelFace

SIZE_OF_WINDOWS = 224
"""Side of the crop, in pixels, at which widths of windows are given."""
_BLOCKS_PER_WINDOW = 2.5
"""Standard deviations of windows are at least as many blocks."""
_LEAST_CONTRAST = 4e-4
"""Variance of brightness below which a window has no structure to be compared."""


def local_correlation(face: PixelFace, colors: Tensor, window: float) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation of the brightness of photo and reconstruction in a Gaussian window round each pixel of the face.

    Eyes, brows, nose and lips of the model are where the photo has them only on the face; it needs no light and no
    colour of skin.

    Args:
        face: by pixel.
        colors: ``[B, 3, P]``.
        window: standard deviation in pixels at a crop of 224.

    Returns:
        ``[B, P]`` in [-1, 1], near 0 where either has no structure; and how much structure the photo ``[1, P]`` and the
        reconstruction ``[B, P]`` have, in [0, 1].
    """
    sigma = window * face.size / SIZE_OF_WINDOWS
    a, b = face.image(face.photo.mean(dim=0, keepdim=True)), face.image(colors.mean(dim=1))
    inside = face.image(torch.ones_like(face.photo[:1]))
    # Wide windows look at moments of blocks of pixels.
    block = max(1, int(sigma / _BLOCKS_PER_WINDOW))

    def mean(values: Tensor) -> Tensor:
        return blur(F.avg_pool2d(values[:, None], block, ceil_mode=True, count_include_pad=False)[:, 0], sigma / block)

    around = mean(inside) + 1e-6
    mean_a, mean_b = mean(a) / around, mean(b) / around
    variance_a = (mean(a * a) / around - mean_a.square()).clamp(min=0)
    variance_b = (mean(b * b) / around - mean_b.square()).clamp(min=0)
    both = mean(a * b) / around - mean_a * mean_b

    def by_pixel(values: Tensor) -> Tensor:
        if block > 1:
            side = values.shape[-1] * block
            values = F.interpolate(values[:, None], size=(side, side), mode="bilinear")[:, 0, : face.size, : face.size]
        return face.of(values)

    least = _LEAST_CONTRAST
    correlation = both / ((variance_a + least) * (variance_b + least)).sqrt()
    return (
        by_pixel(correlation),
        by_pixel(variance_a / (variance_a + least)),
        by_pixel(variance_b / (variance_b + least)),
    )


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian of images ``[..., S, S]``, with 0 round them; standard deviation in pixels."""
    kernel = gaussian(sigma, images)
    half = len(kernel) // 2
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(half, 0))
    return F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, half)).view(images.shape)


def gaussian(sigma: float, like: Tensor) -> Tensor:
    """Weights of a Gaussian out to three standard deviations, which sum to 1."""
    half = max(1, int(3 * sigma + 0.5))
    steps = torch.arange(-half, half + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    return kernel / kernel.sum()


def surplus_of_edges(face: PixelFace, colors: Tensor) -> Tensor:
    """How much steeper the photo is than the reconstruction, around each pixel: ``[B, P]``."""
    photo, reconstruction = face.image(face.photo.mean(dim=0)), face.image(colors.mean(dim=1))
    inside = face.image(torch.ones_like(face.photo[0]))
    inner = shrunk(inside, 1)  # the outline is an edge of its own
    surplus = (steepness(photo) - steepness(reconstruction)).clamp(-0.1, 0.1) * inner
    return 20 * face.of(blur(surplus, 6 * face.size / SIZE_OF_WINDOWS))


def steepness(images: Tensor) -> Tensor:
    """Length of the gradient of images ``[B, S, S]``, per pixel."""
    x = F.pad(images[..., :, 2:] - images[..., :, :-2], (1, 1)) / 2
    y = F.pad(images[..., 2:, :] - images[..., :-2, :], (0, 0, 1, 1)) / 2
    return (x.square() + y.square()).sqrt()


def shrunk(region: Tensor, reach: int) -> Tensor:
    """The pixels of ``[S, S]`` in {0, 1} that are farther than `reach` from what is not in it."""
    return -F.max_pool2d(-F.pad(region, (reach,) * 4)[None], 2 * reach + 1, stride=1)[0]
