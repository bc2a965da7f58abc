"""The command `focus`. Nothing heavy is imported before a command is chosen: `focus --help` answers at once."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from focus._version import __version__
from focus.errors import FocusError

COMMANDS = {
    "example": "Draw example photos with landmarks, true masks, a clip and a face model: something to try things on.",
    "demo": "Train four methods live on synthetic faces, compare them, and write a report.",
    "train": "Train on synthetic faces or on your photos, all stages in one go.",
    "fit": "Reconstruct the faces of photos without a trained network.",
    "reconstruct": "Reconstruct the faces of photos with a trained network.",
    "prepare": "Align and crop photos, and show what training would see.",
    "experiment": "Train, score and compare pipelines: the tables and figures of the paper.",
    "evaluate": "Score networks on synthetic faces, masks against true masks, meshes against scans, or runs together.",
    "model": "Describe, convert or draw a face model.",
    "doctor": "Check this installation: versions, CUDA, operators, disk.",
}

NOTHING_WRITTEN, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: the work was done and there is no result; something cannot be used; Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if given else REFUSED
    if given[0] == "--version":
        print(f"focus {__version__}")
        return 0
    name, rest = given[0], given[1:]
    as_json = "--json" in rest
    try:
        if name not in COMMANDS:
            raise FocusError(f"focus: no command {name!r}; expected one of {', '.join(COMMANDS)}")
        command = importlib.import_module(f"focus.cli.{name}").parse(rest)
        code: int = command.execute()
        return code
    except FocusError as error:
        return _refuse(str(error), as_json)
    except OSError as error:
        # A full disk, a folder that may not be written, a file that went away: the user's to mend, like FocusError.
        place = f"{error.filename}: " if error.filename else ""
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        return _refuse(place + ("is there, and no folder" if is_file else error.strerror or str(error)), as_json)
    except MemoryError as error:
        return _refuse(f"not enough memory ({error}); use smaller pictures, batches or models", as_json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _refuse(message: str, as_json: bool) -> int:
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        answer: dict[str, Any] = {"ok": False, "error": message}
        print(json.dumps(answer))
    return REFUSED


def _overview() -> str:
    return overview("focus", "A 3D face from one photo, and the pixels that are not that face.", COMMANDS)


def choose(program: str, text: str, commands: Mapping[str, str], arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command that the first argument names, and the other arguments.

    Without arguments, or with ``--help``, prints what there is and ends the process. Raises `FocusError` for a name
    that is none.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview(program, text, commands))
        raise SystemExit(0 if arguments else REFUSED)
    name, *rest = arguments
    if name not in commands:
        raise FocusError(f"{program}: no command {name!r}; expected one of {', '.join(commands)}")
    return name, rest


def overview(program: str, text: str, commands: Mapping[str, str]) -> str:
    """What ``--help`` says of a program that is a choice of commands."""
    width = max(map(len, commands)) + 4
    version = "     focus --version" if program == "focus" else ""
    lines = [f"usage: {program} COMMAND [OPTIONS]     {program} COMMAND --help{version}", "", text, ""]
    for name, line in commands.items():
        lines += textwrap.wrap(line, 96, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2))
    lines += ["", "Every command takes --json: one JSON object on standard output, everything else on standard error."]
    return "\n".join(lines)
