"""The command `focus`. Nothing heavy is imported before a command is chosen: `focus --help` answers at once."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from focus._version import __version__
from focus.cli.streams import (
    Page,
    Stopped,
    complain,
    harmless,
    showing_everything,
    stoppable,
    uninterrupted,
    write_report,
)
from focus.errors import FocusError, fault, out_of_memory

if TYPE_CHECKING:
    from focus.cli.command import Command, Outcome

COMMANDS = {
    "example": "Draw example photos with landmarks, true masks, a clip and a face model: something to try things on.",
    "demo": "Train four methods live on synthetic faces, compare them, and write a report.",
    "train": "Train on synthetic faces or on your photos, all stages in one go.",
    "fit": "Reconstruct the faces of photos without a trained network.",
    "reconstruct": "Reconstruct the faces of photos with a trained network.",
    "landmarks": "Find the faces of photos and their landmarks, for all other commands.",
    "prepare": "Align and crop photos, and show what training would see.",
    "experiment": "Train, score and compare pipelines: the tables and figures of the paper.",
    "evaluate": "Score networks on synthetic faces, masks against true masks, meshes against scans, or runs together.",
    "model": "Describe, convert or draw a face model.",
    "export": "Write the networks of a checkpoint for programs without FOCUS: ONNX or torch.export.",
    "doctor": "Check this installation: versions, CUDA, operators, disk.",
}

NOTHING_WRITTEN, REFUSED, FAULT, INTERRUPTED = 1, 2, 70, 130
"""Exit codes: the work was done and there is no result, or not all of it; something cannot be used; a fault of FOCUS;
Ctrl-C. Other signals have 128 and their number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code of the process. Raises nothing.

    Args:
        arguments: what follows ``focus``; None: those of this process.
    """
    given = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    run = _Run()
    with showing_everything(), stoppable():
        try:
            run.go(given)
        except BaseException as error:
            with uninterrupted():
                run.failed(error)
        with uninterrupted():
            return run.report()


class _Run:
    """One call of `main`, from its arguments to its report."""

    def __init__(self) -> None:
        self.as_json = False
        self.name: str | None = None
        self.command: Command | None = None
        self.outcome: Outcome | None = None
        self.help: str | None = None
        self.error: str | None = None
        self.code = 0

    def go(self, given: Sequence[str]) -> None:
        """Does what the arguments say; raises what went wrong."""
        words = self._without_json(given)
        if not words or words[0] in ("-h", "--help", "help"):
            text = overview("focus", "A 3D face from one photo, and the pixels that are not that face.", COMMANDS)
            raise Usage(text, None if words else f"focus: expected one of {', '.join(COMMANDS)}, got nothing")
        if words[0] == "--version":
            raise Usage(f"focus {__version__}")
        name, rest = words[0], words[1:]
        if name not in COMMANDS:
            raise FocusError(f"focus: no command {name!r}; expected one of {', '.join(COMMANDS)}")
        module = importlib.import_module(f"focus.cli.{name}")
        self.name = f"{name} {rest[0]}" if rest and rest[0] in getattr(module, "CHOICES", ()) else name
        self.command = command = self._parse(module.parse, rest)
        self.name = command.called or name
        self.as_json = command.json = self.as_json or command.json
        # Whatever a library may print, the answer stays alone.
        with contextlib.redirect_stdout(sys.stderr) if self.as_json else contextlib.nullcontext():
            self.outcome = command.run()
        self.code, self.error = self.outcome.exit_code, self.outcome.error
        if self.error is not None and not self.outcome.told:
            complain(f"error: {harmless(self.error)}")

    def _without_json(self, given: Sequence[str]) -> list[str]:
        """The arguments but for ``--json``, which may stand anywhere before ``--``."""
        words: list[str] = []
        for position, word in enumerate(given):
            name, _, value = word.partition("=")
            if word == "--":
                return [*words, *given[position:]]
            if name != "--json":
                words.append(word)
                continue
            self.as_json = value.lower() not in ("false", "no", "0")
            if "=" in word and value.lower() not in ("true", "yes", "1", "false", "no", "0"):
                raise FocusError(f"--json: expected no value, true or false, got {value!r}")
        return words

    def _parse(self, parse: Callable[[Sequence[str]], Command], words: Sequence[str]) -> Command:
        """The command with its options. Raises `Usage` where the parser ends the process."""
        text = Page(None if self.as_json else sys.stdout)
        complaint = Page(None if self.as_json else sys.stderr)
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(complaint):
                return parse(words)
        except Usage:
            raise
        except SystemExit as end:
            if complaint.text():
                complain(complaint.text().rstrip())
            if not end.code:
                raise Usage(text.text()) from None
            problem = _unboxed(complaint.text() or text.text())
            raise Usage(None, problem or "the options cannot be used") from None

    def failed(self, error: BaseException) -> None:
        """Tells what went wrong; what was done before it is kept."""
        if isinstance(error, Usage):
            self.help, self.error, self.code = error.text, error.problem, REFUSED if error.problem else 0
            return
        self.error, self.code = _told(error)
        if self.code == FAULT:
            complain(harmless("".join(traceback.format_exception(error))).rstrip())
        complain(self.error if isinstance(error, KeyboardInterrupt) else f"error: {harmless(self.error)}")
        if self.command is not None:
            self.outcome = self.command.so_far()

    def report(self) -> int:
        """Writes the one thing that standard output is for; returns the exit code."""
        if self.as_json:
            text = f"{self._json()}\n"
        else:
            text = f"{self.help.rstrip()}\n" if self.help else ""
            if self.outcome is not None:
                from focus.cli.command import report

                text += report(self.outcome, self.error)
        problem = write_report(text) if text else None
        if problem is not None:
            complain(f"error: standard output cannot be written ({problem}); the work before it is done")
            return self.code or NOTHING_WRITTEN
        return self.code

    def _json(self) -> str:
        answer: dict[str, Any] = {"read": [], "written": [], "skipped": []}
        if self.outcome is not None:
            from focus.cli.command import as_json

            answer = as_json(self.outcome)
        head = {"ok": self.code == 0, "command": self.name, "focus": __version__, "error": self.error}
        if self.help:
            head["help"] = self.help
        return json.dumps({**head, **answer, **head}, allow_nan=False)


class Usage(SystemExit):
    """There is nothing to do but to say how a command is called.

    Attributes:
        text: for standard output; None where standard error has said it.
        problem: what is wrong with the call; None: it asked for help.
    """

    def __init__(self, text: str | None, problem: str | None = None) -> None:
        super().__init__(REFUSED if problem else 0)
        self.text, self.problem = text, problem


def _told(error: BaseException) -> tuple[str, int]:
    """What users are told of an exception, and the exit code."""
    if isinstance(error, FocusError):
        return str(error), REFUSED
    if isinstance(error, Stopped):
        return str(error), 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, SystemExit):  # of a library
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return f"ended with exit code {code}", code
    if out_of_memory(error):
        return f"not enough memory ({error}); use smaller pictures, batches or models", REFUSED
    if isinstance(error, OSError):
        # A full disk, a folder that may not be written, a file that went away: the user's to mend, like FocusError.
        place = f"{error.filename}: " if error.filename else ""
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        return place + ("is there, and no folder" if is_file else error.strerror or str(error)), REFUSED
    return f"{fault(error)}. This is a fault of FOCUS: please report it, with the lines above", FAULT


_FRAME = "\N{BOX DRAWINGS LIGHT VERTICAL}| "
_RULE = re.compile(r"[\u2500-\u257f+\-\s]*")


def _unboxed(text: str) -> str:
    """The message of the parser, which draws a frame with a title, and rules between message and hints; in one line."""
    blocks: list[list[str]] = [[]]
    framed = False
    for line in text.splitlines():
        inner = line.strip(_FRAME)
        if line[:1] in ("\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}", "+"):
            framed = True
        elif _RULE.fullmatch(inner):
            blocks.append([])
        else:
            blocks[-1].append(inner)
    messages = [" ".join(lines) for lines in blocks if lines]
    return "".join((messages if framed else messages[1:] or messages)[:1])


def choose(program: str, text: str, commands: Mapping[str, str], arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command that the first argument names, and the other arguments.

    Raises:
        Usage: there is none, or ``--help``.
        FocusError: a name that is no command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        problem = None if arguments else f"{program}: expected one of {', '.join(commands)}, got nothing"
        raise Usage(overview(program, text, commands), problem)
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
