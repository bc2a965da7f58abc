"""Photos to try things on: people with something in front of their faces, and a clip of one who turns the head.

Drawn by the renderer of the face model and the painter of the synthetic world, farther away and turned less than the
faces that training sees, as people are in photos. No real person is in them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from focus.data.sampling import PoseSettings, stream
from focus.data.synthetic import SyntheticFaces, SyntheticSettings
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel

PHOTOS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "hand": ("hand",),
    "glasses": ("glasses",),
    "hair": ("hair_long",),
    "mask": ("surgical_mask",),
    "microphone": ("microphone",),
}
"""Name of each photo -> what may be in front of the face (of `focus.data.occluders`)."""
LEAST_SIZE, LARGEST_SIZE = 64, 4096
_TONES = 1.8
"""Albedo coefficient 0 of the faces, mostly how light the skin is, goes from minus to plus this many deviations."""
_FARTHER_MM = 430.0
"""Added to the distance of faces that fill the picture: hair and shoulders are seen, too."""
_LOWER_MM = 6.0
_FINER = 2
"""Pictures are drawn this many times as large, and reduced: outlines are smooth, as a camera has them."""
_TONE_ORDER = 11  # a purpose of `stream` that no part of a synthetic face has
_TURN, _NOD = math.radians(28), math.radians(6)


@dataclass(frozen=True)
class ExamplePicture:
    """A photo or a frame, and its truth."""

    name: str
    image: NDArray[np.uint8]
    """[S, S, 3]."""
    landmarks: NDArray[np.float32]
    """[68, 2] pixels, as a detector would give them."""
    visible_mask: NDArray[np.bool_]
    """[S, S], where the face is seen."""
    face_mask: NDArray[np.bool_]
    """[S, S], the whole face."""
    parameters: FaceParameters
    """A batch of one."""

    @property
    def occluded(self) -> bool:
        """Whether something is in front of the face."""
        return bool((self.face_mask & ~self.visible_mask).any())


class _Portraits(SyntheticFaces):
    """Faces as a photographer takes them: at arm's length and not at the end of the nose, with every tone of skin."""

    def __init__(self, model: MorphableModel, image_size: int, seed: int) -> None:
        settings = SyntheticSettings(
            coverage=(0.08, 0.45),
            extreme_light_fraction=0.2,
            coefficient_limit=1.7,
            pose=PoseSettings(yaw=14, yaw_limit=30, wide_yaw_fraction=0, pitch=5, pitch_limit=10, roll=5, shift=8),
            degradation=0.35,
        )
        super().__init__(model, _FINER * _checked(image_size), seed, settings)
        order = stream(seed, 0, _TONE_ORDER).permutation(len(PHOTOS))
        self._tones = np.linspace(-_TONES, _TONES, len(PHOTOS))[order]

    def parameters(self, index: int) -> FaceParameters:
        """As the world draws them, moved away, with the skin tone that is this index's turn."""
        face = super().parameters(index)
        face.translation[:, 1] += _LOWER_MM
        face.translation[:, 2] += _FARTHER_MM
        if face.albedo.shape[1]:
            face.albedo[:, 0] = float(self._tones[index % len(self._tones)])
        return face

    def with_occluders(self, kinds: tuple[str, ...]) -> _Portraits:
        """The same people with one of `kinds` in front of them."""
        others = copy.copy(self)
        others.settings = replace(self.settings, occluders=kinds)
        return others

    def picture(self, index: int, name: str, occluded: bool) -> ExamplePicture:
        """One of them."""
        (sample,) = self.samples([index], occluded)
        image = np.rint(_means(sample.image)).astype(np.uint8)
        landmarks = ((sample.landmarks + 0.5) / _FINER - 0.5).astype(np.float32)  # pixel centres are at integers
        visible, face = (_means(mask) >= 0.5 for mask in (sample.visible_mask, sample.face_mask))
        return ExamplePicture(name, image, landmarks, visible, face, sample.parameters)


class _Clip(_Portraits):
    """One of the people, who turns the head and speaks. Every frame is drawn from the same random streams."""

    def __init__(self, model: MorphableModel, image_size: int, seed: int) -> None:
        super().__init__(model, image_size, seed)
        # Whatever the glasses hide will do: drawn until enough is hidden, they would change from frame to frame.
        self.settings = replace(self.settings, occluders=("glasses",), coverage=(0.0, 1.0))
        self.phase = 0.0  # of the movement, 0 to 1

    def parameters(self, index: int) -> FaceParameters:
        face = super().parameters(index)
        angle = 2 * math.pi * self.phase
        face.rotation[:] = face.rotation.new_tensor([_NOD * math.sin(2 * angle), _TURN * math.sin(angle), 0.0])
        face.expression *= 0.75 * (1 - math.cos(2 * angle))
        return face


def draw_photos(model: MorphableModel, image_size: int, seed: int) -> Iterator[ExamplePicture]:
    """A photo for each of `PHOTOS`; the same seed gives the same bytes on one machine.

    Args:
        model: the face.
        image_size: side of the photos in pixels, `LEAST_SIZE` to `LARGEST_SIZE`.
        seed: in [0, 2**64).

    Raises:
        FocusError: size or seed out of their range.
    """
    people = _Portraits(model, image_size, seed)
    for index, (name, kinds) in enumerate(PHOTOS.items()):
        yield (people.with_occluders(kinds) if kinds else people).picture(index, name, bool(kinds))


def draw_clip(model: MorphableModel, image_size: int, seed: int, count: int) -> Iterator[ExamplePicture]:
    """`count` frames of a movement that ends where it began, named ``frame-00`` and so on; see `draw_photos`."""
    person = _Clip(model, image_size, seed)
    for number in range(count):
        person.phase = number / count
        yield person.picture(len(PHOTOS), f"frame-{number:02}", True)


def _means(picture: NDArray[np.generic]) -> NDArray[np.float64]:
    """Of every `_FINER` x `_FINER` pixels of [H, W] or [H, W, 3]."""
    height, width = picture.shape[:2]
    blocks = picture.reshape(height // _FINER, _FINER, width // _FINER, _FINER, -1)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64)
    return means if picture.ndim == 3 else means[..., 0]


def _checked(image_size: int) -> int:
    if not LEAST_SIZE <= image_size <= LARGEST_SIZE:
        raise FocusError(f"size of example pictures: expected {LEAST_SIZE} to {LARGEST_SIZE} pixels, got {image_size}")
    return image_size
