"""What a run tells, where it cannot be written or nobody reads it."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from focus.train.config import LogSettings
from focus.train.log import RunLogger, read_log

SETTINGS = LogSettings(every=1, tensorboard="off", pictures=0)


def logger_with(tmp_path: Path, **changes: Any) -> tuple[RunLogger, io.StringIO]:
    stream = io.StringIO()
    return RunLogger(tmp_path, replace(SETTINGS, **changes), console=Console(file=stream, width=200)), stream


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    logger, stream = logger_with(tmp_path)
    with logger:
        logger.scalars(1, "joint/segmentation", {"loss": 1.0, "odd": float("nan")})
        good = logger._file
        with open("/dev/full", "ab", buffering=0) as logger._file:
            for step in (2, 3):
                logger.scalars(step, "joint/segmentation", {"loss": 1.0})
        logger._file = good
        logger.scalars(4, "joint/segmentation", {"loss": 1.0})
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 4]
    assert np.isnan(read_log(tmp_path / "log.jsonl")[0]["odd"])
    told = stream.getvalue()
    assert told.count("log.jsonl cannot be written (No space left on device); training goes on without") == 1


def test_damaged_lines_of_a_log_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    logger, _ = logger_with(tmp_path)
    with logger:
        for step in range(1, 6):
            logger.scalars(step, "joint/segmentation", {"loss": 1.0})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"step": 2', '"step": 3')
    lines[2] = lines[2].replace("1.0", "1.5")
    old = json.dumps({"step": 1, "kind": "validation", "loss": 2.0})  # of before checksums
    odd = [json.dumps(value) for value in ([1], {"step": "1", "kind": "a"}, {"step": -1, "kind": "a"}, {"step": True})]
    (tmp_path / "log.jsonl").write_text("\n".join([old, *odd, *lines]) + "\n")
    for told in ("damaged lines were dropped: 6", ""):
        stream = io.StringIO()
        with RunLogger(tmp_path, SETTINGS, step=4, console=Console(file=stream, width=200)):
            pass
        assert told in stream.getvalue()
        assert stream.getvalue().count("\n") == bool(told)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == [old, lines[0], lines[3]]


def test_curves_and_pictures_that_cannot_be_written_end_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    (tmp_path / "pictures").write_text("in the way")
    logger, stream = logger_with(tmp_path, tensorboard="on", pictures=2)
    with logger:
        for step in (1, 2):
            logger.scalars(step, "joint/segmentation", {"loss": 1.0})
            logger.picture(step, "joint", np.zeros((4, 4, 3), np.uint8))
    assert stream.getvalue().count("TensorBoard curves cannot be written") == 1
    assert stream.getvalue().count("validation pictures cannot be written") == 1
    assert len(read_log(tmp_path / "log.jsonl")) == 2


def test_curves_on_a_full_disk_end_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger, stream = logger_with(tmp_path, tensorboard="on")
    with logger:
        assert logger._curves is not None
        with open("/dev/full", "wb", buffering=0) as full:
            logger._curves._writer._writer = full
            for step in (1, 2):
                logger.scalars(step, "joint/segmentation", {"loss": 1.0})
    assert stream.getvalue().count("TensorBoard curves cannot be written (No space left on device)") == 1


def test_curves_are_those_that_tensorboard_reads(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger, _ = logger_with(tmp_path, tensorboard="on")
    with logger:
        for step in range(1, 5):
            logger.scalars(step, "joint", {"loss": step / 2})
    with RunLogger(tmp_path, replace(SETTINGS, tensorboard="on"), step=2) as again:
        again.scalars(3, "joint", {"loss": 9.0})
    curves = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [(point.step, point.value) for point in curves.Scalars("joint/loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.EIO, "Input/output error"), ValueError("closed file")]
)
@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_needs_to_read_what_a_run_tells(tmp_path: Path, error: Exception, terminal: bool) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    console = Console(file=Gone(), force_terminal=terminal)
    with RunLogger(tmp_path, replace(SETTINGS, seconds_per_line=0.0), console=console) as logger:
        for step in (1, 2):
            logger.message("a line")
            logger.progress(step, 2, "joint", 3.0)
            logger.scalars(step, "joint", {"loss": 1.0})
    assert len(read_log(tmp_path / "log.jsonl")) == 2


def test_names_that_a_terminal_cannot_show_end_no_run(tmp_path: Path) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    with RunLogger(tmp_path, SETTINGS, console=console) as logger:
        logger.message("skipped Zoë.jpg")
    assert b"skipped Zo\\xeb.jpg" in raw.getvalue()
