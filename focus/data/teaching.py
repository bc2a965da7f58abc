"""Photos with what a teacher says of them, changed at random, and now and then with something drawn before the face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from focus.data.batches import FaceBatch
from focus.data.changes import Change
from focus.data.lessons import Lesson, Lessons, MirroredModel, moved_face
from focus.data.occluders import OCCLUDERS
from focus.data.pasting import paste, photo_scene
from focus.data.photos import PhotoFolder, generator_of, margin_alignment
from focus.data.scene import Scene
from focus.face import Camera, FaceParameters, MorphableModel

_HIDDEN_OR_SEEN = 128
KINDS = tuple(kind for kind in OCCLUDERS if kind not in ("skin_patch", "face_patch", "beard", "face_paint"))
"""What is drawn before faces. Not patches of skin: networks that learn from few photos then see patches in shadows and
highlights of other faces (docs/log.md). Nor beards and paint, which fits call face where they can."""
_PASTING = 1
"""Stream of random numbers of what is drawn before a face; the changes of the photo have another one."""


class TaughtPhotos:
    """The photos of a folder that have lessons, with the batches of `PhotoFolder` and the lessons in them.

    What is drawn before a face hides it there, whatever the teacher says; what the teacher calls hidden beside it
    stays so. The face to be found is the teacher's, which has not seen it.

    Args:
        photos: the folder.
        lessons: file of the lesson of each photo that has one, by the index of the photo.
        model: of their coefficients, on the CPU.
        occluded_fraction: share of the faces with something drawn before them.
        coverage: from which part of the face to which is hidden by it.
        cache_bytes: lessons are kept in memory up to this; later ones are read again at each use.
    """

    def __init__(
        self,
        photos: PhotoFolder,
        lessons: Mapping[int, Path],
        model: MorphableModel,
        *,
        occluded_fraction: float,
        coverage: tuple[float, float],
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.photos, self.lessons, self.model = photos, dict(lessons), model
        self.occluded_fraction, self.coverage = occluded_fraction, coverage
        self._mirrored = MirroredModel(model)
        self._camera = Camera(photos.image_size)
        self._margin_size = margin_alignment(photos.items[0].alignment).image_size
        self._cache_bytes = self._free = cache_bytes
        self._kept: dict[int, tuple[Lesson, Scene]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For data workers, which keep lessons of their own."""
        return {**self.__dict__, "_kept": {}, "_free": self._cache_bytes}

    def batch(
        self, indices: Sequence[int], augment_seed: int | None = None, *, occluded: bool | None = None
    ) -> FaceBatch:
        """As `PhotoFolder.batch`, with lessons.

        Args:
            indices: of photos that have one.
            augment_seed: None: photos as they are, with nothing drawn before them unless `occluded`.
            occluded: None: some, as the share says; otherwise all, or none.
        """
        size = self.photos.image_size
        images, points, weights, faces, masks, known, trust, names = [], [], [], [], [], [], [], []
        for index in indices:
            item = self.photos.items[index]
            lesson, scene = self._lesson(index)
            change = Change()
            if augment_seed is not None:
                change = Change.draw(self.photos.augmentation, size, generator_of(augment_seed, item))
            rng = generator_of(augment_seed or 0, item, _PASTING)
            draws = augment_seed is not None and rng.random() < self.occluded_fraction
            crop, mask, said = lesson.crop, lesson.mask, np.where(lesson.face, np.uint8(255), np.uint8(0))
            occluder = "none"
            if draws if occluded is None else occluded:
                pasted = paste(crop, scene, rng, KINDS, self.coverage)
                crop, occluder = pasted.image, pasted.occluder
                mask, said = np.where(pasted.hidden, np.uint8(0), mask), np.where(pasted.hidden, np.uint8(255), said)
            similarity = change.similarity
            landmarks, weight = change.landmarks(item.alignment.to_crop(item.landmarks), item.landmark_weights, size)
            images.append(change.image(crop, size))
            masks.append(similarity.image(mask, size, Image.Resampling.BILINEAR))
            known.append(similarity.image(said, size, Image.Resampling.BILINEAR) >= _HIDDEN_OR_SEEN)
            faces.append(moved_face(lesson.parameters, similarity, self._mirrored, self._camera))
            points.append(torch.from_numpy(landmarks.astype(np.float32)))
            weights.append(torch.from_numpy(weight.astype(np.float32)))
            trust.append(lesson.weight)
            names.append(occluder)
        if not images:
            raise ValueError("TaughtPhotos.batch: expected at least one index, got none")
        return FaceBatch(
            image=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255).contiguous(),
            landmarks=torch.stack(points),
            landmark_weights=torch.stack(weights),
            occluder=names,
            names=[self.photos.items[index].name for index in indices],
            lessons=Lessons(
                parameters=FaceParameters.cat(faces),
                mask=_planes(masks).div(255),
                known=_planes(known),
                weight=torch.tensor(trust, dtype=torch.float32, device="cpu"),
            ),
        )

    def _lesson(self, index: int) -> tuple[Lesson, Scene]:
        """The lesson of a photo, and where its face is in the crop with its margin."""
        if index in self._kept:
            return self._kept[index]
        lesson = Lesson.load(self.lessons[index], self.model, self._margin_size)
        camera = Camera(self._margin_size, self._camera.focal)
        rng = generator_of(0, self.photos.items[index], _PASTING)
        found = lesson, photo_scene(self.model, lesson.parameters, camera, rng)
        size = 20 * self._margin_size**2  # crop, mask and face of bytes, the drawn face of floats
        if size <= self._free:
            self._free -= size
            self._kept[index] = found
        return found


def _planes(images: Sequence[NDArray[np.uint8] | NDArray[np.bool_]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).astype(np.float32))[:, None]
