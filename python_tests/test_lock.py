"""One process at a time in a folder: the lock names who holds it, and ends with it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from focus.errors import FocusError
from focus.lock import only_one
from focus.train import Settings, train

HOLDER = """
    import sys, time
    from pathlib import Path
    from focus.lock import only_one
    with only_one(Path(sys.argv[1]), "training"):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in the folder `run`."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("held")
        yield process
        process.kill()


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    folder = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FocusError, match=rf"another training \(process {holder.pid} on .*, since 20.*\) is at work"):
        train(Settings.preset("small"), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(FocusError, match="is at work here"), only_one(link, "training"):
        pass
    with only_one(tmp_path / "other", "training"):  # another folder is another run
        pass
    holder.kill()
    holder.wait()
    with only_one(folder, "training") as note:
        assert note is None
        with pytest.raises(FocusError, match=rf"process {os.getpid()} "), only_one(folder, "training"):
            pass  # this process has it, too
    with only_one(folder, "training"):
        pass


@pytest.mark.parametrize("how", ["fork", "command"])
def test_children_do_not_keep_the_lock(tmp_path: Path, how: str) -> None:
    program = """
        import os, signal, subprocess, sys, time
        from pathlib import Path
        from focus.lock import only_one
        with only_one(Path(sys.argv[1]), "training"):
            if sys.argv[2] == "command":
                child = subprocess.Popen(["sleep", "60"], close_fds=False).pid
            else:
                begun, told = os.pipe()
                child = os.fork()
                if not child:
                    os.write(told, b"here")
                    time.sleep(60)
                    os._exit(0)
                os.read(begun, 4)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        try:
            with only_one(tmp_path, "training") as note:
                assert note is None
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)


def test_file_systems_without_locks_and_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with only_one(tmp_path, "training") as note:
            assert (
                note == f"{tmp_path}: this file system has no locks (No locks available): start no second training here"
            )
    opened = os.open

    def of_somebody_else(path: Any, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR and str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", of_somebody_else)
    with (
        only_one(tmp_path, "training"),
        pytest.raises(FocusError, match="at work here"),
        only_one(tmp_path, "training"),
    ):
        pass
    with pytest.raises(FocusError, match="cannot be written"), only_one(Path("/dev/null/a"), "training"):
        pass
