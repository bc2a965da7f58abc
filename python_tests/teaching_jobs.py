"""A teacher for test_train_lessons: a module of its own, since its processes must find it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focus.data.align import Similarity
from focus.data.lessons import MirroredModel, moved_face
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.face import Camera, Renderer
from focus.fit.crop import open_photo
from focus.reconstruction import Reconstruction


@dataclass
class KnownFaces:
    """Says the truth about photos ``<index>.png`` of synthetic faces, but for some."""

    faces: SyntheticFaces
    image_size: int
    calls: Path
    """Folder in which each call leaves a file."""
    inverted: frozenset[int] = frozenset()
    """Of these it calls hidden what is seen, and seen what is hidden."""
    refused: frozenset[int] = frozenset()

    @property
    def made_by(self) -> Mapping[str, Any]:
        return {"inverted": sorted(self.inverted)}

    @torch.no_grad()
    def __call__(self, image: NDArray[np.uint8], landmarks: NDArray[np.float64], *, name: str) -> Reconstruction:
        index = int(Path(name).stem)
        (self.calls / f"{index}_{len(list(self.calls.iterdir()))}").touch()
        if index in self.refused:
            raise FocusError("no face fits them")
        size, own = self.image_size, image.shape[0]
        opened = open_photo(image, landmarks, size, name)
        crop = opened.alignment
        x, y = (-(value - (own - 1) / 2) * crop.scale for value in crop.center)
        change = Similarity(scale=crop.scale * own / size, shift=(x, y))
        sample, model = self.faces.samples([index])[0], self.faces.model
        parameters = moved_face(sample.parameters, change, MirroredModel(model), Camera(size))
        rendering = Renderer(model, size)(parameters)
        seen = crop.crop_mask(np.where(sample.visible_mask, 255, 0).astype(np.uint8))
        face = rendering.mask[0]
        mask = face * torch.from_numpy(seen)[None]
        return Reconstruction(
            model=model,
            parameters=parameters,
            image=opened.crop,
            rendering=rendering.image[0],
            face=face,
            mask=face - mask if index in self.inverted else mask,
            alignment=crop,
            photo=image,
            name=name,
        )
