"""What a command says and to whom, whatever its streams can show: one JSON object, whole reports, no traceback."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus.bounds import Within, bounded_fields, check_number
from focus.cli import COMMANDS, FAULT, NOTHING_WRITTEN, REFUSED, main
from focus.cli.command import Command, Outcome, as_json, report
from focus.cli.evaluate import CHOICES
from focus.data.landmarks import Skip
from focus.demo import DemoSettings
from focus.errors import FocusError
from focus.eval.now import NowSettings
from focus.experiment import EXPERIMENTS, ExperimentSettings
from focus.experiment.runs import TestSettings
from focus.fit import FitSettings

WORDS = [
    *([name] for name in COMMANDS if name not in ("evaluate", "experiment")),
    *(["evaluate", name] for name in CHOICES),
    *(["experiment", name] for name in EXPERIMENTS),
]
"""Of every command and of every one below it."""

FIXED = {"ok", "command", "focus", "error", "read", "written", "skipped"}


def only_json(text: str) -> dict[str, Any]:
    """The one object that standard output holds."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    assert text.count("\n") == 1
    assert text.isascii()
    answer: dict[str, Any] = json.loads(text, parse_constant=refuse)
    assert set(answer) >= FIXED
    return answer


@pytest.mark.parametrize("words", [[], ["evaluate"], ["experiment"], *WORDS], ids=" ".join)
@pytest.mark.parametrize(
    "more",
    [
        ["--help"],
        ["--no-such-option"],
        ["--out"],
        ["--json=maybe"],
        ["--seed", "x"],
        ["\udcff\x1b[31m"],
        ["--", "--json"],
    ],
    ids=lambda more: ascii(" ".join(more)),
)
def test_every_command_answers_with_one_json_object(
    words: list[str],
    more: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if words == ["doctor"] and more[0] == "--":
        more = ["--help"]
    for given in (["--json", *words, *more], [*words, "--json=true", *more], [*words[:1], "--json", *words[1:], *more]):
        code = main(given)
        streams = capsys.readouterr()
        answer = only_json(streams.out)
        assert answer["ok"] == (code == 0), given
        assert "Traceback" not in streams.err
        if more == ["--help"]:
            assert (code, answer["error"]) == (0, None)
            assert f"focus {' '.join(words)}".strip() in answer["help"]
        else:
            assert code == REFUSED
            assert answer["error"]
            assert "\N{BOX DRAWINGS LIGHT VERTICAL}" not in answer["error"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_what_is_missing_is_named_without_json_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--no-such-option", "1"]) == REFUSED
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: focus {' '.join(words)} ")


def test_json_can_be_switched_off_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json=no", "--version"]) == 0
    assert capsys.readouterr().out.startswith("focus ")


def commands() -> Iterator[type[Command]]:
    for words in WORDS:
        module = importlib.import_module(".".join(["focus.cli", *words[: 2 if words[0] == "evaluate" else 1]]))
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Command) and kind.__module__ == module.__name__:
                yield kind


SETTINGS = (FitSettings, DemoSettings, ExperimentSettings, TestSettings, NowSettings)
NUMBERS = ("int", "float")
TRAINING = {"scale"}
"""Options of focus train that its settings check."""


def numeric_fields(kind: type[Any]) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        text = str(field.type)
        if any(number in text.replace("[", " ").replace(",", " ").replace("]", " ").split() for number in NUMBERS):
            yield field.name


def test_every_number_that_users_set_has_a_range() -> None:
    kinds = [*dict.fromkeys(commands()), *SETTINGS]
    assert len(kinds) > 20
    for kind in kinds:
        left = set(numeric_fields(kind)) - set(bounded_fields(kind))
        assert left == (TRAINING if kind.__name__ == "Train" else set()), kind


ODD = [float("nan"), float("inf"), -float("inf"), -1, 0, 1e30, -1e30, 10**40, 0.5, True, "1", 2**63, 1e-30]


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_settings_take_what_they_declare_and_refuse_the_rest_by_name(kind: type[Any], value: Any) -> None:
    required = {"name": "ablation", "out": Path("out")}
    given = {field.name: required[field.name] for field in dataclasses.fields(kind) if field.name in required}
    for name, (within, whole) in bounded_fields(kind).items():
        several = isinstance(getattr(kind(**given), name), tuple)
        number = not isinstance(value, (bool, str)) and within.low <= value <= within.high
        if number and not (whole and not isinstance(value, int)):
            kept = getattr(kind(**given, **{name: (value,) if several else value}), name)
            assert kept == ((value,) if several else value)
        else:
            with pytest.raises(FocusError, match=f"{name}: expected a (whole )?number from"):
                kind(**given, **{name: (value,) if several else value})


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_options_out_of_range_are_refused_before_the_work(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    needed = {
        "out": tmp_path / "out", "landmarks": "l.csv", "checkpoint": "c", "truth": "t", "scans": "s", "images": "i",
        "predictions": "a=b", "photos": "p",
    }  # fmt: skip
    kind = next(kind for kind in commands() if _is_of(kind, words))
    numbers = [*bounded_fields(kind).items(), *(bounded_fields(FitSettings).items() if words == ["fit"] else [])]
    given, first = [], []
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
            continue
        if "Positional" in str(field.type):
            first.append("a")
        else:
            given.append(f"--{field.name.replace('_', '-')}={needed[field.name]}")
    for name, (within, _) in numbers:
        for value in ("nan", "inf", str(-(10**30)), str(10**30), "1e30"):
            assert not (within.low <= float(value) <= within.high)
            code = main(["--json", *words, *first, *given, f"--{name.replace('_', '-')}", value])
            error = only_json(capsys.readouterr().out)["error"]
            assert code == REFUSED
            assert name.replace("_", "-") in error or name in error, (name, value, error)
    assert not (tmp_path / "out").exists()


def _is_of(kind: type[Command], words: list[str]) -> bool:
    return kind.__name__.lower() == words[-1] and words[0] in kind.__module__


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), np.array(3), 3])
def test_whole_numbers_of_numpy(value: Any) -> None:
    assert check_number("n", value, Within(1, 3), whole=True) == 3
    assert type(check_number("n", value, Within(1, 3), whole=True)) is int
    assert type(check_number("n", np.float32(2.5), Within(1, 3), whole=False)) is float
    for odd in (np.float64(3), np.array([3]), np.bool_(True), None, "3", np.int64(4)):
        with pytest.raises(FocusError, match="n: expected a whole number from 1 to 3"):
            check_number("n", odd, Within(1, 3), whole=True)


