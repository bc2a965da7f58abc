"""A whole run: everything built from the settings, trained, resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from focus import limits
from focus._version import __version__
from focus.data.batches import FaceBatch
from focus.data.photos import PhotoFolder
from focus.data.shards import ShardFolder
from focus.data.synthetic import SyntheticFaces, SyntheticPool
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.files import check_input, read_input, write_files
from focus.isolation import own_state
from focus.lock import only_one
from focus.nets import ArcFaceFeatures, FeatureExtractor, FilterBank
from focus.phases import heard_by
from focus.train.checkpoint import Checkpoint, Networks, load_checkpoint
from focus.train.config import LogSettings, Settings, Stage
from focus.train.distributed import by_the_first, pick_device, place, process_group
from focus.train.log import Logger, RunLogger, SilentLogger
from focus.train.monitor import Ending
from focus.train.profile import PhaseTimer, Table, shortened, to_json
from focus.train.record import Inputs, machine, notes_on, require_same_run
from focus.train.schedule import Turn
from focus.train.sources import DataSource, PhotoSource, SyntheticSource, out_of_memory
from focus.train.streamed import ShardSource
from focus.train.taught import TaughtFolder
from focus.train.trainer import LAST, Trainer

CROPS = "crops"
"""In the folder of a run: of its photos. Those of the stage `adapt` are in ``adapt_crops``."""
SHARDS = "shards"
"""In the folder of a run: those of an address that are needed at the time."""
VALIDATION_SEED_OFFSET = 1 << 32
"""Synthetic validation faces come from the seed this much above that of training; test seeds lie higher still."""


def train(
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    accept_changed_data: bool = False,
    after_turn: Callable[[Trainer, Turn], None] | None = None,
    make_logger: Callable[[Path, LogSettings, int], RunLogger] | None = None,
) -> bool:
    """Trains in `folder`: checkpoints, ``log.jsonl``, curves and validation pictures go there.

    Args:
        settings: the run.
        folder: made if need be. If it holds a run already, `resume` must be set. One process at a time works in it.
        resume: go on with the run in `folder`, if there is one.
        accept_changed_data: go on although photos, landmarks or weights that the run reads are others than before.
            Photos that were held out for validation stay so, which cannot be said of shards: these must be the same.
        after_turn: see `Trainer`.
        make_logger: from folder, settings and the iteration to go on from; None: `RunLogger`.

    Returns:
        False if a signal ended the run before its end.

    Raises:
        FocusError: the folder holds another run, or another process is training in it; a file cannot be used; the data
            are others than before; masks collapsed; a number is not finite; memory ran out.
    """
    changes = accept_changed_data
    return (
        train_to_end(
            settings, folder, resume=resume, accept_changed_data=changes, after_turn=after_turn, make_logger=make_logger
        )
        is None
    )


def train_to_end(
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    accept_changed_data: bool = False,
    after_turn: Callable[[Trainer, Turn], None] | None = None,
    make_logger: Callable[[Path, LogSettings, int], RunLogger] | None = None,
) -> Ending | None:
    """As `train`; returns how a signal ended the run before its end, or None."""
    with own_state(grad=True), contextlib.ExitStack() as stack:
        device = stack.enter_context(process_group(pick_device(settings.device)))
        first = place()[0] == 0
        unlocked = stack.enter_context(only_one(folder, "training")) if first else None
        last = folder / LAST
        by_the_first(lambda: _require_room(folder, resume))
        checkpoint = load_checkpoint(last) if last.exists() else None
        for path in (folder / f"{stage}.safetensors" for stage in get_args(Stage)):
            if os.path.lexists(path):
                check_input(path, limits.WEIGHTS_FILE)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        step = checkpoint.header.step if checkpoint else 0
        logger: Logger = SilentLogger()
        if first:
            logger = stack.enter_context((make_logger or _run_logger)(folder, settings.log, step))
        if unlocked:
            logger.message(unlocked)
        try:
            trainer = _build(settings, folder, checkpoint, accept_changed_data, logger, device, after_turn)
            trainer.run()
            return trainer.ending
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise FocusError(f"not enough memory ({str(error).splitlines()[0]})") from error


def profile(settings: Settings, folder: Path, *, iterations: int = 20) -> tuple[list[Table], list[Path]]:
    """Runs a few iterations of each kind that a run has, and says where their time goes. No checkpoint is written.

    Args:
        settings: the run.
        folder: of the run; what is written goes to ``profile`` in it, what a teacher needs to where training has it.
        iterations: of each kind that are counted; a few more come before them.

    Returns:
        A table for each kind of iteration, and what was written: ``profile.txt``, ``profile.json`` and traces for
        https://ui.perfetto.dev or chrome://tracing.

    Raises:
        FocusError: as `train`; several processes.
    """
    settings, results = shortened(settings, iterations), folder / "profile"
    with own_state(grad=True), contextlib.ExitStack() as stack:
        device = pick_device(settings.device)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise FocusError("a profile is of one process: run it without torchrun")
        stack.enter_context(only_one(folder, "training"))
        results.mkdir(parents=True, exist_ok=True)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        logger = stack.enter_context(RunLogger(results, settings.log))
        trainer = _build(settings, folder, None, False, logger, device, None)
        trainer.folder = None
        timer = PhaseTimer(device, results)
        stack.enter_context(heard_by(timer))
        if not trainer.run():
            raise FocusError(f"{results}: the profile was stopped before its end: nothing was written")
        about = {"version": __version__, **machine(settings, device), "settings": settings.to_dict()}
    tables = timer.tables()
    texts = {"profile.txt": "\n\n".join(table.text for table in tables) + "\n", "profile.json": to_json(tables, about)}
    try:
        write_files({results / name: text.encode() for name, text in texts.items()})
    except OSError as error:
        raise FocusError(f"{results}: cannot be written: {error.strerror or error}") from error
    return tables, [*(results / name for name in texts), *timer.traces]


def _require_room(folder: Path, resume: bool) -> None:
    """Raises `FocusError` where a folder holds another run.

    torchrun (``--max-restarts``) starts the same command again when a process has died: that goes on with the run which
    it began itself, and with no other.
    """
    began, job = folder / ".torchrun", os.environ.get("TORCHELASTIC_RUN_ID")
    own = f"{job} {os.getppid()}"  # the process that starts the others lives as long as the job
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    known = restarted and began.is_file() and read_input(began, limits.TEXT_FILE) == own.encode()
    if (folder / LAST).exists() and not resume and not known:
        raise FocusError(f"{folder} already holds a run ({LAST}): resume it, or name another folder")
    if job is not None and not known:
        folder.mkdir(parents=True, exist_ok=True)
        write_files({began: own.encode()})


def _run_logger(folder: Path, settings: LogSettings, step: int) -> RunLogger:
    return RunLogger(folder, settings, step=step)


def _build(
    settings: Settings,
    folder: Path,
    checkpoint: Checkpoint | None,
    accept_changed_data: bool,
    logger: Logger,
    device: torch.device,
    after_turn: Callable[[Trainer, Turn], None] | None,
) -> Trainer:
    inputs = Inputs(checkpoint, folder, accept_changed_data)
    if checkpoint:
        require_same_run(checkpoint, settings)  # before it is said that the data of another run have changed
        inputs.notes += notes_on(checkpoint, settings, device)
    inputs.file("arcface", settings.arcface)
    inputs.file("start", settings.start if settings.keep else None)
    model = settings.face.build()
    require_teacher(settings)
    data: DataSource
    teach_again = None
    if settings.teacher == "fit" and settings.data.photos is not None and settings.data.landmarks is not None:
        taught = TaughtFolder(settings, settings.data.photos, settings.data.landmarks, model, folder, logger, inputs)
        data, validation, teach_again = taught.source(), taught.validation, taught.again
    else:
        data, validation = build_data(settings, model, logger, inputs)
    adaptation, adaptation_validation = None, None
    if settings.stages.adapt and settings.data.adapt_photos and settings.data.adapt_landmarks:
        adaptation, adaptation_validation = photo_source(
            settings, "adapt_photos", settings.data.adapt_photos, settings.data.adapt_landmarks, logger, inputs
        )
    networks = build_networks(settings, model)
    if device.type == "cuda" and place()[1] > 1:
        convert: Callable[[nn.Module], Any] = nn.SyncBatchNorm.convert_sync_batchnorm
        networks = Networks(convert(networks.reconstruction), convert(networks.segmentation))
    began = None
    if settings.keep and settings.start is not None:
        if load_checkpoint(settings.start).segments:
            began = networks.segmentation.state_dict()
        else:
            logger.message(f"{settings.start}: no segmentation network that has learnt: nothing of it is kept")
    trainer = Trainer(
        settings,
        model,
        networks,
        data,
        build_features(settings, logger),
        began=began,
        adaptation=adaptation,
        teach_again=teach_again,
        validation=validation,
        adaptation_validation=adaptation_validation,
        folder=folder,
        logger=logger,
        device=device,
        after_turn=after_turn,
        data_digests=inputs.digests,
    )
    if not trainer.plan:
        raise FocusError(f"settings: stages: nothing to do for the method {settings.method!r}: its stages are all 0")
    if checkpoint:
        trainer.resume(checkpoint)
        for note in inputs.notes:
            logger.message(note)
        logger.message(f"going on after iteration {trainer.step} of {trainer.total}")
    inputs.save()
    return trainer


def require_teacher(settings: Settings) -> None:
    """Raises `FocusError` where the faces are not such that the teacher of the settings can teach."""
    photos = settings.data.photos is not None or bool(settings.data.shards)
    if settings.teacher != "fit" and settings.stages.again:
        raise FocusError(
            f"settings: stages.again: expected 0 with teacher {settings.teacher!r}, got {settings.stages.again}: only "
            "fits are made again"
        )
    if settings.stages.again and not settings.stages.segmentation:
        raise FocusError(
            "settings: stages.again: needs the stage segmentation before it, whose network the fits hear; expected 0 "
            f"where stages.segmentation is 0, got {settings.stages.again}"
        )
    if settings.teacher == "fit" and not photos:
        raise FocusError(
            "settings: teacher: 'fit' fits photos, and there are none: name a folder (data.photos, focus train "
            "--photos), or take teacher 'truth' for synthetic faces"
        )
    if settings.teacher == "fit" and settings.data.shards:
        raise FocusError("settings: teacher: 'fit' fits photos of a folder, not those of shards; expected 'none'")
    if settings.teacher == "truth" and photos:
        raise FocusError(
            "settings: teacher: 'truth' is known of synthetic faces, not of photos; expected 'fit' or 'none'"
        )


def build_networks(settings: Settings, model: MorphableModel) -> Networks:
    """Networks with the weights that the settings name, or random ones from the seed."""
    torch.manual_seed(settings.seed)
    networks = Networks.build(settings, model)
    if settings.imagenet is not None:
        networks.reconstruction.trunk.load_imagenet_weights(settings.imagenet)
    if settings.start is not None:
        start = load_checkpoint(settings.start)
        start.check_model(model)
        start.load_networks(networks)
    return networks


def build_features(settings: Settings, logger: Logger) -> FeatureExtractor:
    """The recognition features that the settings name."""
    features: FeatureExtractor = FilterBank() if settings.arcface is None else ArcFaceFeatures.load(settings.arcface)
    logger.message(f"recognition features: {features.description}")
    return features


def build_data(
    settings: Settings, model: MorphableModel, logger: Logger, inputs: Inputs | None = None
) -> tuple[DataSource, FaceBatch | None]:
    """Training faces and validation faces.

    Args:
        settings: of the run.
        model: of synthetic faces.
        logger: is told what photos there are.
        inputs: takes down what is read, and compares it with what was read before.
    """
    data = settings.data
    if data.photos is not None and data.landmarks is not None:
        return photo_source(settings, "photos", data.photos, data.landmarks, logger, inputs or Inputs())
    if data.shards:
        return shard_source(settings, logger, inputs or Inputs())
    faces = SyntheticFaces(model, settings.image_size, settings.seed, data.synthetic)
    held_out = SyntheticFaces(model, settings.image_size, settings.seed + VALIDATION_SEED_OFFSET, data.synthetic)
    pool = SyntheticPool(faces, data.distinct) if data.distinct else faces
    source = SyntheticSource(pool, settings.batch_size, part=place())
    return source, held_out.batch(0, data.validation) if data.validation else None


def shard_source(settings: Settings, logger: Logger, inputs: Inputs) -> tuple[DataSource, FaceBatch | None]:
    """Training faces and validation faces of shards."""
    data, limit = settings.data, round(settings.data.crops_gigabytes * 1e9)
    cache = None if inputs.folder is None else inputs.folder / SHARDS
    folders = [
        ShardFolder(
            location,
            cache=cache,
            cache_bytes=limit // len(data.shards),
            # Of this process, of all folders together.
            open_files=2 * settings.batch_size // (place()[1] * len(data.shards)) + 2,
        )
        for location in data.shards
    ]
    for folder in folders:
        if folder.image_size != settings.image_size:
            raise FocusError(
                f"{folder.location}: has faces of {folder.image_size} pixels, and the run has {settings.image_size} "
                "(image_size): make them with focus prepare --shards --image-size"
            )
    inputs.shards(folders)
    source = ShardSource(
        folders,
        settings.batch_size,
        seed=settings.seed,
        augment=data.augment,
        validation=data.validation,
        part=place(),
        later=pick_device(settings.device).type == "cuda",
    )
    count = sum(len(folder.shards) for folder in folders)
    logger.message(f"{count} shards: {source.count} faces to train with and {source.held_out} for validation")
    return source, source.validation()


def photo_source(
    settings: Settings, name: str, folder: Path, landmarks: Path, logger: Logger, inputs: Inputs
) -> tuple[DataSource, FaceBatch | None]:
    """Training photos and validation photos of a folder, which the setting `name` names."""
    store, limit = inputs.folder, round(settings.data.crops_gigabytes * 1e9)

    def read() -> PhotoFolder:
        path = None if store is None or not limit else store / name.replace("photos", CROPS)
        return PhotoFolder(folder, landmarks, settings.image_size, store=path, store_bytes=limit)

    photos = by_the_first(read)
    record = inputs.photos(name, photos, validation=settings.data.validation, seed=settings.seed)
    training, held_out = record.indices(held_out=False), record.indices(held_out=True)
    logger.message(
        f"{folder}: {len(photos)} photos, {len(training)} to train with and {len(held_out)} for validation; "
        f"{len(photos.skipped)} skipped"
    )
    for skip in photos.skipped:
        logger.message(f"  skipped {skip.name}: {skip.reason}")
    on_card = pick_device(settings.device).type == "cuda"
    source = PhotoSource(
        photos.later if on_card else photos,  # a card changes a batch in the time of one photo here
        training,
        settings.batch_size,
        seed=settings.seed,
        augment=settings.data.augment,
        part=place(),
    )
    return source, photos.batch(held_out) if held_out else None
