"""What a run reads, photo by photo: so that a run that goes on notices when its photos or landmarks are others.

A photo is its content, not its path: folders may move, and rows may change their order. The checkpoint holds one digest
for each input, and a file beside it, named after that digest and with a checksum of its own, holds the entries: which
photos there are, which row each has, and on which side of the split it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch

from focus import limits
from focus.data.photos import PhotoFolder, PhotoItem
from focus.data.shards import ShardFolder
from focus.errors import FocusError
from focus.files import read_input, write_files
from focus.sealed import DamagedError, open_json, seal_json
from focus.train.checkpoint import Checkpoint
from focus.train.config import Settings
from focus.train.distributed import place, uses_bfloat16

_VALIDATION_SHARE = 0.2
_SHOWN = 5
_WITHOUT_RECORD = (
    "Without this record nobody knows which photos were held out for validation, and the run cannot go on, not even "
    "with --accept-changed-data. Put the file back from a copy, or start a new run in another folder"
)
_WHERE_AND_WHAT_FOR = ("log", "guard", "device", "threads", "workers", "start", "measures")
"""Settings that change nothing about what a run computes, but for rounding."""


@dataclass(frozen=True)
class Photo:
    """One photo as a run uses it."""

    name: str
    """As the landmark file writes it, for messages."""
    content: str
    """SHA-256 of the file."""
    row: str
    """SHA-256 of its landmarks and their weights."""
    held_out: bool = False
    """Whether it is for validation."""

    @classmethod
    def of(cls, item: PhotoItem) -> Photo:
        """An item of a `PhotoFolder`."""
        row = hashlib.sha256(item.landmarks.astype("<f8").tobytes() + item.landmark_weights.astype("<f8").tobytes())
        return cls(item.name, item.digest, row.hexdigest())


@dataclass(frozen=True)
class PhotoRecord:
    """The photos of one folder, in the order of the landmark file."""

    photos: tuple[Photo, ...]

    @property
    def digest(self) -> str:
        """Of contents, rows and sides. Neither names nor the order of the rows change it, nor what a run computes."""
        lines = sorted(f"{photo.content} {photo.row} {int(photo.held_out)}\n" for photo in self.photos)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def indices(self, *, held_out: bool) -> list[int]:
        """Positions of the photos of one side, in an order that follows from contents and rows."""
        chosen = [i for i, photo in enumerate(self.photos) if photo.held_out == held_out]
        return sorted(chosen, key=lambda i: astuple(self.photos[i])[1:3])

    def save(self, folder: Path) -> Path:
        """Writes the record into the folder of a run.

        Raises:
            FocusError: the file system refused.
        """
        path = _file(folder, self.digest)
        text = seal_json({"photos": [asdict(photo) for photo in self.photos]})
        try:
            write_files({path: text.encode()})
        except OSError as error:
            raise FocusError(f"{path}: cannot be written: {error.strerror or error}. Make room, then go on") from error
        return path

    @classmethod
    def load(cls, folder: Path, digest: str) -> PhotoRecord | None:
        """The record of a digest that a checkpoint names; None where it is missing.

        Raises:
            FocusError: it is damaged, another one, or no ordinary file.
        """
        path = _file(folder, digest)
        if not os.path.lexists(path):
            return None
        try:
            entries = open_json(read_input(path, limits.TABLE_FILE))["photos"]
            record = cls(tuple(Photo(**entry) for entry in entries))
            if record.digest != digest:
                raise DamagedError("it is of other photos than the checkpoint names")
        except FocusError as error:
            raise FocusError(f"{error}. {_WITHOUT_RECORD}") from error
        except (DamagedError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, DamagedError) else "its entries are others than FOCUS writes"
            raise FocusError(f"{path}: damaged: {reason}. {_WITHOUT_RECORD}") from error
        return record


@dataclass
class Inputs:
    """Everything that a run reads, and what it read before it was stopped.

    Args:
        checkpoint: of the run that goes on; None: a new one.
        folder: of the run, where records of photos are; None: they are not kept.
        accept_changes: use photos and landmarks that are others than before.
    """

    checkpoint: Checkpoint | None = None
    folder: Path | None = None
    accept_changes: bool = False
    digests: dict[str, str] = field(default_factory=dict)
    """By name of the setting; for the checkpoint."""
    records: list[PhotoRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Lines for people about what is not as before."""

    @property
    def _known(self) -> Mapping[str, str] | None:
        return self.checkpoint.header.data if self.checkpoint else None

    def file(self, name: str, path: Path | None) -> None:
        """A file that decides what is computed, such as weights of the features.

        Raises:
            FocusError: it is another one than before, or cannot be read.
        """
        if path is None:
            if self._known is not None and name in self._known:
                self._changed(f"setting {name}: a file before, and none now")
            return
        digest = self.digests[name] = hashlib.sha256(read_input(path, limits.WEIGHTS_FILE)).hexdigest()
        if self._known is not None and self._known.get(name) != digest:
            self._changed(f"{path} (setting {name}) is another file")

    def shards(self, folders: Sequence[ShardFolder]) -> None:
        """The shards of a run.

        Raises:
            FocusError: they are others than before, where nobody knows which of their photos were held out.
        """
        text = " ".join(folder.digest for folder in folders)
        self.digests["shards"] = hashlib.sha256(text.encode()).hexdigest()
        if self._known is not None and self._known.get("shards") != self.digests["shards"]:
            raise FocusError(
                f"{self.checkpoint.path if self.checkpoint else ''}: the data of this run have changed: other shards "
                "(setting data.shards). Give those of before, or start a new run in another folder"
            )

    def photos(self, name: str, folder: PhotoFolder, *, validation: int, seed: int) -> PhotoRecord:
        """The photos of a folder, each on its side of the split.

        Args:
            name: of the setting.
            folder: the photos.
            validation: how many are held out at most; never more than a fifth.
            seed: of the choice.

        Raises:
            FocusError: they are others than before, and that is not accepted; or the record of those before is
                damaged, or missing where it cannot be made again.
        """
        photos = tuple(map(Photo.of, folder.items))
        known = self._known.get(name) if self._known is not None else None
        before = PhotoRecord.load(self.folder, known) if self.folder and known else None
        lost = self._known is not None and before is None
        if before is not None:
            sides = _sides_of_before(before.photos, photos)
        elif self.checkpoint is not None and self._known is None:
            sides = _sides_by_position(len(photos), validation, seed)
        else:
            sides = split(photos, validation, seed)
        record = PhotoRecord(tuple(Photo(p.name, p.content, p.row, out) for p, out in zip(photos, sides, strict=True)))
        self.digests[name] = record.digest
        self.records.append(record)
        if lost:
            path = _file(self.folder or Path(), known or "")
            if known != record.digest:
                raise FocusError(
                    f"{path}: no such file, and the photos or rows in {folder.folder} are others than before. "
                    f"{_WITHOUT_RECORD}"
                )
            self.notes.append(f"{path} was missing and is made again: the photos and rows are those of before")
        elif before is not None and known != record.digest:
            self._changed(differences(before.photos, photos, {skip.name for skip in folder.skipped}))
        return record

    def save(self) -> None:
        """Writes the records of photos beside the checkpoint that will name them."""
        for record in self.records:
            if self.folder is not None and not place()[0]:
                record.save(self.folder)

    def _changed(self, what: str) -> None:
        if not self.accept_changes:
            path = self.checkpoint.path if self.checkpoint else ""
            raise FocusError(
                f"{path}: the data of this run have changed: {what}. Undo the changes, start a new run in another "
                "folder, or go on with what is there by --accept-changed-data (train: accept_changed_data=True)"
            )
        self.notes.append(f"going on with changed data: {what}")


