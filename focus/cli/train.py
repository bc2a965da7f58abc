"""`focus train`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, get_args

import tyro

from focus.cli.command import Command, Outcome, parse_as, say, shown_progress
from focus.cli.detection import Finding
from focus.data.detection.photos import TABLE, Detections
from focus.errors import FocusError
from focus.lock import only_one
from focus.train import Settings, export, load_checkpoint, plan, shipped_checkpoint
from focus.train.config import Preset
from focus.train.lessons import FOLDER as LESSONS
from focus.train.run import CROPS, SHARDS, profile, train_to_end
from focus.train.trainer import LAST

FOLDERS = (LESSONS, CROPS, f"adapt_{CROPS}", SHARDS)
"""Of a run, with files for each photo, or of all of them."""
_PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(kw_only=True)
class Train(Command):
    """Train on synthetic faces or on your photos, all stages in one go."""

    out: Path
    """Folder of the run: checkpoints, log.jsonl, TensorBoard curves, validation pictures. With --photos, out/train
    where none is given."""
    preset: Preset = "small"
    """Where all other settings start: photos (the default where --photos is given, but with --teacher none), small (64
    pixels, for two CPU cores; the default elsewhere), paper, or official (the released code)."""
    scale: float = 1.0
    """Factor on the iterations of all stages, and on all that counts in iterations: 0.01 for a try."""
    photos: Path | None = None
    """Folder of photos to train on, in place of synthetic faces."""
    landmarks: Path | None = None
    """Their landmarks: a table, or a file or folder of another program. Without, faces are found in the photos (extra
    detect) and kept in landmarks.csv of the run.
    """
    adapt: Path | None = None
    """Folder of photos to adapt to after the joint stage."""
    adapt_landmarks: Path | None = None
    """Their landmarks, likewise; found ones are kept in adapt_landmarks.csv."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in the folder."""
    accept_changed_data: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --resume: go on although photos, landmarks or weights that the run reads are others than before."""
    profile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train nothing: run a few iterations of each kind, print where their time goes, and write it, with traces for the
    profiler of torch, into the folder profile of the run."""
    export: Path | None = None
    """At the end also write the networks that learnt alone, in half precision, to this file."""
    finding: Annotated[Finding, tyro.conf.arg(name="")] = field(default_factory=Finding)
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)

    def run(self) -> Outcome:
        """Trains to the end of the plan, or until Ctrl-C."""
        found = Detections()
        self.so_far = lambda: Outcome(skipped=list(found.skipped))
        landmarks = self._found(self.photos, self.landmarks, TABLE, found)
        adapt_landmarks = self._found(self.adapt, self.adapt_landmarks, f"adapt_{TABLE}", found)
        settings = replace(self, landmarks=landmarks, adapt_landmarks=adapt_landmarks).complete()
        turns = plan(settings.stages, settings.method)
        if not turns:
            raise FocusError("focus train: all stages have 0 iterations (--stages.*): there is nothing to do")
        say(f"preset {self.preset}, method {settings.method}, {turns[-1].end} iterations in {len(turns)} turns")
        if self.profile:
            return self._profile(settings)
        changes = self.accept_changed_data
        ending = train_to_end(settings, self.out, resume=self.resume, accept_changed_data=changes)
        written = sorted(
            path
            for path in self.out.rglob("*")
            if path.is_file()
            and not path.name.startswith((".", "events."))
            and path.relative_to(self.out).parts[0] not in FOLDERS
        )
        written += [self.out / name for name in FOLDERS if (self.out / name).is_dir()]
        if ending is None and (settings.data.photos is not None or settings.data.shards):
            say(f"to use it: focus reconstruct PHOTO --checkpoint {self.out / LAST}")
        if ending is None and self.export is not None:
            learnt = any(turn.network == "segmentation" for turn in turns)
            path, size = export(self.out / LAST, self.export, segmentation=learnt)
            say(f"{path}: {size / 2**20:.2f} MiB")
            written.append(path)
        return Outcome(
            skipped=list(found.skipped),
            read=_read(settings),
            written=written,
            details={"finished": ending is None, "checkpoint": str(self.out / LAST), "settings": settings.to_dict()},
            code=128 + ending.number if ending else None,
            error=ending.text if ending else None,
            told=True,
        )

    def _profile(self, settings: Settings) -> Outcome:
        tables, written = profile(settings, self.out)
        for table in tables:
            say(f"\n{table.text}")
        return Outcome(
            read=_read(settings),
            written=written,
            details={"profile": [asdict(table) for table in tables], "settings": settings.to_dict()},
        )

    def _found(self, photos: Path | None, landmarks: Path | None, table: str, found: Detections) -> Path | None:
        """The landmarks of a folder of photos: those that are given, or detected ones."""
        if photos is None or landmarks is not None:
            return landmarks
        if (self.out / LAST).exists() and not self.resume:
            return self.out / table  # the run that is there is refused before anything else
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise FocusError(
                f"{photos}: several processes train, and none of them looks for faces: run focus landmarks {photos} "
                f"--out {self.out} first, and give {table} by --landmarks"
            )
        if not photos.is_dir():
            raise FocusError(f"{photos}: no such folder of photos")
        with shown_progress() as update, only_one(self.out, "training"):
            workers = max(self.settings.workers, 1)
            before = len(found.faces)
            path = self.finding.find([photos], self.out, _whole(update), found, workers=workers, table=table)
        if len(found.faces) == before:
            raise FocusError(
                f"{photos}: no face was found in any photo of this folder; see {path.with_suffix('.json')}"
            )
        return path

    def complete(self) -> Settings:
        """The settings with the options of this command put in."""
        settings = self.settings if self.scale == 1 else self.settings.scaled(self.scale)
        data, stages = settings.data, settings.stages
        if settings.teacher != "fit":
            stages = replace(stages, again=0)
        start = settings.start or self._shipped(settings)
        if self.photos is not None or self.landmarks is not None:
            data = replace(data, photos=self.photos, landmarks=self.landmarks)
        if self.adapt is not None or self.adapt_landmarks is not None:
            data = replace(data, adapt_photos=self.adapt, adapt_landmarks=self.adapt_landmarks)
            if not stages.adapt:
                stages = replace(stages, adapt=stages.cycle)
        return replace(settings, data=data, stages=stages, start=start)

    def _shipped(self, settings: Settings) -> Path | None:
        """The network that comes with FOCUS, where the run is one of photos and has networks and a face like it."""
        if self.preset != "photos" or (settings.data.photos is None and self.photos is None):
            return None
        shipped = shipped_checkpoint("photos")
        usual = None if shipped is None else load_checkpoint(shipped).settings
        if usual is None or (settings.face, settings.network) == (usual.face, usual.network):
            return shipped
        say(
            "the network that comes with FOCUS has another face model or other sizes: this one begins from nothing, "
            "and needs more iterations (--stages.initialise) and photos"
        )
        return None


def _read(settings: Settings) -> list[str]:
    data = settings.data
    sources = (data.photos, data.landmarks, *data.shards, data.adapt_photos, settings.start)
    return [str(source) for source in sources if source is not None] or ["synthetic faces"]


def _whole(update: Callable[[str, int, int, str], None]) -> Callable[[str, float, float, str], None]:
    return lambda name, done, total, text: update(name, round(done), round(total), text)


def parse(arguments: Sequence[str]) -> Train:
    """Options of `focus train`: the preset gives the defaults of all others."""
    preset = _value_of("--preset", arguments)
    if preset not in _PRESETS:  # none, or one that the parser refuses
        taught = _value_of("--photos", arguments) is not None and _value_of("--teacher", arguments) != "none"
        preset = "photos" if taught else "small"
    chosen = next(item for item in _PRESETS if item == preset)
    out = tyro.MISSING if _value_of("--photos", arguments) is None else Path("out/train")
    default = Train(out=out, settings=Settings.preset(chosen), preset=chosen)
    return parse_as(Train, "train", arguments, default=default)


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """What follows an option, or None where it is not given."""
    found = None
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            found = argument.split("=", 1)[1]
        elif argument == option and position + 1 < len(arguments):
            found = arguments[position + 1]
    return found
