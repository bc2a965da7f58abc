"""What commands have in common: how they parse, what they print, and when they fail."""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar, cast

import tyro
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from focus.bounds import check_fields
from focus.cli import COMMANDS, NOTHING_WRITTEN, REFUSED
from focus.cli.streams import Messages, Page, harmless, one_line
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.report.results import not_finite, plain

_SHOWN = 20
_SECONDS_PER_LINE = 20.0
_LONGEST, _SHORTEST, _OTHER_COLUMNS = 72, 16, 53
"""Characters of the text beside a bar, and of bar, percentage and times: what is too long takes the bar's place."""
T = TypeVar("T", bound="Command")


@dataclass
class Outcome:
    """What a command did."""

    read: list[str] = field(default_factory=list)
    """Inputs that were used, one line each."""
    written: list[Path] = field(default_factory=list)
    """Files that are there now."""
    skipped: list[Skip] = field(default_factory=list)
    """Inputs that were not used, and why."""
    details: dict[str, Any] = field(default_factory=dict)
    """More for ``--json``."""
    shown: list[RenderableType] = field(default_factory=list)
    """What `rich` prints for people."""
    good: bool | None = None
    """Whether the command did what it is for; None: if it wrote something."""
    code: int | None = None
    """Exit code, where neither 0 nor `NOTHING_WRITTEN` will do."""
    error: str | None = None
    """Why the command ended before its end, where what it did before counts."""
    told: bool = False
    """Whether people have read `error` already."""

    @property
    def exit_code(self) -> int:
        """Of the process."""
        if self.code is not None:
            return self.code
        if self.error is not None:
            return REFUSED
        good = bool(self.written) if self.good is None else self.good
        return 0 if good else NOTHING_WRITTEN


class SoFar(Protocol):
    """What has been done until now. A class: tyro 0.9 cannot read the type of a callable."""

    def __call__(self) -> Outcome: ...


@dataclass
class Command:
    """Base of all commands."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on standard output, everything else on standard error."""
    called: tyro.conf.Suppress[tyro.conf.Fixed[str]] = field(default="", init=False, repr=False, compare=False)
    """Name of the command, after ``focus``."""
    so_far: tyro.conf.Suppress[tyro.conf.Fixed[SoFar]] = field(
        default_factory=lambda: Outcome, init=False, repr=False, compare=False
    )
    """What is done already, for the report of a run that is cut short. Commands with long loops set it."""

    def run(self) -> Outcome:
        """Does the work. Raises `FocusError` for what the user must mend."""
        raise NotImplementedError


def parse_as(kind: type[T], name: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Options of a command, by `tyro`; what it cannot parse, and ``--help``, raise `SystemExit`.

    Raises:
        FocusError: a number out of its range (`focus.bounds`).
    """
    program, text = f"focus {name}", COMMANDS.get(name) or inspect.getdoc(kind)
    if default is None:
        command = tyro.cli(kind, prog=program, description=text, args=list(arguments))
    else:
        command = tyro.cli(kind, prog=program, description=text, args=list(arguments), default=default)
    command.called = name
    check_fields(command, lambda field: f"{program}: --{field.replace('_', '-')}")
    return command


def named_values(option: str, given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE of an option, in order.

    Raises:
        FocusError: something else, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, value = text.partition("=")
        # Names become names of files and of arrays in files, where a slash would make a folder.
        if not name or not value or "/" in name:
            raise FocusError(f"--{option}: expected NAME=VALUE, without a slash in NAME, got {text!r}")
        if name in found:
            raise FocusError(f"--{option}: {name} is given twice: {found[name]} and {value}; give each method a name")
        found[name] = value
    return found


def messages() -> Console:
    """Standard error: messages and progress, so that standard output holds nothing but results."""
    return Console(file=cast("TextIO", Messages()), highlight=False)


def say(text: str) -> None:
    """One line for people, on standard error."""
    messages().print(harmless(text), markup=False, soft_wrap=True)


def shortened(text: str, length: int) -> str:
    """A text without its middle, where it is longer: both ends of a name and of what follows it say most."""
    if len(text) <= length:
        return text
    end = length // 2
    return f"{text[: length - 1 - end]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - end :]}"


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, float, float, str], None]]:
    """Progress of several things at once: call the result with (name, done, total, text). Without a terminal,
    silent.
    """
    console = messages()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/dim]"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[text]}[/dim]"),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def update(name: str, done: float, total: float, text: str = "") -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(escape(one_line(name)), total=total, text="")
            room = min(_LONGEST, console.width - max(map(len, tasks)) - _OTHER_COLUMNS)
            shown = shortened(one_line(text), max(room, _SHORTEST))
            progress.update(tasks[name], completed=done, total=total, text=escape(shown))

        yield update


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int, str], None]]:
    """As `bars`; without a terminal, a line for each thing from time to time."""
    plain = not messages().is_terminal
    last_line: dict[str, float] = {}
    with bars() as update:

        def progress(name: str, done: int, total: int, text: str) -> None:
            update(name, done, total, text)
            now = time.monotonic()
            if plain and (done == total or now - last_line.get(name, now - 60) > _SECONDS_PER_LINE):
                last_line[name] = now
                say(f"{name}: {done}/{total} {text}")

        yield progress


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` says of an outcome. Numbers that are not finite are null, and named in ``not_finite``."""
    answer = {
        "read": outcome.read,
        "written": [str(path) for path in outcome.written],
        "skipped": [skip._asdict() for skip in outcome.skipped],
        **outcome.details,
    }
    odd = list(not_finite(answer))
    return cast("dict[str, Any]", plain({**answer, "not_finite": odd} if odd else answer))


def report(outcome: Outcome, error: str | None) -> str:
    """What people read of an outcome."""
    page = Page(sys.stdout)
    width = None if page.isatty() else max(Console(file=page).width, 160)  # tables in files and pipes are not cut
    console = Console(file=page, highlight=False, width=width)
    for item in outcome.shown:
        console.print(item)
    _print_list(console, "read", outcome.read)
    _print_list(console, "written", [str(path) for path in outcome.written])
    _print_list(console, "skipped", [f"{skip.name}: {skip.reason}" for skip in outcome.skipped], limit=None)
    if error is None and outcome.exit_code == NOTHING_WRITTEN:
        console.print("nothing was written" if outcome.good is None else "failed", style="bold red")
    return page.text()


def _print_list(console: Console, title: str, lines: Sequence[str], limit: int | None = _SHOWN) -> None:
    if not lines:
        return
    shown = lines if limit is None or len(lines) <= limit else lines[: limit - 1]
    console.print(f"{title} {len(lines)}", style="bold")
    for line in shown:
        console.print(f"  {one_line(line)}", markup=False, soft_wrap=True)
    if len(shown) < len(lines):
        console.print(f"  and {len(lines) - len(shown)} more")
