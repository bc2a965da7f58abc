"""The photos of a run whose networks learn from fits before they teach each other."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from torch import Tensor

from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings
from focus.data.photos import PhotoFolder
from focus.data.synthetic import SyntheticFaces
from focus.data.teaching import TaughtPhotos
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.fit.photo import PhotoFitter
from focus.parallel import processors
from focus.train.checkpoint import Networks, load_checkpoint
from focus.train.config import Settings
from focus.train.distributed import by_the_first, pick_device, place, uses_bfloat16
from focus.train.lessons import FIT_SETTINGS, FOLDER, NetworkWitness, Taught, make_lessons
from focus.train.log import Logger
from focus.train.record import Inputs
from focus.train.schedule import plan
from focus.train.sources import DataSource, MixedSource, PhotoSource, SyntheticSource
from focus.train.trainer import Trainer

CHANGES = AugmentationSettings(rotation=0.1, scale=0.06, shift=0.03, gain=0.15, gamma=0.25, shading=0.3)
"""Wider than where nothing but the photos themselves is to be learnt: few photos stand for many."""
FEW = 50
"""Fewer photos teach little: what they have in common is taken for what all faces have."""
_MOST_WORKERS = 8
"""Fits side by side: each takes up to 0.7 GB of memory."""


_SECONDS_PER_FIT = 2.5
"""Of one core; a guess for what is told before the first fit is done."""


def seconds_of_learning(settings: Settings, model: MorphableModel) -> float:
    """How long the iterations of a run take on this machine, by one of each network, forward and backward."""
    with torch.random.fork_rng(devices=[]):
        networks = Networks.build(settings, model)
    device = pick_device(settings.device)
    networks.to(device)
    networks.reconstruction.in_bfloat16 = networks.segmentation.in_bfloat16 = uses_bfloat16(settings.precision, device)
    shape = (max(settings.batch_size // place()[1], 1), 3, settings.image_size, settings.image_size)
    images = torch.zeros(shape, dtype=torch.float32, device=device)
    face = torch.zeros_like(images[:, :1])

    def reconstruct() -> Tensor:
        return sum((value.sum() for _, value in networks.reconstruction(images).items()), face.sum())

    def segment() -> Tensor:
        return networks.segmentation.logits(images, images, face).sum()

    seconds = {}
    for name, loss in (("reconstruction", reconstruct), ("segmentation", segment)):
        for _ in range(2):  # the first one finds memory
            begun = time.perf_counter()
            torch.autograd.backward(loss())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = time.perf_counter() - begun
    return sum(_WORK_AROUND * turn.length * seconds[turn.network] for turn in plan(settings.stages, settings.method))


_WORK_AROUND = 1.4
"""An iteration takes this much longer than its network alone: faces are drawn, weights are moved."""


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


class TaughtFolder:
    """A folder of photos, and the lessons of its fits.

    Args:
        settings: of the run.
        folder: the photos.
        landmarks: of them.
        model: of the networks.
        run: folder of the run, where the lessons are kept.
        logger: is told what comes of it.
        inputs: takes down what is read.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        landmarks: Path,
        model: MorphableModel,
        run: Path,
        logger: Logger,
        inputs: Inputs,
    ) -> None:
        if model.albedo_count == 0:
            raise FocusError(
                f"settings: teacher: 'fit' needs a face model with colour, and {model.name} has none: give it one by "
                "focus model convert --synthetic-albedo, or take teacher 'none'"
            )
        # A copy: fits and data workers stay on the CPU, also when a trainer moves its model (in place) to a card.
        self.settings, self.model, self.run, self.logger = settings, copy.deepcopy(model).cpu(), run, logger
        # Crops lie in the lessons: they are not kept twice.
        self.photos = PhotoFolder(folder, landmarks, settings.image_size, augmentation=CHANGES, cache_bytes=0)
        record = inputs.photos("photos", self.photos, validation=settings.data.validation, seed=settings.seed)
        self._training, self._held_out = record.indices(held_out=False), record.indices(held_out=True)
        for skip in self.photos.skipped:
            logger.message(f"  skipped {skip.name}: {skip.reason}")
        if len(self.photos) < FEW:
            logger.message(
                f"{folder}: {len(self.photos)} photos are few: networks learn what these have in common, and may be "
                f"worse on others; from {FEW} on it pays"
            )
        text = f"{folder}: {len(self.photos)} photos, {len(self._held_out)} of them held out for validation"
        if inputs.checkpoint is None:
            fits = _SECONDS_PER_FIT * len(self.photos) * (1 + bool(settings.stages.again)) / self._workers
            learning = seconds_of_learning(settings, self.model)
            text += (
                f"; about {_minutes(fits + learning)} on this machine: {_minutes(fits)} for fits, "
                f"{_minutes(learning)} for learning"
            )
        logger.message(text)
        self._taught = self._teach(None)
        if len(self._taught.files) < FEW <= len(self.photos):
            logger.message(f"{len(self._taught.files)} lessons are few: networks may be worse on other photos")
        self.validation = self._validation()
        if self.validation is None and (settings.stages.again or settings.stages.joint):
            logger.message("no photo is held out: nothing tells whether the later stages make the masks worse")

    @property
    def _workers(self) -> int:
        return max(self.settings.workers, min(processors(), _MOST_WORKERS))

    def source(self) -> DataSource:
        """The photos to train with, with their lessons, and a share of synthetic faces."""
        settings, photos, size = self.settings, self._photos(), place()[1]
        each = settings.batch_size // size  # faces of this process in a batch
        drawn = min(round(settings.data.synthetic_fraction * each), each - 1)
        source = PhotoSource(
            photos,
            [index for index in self._training if index in photos.lessons],
            (each - drawn) * size,
            seed=settings.seed,
            augment=settings.data.augment,
            part=place(),
        )
        if not drawn:
            return source
        faces = SyntheticFaces(self.model, settings.image_size, settings.seed, settings.data.synthetic)
        return MixedSource(source, SyntheticSource(faces, drawn * size, part=place()))

    def again(self, trainer: Trainer) -> DataSource:
        """The same photos after second fits, which have heard the networks as they were at the end of the stage
        `segmentation`.
        """
        with torch.random.fork_rng(devices=[]):
            networks = Networks.build(self.settings, self.model)
        if any(turn.stage == "again" and turn.start < trainer.step for turn in trainer.plan):
            load_checkpoint(self.run / "segmentation.safetensors").load_networks(networks)
        else:
            for name, network in networks.items():
                state = {key: value.cpu() for key, value in trainer.networks.of(name).state_dict().items()}
                network.load_state_dict(state)
        first = self._taught
        self._taught = self._teach(NetworkWitness(networks, self.model, self.settings))
        drift = first.drift(self._taught)
        if drift is not None:
            kept = self.run / "segmentation.safetensors"
            raise FocusError(
                f"the masks drift: since the fits have heard the network, {drift}. Look at the fits (focus fit) and at "
                f"pictures/. The network of the first lessons is {kept}: use it as it is, or go on from it in a new "
                f"folder (focus train --start {kept} --stages.again 0)"
            )
        return self.source()

    def _teach(self, witness: NetworkWitness | None) -> Taught:
        begun, done_before = time.monotonic(), None

        def notify(done: int, count: int) -> None:
            nonlocal done_before
            done_before = done if done_before is None else done_before
            pace = (time.monotonic() - begun) / max(done - done_before, 1)
            text = f"fits of the photos{'' if witness is None else ', which have heard the network'}"
            self.logger.progress(done, count, text, pace * (count - done))

        def teach() -> Taught:
            fitter = PhotoFitter(self.settings.face.detailed(self.model), FIT_SETTINGS, witness=witness)
            return make_lessons(
                self.photos, self.model, self.run / FOLDER, fitter, workers=self._workers, notify=notify
            )

        taught = by_the_first(teach)
        self.logger.message(f"{self.photos.folder}: {taught.text}; lessons: {self.run / FOLDER}")
        for name, reason in taught.left_out.items():
            self.logger.message(f"  left out {name}: {reason}")
        return taught

    def _photos(self) -> TaughtPhotos:
        data = self.settings.data
        return TaughtPhotos(
            self.photos,
            self._taught.files,
            self.model,
            occluded_fraction=data.pasted_fraction,
            coverage=data.pasted_coverage,
        )

    def _validation(self) -> FaceBatch | None:
        """The photos that are held out, each as it is and with something drawn before its face."""
        photos = self._photos()
        indices = [index for index in self._held_out if index in photos.lessons]
        if not indices:
            return None
        return FaceBatch.cat([photos.batch(indices, occluded=False), photos.batch(indices, occluded=True)])
