"""Random faces: coefficients, pose and light, drawn so that the same seed and index give the same face everywhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from focus.data.align import REFERENCE_SCALE, align_points
from focus.data.landmarks import five_from_68
from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.lighting import directional_lighting, harmonics

FACE, POSE, LIGHT, HAIR, PLACE, PIGMENT, CHOICE, OCCLUDER, CAMERA, DETECTOR, PATCH, CAST, AGE, WRINKLES = range(14)
"""Independent random streams of one sample: changing how one thing is drawn leaves the others as they are."""


def stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    """The generator of one purpose of one sample; Philox counts, so that samples do not depend on their order."""
    return np.random.Generator(
        np.random.Philox(counter=np.array([0, 0, 0, purpose], np.uint64), key=np.array([seed, index], np.uint64))
    )


@dataclass(frozen=True)
class PoseSettings:
    """Ranges of the pose, degrees, and of what an imperfect alignment leaves over."""

    yaw: float = 15.0
    """Standard deviation of most poses; the rest are uniform up to `yaw_limit`."""
    yaw_limit: float = 60.0
    wide_yaw_fraction: float = 0.12
    pitch: float = 8.0
    pitch_limit: float = 20.0
    roll: float = 6.0
    roll_limit: float = 15.0
    shift: float = 2.5
    """Standard deviation in mm of the face's place in the crop."""
    scale: float = 0.03
    """Standard deviation of the logarithm of its size."""