def split(photos: Sequence[Photo], validation: int, seed: int) -> list[bool]:
    """Which photos are held out: at most `validation`, and at most a fifth.

    The choice ranks photos by a hash of seed and content, so that neither names, order nor other photos decide on which
    side of the rank a photo is; copies of a photo are on the same side.
    """
    limit = min(validation, int(len(photos) * _VALIDATION_SHARE))
    copies: dict[str, int] = {}
    for photo in photos:
        copies[photo.content] = copies.get(photo.content, 0) + 1
    chosen: set[str] = set()
    for content in sorted(copies, key=lambda content: hashlib.sha256(f"{seed} {content}".encode()).digest()):
        if copies[content] <= limit:
            chosen.add(content)
            limit -= copies[content]
    return [photo.content in chosen for photo in photos]


def _sides_of_before(before: Sequence[Photo], photos: Sequence[Photo]) -> list[bool]:
    """A photo that is known by its content stays on its side, wherever it lies now; one that was edited stays on the
    side of its name; one that is new is trained with. So no photo that was held out is ever trained with.
    """
    by_content = {photo.content: photo.held_out for photo in before}
    held_out_names = {photo.name for photo in before if photo.held_out}
    edited = {photo.content for photo in photos if photo.name in held_out_names}
    return [by_content.get(photo.content, photo.content in edited) for photo in photos]


def _sides_by_position(count: int, validation: int, seed: int) -> list[bool]:
    """The choice of before there were records, for runs that it began: what it held out stays held out."""
    import numpy as np

    generator = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)))
    chosen = set(generator.permutation(count)[: min(validation, int(count * _VALIDATION_SHARE))].tolist())
    return [i in chosen for i in range(count)]


