"""Arrays of numbers in HDF5 files, read in a process of its own: see `focus.face.hdf5_process`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from focus._optional import require
from focus.errors import FocusError
from focus.face import hdf5_process
from focus.files import check_input

_SECONDS = 60.0
_BYTES_PER_SECOND = 10e6
"""How slowly a file may be read, at most; on top of `_SECONDS`."""
_LONGEST_ANSWER = 1 << 16
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
_DTYPES = frozenset(
    f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
)
_DTYPES |= {"|i1", "|u1"}


def read_hdf5(path: Path, names: Collection[str], limit: int) -> dict[str, NDArray[Any]]:
    """Reads datasets of one or two dimensions of an HDF5 file; needs h5py.

    Nothing but this file is read: links, external storage, virtual datasets and plugins of filters are refused.

    Args:
        path: the file.
        names: of the datasets, with the groups that they are in.
        limit: bytes of the file, and of all datasets together.

    Raises:
        FocusError: one is missing or of another kind; the file is damaged or too large; or reading it crashed, took too
            long or too much memory.
    """
    size = check_input(path, limit)
    if importlib.util.find_spec("h5py") is None:
        require("h5py", extra="bfm", purpose="read Basel Face Models (.h5)")
    seconds = _SECONDS + size / _BYTES_PER_SECOND
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    # No plugins, and no threads of a linear algebra library, whose memory would count.
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-I",
        hdf5_process.__file__,
        os.fspath(path.absolute()),
        str(limit),
        str(int(seconds) + 1),
    ]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            [*command, *names], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
        )
    except OSError as error:
        raise FocusError(
            f"{path}: is read by a second Python ({sys.executable or 'unknown'}), which could not be started ({error})"
        ) from error
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    arrays, reason = None, ""
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(os.fsencode("\n".join(entry for entry in sys.path if isinstance(entry, str))))
            process.stdin.close()
        arrays, reason = _receive(process.stdout, names, limit)
    finally:
        timer.cancel()
        process.kill()
        code = process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    if arrays is not None:
        return arrays
    if not reason:
        # Its end came before its answer.
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"exit status {code}"
        what = f"did not end within {seconds:.0f} s" if late.is_set() else f"ended that process ({name})"
        reason = f"expected a Basel Face Model (HDF5), but reading it in a process of its own {what}; it is damaged"
    raise FocusError(f"{path}: {reason}")


def _receive(pipe: IO[bytes], names: Collection[str], limit: int) -> tuple[dict[str, NDArray[Any]] | None, str]:
    """The arrays, or why there are none; nothing where the answer breaks off. A process that a file took over may say
    anything: it is believed as little as the file.
    """
    line = pipe.readline(_LONGEST_ANSWER)
    try:
        answer = json.loads(line)
        if "missing" in answer:
            return None, f"h5py is needed, and importing it in a second Python failed ({str(answer['missing'])[:300]})"
        if "refused" in answer:
            return None, "".join(letter if letter.isprintable() else "?" for letter in str(answer["refused"])[:500])
        described = {str(name): (str(dtype), tuple(map(int, shape))) for name, dtype, shape in answer["arrays"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, ""
    total = 0
    arrays: dict[str, NDArray[Any]] = {}
    for name, (code, shape) in described.items():
        total += math.prod(shape) * 8
        if code not in _DTYPES or len(shape) > 2 or min(shape, default=0) < 0 or total > 8 * limit:
            return None, ""
        arrays[name] = array = np.empty(shape, dtype=code)
        view = array.reshape(-1).view(np.uint8).data
        while view:
            count = pipe.readinto(view)  # type: ignore[attr-defined]
            if not count:
                return None, ""
            view = view[count:]
    return (arrays, "") if arrays.keys() == set(names) else (None, "")
