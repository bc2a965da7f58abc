"""What the networks learn before they teach each other: the fits of the photos, or the truth of synthetic faces."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from focus import limits
from focus._version import __version__
from focus.data.images import read_image
from focus.data.lessons import Lesson, load_doubt, save_doubt
from focus.data.photos import PhotoFolder, PhotoItem, margin_alignment
from focus.errors import FocusError, reason_to_skip
from focus.face import MorphableModel, Renderer
from focus.files import digest_input
from focus.fit.settings import FitSettings
from focus.fit.trust import trust_in
from focus.parallel import Lost, run_each
from focus.reconstruction import Reconstruction
from focus.train.checkpoint import Networks, load_trained
from focus.train.config import Settings
from focus.train.inference import segmented
from focus.train.record import Photo

FOLDER = "lessons"
"""In the folder of a run."""
FIT_SETTINGS = FitSettings(estimate_distance=False, centered=True)
"""As the networks see: with the camera of FOCUS."""


_FORMAT = 2
"""Grows with every change of what teachers say, networks that are heard among them: lessons of before are made anew."""


class NetworkWitness:
    """What the networks of a run say about where the face is, for `PhotoFitter`.

    Args:
        networks: as they are now; they are copied when this is pickled.
        model: of the networks.
        settings: of the networks.
    """

    def __init__(self, networks: Networks, model: MorphableModel, settings: Settings) -> None:
        self.networks, self.model, self.settings = networks, model, settings

    @classmethod
    def load(cls, checkpoint: str | os.PathLike[str], model: MorphableModel | None = None) -> NetworkWitness:
        """Those of a checkpoint; arguments as of `load_trained`.

        Raises:
            FocusError: no usable checkpoint, or one without a segmentation network that has learnt.
        """
        trained = load_trained(checkpoint, model=model)
        if not trained.segments:
            raise FocusError(f"{checkpoint}: has no segmentation network that has learnt, whose masks are to be heard")
        return cls(trained.networks, trained.model, trained.settings)

    @torch.no_grad()
    def __call__(self, crop: Tensor) -> Tensor:
        """The log-odds that the face is seen, ``[1, 1, S, S]``, for a crop ``[1, 3, S, S]`` of any size; 0 where the
        networks draw no face.
        """
        self.networks.eval()
        size, own = crop.shape[-1], self.settings.image_size
        small = F.interpolate(crop, size=(own, own), mode="area" if size > own else "bilinear")
        renderer = Renderer(self.model, own)
        _, rendering, logits = segmented(self.networks, self.model, renderer, small, relight=self.settings.relight)
        return F.interpolate(logits * (rendering.mask > 0), size=(size, size), mode="bilinear")

    def digest(self) -> str:
        """SHA-256 over the weights."""
        digest = hashlib.sha256()
        for name, network in self.networks.items():
            for key, value in sorted(network.state_dict().items()):
                digest.update(f"{name}.{key}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Teacher(Protocol):
    """Who knows a face in a photo, such as a `PhotoFitter` with `FIT_SETTINGS`."""

    @property
    def made_by(self) -> Mapping[str, Any]:
        """What, beside a photo and its landmarks, decides what it says; JSON values."""

    def __call__(self, image: NDArray[np.uint8], landmarks: NDArray[np.float64], *, name: str) -> Reconstruction:
        """The face of a photo, as the camera of FOCUS sees it."""


@dataclass(frozen=True)
class Taught:
    """What came of the fits of a folder of photos."""

    files: dict[int, Path]
    """Of the lessons that are believed, by the index of the photo."""
    left_out: dict[str, str]
    """Photos without a lesson that is believed, and why."""
    seen: dict[int, float]
    """Part of the face that is said to be seen, for each lesson that is believed."""
    weights: dict[int, float]
    """How far each is believed."""

    @property
    def text(self) -> str:
        """One line for people."""
        count = len(self.files) + len(self.left_out)
        weight, seen = (float(np.mean(list(values.values()))) for values in (self.weights, self.seen))
        return (
            f"{len(self.files)} of {count} fits are believed (weight {weight:.2f} in the mean, {1 - seen:.0%} of the "
            f"faces hidden), {len(self.left_out)} left out"
        )

    def drift(self, later: Taught) -> str | None:
        """What has become of the masks, where that is too much to be believed; None where it is not."""
        both = [index for index in self.files if index in later.files]
        if len(both) < _LEAST_PART * len(self.files):
            return f"of {len(self.files)} fits that were believed only {len(both)} still are"
        before, now = (1 - float(np.mean([one.seen[index] for index in both])) for one in (self, later))
        if abs(now - before) <= _LARGEST_DRIFT:
            return None
        what = "hidden" if now > before else "face"
        return f"{before:.0%} of the faces were called hidden and {now:.0%} are: more and more is called {what}"


_LARGEST_DRIFT = 0.15
"""Between the parts of the faces that first and second fits call hidden. With 80 photos it is 0.01 to 0.03."""
_LEAST_PART = 0.7


def make_lessons(
    photos: PhotoFolder,
    model: MorphableModel,
    folder: Path,
    teacher: Teacher,
    *,
    workers: int = 1,
    notify: Callable[[int, int], None] = lambda done, count: None,
) -> Taught:
    """Fits each photo once; those whose lesson is in the folder already are not fitted again.

    Args:
        photos: the photos.
        model: of the networks, on the CPU.
        folder: where lessons are kept, each under a digest of photo, landmarks, teacher, image size and version.
        teacher: who fits; it can be pickled. Its coefficients are those of `model`.
        workers: processes.
        notify: called with how many are done, and of how many.

    Raises:
        FocusError: no fit is believed; the disk is full.
    """
    made_by = {"version": __version__, "format": _FORMAT, "image_size": photos.image_size, **teacher.made_by}
    jobs = [_Job(item, folder / f"{_digest(item, made_by)}.safetensors") for item in photos.items]
    work = _Teach(teacher, photos.image_size)
    verdicts: dict[int, _Verdict] = {}
    waiting = []
    original: dict[Path, int] = {}  # copies of a photo are one
    for index, job in enumerate(jobs):
        found = _there_already(job.file, model, photos)
        if found is not None:
            verdicts[index] = found
        elif original.setdefault(job.file, index) == index:
            waiting.append(index)
    notify(len(verdicts), len(jobs))
    side_by_side = max(1, min(workers, len(waiting)))
    for index, answer in run_each(work, [jobs[i] for i in waiting], workers=side_by_side):
        verdicts[waiting[index]] = _Verdict(doubt=answer.reason) if isinstance(answer, Lost) else answer
        notify(len(verdicts), len(jobs))
    verdicts |= {i: verdicts[original[job.file]] for i, job in enumerate(jobs) if i not in verdicts}
    left_out = {jobs[index].item.name: doubt for index in range(len(jobs)) if (doubt := verdicts[index].doubt)}
    believed = {index: verdict for index, verdict in sorted(verdicts.items()) if verdict.doubt is None}
    if not believed:
        first = next(iter(left_out.items()))
        raise FocusError(
            f"{photos.folder}: none of the fits of its {len(jobs)} photos is believed; the first: {first[0]}: "
            f"{first[1]}. Are the landmarks those of the photos? Look at focus fit of some of them"
        )
    return Taught(
        {index: jobs[index].file for index in believed},
        left_out,
        {index: verdict.seen for index, verdict in believed.items()},
        {index: verdict.weight for index, verdict in believed.items()},
    )


class _Verdict(NamedTuple):
    """What is told of a lesson."""

    weight: float = 0.0
    seen: float = 0.0
    doubt: str | None = None

    @classmethod
    def of(cls, lesson: Lesson) -> _Verdict:
        return cls(lesson.weight, lesson.seen, lesson.doubt)


@dataclass(frozen=True)
class _Job:
    """A photo to be fitted, and the file of its lesson."""

    item: PhotoItem
    file: Path


@dataclass(frozen=True)
class _Teach:
    """Fits a photo in a process of its own, and keeps the lesson."""

    teacher: Teacher
    image_size: int

    def __call__(self, job: _Job, report: Callable[[Any], None]) -> _Verdict:
        torch.set_num_threads(1)
        try:
            lesson = self._lesson(job.item)
        except FocusError as error:  # so it will be the next time
            doubt = str(error).removeprefix(f"{job.item.path}: ")
            save_doubt(job.file, doubt)
            return _Verdict(doubt=doubt)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            return _Verdict(doubt=reason_to_skip(error))
        lesson.save(job.file)
        return _Verdict.of(lesson)

    def _lesson(self, item: PhotoItem) -> Lesson:
        if digest_input(item.path, limits.IMAGE_FILE) != item.digest:
            raise FocusError("was changed while it was in use")
        photo = read_image(item.path)
        found = self.teacher(photo, item.given, name=item.name)
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
    content = {"photo": item.digest, "landmarks": Photo.of(item).row, **made_by}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _there_already(file: Path, model: MorphableModel, photos: PhotoFolder) -> _Verdict | None:
    doubt = load_doubt(file)
    if doubt is not None:
        return _Verdict(doubt=doubt)
    if not file.exists():
        return None
    try:
        return _Verdict.of(Lesson.load(file, model, margin_alignment(photos.items[0].alignment).image_size))
    except FocusError:  # damaged ones are made anew
        return None