def test_answers_hold_what_json_can_hold() -> None:
    outcome = Outcome(
        read=["\udcff"],
        details={
            "a": np.float32(0.5),
            "b": float("nan"),
            "c": {"d": [np.inf, Path("x"), np.arange(2)]},
            "e": (1, None),
        },
    )
    answer = as_json(outcome)
    json.dumps(answer, allow_nan=False)
    assert answer["c"] == {"d": [None, "x", [0, 1]]}
    assert answer["not_finite"] == ["b", "c.d.0"]
    assert "not_finite" not in as_json(Outcome(details={"a": 1.0}))


ODD_NAMES = [
    "a\nb.png",
    "\x1b[31mred\x1b[0m",
    "\udcff.png",
    "ü\u2028\N{GRINNING FACE}.png",
    "[bold]x[/x]",
    "\x00\x7f\x9b",
]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_reports_of_any_name_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("focus.cli.doctor")

    class Example(Command):
        def run(self) -> Outcome:
            from rich.text import Text

            return Outcome(
                read=ODD_NAMES,
                written=[Path(name) for name in ODD_NAMES],
                skipped=[Skip(name, name) for name in ODD_NAMES],
                details={"names": ODD_NAMES},
                shown=[Text("\N{DEGREE SIGN} \N{GREEK SMALL LETTER ALPHA}")],
            )

    monkeypatch.setattr(module, "parse", lambda words: Example())
    for arguments in (["doctor"], ["doctor", "--json"]):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert main(arguments) == 0
        assert stream.errors == "strict"
        text = raw.getvalue().decode(encoding)
        if arguments == ["doctor"]:
            assert "\x1b" not in text
            assert r"a\x0ab.png" in text
            assert text.count("[bold]x[/x]") == 4
            assert "written 6" in text
        else:
            answer = only_json(text)
            assert answer["names"] == ODD_NAMES
            assert [os.fsencode(path) for path in answer["written"]] == [os.fsencode(Path(n)) for n in ODD_NAMES]