def differences(before: Sequence[Photo], photos: Sequence[Photo], unusable: set[str] | frozenset[str]) -> str:
    """What happened to the photos and rows, in a few words.

    Args:
        before: the photos of before.
        photos: those that are there now.
        unusable: names of photos that have a row and cannot be used.
    """
    old, new = ({photo.name: photo for photo in group} for group in (before, photos))
    old_pairs, new_pairs = ({(photo.content, photo.row) for photo in group} for group in (before, photos))
    contents = {photo.content for photo in before}
    both = [name for name in old if name in new]
    other = [name for name in both if new[name].content != old[name].content]
    moved_in = {name for name in other if new[name].content in contents}
    gone = [n for n in old if n not in new and (old[n].content, old[n].row) not in new_pairs]
    found = {
        "photos swapped": [name for name in other if name in moved_in],
        "photos edited": [name for name in other if name not in moved_in],
        "landmark rows changed": [n for n in both if n not in other and new[n].row != old[n].row],
        "photos deleted or unusable": [name for name in gone if name in unusable],
        "landmark rows deleted": [name for name in gone if name not in unusable],
        "photos added": [n for n in new if n not in old and (new[n].content, new[n].row) not in old_pairs],
    }
    return "; ".join(f"{len(names)} {what} ({_listing(names)})" for what, names in found.items() if names) or (
        "copies of photos came or went"
    )


def machine(settings: Settings, device: torch.device) -> dict[str, str]:
    """What may change the last bits of results, and nothing else about them."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    threads = {} if device.type == "cuda" else {"threads": str(torch.get_num_threads())}
    version = torch.__version__.split("+")[0]
    measures = [name for name, value in asdict(settings.measures).items() if value is True]
    measures += [f"{settings.measures.parts} parts"] if settings.measures.parts > 1 else []
    bfloat16 = uses_bfloat16(settings.precision, device)
    how = {"precision": "bfloat16" if bfloat16 else "float32", "measures": " ".join(measures) or "none"}
    return {**how, **threads, "processes": str(place()[1]), "device": kind, "torch": version}


def notes_on(checkpoint: Checkpoint, settings: Settings, device: torch.device) -> list[str]:
    """Lines for people about a run that goes on under other conditions, or whose data nobody can compare."""
    notes = []
    before, now = checkpoint.header.machine, machine(settings, device)
    if before and "measures" not in before:  # a file of before: they were as they are by default
        half = uses_bfloat16(checkpoint.settings.precision, device)
        before = {**before, "precision": "bfloat16" if half else "float32"}
        now.pop("measures")
    changes = [
        f"{name} {before.get(name, 'none')} before, {now.get(name, 'none')} now"
        for name in sorted(before | now)
        if before and before.get(name) != now.get(name)
    ]
    if changes:
        notes.append(f"{'; '.join(changes)}: the bits will differ from those of a run without a break")
    if checkpoint.header.data is None:
        read = settings.data.photos is not None or settings.data.adapt_photos is not None
        order = "; photos come in another order than they would have" if read else ""
        notes.append(
            f"{checkpoint.path}: of a version that did not record photos, landmarks and threads: nothing could be "
            f"compared with what the run read before{order}"
        )
    return notes


def what_it_computes(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a run computes."""
    found = {name: value for name, value in settings.to_dict().items() if name not in _WHERE_AND_WHAT_FOR}
    del found["data"]["crops_gigabytes"]
    # Parts have other random numbers, and BatchNorm sees each alone.
    parts = settings.measures.parts
    return found if parts == 1 else {**found, "measures.parts": parts}


def changed_settings(before: Settings, now: Settings) -> list[str]:
    """Names of the settings that differ and make another run of it. Paths are compared by what lies there, which
    `Inputs` does; the precision of the networks is noise beside that of the faces, and `notes_on` tells of it.
    """
    first, second = (_without_paths(what_it_computes(settings)) for settings in (before, now))
    return sorted(_differences({**first, "precision": ""}, {**second, "precision": ""}))


def require_same_run(checkpoint: Checkpoint, settings: Settings) -> None:
    """Raises `FocusError` where a run with these settings cannot go on from the checkpoint."""
    if checkpoint.header.kind != "training":
        raise FocusError(
            f"{checkpoint.path}: made for inference, without the state of a run. Start a new run from its weights "
            "(settings.start)."
        )
    changed = changed_settings(checkpoint.settings, settings)
    if changed:
        raise FocusError(
            f"{checkpoint.path}: written by a run with other settings ({', '.join(changed)}). Resume with the same "
            "ones, or start a new run from its weights (settings.start)."
        )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with, in place of paths, whether there is one."""
    data, face = settings["data"], settings["face"]
    paths = ("photos", "landmarks", "adapt_photos", "adapt_landmarks")
    return {
        **settings,
        "data": {**data, **{name: data[name] is not None for name in paths}, "shards": bool(data.get("shards"))},
        "face": {**face, "source": face["source"] == Settings().face.source},
        **{name: settings[name] is not None for name in ("imagenet", "arcface")},
    }


def _file(folder: Path, digest: str) -> Path:
    return folder / f"photos-{digest[:16]}.json"


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
