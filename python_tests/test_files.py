"""Files that appear complete or not at all, whatever happens while they are written."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus.data import write_image
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.files import check_input, read_input, write_files
from focus.report.files import write_together
from focus.train.checkpoint import Header, save_checkpoint
from focus.train.config import LogSettings
from focus.train.log import RunLogger


def _write_log(path: Path) -> None:
    (path.parent / "log.jsonl").touch()
    RunLogger(path.parent, LogSettings(tensorboard="off")).close()


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.png": lambda path: write_image(path, np.zeros((16, 16), np.uint8)),
    "a.focusmodel": lambda path: MorphableModel.procedural("small", 1, 1, 1).save(path),
    "a.json": lambda path: write_together(path.parent, {path.name: b"{}"}),
    "a.safetensors": lambda path: save_checkpoint(path, Header({}, "test", "0"), {}),
    "log.jsonl": _write_log,
}


def test_all_files_appear_with_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    contents = {tmp_path / "a": b"1" * 10, tmp_path / "b": b""}
    before = os.umask(0o027)
    try:
        write_files(contents)
    finally:
        os.umask(before)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents
    assert {stat.S_IMODE(path.stat().st_mode) for path in contents} == {0o640}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_files({first: b"old", second: b"old"})

    def full(path: Path, mode: str) -> Any:
        file = builtins.open(path, mode)  # noqa: SIM115 - handed on
        if "second" in path.name:
            os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        return file

    monkeypatch.setattr("focus.files.open", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        write_files({first: b"new", second: b"new" * 10_000})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"first": b"old", "second": b"old"}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("broken", ["open", "fsync", "replace"])
def test_every_writer_of_the_package_says_what_failed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / name
    path.write_bytes(b"old")
    if broken == "open":
        monkeypatch.setattr("focus.files.open", fail, raising=False)
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(FocusError, match=r"No space left on device.*(room|disk)") as caught:
        WRITERS[name](path)
    assert name in str(caught.value)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {name: b"old"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="Permission denied"):
            write_files({tmp_path / "file": b"new"})
    finally:
        tmp_path.chmod(0o700)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"file": b"old"}


def test_kills_do_not_pile_up_and_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_files({path: b"old"})
    script = """
        import os, signal, sys
        from pathlib import Path
        from focus.files import write_files
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        write_files({Path(sys.argv[1]): b"new" * 100})
    """
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], cwd=tmp_path, check=False)
        assert result.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"
        assert sorted(item.name for item in tmp_path.iterdir()) == [".file.partial", "file"]
    write_files({path: b"newer"})
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"file": b"newer"}


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    sync = os.fsync

    def other_writer(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        write_files({path: b"theirs"})

    monkeypatch.setattr(os, "fsync", other_writer)
    with pytest.raises(OSError, match="another process is writing the same file"):
        write_files({path: b"ours"})
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"file": b"theirs"}


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "missing", "nul", "loop", "large", "endless"])
def test_inputs_that_are_no_ordinary_files_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "nul":
        path = tmp_path / "in\0put"
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "large":
        path.write_bytes(b"12345")
    elif kind == "endless":
        path = Path("/proc/self/environ")  # of 0 bytes, and yet with contents
    words = {"fifo": "FIFO", "device": "device", "missing": "no such file", "large": "5 bytes", "endless": "no end"}
    for read in (check_input, read_input):
        expected = words.get(kind, kind if kind in ("socket", "folder") else "input")
        if (kind, read) == ("endless", check_input):
            expected = "is empty"  # as what waits for its contents looks; its readers would wait, too
        with pytest.raises(FocusError, match=expected):
            read(path, 4)


def test_an_ordinary_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"1234")
    (tmp_path / "link").symlink_to(path)
    assert check_input(tmp_path / "link", 4) == 4
    assert read_input(tmp_path / "link", 4) == b"1234"
