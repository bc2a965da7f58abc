"""Jobs in processes of their own. Starting one takes seconds, most of them for importing torch: few tests, several
things each.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from focus import parallel
from focus.errors import FocusError


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of jobs, which new interpreters find since they take over the search path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import parallel_jobs

    yield parallel_jobs
    sys.modules.pop("parallel_jobs", None)


def test_results_and_reports_come_back_by_name_and_in_order(jobs: Any) -> None:
    values = {name: torch.arange(3.0) + number for number, name in enumerate("ab")}
    reports: list[tuple[str, Any]] = []
    results = parallel.run_jobs(
        [parallel.Job(name, jobs.double, {"value": value}) for name, value in values.items()],
        workers=1,
        on_report=lambda name, value: reports.append((name, value)),
    )
    assert list(results) == ["a", "b"]
    for name, value in values.items():
        # The process is gone; what it sent must not live in its memory.
        assert torch.equal(results[name]["doubled"], 2 * value)
        assert (name, ("threads", 1)) in reports
    assert [name for name, _ in reports] == ["a", "a", "b", "b"]  # one worker: one after the other


def test_a_job_that_refuses_stops_the_others(jobs: Any) -> None:
    started = time.monotonic()
    with pytest.raises(FocusError, match="second: bad file"):
        parallel.run_jobs([parallel.Job("first", jobs.wait), parallel.Job("second", jobs.refuse)], workers=2)
    assert time.monotonic() - started < 50


def test_jobs_that_fail_may_leave_the_others_alone(jobs: Any) -> None:
    failures: dict[str, str] = {}
    value = torch.ones(2)
    results = parallel.run_jobs(
        [
            parallel.Job("dead", jobs.die),
            parallel.Job("refused", jobs.refuse),
            parallel.Job("good", jobs.double, {"value": value}),
        ],
        workers=2,
        failures=failures,
    )
    assert list(results) == ["good"]
    assert failures["refused"] == "bad file"
    assert "exit code 9" in failures["dead"]


@pytest.mark.parametrize(
    ("job", "error", "text"),
    [
        ("fail", RuntimeError, "a fault of ours"),
        ("die", FocusError, "exit code 9"),
        ("fill_disk", FocusError, r"broken: .*No space left on device: 'out/log.jsonl'"),
    ],
)
def test_faults_of_a_job_are_told_from_refusals(jobs: Any, job: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parallel.run_jobs([parallel.Job("broken", getattr(jobs, job))])


def test_workers_are_at_least_one(jobs: Any) -> None:
    with pytest.raises(FocusError, match="workers: expected at least 1, got 0"):
        parallel.run_jobs([parallel.Job("a", jobs.wait)], workers=0)


def test_processors_are_counted() -> None:
    assert parallel.processors() >= 1
