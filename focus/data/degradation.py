"""What a camera and a web page do to a picture: tone, blur, noise and block compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focus.data.drawing import Array, blur


@dataclass(frozen=True)
class Degradation:
    """One camera; drawn once for a sample, so that pictures with and without its occluder are taken alike."""

    gamma: float
    sigma: float
    """Blur, pixels."""
    noise: float
    """Standard deviation of sensor noise."""
    quality: float
    """Compression step relative to the JPEG tables of quality 50; 0 = none."""
    noise_picture: Array | None
    """[S, S, 3], standard normal; None without noise."""

    @staticmethod
    def sample(rng: np.random.Generator, size: int, strength: float) -> Degradation:
        """Draws one; `strength` 0 gives a perfect camera."""
        gamma, sigma, noise, quality, compressed, noisy = rng.random(6)
        noisy = strength > 0 and noisy < 0.7
        return Degradation(
            gamma=float(np.exp(strength * 0.12 * (2 * gamma - 1))),
            sigma=float(strength * (0.2 + 0.45 * sigma**3) * size / 72),
            noise=float(strength * 0.025 * noise**2),
            quality=float(strength * (0.1 + 0.5 * quality) if compressed < 0.4 else 0.0),
            noise_picture=rng.standard_normal((size, size, 3), dtype=np.float32) if noisy else None,
        )

    def tone(self, image: Array) -> Array:
        """The camera's curve alone: clipped to [0, 1]."""
        clipped = np.clip(image, 0, 1)
        return clipped if self.gamma == 1 else clipped ** np.float32(self.gamma)

    def apply(self, image: Array) -> Array:
        """The picture [S, S, 3] as a file would have it, in [0, 1]."""
        degraded = blur(self.tone(image), self.sigma)
        if self.noise_picture is not None:
            degraded = degraded + np.float32(self.noise) * self.noise_picture
        if self.quality > 0:
            degraded = compress(degraded, self.quality)
        return np.clip(degraded, 0, 1)


_FREQUENCY, _POSITION = np.arange(8)[:, None], np.arange(8)[None, :]
_COSINES = np.sqrt(np.where(_FREQUENCY == 0, 1, 2) / 8) * np.cos(np.pi * (2 * _POSITION + 1) * _FREQUENCY / 16)
_DCT: Array = _COSINES.astype(np.float32)
# Steps rise with frequency about as in the JPEG tables (Annex K), colour twice as coarse.
_STEPS: Array = ((10 + 7 * (_FREQUENCY + _POSITION)) / 255).astype(np.float32)
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], dtype=np.float32)
_TO_RGB: Array = np.linalg.inv(_TO_YCC).astype(np.float32)


def compress(image: Array, quality: float) -> Array:
    """The loss of JPEG without its file: 8 x 8 blocks, cosine transform, rounding to steps.

    Real encoders differ between builds; these pictures must not.

    Args:
        image: [S, S, 3] in [0, 1].
        quality: factor on the quantisation steps.
    """
    size = image.shape[0]
    padding = -size % 8
    planes = np.pad(image, ((0, padding), (0, padding), (0, 0)), mode="edge") @ _TO_YCC.T
    count = planes.shape[0] // 8
    blocks = planes.reshape(count, 8, count, 8, 3).transpose(4, 0, 2, 1, 3)  # [3, n, n, 8, 8]
    steps = np.float32(quality) * _STEPS * np.array([1, 2, 2], dtype=np.float32)[:, None, None, None, None]
    kept = np.rint(_DCT @ blocks @ _DCT.T / steps) * steps
    restored = (_DCT.T @ kept @ _DCT).transpose(1, 3, 2, 4, 0).reshape(planes.shape)
    rgb: Array = restored @ _TO_RGB.T
    return rgb[:size, :size]
