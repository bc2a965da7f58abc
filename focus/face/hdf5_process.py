"""The program that reads arrays of an HDF5 file in a process of its own; `focus.face.hdf5` starts it, as a script.

The HDF5 library is large, written in C, and was not made for files of strangers. Here it can open one file, may write
nothing, start nothing and load no plugins, has limits of memory and time, and whatever it does, the caller goes on.

Arguments: the file, the limit of bytes of all arrays, the limit of seconds; then the names of the arrays. ``sys.path``
comes on standard input, a line each. The answer goes to standard output: a line of JSON (the arrays, or what is wrong),
then the bytes of the arrays, one after another.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import resource
import sys
from typing import Any, NoReturn

_DEFLATE_RATIO = 1100
"""Deflate makes data at most 1,032 times as small; what claims more was never written."""
_FILTERS = {1: "deflate", 2: "shuffle", 3: "Fletcher's checksum"}
_WORKSPACE = 1 << 30
"""Bytes for the library itself, and for the structure of a file."""
_ITEM_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}


class _RefusalError(Exception):
    """Says what is wrong with the file."""


def _answer(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")


def _used() -> int:
    """Bytes of address space of this process."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return 4 << 30


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _lock_down(seconds: int, memory: int) -> None:
    """From here on one more file can be opened, and neither written nor started anything."""
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (handle + 1, handle + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_AS, _used() + memory)


def _dataset(h5py: Any, file: Any, name: str) -> Any:
    """The dataset of a name, reached by hard links alone."""
    group = file
    *_, last = parts = name.split("/")
    for part in parts:
        if not isinstance(group, h5py.Group) or part not in group:
            top = ", ".join(sorted(str(key)[:40] for key, _ in zip(file, range(10), strict=False)))
            raise _RefusalError(
                f"expected a Basel Face Model with the dataset {name}; it has {top or 'nothing'} at its top"
            )
        if group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise _RefusalError(f"{name} is a link out of its place, perhaps out of the file; links are not followed")
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        raise _RefusalError(f"expected a Basel Face Model with the dataset {name}; {last} is something else")
    return group


def _check(h5py: Any, name: str, dataset: Any, file_size: int) -> int:
    """Bytes of an array whose numbers all lie in this file, or `_RefusalError`."""
    creation = dataset.id.get_create_plist()
    if creation.get_external_count():
        raise _RefusalError(f"{name} has its numbers in another file; other files are not read")
    layout = creation.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise _RefusalError(f"{name} is made of parts of other datasets (a virtual dataset), which are not read")
    for number in range(creation.get_nfilters()):
        code = creation.get_filter(number)[0]
        if code not in _FILTERS:
            raise _RefusalError(
                f"{name} is compressed by filter {code}; expected one of {', '.join(_FILTERS.values())}"
            )
    if dataset.shape is None or len(dataset.shape) > 2:
        raise _RefusalError(f"{name}: expected an array of one or two dimensions, got {dataset.shape}")
    dtype = dataset.dtype
    if dtype.itemsize not in _ITEM_SIZES.get(dtype.kind, ()):
        raise _RefusalError(f"{name}: expected numbers, got {str(dtype)[:80]}")
    size: int = math.prod(dataset.shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    chunked = layout == h5py.h5d.CHUNKED
    if chunked:
        chunk = math.prod(creation.get_chunk()) * dtype.itemsize
        # The outer chunks may reach beyond the array.
        if chunk > 4 * size + (1 << 20):
            raise _RefusalError(f"{name} has {size} bytes in chunks of {chunk}")
    if stored > file_size or size > stored * (_DEFLATE_RATIO if chunked else 1):
        raise _RefusalError(
            f"{name} claims {size} bytes of numbers, of which {min(stored, file_size)} were ever written"
        )
    return size


def _read(h5py: Any, np: Any, path: str, limit: int, names: list[str]) -> None:
    with h5py.File(path, "r", locking=False) as file:
        datasets = {name: _dataset(h5py, file, name) for name in names}
        sizes = {name: _check(h5py, name, dataset, os.path.getsize(path)) for name, dataset in datasets.items()}
        total = sum(sizes.values())
        if total > limit:
            raise _RefusalError(f"expected at most {limit} bytes of arrays, got {total}")
        _limit(resource.RLIMIT_AS, _used() + _WORKSPACE + total)
        # All are read before the first is sent: the answer says that all are good.
        arrays = {name: np.ascontiguousarray(dataset[()]) for name, dataset in datasets.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    _answer({"arrays": described})
    for array in arrays.values():
        sys.stdout.buffer.write(array.data.cast("B") if array.size else b"")


def main() -> NoReturn:
    """Reads, answers, ends."""
    path, limit, seconds, *names = sys.argv[1:]
    sys.path[:] = sys.stdin.read().splitlines()
    try:
        import h5py
        import numpy as np
    except ImportError as error:
        _answer({"missing": str(error)})
    else:
        for encoding in ("ascii", "latin-1", "utf-8"):
            codecs.lookup(encoding)  # while their files can be opened
        try:
            _lock_down(int(seconds), _WORKSPACE)
            _read(h5py, np, path, int(limit), names)
        except _RefusalError as refusal:
            _answer({"refused": str(refusal)})
        except Exception as error:  # h5py raises many kinds for damaged files
            reason = f"it is damaged or something else: {str(error) or type(error).__name__}"[:300]
            _answer({"refused": f"expected a Basel Face Model (HDF5), but {reason}"})
    sys.stdout.flush()
    # Whatever the file did to the library, its last words are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
