"""Work on many items in processes that stay."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from focus.errors import FocusError
from focus.parallel import Lost, run_each

Report = Callable[[Any], None]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find the functions below; last in the path, where the sources do not hide what is installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).resolve().parents[1])])


def square(item: int, report: Report) -> int:
    report(f"at {item}")
    return item * item


def process(item: int, report: Report) -> int:
    return os.getpid()


class Dies:
    """Its process is killed over one item, for the first or for every time."""

    def __init__(self, mark: Path, always: bool) -> None:
        self.mark, self.always = mark, always

    def __call__(self, item: int, report: Report) -> int:
        if item == 1 and (self.always or not self.mark.exists()):
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item


def refuses(item: int, report: Report) -> int:
    raise FocusError("nothing can be done")


def fails(item: int, report: Report) -> int:
    if item == 1:
        raise KeyError("x")
    return item


class Tidies:
    """Waits to be ended, and tidies up then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: int, report: Report) -> None:
        try:
            report("at work")
            while True:
                time.sleep(0.01)
        finally:
            (self.folder / f"tidy{item}").touch()


def test_answers_come_with_their_index_and_reports() -> None:
    told: list[tuple[int, Any]] = []
    found = dict(run_each(square, [3, 4, 5], workers=2, on_report=lambda index, value: told.append((index, value))))
    assert found == {0: 9, 1: 16, 2: 25}
    assert sorted(told) == [(0, "at 3"), (1, "at 4"), (2, "at 5")]
    assert list(run_each(square, [], workers=2)) == []


def test_processes_stay() -> None:
    assert len({pid for _, pid in run_each(process, list(range(6)), workers=2)} - {os.getpid()}) in (1, 2)


@pytest.mark.parametrize("always", [False, True])
def test_a_process_that_dies_is_replaced(always: bool, tmp_path: Path) -> None:
    found = dict(run_each(Dies(tmp_path / "mark", always), [0, 1, 2, 3], workers=2))
    lost = found.pop(1)
    assert found == {0: 0, 2: 2, 3: 3}
    assert isinstance(lost, Lost) == always
    assert not always or "died (exit code -9), twice" in lost.reason


def test_what_is_refused_is_refused_for_all() -> None:
    with pytest.raises(FocusError, match="nothing can be done"):
        list(run_each(refuses, [1, 2, 3], workers=2))
    with pytest.raises(FocusError, match="workers: expected at least 1"):
        list(run_each(square, [1], workers=0))


def test_faults_are_answers() -> None:
    found = dict(run_each(fails, [0, 1, 2], workers=1))
    assert isinstance(found.pop(1), Lost)
    assert found == {0: 0, 2: 2}


def test_who_stops_listening_ends_the_processes_which_tidy_up(tmp_path: Path) -> None:
    at_work: list[int] = []

    def heard(index: int, value: Any) -> None:
        at_work.append(index)
        if len(at_work) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_each(Tidies(tmp_path), [0, 1, 2], workers=2, on_report=heard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tidy0", "tidy1"]
