"""Faces in shards, for more photos than a disk: aligned crops in tar files of a thousand or so, as WebDataset has them.

A folder has tar files and ``shards.jsonl``. A tar file has, for each face, a picture (``000012.jpg``, a crop with its
margin) and, behind it, ``000012.json``: its landmarks in pixels of the picture, whose it is, and checksums. The first
line of ``shards.jsonl`` says how all of them were made; then comes a line for each tar file that is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import tarfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.data.align import MINIMUM_SIZE
from focus.data.fetching import Fetched, is_remote
from focus.data.images import decode_image, encode_image
from focus.data.landmarks import Face, Skip, expand_to_68, find_faces, read_landmarks
from focus.data.photos import CroppedFace, cut, file_state, margin_alignment, margin_size
from focus.errors import FocusError
from focus.files import check_input, digest_input, write_files
from focus.lock import only_one
from focus.parallel import Lost, run_each
from focus.sealed import DamagedError, open_json, seal_json

MANIFEST = "shards.jsonl"
_FORMAT = 1
_BLOCK = 512
_DIGEST = re.compile("[0-9a-f]{64}")
_AGAIN = "delete it, and run focus prepare --shards again"


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    faces: int
    size: int
    """Bytes."""
    sha256: str
    """Of the file, in hexadecimal."""
    made_from: str
    """SHA-256 of what is known of its photos without reading them: names, points, sizes and times of change."""
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
        data = self._list()
        self.digest = hashlib.sha256(data).hexdigest()
        """SHA-256 of the list of shards, which has those of all of them, in hexadecimal."""
        self._fetched: Fetched | None = None
        if is_remote(location):
            # Other shards at the same address are kept in another folder.
            own = hashlib.sha256(f"{location} {self.digest}".encode()).hexdigest()[:16]
            self._fetched = Fetched(location, None if cache is None else cache / own, cache_bytes)
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
        while len(self._open) >= self._open_files:
            self._open.popitem(last=False)
        where = f"{self.location}/{shard.name}"
        tar = self._open[number] = _Tar(where, self._handle(shard), shard)
        return tar

    def _handle(self, shard: Shard) -> int:
        """A descriptor of a tar file."""
        if self._fetched is not None:
            return self._fetched.open(shard.name, shard.size)
        path = Path(self.location) / shard.name
        check_input(path, limits.SHARD_FILE)
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise FocusError(f"{path}: cannot be read: {error.strerror or error}") from error

    def _list(self) -> bytes:
        if is_remote(self.location):
            return Fetched(self.location, None, 0).read(MANIFEST, limits.TABLE_FILE)
        path = Path(self.location) / MANIFEST
        if not path.exists():
            raise FocusError(f"{path}: no such file; expected a folder that focus prepare --shards has made")
        check_input(path, limits.TABLE_FILE)
        return path.read_bytes()


class _Tar:
    """A tar file whose members are read wherever they are; what else a tar file may have is refused."""

    def __init__(self, where: str, handle: int, shard: Shard) -> None:
        self._where, self._handle = where, handle
        weakref.finalize(self, os.close, handle)
        size = os.fstat(handle).st_size
        if size != shard.size:
            raise FocusError(f"{where}: expected {shard.size} bytes, as {MANIFEST} says, got {size}: {_AGAIN}")
        self._members = self._index(size, shard.faces)
        if len(self._members) != shard.faces:
            raise FocusError(f"{where}: expected {shard.faces} faces, got {len(self._members)}: {_AGAIN}")

    def face(self, number: int, side: int, margin: int) -> CroppedFace:
        """A face whose picture has `side` pixels, `margin` of them on each side beyond the network's."""
        picture, text = (os.pread(self._handle, size, start) for start, size in self._members[number])
        where = f"{self._where}, face {number}"
        try:
            values = open_json(text)
            if hashlib.sha256(picture).hexdigest() != values["sha256"]:
                raise DamagedError("its picture does not match its checksum")
            points = _points(values["landmarks"])
            name, digest = values["name"], values["photo_sha256"]
            if not isinstance(name, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise DamagedError("it does not say of which photo it is")
        except (DamagedError, KeyError) as error:
            raise FocusError(f"{where}: damaged ({error}): {_AGAIN}") from error
        crop = decode_image(picture, where)
        if crop.shape != (side, side, 3):
            raise FocusError(f"{where}: expected a picture of {side} x {side} pixels, got {list(crop.shape)}")
        landmarks, weights = expand_to_68(points - margin)
        return CroppedFace(name, crop, landmarks, weights, digest)

    def _index(self, size: int, faces: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """(start, bytes) of picture and text of each face."""
        found: list[tuple[str, tuple[int, int]]] = []
        position = 0
        while position + _BLOCK <= size and len(found) <= 2 * faces:
            block = os.pread(self._handle, _BLOCK, position)
            if not block.strip(b"\0"):
                break  # the end of a tar file
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                raise FocusError(f"{self._where}: damaged at byte {position} ({error}): {_AGAIN}") from error
            end = position + _BLOCK + member.size
            ordinary = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if not ordinary or not 0 <= member.size <= limits.SHARD_FACE or end > size:
                raise FocusError(f"{self._where}: {member.name!r} is nothing that focus prepare --shards writes")
            found.append((member.name, (position + _BLOCK, member.size)))
            position = -(-end // _BLOCK) * _BLOCK
        pairs = list(zip(found[::2], found[1::2], strict=False))
        for (picture, _), (text, _) in pairs:
            if Path(picture).suffix not in (".jpg", ".png") or text != f"{Path(picture).stem}.json":
                raise FocusError(f"{self._where}: expected a picture and its .json, got {picture!r} and {text!r}")
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

    A run that was stopped goes on where it was: a shard whose line is in the list is not made again, unless one of its
    photos has changed.

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
    made_from = {number: _made_from(chosen) for number, chosen in jobs}
    with only_one(out, "making shards"):
        done = _begin(out, head, made_from)
        left = [job for job in jobs if job[0] not in done]
        notify(len(done), len(jobs), "")
        for index, shard in _answers(_Work(out, image_size, ".png" if lossless else ".jpg"), left, workers):
            number = left[index][0]
            if isinstance(shard, Lost):
                raise FocusError(f"{out}: {_name(number)} could not be made: {shard.reason}")
            done[number] = replace(shard, made_from=made_from[number])
            _append(out / MANIFEST, _line(number, done[number]))
            notify(len(done), len(jobs), shard.name)
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
        path = self.out / _name(number)
        partial = path.with_name(f".{path.name}.part")
        try:
            skipped, count = self._write(partial, faces)
            digest = digest_input(partial, limits.SHARD_FILE)
            os.replace(partial, path)
            return Shard(path.name, count, path.stat().st_size, digest, "", tuple(skipped))
        except OSError as error:
            raise _not_written(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _write(self, partial: Path, faces: Sequence[Face]) -> tuple[list[Skip], int]:
        """What was left out, and how many faces are in the file."""
        skipped, count = [], 0
        with open(partial, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for face in faces:
                    try:
                        picture, values = self._face(face)
                    except FocusError as error:
                        skipped.append(Skip(face.name, str(error)))
                        continue
                    _add(tar, f"{count:06d}{self.suffix}", picture)
                    _add(tar, f"{count:06d}.json", seal_json(values).encode())
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        return skipped, count

    def _face(self, face: Face) -> tuple[bytes, dict[str, Any]]:
        crop, alignment, size = cut(face, self.image_size)
        alignment, picture = margin_alignment(alignment), encode_image(crop, self.suffix)
        return picture, {
            "name": face.name,
            "landmarks": alignment.to_crop(face.points).tolist(),
            "photo_size": list(size),
            "scale": alignment.scale,
            "center": list(alignment.center),
            "photo_sha256": digest_input(face.path, limits.IMAGE_FILE),
            "sha256": hashlib.sha256(picture).hexdigest(),
        }


def _answers(work: _Work, jobs: Sequence[Any], workers: int) -> Any:
    if workers == 1 or len(jobs) < 2:
        return ((index, work(job, lambda value: None)) for index, job in enumerate(jobs))
    return run_each(work, jobs, workers=min(workers, len(jobs)))


def _shuffled(face: Face) -> tuple[bytes, str]:
    """So that each shard is like the others, and faces of one photo lie together."""
    return hashlib.sha256(face.photo.encode("utf-8", "surrogateescape")).digest(), face.name


def _made_from(faces: Sequence[Face]) -> str:
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{face.name!r} {file_state(face.path)} ".encode() + face.points.astype("<f8").tobytes())
    return digest.hexdigest()


def _not_written(path: Path, error: OSError) -> FocusError:
    advice = "; make room, and run the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return FocusError(f"{path}: cannot be written ({error.strerror or error}). What is whole is kept{advice}")


def _name(number: int) -> str:
    return f"{number:06d}.tar"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _begin(out: Path, head: dict[str, Any], made_from: Mapping[int, str]) -> dict[int, Shard]:
    """The shards that are there, after the list of them is made whole."""
    path = out / MANIFEST
    shards: dict[int, Shard] = {}
    others = [] if os.path.lexists(path) else sorted(out.glob("[0-9]*.tar"))
    if others:
        raise FocusError(f"{others[0]} is no shard of this folder, and would be replaced; choose another folder")
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
            if shard.made_from == made_from.get(number)
            and (out / shard.name).is_file()
            and (out / shard.name).stat().st_size == shard.size
        }
    lines = [seal_json(head), *(_line(number, shard) for number, shard in shards.items())]
    try:
        write_files({path: "".join(f"{line}\n" for line in lines).encode()})
    except OSError as error:
        raise _not_written(path, error) from error
    return shards


def _append(path: Path, line: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _not_written(path, error) from error


def _line(number: int, shard: Shard) -> str:
    values = {
        "shard": number,
        "name": shard.name,
        "faces": shard.faces,
        "bytes": shard.size,
        "sha256": shard.sha256,
        "made_from": shard.made_from,
        "skipped": [list(skip) for skip in shard.skipped],
    }
    return seal_json(values)


def _integer(value: Any, low: int, high: int) -> int:
    """Raises `DamagedError` for all but a whole number in a range."""
    if type(value) is not int or not low <= value <= high:
        raise DamagedError(f"expected a whole number from {low} to {high}, got {str(value)[:20]}")
    return value


def _text(value: Any) -> str:
    """Raises `DamagedError` for all but a text."""
    if not isinstance(value, str):
        raise DamagedError(f"expected a text, got {str(value)[:20]}")
    return value


def _points(value: Any) -> NDArray[np.float64]:
    """Raises `DamagedError` for all but landmarks: [68, 2] or [5, 2] numbers."""
    pairs = value if isinstance(value, list) and len(value) in (5, 68) else []
    numbers = [number for pair in pairs if isinstance(pair, list) and len(pair) == 2 for number in pair]
    if len(numbers) != 2 * len(pairs) or not pairs:
        raise DamagedError("it has no landmarks")
    if not all(type(number) in (int, float) and abs(number) <= _LARGEST_COORDINATE for number in numbers):
        raise DamagedError("its landmarks are no numbers, or far from the picture")
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


_LARGEST_COORDINATE = 1e6


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
                _integer(values["format"], _FORMAT, _FORMAT)
                _integer(values["image_size"], MINIMUM_SIZE, 8192)
                _integer(values["shards"], 1, 1_000_000)
                head = values
                continue
            index = _integer(values["shard"], 0, head["shards"] - 1)
            size = _integer(values["bytes"], 0, limits.SHARD_FILE)
            faces = _integer(values["faces"], 0, size // (2 * _BLOCK))
            skipped = tuple(Skip(_text(name), _text(reason)) for name, reason in values["skipped"])
            digest, made_from = _text(values["sha256"]), _text(values["made_from"])
            shards[index] = Shard(_name(index), faces, size, digest, made_from, skipped)
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            if number == len(lines) - 1:
                break
            raise FocusError(
                f"{where}: line {number + 1} is damaged ({error}): make the shards again in another folder"
            ) from error
    return head, shards
