"""Files in and out: inputs that are ordinary files of a bounded size; outputs that appear complete, or not at all."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedWriter
from pathlib import Path

from focus.errors import FocusError

_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
}


def check_input(path: str | os.PathLike[str], limit: int) -> int:
    """That a path (or the end of its links) is an ordinary file that can be read to its end.

    What could wait for ever (FIFOs, sockets, terminals) or has no end (devices) is refused by name.

    Args:
        path: of the file.
        limit: bytes that the file may have; see `focus.limits`.

    Returns:
        Its size in bytes.

    Raises:
        FocusError: missing, no ordinary file, empty (as those of the system that wait for their contents look), larger
            than the limit, or it may not be read.
    """
    handle = _open_input(Path(path), limit)
    try:
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    if size == 0:
        raise FocusError(f"{path}: the file is empty; expected one with contents. Copy it again")
    return size


def read_input(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of an input; at most `limit` of them are ever held.

    Raises:
        FocusError: as `check_input`; or the file grew beyond the limit while it was read.
    """
    path = Path(path)
    parts, left = [], limit + 1
    with open(_open_input(path, limit), "rb") as file:
        try:
            # What is asked for is allocated: not the whole limit. Files may grow, and those of /proc have no size.
            step = os.fstat(file.fileno()).st_size + 1
            while left > 0 and (part := file.read(min(left, step))):
                parts.append(part)
                left, step = left - len(part), 1 << 20
        except OSError as error:
            raise FocusError(f"{path}: cannot be read ({error.strerror or error})") from error
    data = b"".join(parts)
    if len(data) > limit:
        raise FocusError(f"{path}: has no end within {_size(limit)}, the limit for its kind; expected an ordinary file")
    return data


def digest_input(path: str | os.PathLike[str], limit: int) -> str:
    """The SHA-256 of an input, in hexadecimal digits, without holding it in memory.

    Raises:
        FocusError: as `read_input`.
    """
    path, size = Path(path), 0
    digest = hashlib.sha256()
    with open(_open_input(path, limit), "rb") as file:
        try:
            while piece := file.read(1 << 20):
                size += len(piece)
                if size > limit:
                    raise FocusError(f"{path}: has no end within {_size(limit)}, the limit for its kind")
                digest.update(piece)
        except OSError as error:
            raise FocusError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def read_text(path: str | os.PathLike[str], limit: int) -> str:
    """The text of an input: UTF-8, or UTF-16 where a byte-order mark says so; the mark is no part of it.

    Raises:
        FocusError: as `read_input`; or it is no such text.
    """
    data = read_input(path, limit)
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise FocusError(
            f"{Path(path)}: is no text in UTF-8, or in UTF-16 with a byte-order mark ({error.reason} at byte "
            f"{error.start}); save it as UTF-8"
        ) from error


def locate(folder: Path, name: str | os.PathLike[str]) -> Path:
    """The file or folder of a relative name, however the accents in it are composed.

    macOS writes them apart from their letters (NFD), other systems in one (NFC): a folder and a table that names its
    files may differ. Each part of the name is tried as it is, and in both forms.

    Args:
        folder: where it is.
        name: relative; its parts are taken one by one, ``..`` is not looked at.

    Returns:
        The path that exists, or ``folder / name``, which does not.
    """
    place = folder
    for part in Path(name).parts:
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        found = next((place / form for form in dict.fromkeys(forms) if os.path.lexists(place / form)), None)
        if found is None:
            return folder / name
        place = found
    return place


def _open_input(path: Path, limit: int) -> int:
    try:
        # Opening a FIFO would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise FocusError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        what = _kind(path)
        detail = f"is {what}" if what else f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise FocusError(f"{path}: {detail}; expected an ordinary file that you may read") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = _KINDS.get(stat.S_IFMT(status.st_mode), "no ordinary file")
            raise FocusError(f"{path}: is {what}; expected an ordinary file")
        if status.st_size > limit:
            raise FocusError(
                f"{path}: has {_size(status.st_size)}, more than the {_size(limit)} that a file of its kind may have"
            )
    except BaseException:
        os.close(handle)
        raise
    return handle


def _kind(path: Path) -> str | None:
    """What a path is where it is no ordinary file; None where it is one, or nobody can say."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB" if count >= 1 << 20 else f"{count:,} bytes"


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes files to temporary names and, when the last byte is on the disk, moves them to their own.

    A full disk leaves the files of before, or none. So does a kill, for a single file. Of several, the last one speaks
    for all: it is taken away before the first of the others changes and comes after all of them, so that wherever it
    is, what is beside it belongs to it. Files get the rights that the umask leaves.

    Args:
        contents: file to its bytes; the folders must exist.

    Raises:
        OSError: the file system refused, something that is no ordinary file is in the place of one, or another process
            is writing the same file; callers say what that means for their user.
    """
    partial: list[tuple[BufferedWriter, Path, Path]] = []
    for path in contents:
        _refuse_other_kinds(path)
    with contextlib.ExitStack() as stack:
        try:
            for path, data in contents.items():
                # One temporary name per file: what a killed process left is removed by the next one, not collected.
                temporary = path.with_name(f".{path.name}.partial")
                temporary.unlink(missing_ok=True)
                file = stack.enter_context(open(temporary, "xb"))
                partial.append((file, temporary, path))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with _without_the_last(list(contents)):
                for file, temporary, path in partial:
                    # Another writer took the name over with a file of its own, so that the two never mix.
                    if not (temporary.exists() and os.path.samestat(os.stat(temporary), os.fstat(file.fileno()))):
                        raise OSError(errno.EBUSY, "another process is writing the same file", str(path))
                    _aside(path).unlink(missing_ok=True)
                    os.replace(temporary, path)
        except BaseException:
            for _, temporary, _ in partial:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


@contextlib.contextmanager
def _without_the_last(paths: Sequence[Path]) -> Iterator[None]:
    """Takes the last of several files away. It comes back if nothing has happened to the others."""
    *firsts, last = paths
    before, others = _aside(last), [_identity(path) for path in firsts]
    if firsts and os.path.lexists(last):
        os.replace(last, before)
    try:
        yield
    except BaseException:
        if os.path.lexists(before) and [_identity(path) for path in firsts] == others:
            os.replace(before, last)
        raise


def _aside(path: Path) -> Path:
    """Where a file waits until those that it speaks for are written."""
    return path.with_name(f".{path.name}.before")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_other_kinds(path: Path) -> None:
    """A file may take the place of a file or of a link, not of a device, a FIFO or a folder."""
    what = None if path.is_symlink() else _kind(path)
    if what is not None:
        raise OSError(errno.EEXIST, f"{what} is in its place; expected an ordinary file or none", str(path))


def _sync_folder(folder: Path) -> None:
    """Makes new names outlive a power cut."""
    with contextlib.suppress(OSError):  # the files are in place already, and some file systems cannot do this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
