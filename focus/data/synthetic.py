"""Synthetic faces with ground truth: a morphable model in a drawn world, with and without things in front of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from focus.conform import conform
from focus.data import sampling
from focus.data.ageing import draw_age, greyed
from focus.data.backgrounds import draw_background, draw_surroundings, hair_color
from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings, Change
from focus.data.degradation import Degradation
from focus.data.drawing import Array
from focus.data.makeup import draw_pigment
from focus.data.occluders import OCCLUDERS, draw_occluder
from focus.data.sampling import FaceSampler, PoseSettings, stream
from focus.data.scene import Scene, scene_of
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer, Rendering


@dataclass(frozen=True)
class SyntheticSettings:
    """What the synthetic world looks like."""

    occluded_fraction: float = 0.5
    """Share of the faces with something in front of them."""
    coverage: tuple[float, float] = (0.05, 0.60)
    """Share of the face's pixels that occluders hide, from and to."""
    occluders: tuple[str, ...] = tuple(OCCLUDERS)
    """Kinds to draw from; see `focus.data.occluders`."""
    extreme_light_fraction: float = 0.15
    """Share of the faces lit hard from a side, above, below or behind."""
    coefficient_limit: float = 2.5
    """Standard-normal coefficients are clipped here."""
    pose: PoseSettings = field(default_factory=PoseSettings)
    pigment: bool = True
    """Moles, freckles, stubble, lipstick, ... that the model cannot express; they count as face."""
    aged_fraction: float = 0.0
    """Share of the faces with furrows, bags under the eyes, spots and grey hair; they count as face."""
    degradation: float = 1.0
    """Strength of blur, noise, compression and tone; 0 = a perfect camera."""
    cast: float = 0.0
    """Strength of casts of colour, of contrast and of brightness that changes over the picture; 1 = as of phones."""
    landmark_noise: float = 0.006
    """Standard deviation of visible landmarks, in face widths."""
    hidden_landmark_noise: float = 0.05
    """Error of hidden landmarks (about its root mean square), in face widths; correlated: detectors guess them."""

    def __post_init__(self) -> None:
        conform(self, "data.synthetic")
        unknown = sorted(set(self.occluders) - set(OCCLUDERS))
        if unknown or not self.occluders:
            raise FocusError(
                f"SyntheticSettings.occluders: expected some of {sorted(OCCLUDERS)}, got {unknown or 'none'}"
            )
        low, high = self.coverage
        if not 0 <= low < high <= 1:
            raise FocusError(f"SyntheticSettings.coverage: expected 0 <= from < to <= 1, got {self.coverage}")
        for name in ("occluded_fraction", "extreme_light_fraction", "aged_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise FocusError(f"SyntheticSettings.{name}: expected a fraction in [0, 1], got {getattr(self, name)}")


_TOGETHER = 32
"""Faces that are rendered at once: their renderings take 5 MB each for the face of full detail."""


@dataclass(frozen=True)
class Sample:
    """One synthetic picture and its truth."""

    image: NDArray[np.uint8]
    """[S, S, 3]."""
    unoccluded: NDArray[np.uint8]
    """[S, S, 3]; see `FaceBatch.unoccluded`."""
    visible_mask: NDArray[np.bool_]
    """[S, S]."""
    face_mask: NDArray[np.bool_]
    """[S, S]."""
    landmarks: NDArray[np.float32]
    """[68, 2], disturbed."""
    true_landmarks: NDArray[np.float32]
    """[68, 2]."""
    parameters: FaceParameters
    """A batch of one."""
    occluder: str


class SyntheticFaces:
    """An endless set of faces: number i of a seed is the same on every machine, whatever else is drawn.

    Args:
        model: the face, copied; a small level of detail is fast (about 5 ms an image of 72 pixels on one core).
        image_size: side S of the pictures.
        seed: names the set; 0 <= seed < 2**64.
        settings: what is in it.
    """

    def __init__(
        self, model: MorphableModel, image_size: int, seed: int, settings: SyntheticSettings | None = None
    ) -> None:
        if not 0 <= seed < 2**64:
            raise FocusError(f"SyntheticFaces: seed must be in [0, 2**64), got {seed}")
        if image_size < 16:
            raise ValueError(f"SyntheticFaces: image_size must be at least 16, got {image_size}")
        # A copy: drawing happens on the CPU, also when a trainer moves its model (in place) to another device.
        model = copy.deepcopy(model).cpu()
        self.model, self.image_size, self.seed = model, image_size, seed
        self.settings = settings or SyntheticSettings()
        self._sampler = FaceSampler(
            model, image_size, self.settings.pose, self.settings.coefficient_limit, self.settings.extreme_light_fraction
        )
        self._renderer = Renderer(model, image_size)
        mean_albedo = model.mean_albedo.double()
        bare = mean_albedo.mean(dim=1) >= mean_albedo.mean(dim=1).median()  # without brows, lips, pupils
        self._skin_mean = mean_albedo[bare].mean(dim=0).numpy()  # [3]
        self._skin_basis = model.albedo_basis[:, bare].double().mean(dim=1).numpy()  # [Ka, 3]

    def batch(self, first_index: int, count: int, occluded: bool | None = None) -> FaceBatch:
        """Faces `first_index` to `first_index + count - 1` with all truth, on the CPU.

        Args:
            first_index: 0 or more.
            count: 1 or more.
            occluded: None as the settings say; True: all with an occluder; False: none. The same index gives the same
                face, light, place and camera in all three.
        """
        indices = range(first_index, first_index + count)
        return _assemble(self, indices, self.samples(indices, occluded))

    def names(self, first_index: int, count: int) -> list[str]:
        """Of faces `first_index` to `first_index + count - 1`, as batches have them."""
        return [f"synthetic-{self.seed}-{index}" for index in range(first_index, first_index + count)]

    def digest(self, first_index: int, count: int) -> str:
        """SHA-256 of the drawn parameters of some faces, to compare two machines."""
        return sampling.describe(self._sampler, self.seed, first_index, count)

    def parameters(self, index: int) -> FaceParameters:
        """Coefficients, pose and light of one face: a batch of one."""
        if index < 0:
            raise ValueError(f"SyntheticFaces: index must be 0 or more, got {index}")
        return self._sampler.sample(self.seed, index)

    @torch.no_grad()
    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """Some faces, rendered together, with nothing around them yet."""
        parameters = [self.parameters(index) for index in indices]
        # One face at a time: a batched matrix product may round differently for another batch size. All that follows
        # does not.
        vertices = [self.model.shape(face.identity, face.expression) for face in parameters]
        albedo = [self.model.albedo(face.albedo) for face in parameters]
        rendering = self._renderer(
            FaceParameters.cat(parameters), vertices=torch.cat(vertices), albedo=torch.cat(albedo)
        )
        return [
            self._scene(index, face, rendering.single(number))
            for number, (index, face) in enumerate(zip(indices, parameters, strict=True))
        ]

    def _scene(self, index: int, parameters: FaceParameters, rendering: Rendering) -> Scene:
        hair, years = hair_color(stream(self.seed, index, sampling.HAIR)), stream(self.seed, index, sampling.AGE)
        age = years.uniform(0.1, 1) if years.random() < self.settings.aged_fraction else 0.0
        return scene_of(
            self.model,
            parameters,
            rendering,
            self._renderer.camera,
            skin=self._skin_mean + parameters.albedo[0].numpy() @ self._skin_basis,
            hair=greyed(hair, age, years) if age else hair,
            age=age,
        )

    def samples(self, indices: Sequence[int], occluded: bool | None = None) -> list[Sample]:
        """Some faces; see `batch`."""
        return [
            self._sample(index, scene, occluded)
            for start in range(0, len(indices), _TOGETHER)
            for index, scene in zip(
                indices[start : start + _TOGETHER], self.scenes(indices[start : start + _TOGETHER]), strict=True
            )
        ]

    def _sample(self, index: int, scene: Scene, occluded: bool | None) -> Sample:
        settings, size = self.settings, self.image_size

        def rng(purpose: int) -> np.random.Generator:
            return stream(self.seed, index, purpose)

        place = rng(sampling.PLACE)
        picture = draw_surroundings(scene, draw_background(place, size), place)
        face = scene.face * draw_pigment(scene, rng(sampling.PIGMENT)) if settings.pigment else scene.face
        if scene.age:
            face = face * draw_age(scene, rng(sampling.WRINKLES))
        picture = np.where(scene.face_mask[..., None], face, picture)
        hidden, name = np.zeros((size, size), dtype=np.float32), "none"
        if occluded or (occluded is None and rng(sampling.CHOICE).random() < settings.occluded_fraction):
            layer, name = draw_occluder(scene, settings.occluders, settings.coverage, rng(sampling.OCCLUDER))
            picture, hidden = layer.over(picture), layer.alpha
        camera = Degradation.sample(rng(sampling.CAMERA), size, settings.degradation)
        image, unoccluded = _to_bytes(camera.apply(picture)), _to_bytes(camera.tone(scene.face))
        if settings.cast:
            change = Change.draw(_casts(settings.cast), size, rng(sampling.CAST))
            image, unoccluded = change.image(image, size), change.image(unoccluded, size)
        return Sample(
            image=image,
            unoccluded=unoccluded,
            visible_mask=scene.face_mask & (hidden < 0.5),
            face_mask=scene.face_mask,
            landmarks=self._detect(scene, hidden >= 0.5, rng(sampling.DETECTOR)),
            true_landmarks=scene.landmarks.astype(np.float32),
            parameters=scene.parameters,
            occluder=name,
        )

    def _detect(self, scene: Scene, hidden: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
        """Landmarks as a detector would give them: visible ones nearly right, hidden ones guessed.

        A detector draws a hidden point where an average face, laid on the visible points, has it, drags it towards what
        it still sees, and errs for neighbouring points alike.
        """
        true = scene.landmarks
        width = float(np.ptp(true, axis=0).max())
        noisy = true + self.settings.landmark_noise * width * rng.standard_normal(true.shape)
        pixel = np.clip(np.rint(true).astype(int), 0, self.image_size - 1)
        lost = hidden[pixel[:, 1], pixel[:, 0]]
        drift, local, drag = rng.standard_normal(2), rng.standard_normal((68, 2)), rng.random()
        if not lost.any():
            return noisy.astype(np.float32)
        average = scene.average_landmarks()
        seen = ~lost
        if seen.sum() >= 8:
            average = _fit_similarity(average[seen], noisy[seen], average)
        # Neighbours on the face share their error: noise smoothed over the distance between points.
        distance2 = ((true[:, None] - true[None]) ** 2).sum(axis=2)
        kernel = np.exp(-distance2 / (2 * (0.15 * width) ** 2))
        shared = kernel @ local / np.sqrt((kernel**2).sum(axis=1, keepdims=True))
        toward = true[seen].mean(axis=0) - true if seen.any() else np.zeros_like(true)
        error = (
            0.55 * drift + 0.65 * shared + 0.5 * drag * toward / (np.linalg.norm(toward, axis=1, keepdims=True) + 1e-6)
        )
        guess = true + 0.5 * (average - true) + self.settings.hidden_landmark_noise * width * error / np.sqrt(2)
        return np.where(lost[:, None], guess, noisy).astype(np.float32)


class SyntheticPool:
    """The first faces of a set over and over, each drawn on its first use and kept: about 8 S^2 bytes.

    Args:
        faces: the set.
        count: how many different faces there are.
        occluded: see `SyntheticFaces.batch`.
    """

    def __init__(self, faces: SyntheticFaces, count: int, occluded: bool | None = None) -> None:
        if count < 1:
            raise ValueError(f"SyntheticPool: count must be 1 or more, got {count}")
        self.faces, self.count, self.occluded = faces, count, occluded
        self._samples: dict[int, Sample] = {}

    def batch(self, first_index: int, count: int) -> FaceBatch:
        """As `SyntheticFaces.batch`, with indices modulo the size of the pool."""
        indices = [index % self.count for index in range(first_index, first_index + count)]
        missing = [index for index in dict.fromkeys(indices) if index not in self._samples]
        self._samples.update(zip(missing, self.faces.samples(missing, self.occluded), strict=True))
        return _assemble(self.faces, indices, [self._samples[index] for index in indices])


def _assemble(faces: SyntheticFaces, indices: Sequence[int], samples: list[Sample]) -> FaceBatch:
    """Joins samples of a set."""
    if not samples:
        raise ValueError("SyntheticFaces.batch: count must be 1 or more, got 0")
    parameters = FaceParameters.cat([sample.parameters for sample in samples])

    def images(name: str) -> torch.Tensor:
        stacked = torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
        return stacked.permute(0, 3, 1, 2).to(torch.float32).div(255).contiguous()

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))

    with torch.no_grad():
        neutral = faces.model.neutral_shape(parameters.identity)
        vertices = faces.model.shape(parameters.identity, parameters.expression)
    return FaceBatch(
        image=images("image"),
        landmarks=stack("landmarks"),
        landmark_weights=torch.ones(len(samples), 68, dtype=torch.float32, device="cpu"),
        visible_mask=stack("visible_mask")[:, None].float(),
        face_mask=stack("face_mask")[:, None].float(),
        unoccluded=images("unoccluded"),
        parameters=parameters,
        neutral_vertices=neutral,
        vertices=vertices,
        true_landmarks=stack("true_landmarks"),
        occluder=[sample.occluder for sample in samples],
        names=[name for index in indices for name in faces.names(index, 1)],
    )


def _casts(strength: float) -> AugmentationSettings:
    """Changes of colour alone."""
    return AugmentationSettings(
        rotation=0.0,
        scale=0.0,
        shift=0.0,
        flip_probability=0.0,
        gain=min(0.2 * strength, 0.9),
        gamma=0.3 * strength,
        shading=0.3 * strength,
    )


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    return np.rint(image * 255).astype(np.uint8)


def _fit_similarity(
    source: NDArray[np.float64], target: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Moves `points` by the least-squares similarity of the plane from `source` to `target`, [N, 2] each."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = (source - source_mean) @ np.array([1, 1j]), (target - target_mean) @ np.array([1, 1j])
    # The plane as complex numbers: one factor is scale and rotation.
    factor = np.vdot(a, b) / max(float(np.vdot(a, a).real), 1e-12)
    turned = ((points - source_mean) @ np.array([1, 1j])) * factor
    moved: NDArray[np.float64] = np.stack([turned.real, turned.imag], axis=1) + target_mean
    return moved