def test_a_report_that_cannot_be_written_is_a_failure_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        error: OSError = OSError(28, "No space left on device")

        def write(self, text: str) -> int:
            raise self.error

    module = importlib.import_module("focus.cli.doctor")

    class Example(Command):
        def run(self) -> Outcome:
            return Outcome(written=[Path("x")])

    monkeypatch.setattr(module, "parse", lambda words: Example())
    for arguments in (["doctor"], ["doctor", "--json"], ["--help"], ["fit", "--help"], ["--version"]):
        for stream in (Full(), None):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", stream)
                assert main(arguments) == NOTHING_WRITTEN
            error = capsys.readouterr().err
            assert error.count("standard output cannot be written") == 1
            assert "Traceback" not in error
        gone = Full()
        gone.error = BrokenPipeError(32, "Broken pipe")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", gone)
            assert main(arguments) == 0
        assert capsys.readouterr().err == ""


def test_messages_never_stop_the_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from focus.cli.command import bars, say

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def isatty(self) -> bool:
            return True

    module = importlib.import_module("focus.cli.doctor")

    class Example(Command):
        def run(self) -> Outcome:
            say("a line")
            with bars() as update:
                update("[/x]", 1, 2, "[bold] name [/y]")
            return Outcome(good=True, read=["x"])

    monkeypatch.setattr(module, "parse", lambda words: Example())
    for stream in (Full(), None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            assert main(["doctor", "--json"]) == 0
        only_json(capsys.readouterr().out)


def test_whatever_libraries_print_does_not_spoil_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("focus.cli.doctor")

    class Example(Command):
        def run(self) -> Outcome:
            print("chatter")
            return Outcome(good=True)

    monkeypatch.setattr(module, "parse", lambda words: Example())
    assert main(["doctor", "--json"]) == 0
    streams = capsys.readouterr()
    only_json(streams.out)
    assert "chatter" in streams.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_real_streams(tmp_path: Path) -> None:
    program = f"{sys.executable} -m focus"
    for script, code, expected in (
        (f"{program} --help >/dev/full", NOTHING_WRITTEN, "No space left on device"),
        (f"{program} --help >&-", NOTHING_WRITTEN, "it is closed"),
        (f"set -o pipefail; {program} --help | true", 0, ""),
        (f"{program} paint --json 2>&- | {sys.executable} -m json.tool > /dev/null; exit ${{PIPESTATUS[1]}}", 0, ""),
        (f"PYTHONIOENCODING=ascii {program} $'\\xff\\u00fc'", REFUSED, "no command"),
        (f"{sys.executable} -m focus.cli --version", 0, ""),
    ):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == code, (script, done.stderr)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_text_reports_end_with_what_failed() -> None:
    assert "nothing was written" in report(Outcome(), None)
    assert "nothing was written" not in report(Outcome(), "it stopped")
    assert FAULT > REFUSED


def test_a_second_import_of_the_package_works(tmp_path: Path) -> None:
    code = """
        import gc, importlib, sys
        import torch
        import focus
        from focus import ops as first
        importlib.reload(focus)
        vertices = torch.rand(1, 5, 3, requires_grad=True)
        faces = torch.tensor([[0, 1, 2], [2, 3, 4]])
        expected = first.vertex_normals(vertices, faces)
        for name in [name for name in sys.modules if name.partition(".")[0] == "focus"]:
            del sys.modules[name]
        from focus import ops as second
        assert second is not first
        del first
        gc.collect()
        found = second.vertex_normals(vertices, faces)
        found.sum().backward()
        assert torch.equal(found, expected)
        for name in [name for name in sys.modules if name.startswith("focus.ops")]:
            importlib.reload(sys.modules[name])
            gc.collect()
        again = importlib.import_module("focus.ops")
        assert torch.equal(again.vertex_normals(vertices, faces), expected)
        again.rasterize(1 + vertices, faces, (8, 8)).depth.sum().backward()
        importlib.import_module("focus.face").MorphableModel.procedural("small", 2, 2, 2)
    """
    command = [sys.executable, "-W", "error", "-c", inspect.cleandoc(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_standard_output_that_was_exchanged_for_a_pipe(tmp_path: Path) -> None:
    program = """
        import os, sys, tempfile
        with tempfile.TemporaryFile("w") as file:
            reading, writing = os.pipe()
            os.dup2(file.fileno(), 1)
            sys.stdout = open(1, "w", closefd=False)
            print("in the file", flush=True)
            os.dup2(writing, 1)  # sys.stdout still takes it for a file
            from focus.cli import main
            code = main(["fit", "--json"])
            os.close(writing), os.close(1)
            answer = os.read(reading, 1 << 16)
            os.write(2, answer)
            os._exit(code)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=False, timeout=100, cwd=tmp_path
    )
    assert run.returncode == REFUSED
    assert b"Traceback" not in run.stderr
    assert b'{"ok": false' in run.stderr
