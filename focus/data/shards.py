"""Faces in shards, for more photos than a disk: aligned crops in tar files of a thousand or so, as WebDataset has them.

A folder has tar files and ``shards.jsonl``. A tar file has, for each face, a picture (``000012.jpg``, a crop with its
margin) and, behind it, ``000012.json``: its landmarks in pixels of the picture, whose it is, and checksums. The first
line of ``shards.jsonl`` says how all of them were made; then comes a line for each tar file that is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from focus import limits
from focus.data.align import MINIMUM_SIZE, estimate_alignment
from focus.data.conventions import check_landmarks
from focus.data.fetching import Fetched, is_remote
from focus.data.images import decode_image, encode_image, image_orientation, read_image
from focus.data.landmarks import Face, Skip, expand_to_68, find_faces, five_from_68, read_landmarks
from focus.data.photos import CroppedFace, margin_alignment, margin_size
from focus.errors import FocusError
from focus.files import check_input, digest_input, write_files
from focus.parallel import Lost, run_each
from focus.sealed import DamagedError, open_json, seal_json

MANIFEST = "shards.jsonl"
_FORMAT = 1
_BLOCK = 512


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    faces: int
    size: int
    """Bytes."""
    skipped: tuple[Skip, ...] = ()
    """Faces that could not be used when it was made."""


class ShardFolder:
    """The shards of a folder on this machine, or of an address.

    Args:
        location: the folder; or where it is, in the way of fsspec: ``https://...``, ``s3://...``.
        cache: folder for the tar files of an address while they are needed.
        cache_bytes: of these; the oldest make room.
        open_files: tar files that are kept open.

    Raises:
        FocusError: no such folder or address, or its list of shards is damaged or not complete.
    """

    def __init__(
        self, location: str, *, cache: Path | None = None, cache_bytes: int = 32 << 30, open_files: int = 64
    ) -> None:
        self.location = location
        self._fetched = Fetched(location, cache, cache_bytes) if is_remote(location) else None
        data = self._read(MANIFEST)
        self.digest = hashlib.sha256(data).hexdigest()
        """SHA-256 of the list of shards, in hexadecimal."""
        head, shards = _manifest(data, f"{location}/{MANIFEST}")
        if head is None or len(shards) < head["shards"]:
            raise FocusError(
                f"{location}/{MANIFEST}: expected a list of all shards, got {len(shards)} of "
                f"{'an unknown number' if head is None else head['shards']}: run focus prepare --shards to its end"
            )
        self.image_size: int = head["image_size"]
        """S, pixels."""
        self.shards = [shards[number] for number in sorted(shards)]
        self._side = margin_size(self.image_size)
        self._open_files = max(open_files, 1)
        self._open: OrderedDict[int, _Tar] = OrderedDict()
        if not self.count:
            raise FocusError(f"{location}: its shards have no face")

    def __getstate__(self) -> dict[str, Any]:
        """For data workers, which open files of their own."""
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def count(self) -> int:
        """Faces of all shards."""
        return sum(shard.faces for shard in self.shards)

    def face(self, shard: int, number: int) -> CroppedFace:
        """One of them.

        Raises:
            FocusError: the tar file is gone, cannot be fetched, or is damaged.
        """
        return self._tar(shard).face(number, self._side, (self._side - self.image_size) // 2)

    def expect(self, shard: int) -> None:
        """Says that a shard is wanted soon: it is fetched meanwhile."""
        if self._fetched is not None:
            self._fetched.expect(self.shards[shard].name, self.shards[shard].size)

    def _tar(self, number: int) -> _Tar:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = self.shards[number]
        path = Path(self.location) / shard.name
        if self._fetched is not None:
            path = self._fetched.path(shard.name, shard.size)
        while len(self._open) >= self._open_files:
            self._open.popitem(last=False)[1].close()
        tar = self._open[number] = _Tar(path, shard)
        return tar

    def _read(self, name: str) -> bytes:
        if self._fetched is not None:
            return self._fetched.read(name, limits.TABLE_FILE)
        path = Path(self.location) / name
        if not path.exists():
            raise FocusError(f"{path}: no such file; expected a folder that focus prepare --shards has made")
        check_input(path, limits.TABLE_FILE)
        return path.read_bytes()


class _Tar:
    """A tar file whose members are read wherever they are; what else a tar file may have is refused."""

    def __init__(self, path: Path, shard: Shard) -> None:
        self._path = path
        size = check_input(path, limits.SHARD_FILE)
        if size != shard.size:
            raise FocusError(f"{path}: expected {shard.size} bytes, as {MANIFEST} says, got {size}: make it again")
        self._handle = os.open(path, os.O_RDONLY)
        try:
            self._members = self._index(size)
        except BaseException:
            os.close(self._handle)
            raise
        if len(self._members) != shard.faces:
            self.close()
            raise FocusError(f"{path}: expected {shard.faces} faces, got {len(self._members)}: make it again")

    def close(self) -> None:
        os.close(self._handle)

    def face(self, number: int, side: int, margin: int) -> CroppedFace:
        """A face whose picture has `side` pixels, `margin` of them on each side beyond the network's."""
        picture, text = (os.pread(self._handle, size, start) for start, size in self._members[number])
        where = f"{self._path}, face {number}"
        try:
            values = open_json(text)
            if hashlib.sha256(picture).hexdigest() != values["sha256"]:
                raise DamagedError("its picture does not match its checksum")
            points = np.array(values["landmarks"], dtype=np.float64)
            if points.shape not in ((68, 2), (5, 2)) or not np.isfinite(points).all():
                raise DamagedError("it has no landmarks")
            name, digest = str(values["name"]), str(values["photo_sha256"])
            int(digest[:16], 16)
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            raise FocusError(f"{where}: damaged ({error}): make the shard again") from error
        crop = decode_image(picture, where)
        if crop.shape != (side, side, 3):
            raise FocusError(f"{where}: expected a picture of {side} x {side} pixels, got {list(crop.shape)}")
        landmarks, weights = expand_to_68(points - margin)
        return CroppedFace(name, crop, landmarks, weights, digest)

    def _index(self, size: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """(start, bytes) of picture and text of each face."""
        found: list[tuple[str, tuple[int, int]]] = []
        position = 0
        while position + _BLOCK <= size:
            block = os.pread(self._handle, _BLOCK, position)
            if not block.strip(b"\0"):
                break  # the end of a tar file
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                raise FocusError(f"{self._path}: damaged at byte {position} ({error}): make it again") from error
            end = position + _BLOCK + member.size
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.size > limits.SHARD_FACE or end > size:
                raise FocusError(f"{self._path}: {member.name!r} is nothing that focus prepare --shards writes")
            found.append((member.name, (position + _BLOCK, member.size)))
            position = -(-end // _BLOCK) * _BLOCK
        pairs = list(zip(found[::2], found[1::2], strict=False))
        for (picture, _), (text, _) in pairs:
            if Path(picture).suffix not in (".jpg", ".png") or text != f"{Path(picture).stem}.json":
                raise FocusError(f"{self._path}: expected a picture and its .json, got {picture!r} and {text!r}")
        return [(first[1], second[1]) for first, second in pairs]


def write_shards(
    photos: Path,
    landmarks: Path,
    out: Path,
    image_size: int,
    *,
    faces: int = 1000,
    lossless: bool = False,
    workers: int = 1,
    notify: Callable[[int, int, str], None] = lambda done, count, name: None,
) -> tuple[list[Shard], list[Skip]]:
    """Makes the shards of a folder of photos, in an order that does not follow that of their names.

    A run that was stopped goes on where it was: a shard whose line is in the list is not made again.

    Args:
        photos, landmarks: see `PhotoFolder`.
        out: where they go; made if need be.
        image_size: S, side of the crops in pixels.
        faces: of a shard, at most.
        lossless: PNG in place of JPEG of quality 95: three to four times the size.
        workers: processes.
        notify: called with shards done, their number, and the name of the last one.

    Returns:
        All shards, and what was left out of them.

    Raises:
        FocusError: no photo is usable; the folder has shards of other photos or settings; the disk is full.
    """
    if image_size < MINIMUM_SIZE or faces < 1:
        raise FocusError(f"shards: expected at least {MINIMUM_SIZE} pixels and 1 face, got {image_size} and {faces}")
    rows, skipped = read_landmarks(landmarks)
    found = find_faces(photos, rows)
    skipped = [*skipped, *(face for face in found if isinstance(face, Skip))]
    usable = sorted((face for face in found if isinstance(face, Face)), key=_shuffled)
    jobs = [(number, usable[start : start + faces]) for number, start in enumerate(range(0, len(usable), faces))]
    source = hashlib.sha256()
    for face in usable:
        source.update(f"{face.name!r} ".encode() + face.points.astype("<f8").tobytes())
    head = {
        "format": _FORMAT,
        "image_size": image_size,
        "faces": faces,
        "lossless": lossless,
        "source": source.hexdigest(),
        "shards": len(jobs),
    }
    if not jobs:
        raise FocusError(f"{photos}: none of the {len(skipped)} rows of {landmarks} is of a photo that is there")
    out.mkdir(parents=True, exist_ok=True)
    done = _begin(out, head)
    left = [job for job in jobs if job[0] not in done]
    notify(len(done), len(jobs), "")
    work = _Work(out, image_size, ".png" if lossless else ".jpg")
    try:
        for index, shard in _answers(work, left, workers):
            if isinstance(shard, Lost):
                raise FocusError(f"{out}: {_name(left[index][0])} could not be made: {shard.reason}")
            done[left[index][0]] = shard
            _append(out / MANIFEST, _line(left[index][0], shard))
            notify(len(done), len(jobs), shard.name)
    except OSError as error:
        raise FocusError(
            f"{out}: cannot be written ({error.strerror or error}). What is whole is kept: make room, and run the same "
            "command again"
        ) from error
    skipped += [skip for number in sorted(done) for skip in done[number].skipped]
    if not any(shard.faces for shard in done.values()):
        raise FocusError(
            f"{photos}: none of the {len(skipped)} rows of {landmarks} gives a usable photo; "
            f"the first: {skipped[0].name}: {skipped[0].reason}"
        )
    return [done[number] for number in sorted(done)], skipped


@dataclass(frozen=True)
class _Work:
    """Makes one shard."""

    out: Path
    image_size: int
    suffix: str

    def __call__(self, job: tuple[int, Sequence[Face]], report: Callable[[Any], None]) -> Shard:
        number, faces = job
        path, skipped, count = self.out / _name(number), [], 0
        partial = path.with_name(f".{path.name}.part")
        try:
            with open(partial, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for face in faces:
                    try:
                        picture, values = self._face(face)
                    except FocusError as error:
                        skipped.append(Skip(face.name, str(error)))
                        continue
                    _add(tar, f"{count:06d}{self.suffix}", picture)
                    _add(tar, f"{count:06d}.json", seal_json(values).encode())
                    count += 1
            os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return Shard(path.name, count, path.stat().st_size, tuple(skipped))

    def _face(self, face: Face) -> tuple[bytes, dict[str, Any]]:
        photo = read_image(face.path)
        check_landmarks(face.points, photo, image_orientation(face.path), face.name)
        points = face.points if len(face.points) == 5 else five_from_68(face.points)
        alignment = margin_alignment(estimate_alignment(points, self.image_size))
        picture = encode_image(alignment.crop_image(photo), self.suffix)
        return picture, {
            "name": face.name,
            "landmarks": alignment.to_crop(face.points).tolist(),
            "photo_size": list(photo.shape[:2]),
            "scale": alignment.scale,
            "center": list(alignment.center),
            "photo_sha256": digest_input(face.path, limits.IMAGE_FILE),
            "sha256": hashlib.sha256(picture).hexdigest(),
        }


def _answers(work: _Work, jobs: Sequence[Any], workers: int) -> Any:
    if workers == 1 or len(jobs) < 2:
        return ((index, work(job, lambda value: None)) for index, job in enumerate(jobs))
    return run_each(work, jobs, workers=min(workers, len(jobs)))


def _shuffled(face: Face) -> bytes:
    """So that each shard is like the others, and a window of shards like all of them."""
    return hashlib.sha256(face.name.encode("utf-8", "surrogateescape")).digest()


def _name(number: int) -> str:
    return f"{number:06d}.tar"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _begin(out: Path, head: dict[str, Any]) -> dict[int, Shard]:
    """The shards that are there, after the list of them is made whole."""
    path = out / MANIFEST
    shards: dict[int, Shard] = {}
    if os.path.lexists(path):
        check_input(path, limits.TABLE_FILE)
        before, shards = _manifest(path.read_bytes(), str(path))
        if before is not None and before != head:
            raise FocusError(
                f"{out}: has shards of other photos, landmarks or settings ({MANIFEST}); name another folder, or "
                "empty this one"
            )
        shards = {
            number: shard
            for number, shard in shards.items()
            if before is not None and (out / shard.name).is_file() and (out / shard.name).stat().st_size == shard.size
        }
    lines = [seal_json(head), *(_line(number, shard) for number, shard in shards.items())]
    try:
        write_files({path: "".join(f"{line}\n" for line in lines).encode()})
    except OSError as error:
        raise FocusError(f"{path}: cannot be written: {error.strerror or error}") from error
    return shards


def _append(path: Path, line: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab") as file:
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _line(number: int, shard: Shard) -> str:
    skipped = [list(skip) for skip in shard.skipped]
    values = {"shard": number, "name": shard.name, "faces": shard.faces, "bytes": shard.size, "skipped": skipped}
    return seal_json(values)


def _manifest(data: bytes, where: str) -> tuple[dict[str, Any] | None, dict[int, Shard]]:
    """The first line, and the shards by number. A last line that a kill cut short is left out."""
    head: dict[str, Any] | None = None
    shards: dict[int, Shard] = {}
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            values = open_json(line)
            if head is None:
                if values["format"] != _FORMAT or not MINIMUM_SIZE <= int(values["image_size"]) <= 8192:
                    raise DamagedError("it is of another version of FOCUS")
                head = {**values, "shards": int(values["shards"])}
                continue
            index = int(values["shard"])
            if not 0 <= index < head["shards"] or int(values["faces"]) < 0:
                raise DamagedError("it is of no shard")
            skipped = tuple(Skip(str(name), str(reason)) for name, reason in values["skipped"])
            shards[index] = Shard(_name(index), int(values["faces"]), int(values["bytes"]), skipped)
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            if number == len(lines) - 1:
                break
            raise FocusError(f"{where}: line {number + 1} is damaged ({error}): make the shards again") from error
    return head, shards
