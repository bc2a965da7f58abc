"""The command line as users meet it: help, errors, exit codes, JSON."""

from __future__ import annotations

import errno
import importlib
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from focus import __version__
from focus.cli import COMMANDS, FAULT, INTERRUPTED, NOTHING_WRITTEN, REFUSED, command, main
from focus.cli.command import Command, Outcome
from focus.cli.evaluate import CHOICES
from focus.cli.streams import Stopped
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.experiment import EXPERIMENTS


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from focus.cli import main; status = main(['--help']);"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'PIL'} & set(sys.modules); sys.exit(status or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert all(name in done.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"focus {__version__}\n"


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == REFUSED
    assert main(["paint", "--json"]) == REFUSED
    streams = capsys.readouterr()
    assert "no command 'paint'" in streams.err
    assert json.loads(streams.out.splitlines()[-1]) == {
        "ok": False,
        "command": None,
        "focus": __version__,
        "error": f"focus: no command 'paint'; expected one of {', '.join(COMMANDS)}",
        "read": [],
        "written": [],
        "skipped": [],
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"focus {name}" in text
    assert "--json" in text


INTERNAL = [field.name for field in fields(Command) if not field.init]


@pytest.mark.parametrize(
    "words",
    [[name] for name in COMMANDS]
    + [["evaluate", name] for name in CHOICES]
    + [["experiment", name] for name in EXPERIMENTS],
    ids=" ".join,
)
def test_help_shows_nothing_internal(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert INTERNAL
    assert [name for name in INTERNAL if re.search(rf"--(no-)?{name.replace('_', '-')}\b", text)] == []


@pytest.mark.parametrize("name", ["demo", "train", "fit", "reconstruct", "prepare"])
def test_missing_options_end_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == REFUSED
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["fit"], "fit"),
        (["evaluate", "masks"], "evaluate masks"),
        (["experiment", "table2"], "experiment table2"),
        (["evaluate", "nothing"], "evaluate"),
        (["evaluate"], "evaluate"),
    ],
    ids=str,
)
def test_refusals_name_the_command(words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json", "--no-such-option"]) == REFUSED
    assert json.loads(capsys.readouterr().out)["command"] == name


@dataclass
class Example(Command):
    """What a command may end with, without doing any work."""

    outcome: Outcome | None = None
    error: BaseException | None = None

    def run(self) -> Outcome:
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome


def run_example(monkeypatch: pytest.MonkeyPatch, example: Example, *arguments: str) -> int:
    module = importlib.import_module("focus.cli.doctor")
    monkeypatch.setattr(module, "parse", lambda given: example)
    return main(["doctor", *arguments])


def test_outcome_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(
        read=["a.jpg"],
        written=[Path(f"out/{i}.ply") for i in range(30)],
        skipped=[Skip(f"{i}.jpg", "[red]damaged[/red]") for i in range(30)],
    )
    assert run_example(monkeypatch, Example(outcome=outcome)) == 0
    text = capsys.readouterr().out
    assert "read 1" in text
    assert "written 30" in text
    assert "and 11 more" in text
    assert text.count("[red]damaged[/red]") == 30  # every skipped thing is listed, as it is


def test_outcome_for_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(["a"], [Path("b")], [Skip("c", "d")], {"score": 1.5}, shown=["for people"])
    assert run_example(monkeypatch, Example(json=True, outcome=outcome), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "command": "doctor",
        "focus": __version__,
        "error": None,
        "read": ["a"],
        "written": ["b"],
        "skipped": [{"name": "c", "reason": "d"}],
        "score": 1.5,
    }


def test_nothing_written_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(skipped=[Skip("a.jpg", "no such file")])
    assert run_example(monkeypatch, Example(outcome=outcome)) == NOTHING_WRITTEN
    assert "nothing was written" in capsys.readouterr().out
    assert run_example(monkeypatch, Example(outcome=Outcome(good=True))) == 0
    assert run_example(monkeypatch, Example(outcome=Outcome(written=[Path("x")], good=False))) == NOTHING_WRITTEN


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (FocusError("photo.jpg: truncated"), REFUSED, "error: photo.jpg: truncated"),
        (OSError(errno.ENOSPC, "No space left on device", "/out/x"), REFUSED, "error: /out/x: No space left on device"),
        (FileExistsError(errno.EEXIST, "File exists", "/out"), REFUSED, "error: /out: is there, and no folder"),
        (MemoryError("8 TiB"), REFUSED, "error: not enough memory (8 TiB); use smaller pictures, batches or models"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            REFUSED,
            "error: not enough memory ([enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes); "
            "use smaller pictures, batches or models",
        ),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (Stopped(signal.SIGHUP), 129, "stopped by SIGHUP"),
    ],
)
def test_errors_have_no_traceback(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_example(monkeypatch, Example(error=error)) == code
    streams = capsys.readouterr()
    assert streams.err == f"{text}\n"
    assert "Traceback" not in streams.out


def test_our_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_example(monkeypatch, Example(json=True, error=ZeroDivisionError("by nought")), "--json") == FAULT
    streams = capsys.readouterr()
    assert "Traceback" in streams.err
    assert "please report it" in streams.err
    assert "ZeroDivisionError: by nought" in json.loads(streams.out)["error"]


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with command.bars() as update:
        update("photos", 1, 2, "[odd] name")
        update("photos", 2, 2, "")
    command.say("a line")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "a line" in streams.err


@pytest.mark.parametrize(
    ("text", "length", "shown"),
    [("a.jpg (1 of 2)", 14, "a.jpg (1 of 2)"), ("IMG_2024_portrait.jpg (1 of 2)", 16, "IMG_202…(1 of 2)")],
)
def test_long_names_beside_a_bar_lose_their_middle(text: str, length: int, shown: str) -> None:
    assert command.shortened(text, length) == shown
    assert len(shown) <= length
