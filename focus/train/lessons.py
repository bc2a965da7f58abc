"""What the networks learn before they teach each other: the fits of the photos, or the truth of synthetic faces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from focus import limits
from focus._version import __version__
from focus.data.images import read_image
from focus.data.lessons import Lesson
from focus.data.photos import PhotoFolder, PhotoItem, margin_alignment
from focus.errors import FocusError, reason_to_skip
from focus.face import MorphableModel, Renderer
from focus.files import digest_input
from focus.fit.photo import PhotoFitter
from focus.fit.settings import FitSettings
from focus.fit.trust import trust_in
from focus.parallel import Lost, run_each
from focus.train.checkpoint import Networks

FOLDER = "lessons"
"""In the folder of a run."""
FIT_SETTINGS = FitSettings(estimate_distance=False, centered=True)
"""As the networks see: with the camera of FOCUS."""


class NetworkWitness:
    """What the networks of a run say about where the face is, for `PhotoFitter`.

    Args:
        networks: as they are now; they are copied when this is pickled.
        model: of the networks.
        image_size: of the networks.
    """

    def __init__(self, networks: Networks, model: MorphableModel, image_size: int) -> None:
        self.networks, self.model, self.image_size = networks, model, image_size

    @torch.no_grad()
    def __call__(self, crop: Tensor) -> Tensor:
        """The log-odds that the face is seen, ``[1, 1, S, S]``, for a crop ``[1, 3, S, S]`` of any size; 0 where the
        networks draw no face.
        """
        self.networks.eval()
        size = crop.shape[-1]
        small = F.interpolate(crop, size=(self.image_size,) * 2, mode="area" if size > self.image_size else "bilinear")
        rendering = Renderer(self.model, self.image_size)(self.networks.reconstruction(small))
        logits = self.networks.segmentation.logits(rendering.image, small, rendering.mask)
        return F.interpolate(logits * (rendering.mask > 0), size=(size, size), mode="bilinear")

    def digest(self) -> str:
        """SHA-256 over the weights."""
        digest = hashlib.sha256()
        for name, network in self.networks.items():
            for key, value in sorted(network.state_dict().items()):
                digest.update(f"{name}.{key}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Taught:
    """What came of the fits of a folder of photos."""

    files: dict[int, Path]
    """Of the lessons that are believed, by the index of the photo."""
    left_out: dict[str, str]
    """Photos without a lesson that is believed, and why."""
    seen: float
    """Mean part of the faces that is said to be seen, over the lessons that are believed."""
    weight: float
    """Their mean weight."""

    @property
    def text(self) -> str:
        """One line for people."""
        count = len(self.files) + len(self.left_out)
        return (
            f"{len(self.files)} of {count} fits are believed (weight {self.weight:.2f} in the mean, "
            f"{1 - self.seen:.0%} of the faces hidden), {len(self.left_out)} left out"
        )


def make_lessons(
    photos: PhotoFolder,
    model: MorphableModel,
    folder: Path,
    *,
    witness: NetworkWitness | None = None,
    workers: int = 1,
    notify: Callable[[int, int], None] = lambda done, count: None,
) -> Taught:
    """Fits each photo once; those whose lesson is in the folder already are not fitted again.

    Args:
        photos: the photos.
        model: of the networks, on the CPU.
        folder: where lessons are kept, each under a digest of photo, landmarks, model, settings, witness and version.
        witness: heard by the fits; None: nobody.
        workers: processes.
        notify: called with how many are done, and of how many.

    Raises:
        FocusError: no fit is believed; the disk is full.
    """
    made_by = {
        "version": __version__,
        "model": model.fingerprint(),
        "settings": asdict(FIT_SETTINGS),
        "image_size": photos.image_size,
        "witness": None if witness is None else witness.digest(),
    }
    jobs = [_Job(item, folder / f"{_digest(item, made_by)}.safetensors") for item in photos.items]
    work = _Teach(model, photos.image_size, witness)
    answers: dict[int, str | Lesson] = {}
    waiting = []
    for index, job in enumerate(jobs):
        found = _there_already(job.file, model, photos)
        if found is None:
            waiting.append(index)
        else:
            answers[index] = found
    notify(len(answers), len(jobs))
    side_by_side = max(1, min(workers, len(waiting)))
    for index, answer in run_each(work, [jobs[i] for i in waiting], workers=side_by_side):
        answers[waiting[index]] = answer.reason if isinstance(answer, Lost) else answer
        notify(len(answers), len(jobs))
    believed: dict[int, Lesson] = {}
    left_out = {}
    for index, job in enumerate(jobs):
        answer = answers[index]
        if isinstance(answer, str):
            left_out[job.item.name] = answer
        elif answer.doubt is None:
            believed[index] = answer
        else:
            left_out[job.item.name] = answer.doubt
    if not believed:
        first = next(iter(left_out.items()))
        raise FocusError(
            f"{photos.folder}: none of the fits of its {len(jobs)} photos is believed; the first: {first[0]}: "
            f"{first[1]}. Are the landmarks those of the photos? Look at focus fit of some of them"
        )
    return Taught(
        {index: jobs[index].file for index in believed},
        left_out,
        float(np.mean([lesson.seen for lesson in believed.values()])),
        float(np.mean([lesson.weight for lesson in believed.values()])),
    )


@dataclass(frozen=True)
class _Job:
    """A photo to be fitted, and the file of its lesson."""

    item: PhotoItem
    file: Path


@dataclass
class _Teach:
    """Fits a photo in a process of its own, and keeps the lesson."""

    model: MorphableModel
    image_size: int
    witness: NetworkWitness | None

    @cached_property
    def _fitter(self) -> PhotoFitter:
        return PhotoFitter(self.model, FIT_SETTINGS, witness=self.witness)

    def __call__(self, job: _Job, report: Callable[[Any], None]) -> Lesson | str:
        torch.set_num_threads(1)
        try:
            lesson = self._lesson(job.item)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            return reason_to_skip(error).removeprefix(f"{job.item.path}: ")
        lesson.save(job.file)
        return lesson

    def _lesson(self, item: PhotoItem) -> Lesson:
        if digest_input(item.path, limits.IMAGE_FILE) != item.digest:
            raise FocusError("was changed while it was in use")
        photo = read_image(item.path)
        found = self._fitter(photo, item.given, name=item.name)
        trust = trust_in(found, item.given)
        wide = margin_alignment(item.alignment)
        margin = (wide.image_size - self.image_size) // 2

        def in_margin(image: Tensor) -> NDArray[np.uint8]:
            """A mask of the fit at the network's size, with the margin round it."""
            values = Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
            small = values.resize((self.image_size,) * 2, Image.Resampling.BOX)
            return np.pad(np.asarray(small), margin)

        return Lesson(
            crop=wide.crop_image(photo),
            mask=in_margin(found.mask[0]),
            face=in_margin(found.face[0]) >= 128,
            parameters=found.parameters,
            weight=trust.weight,
            seen=trust.seen,
            doubt=trust.doubt,
        )


def _digest(item: PhotoItem, made_by: Mapping[str, Any]) -> str:
    row = hashlib.sha256(item.landmarks.astype("<f8").tobytes() + item.landmark_weights.astype("<f8").tobytes())
    content = {"photo": item.digest, "landmarks": row.hexdigest(), **made_by}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _there_already(file: Path, model: MorphableModel, photos: PhotoFolder) -> Lesson | None:
    if not file.exists():
        return None
    try:
        return Lesson.load(file, model, margin_alignment(photos.items[0].alignment).image_size)
    except FocusError:  # damaged ones are made anew
        return None
