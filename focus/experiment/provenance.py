"""Where results come from: the machine and the state of the source."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from focus import parallel
from focus._version import __version__


def machine() -> str:
    """The machine in words: processor, cores in use, torch."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = parallel.processors()
    return f"{name}, {cores} core{'s' if cores > 1 else ''}, {platform.system()}, torch {torch.__version__}"


def commit() -> str:
    """The commit of the source tree that this package runs from or was built in, else its version.

    A tree with changes is marked with a plus sign.
    """
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        # An environment may lie in the tree of some other project.
        if (root / "focus" / "_version.py").read_text() != (here / "_version.py").read_text():
            return f"version {__version__}"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(root / "focus"), str(root / "csrc"))
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
