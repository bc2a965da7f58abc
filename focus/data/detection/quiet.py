"""Native libraries that write to the standard error of the process, kept from doing so."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

# Lines of absl and glog (I0000 00:00:1 ...), of TensorFlow Lite (INFO: ...) and of TensorFlow (2024-01-01 ... : I).
_LOG = re.compile(
    rb"([IWEF]\d{4} [\d:.]+ .*|(INFO|WARNING|ERROR): .*|\d{4}-\d\d-\d\d [\d:.]+: [IWEF] .*|\*\*\* .*)?\r?\n?"
)
_KEPT = 1 << 16
"""Bytes of other text that are passed on."""


@contextlib.contextmanager
def quiet_natives() -> Iterator[None]:
    """What native code logs in a block is dropped; anything else that was written meanwhile appears after it.

    Levels of logging do not do it: absl and TensorFlow Lite write before anybody can set them. Where standard error is
    closed there is nothing to do. Warnings of Python are about the libraries' own, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _dropped_logs():
            yield


@contextlib.contextmanager
def _dropped_logs() -> Iterator[None]:
    try:
        before = os.dup(2)
    except OSError:
        yield
        return
    try:
        with tempfile.TemporaryFile() as caught:
            _flush()
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                _flush()
                os.dup2(before, 2)
                caught.seek(0)
                lines = caught.read(_KEPT).splitlines(keepends=True)
                ours = b"".join(line for line in lines if not _LOG.fullmatch(line))
                with contextlib.suppress(OSError):
                    os.write(2, ours)
    finally:
        os.close(before)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