class FaceSampler:
    """Draws `FaceParameters` for a model and an image size.

    Args:
        model: the face.
        image_size: side of the crop in pixels.
        pose: ranges.
        coefficient_limit: coefficients are standard normal, clipped here (unit-interval ones: sparse, in [0, 1]).
        extreme_light_fraction: how many faces are lit hard from the side, above, below or behind.
    """

    def __init__(
        self,
        model: MorphableModel,
        image_size: int,
        pose: PoseSettings,
        coefficient_limit: float,
        extreme_light_fraction: float,
    ) -> None:
        self.pose = pose
        self.coefficient_limit = coefficient_limit
        self.extreme_light_fraction = extreme_light_fraction
        self.counts = (model.identity_count, model.expression_count, model.albedo_count)
        self.expression_prior = model.expression_prior
        self.camera = Camera(image_size)
        points = model.landmarks68

        def rows(array: torch.Tensor) -> NDArray[np.float64]:
            return five_from_68(array[..., points, :].double().numpy())

        self._mean, self._identity, self._expression = (
            rows(model.mean_shape),
            rows(model.identity_basis),
            rows(model.expression_basis),
        )

    def sample(self, seed: int, index: int) -> FaceParameters:
        """The face of one index: a batch of one, float32 on the CPU."""
        rng = stream(seed, index, FACE)
        identity_count, expression_count, albedo_count = self.counts
        limit = self.coefficient_limit
        identity = np.clip(rng.standard_normal(identity_count), -limit, limit)
        albedo = np.clip(rng.standard_normal(albedo_count), -limit, limit)
        if self.expression_prior == "normal":
            expression = np.clip(rng.standard_normal(expression_count), -limit, limit)
        else:  # blend shapes: most are at rest
            expression = np.maximum(rng.random(expression_count) * 1.6 - 0.6, 0) * rng.random()
        rng = stream(seed, index, POSE)
        rotation = self._rotation(rng)
        translation = self._translation(identity, expression, rotation, rng)
        lighting = self._lighting(stream(seed, index, LIGHT))

        def tensor(array: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(array.astype(np.float32))[None]

        return FaceParameters(
            tensor(identity),
            tensor(expression),
            tensor(albedo),
            tensor(rotation),
            tensor(translation),
            tensor(lighting),
        )

    def _rotation(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(pitch, yaw, roll) in radians."""
        pose = self.pose
        pitch, yaw, roll = rng.standard_normal(3) * (pose.pitch, pose.yaw, pose.roll)
        wide, wide_yaw = rng.random(2)
        if wide < pose.wide_yaw_fraction:
            yaw = (2 * wide_yaw - 1) * pose.yaw_limit
        limits = np.array([pose.pitch_limit, pose.yaw_limit, pose.roll_limit])
        angles: NDArray[np.float64] = np.radians(np.clip([pitch, yaw, roll], -limits, limits))
        return angles

    def _translation(
        self,
        identity: NDArray[np.float64],
        expression: NDArray[np.float64],
        rotation: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Where the five-point alignment puts this face, and a little off: the crop of a photo is made the same way."""
        shape = self._mean + np.tensordot(identity, self._identity, 1) + np.tensordot(expression, self._expression, 1)
        turned = shape @ self.camera.rotation_matrix(torch.from_numpy(rotation)[None])[0].numpy().T  # [5, 3]
        jitter = np.clip(rng.standard_normal(3), -2, 2) * (self.pose.shift, self.pose.shift, self.pose.scale)
        focal, size = self.camera.focal, self.camera.image_size
        translation = np.array([0.0, 0.0, 1000.0])
        for _ in range(2):  # size and place are nearly independent: this converges to a tenth of a pixel
            moved = turned + translation
            scale, center = align_points(moved[:, :2] * focal / moved[:, 2:])
            translation[2] *= scale / (REFERENCE_SCALE * size)
            translation[:2] -= center * translation[2] / focal
        translation[2] *= np.exp(jitter[2])
        translation += (jitter[0], jitter[1], -1000.0)
        return translation

    def _lighting(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """[3, 9]: ambient and one to three distant lights, scaled to a usual exposure."""
        extreme = rng.random() < self.extreme_light_fraction
        count = 1 if extreme else int(rng.integers(1, 4))
        directions, colors = [], []
        for light in range(count):
            if extreme:
                kind = rng.integers(4)
                side = 1.0 if rng.random() < 0.5 else -1.0
                # x right, y down, z away: from a side, from above, from below, from behind a shoulder
                direction = np.array(
                    [[side, -0.2, -0.1], [0.15 * side, -1.0, -0.25], [0.15 * side, 1.0, -0.35], [side, -0.3, 0.35]]
                )[kind]
                strength = rng.uniform(0.9, 1.5)
            else:
                direction = np.array([rng.normal(0, 0.7), rng.normal(-0.4, 0.4), -rng.uniform(0.3, 1.2)])
                strength = rng.uniform(0.2, 0.8) / (1 + light)
            directions.append(direction + 0.15 * rng.standard_normal(3))
            colors.append(strength * _tint(rng))
        ambient = (rng.uniform(0.05, 0.25) if extreme else rng.uniform(0.3, 0.8)) * _tint(rng)
        parts = directional_lighting(
            torch.from_numpy(np.array(directions)),
            torch.from_numpy(np.array(colors)),
            torch.zeros(count, 3, dtype=torch.float64, device="cpu"),
        ).sum(dim=0)
        lighting: NDArray[np.float64] = parts.numpy()
        lighting[:, 0] += ambient / _CONSTANT_HARMONIC
        exposure = (rng.uniform(0.45, 0.95) if extreme else rng.uniform(0.75, 1.3)) / max(
            float((lighting @ _FRONT_HARMONICS.T).mean()), 0.1
        )
        return lighting * exposure


def describe(sampler: FaceSampler, seed: int, first_index: int, count: int) -> str:
    """SHA-256 over what is drawn for some samples, to 4 decimals: machines with the same digest draw the same faces.

    The translation is left out: it follows from the rest and the model's arrays, whose last bits may differ.
    """
    digest = hashlib.sha256()
    for index in range(first_index, first_index + count):
        for name, value in sampler.sample(seed, index).items():
            if name == "translation":
                continue
            digest.update((np.round(value.double().numpy(), 4) + 0.0).tobytes())  # + 0.0: no negative zero
    return digest.hexdigest()


def _tint(rng: np.random.Generator) -> NDArray[np.float64]:
    """RGB of white light of a random colour temperature."""
    warmth = np.clip(rng.standard_normal(), -2, 2)
    return np.array([1 + 0.08 * warmth, 1.0, 1 - 0.10 * warmth]) * (1 + 0.02 * rng.standard_normal(3))


_CONSTANT_HARMONIC = 0.5 / np.sqrt(np.pi)
_FRONT_HARMONICS: NDArray[np.float64] = harmonics(
    torch.from_numpy(np.array([[0, 0, -1], [0.6, 0, -0.8], [-0.6, 0, -0.8], [0, 0.6, -0.8], [0, -0.6, -0.8]]))
).numpy()
"""[5, 9] harmonics of directions that a face shows to the camera."""
