"""`focus fit` when something goes wrong: what it says, what it keeps, and where it may write."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focus.cli import FAULT, INTERRUPTED, NOTHING_WRITTEN, REFUSED, main
from focus.face import MorphableModel
from focus.fit import FitSettings, PhotoFitter, folder
from focus.reconstruction import RESULT_SUFFIXES, Reconstruction

QUICK = ["--model", "procedural-small", "--image-size", "32", "--coarse-steps", "1", "--fine-steps", "1"]


def fit(photos: Path, out: Path, *more: object) -> list[str]:
    return [
        "fit",
        str(photos),
        "--landmarks",
        str(photos / "landmarks.csv"),
        "--out",
        str(out),
        *QUICK,
        *map(str, more),
    ]


def answer_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["--json", *arguments]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (code == 0)
    return answer


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, photo: str = "b.png") -> None:
    plain = PhotoFitter.__call__

    def call(self: PhotoFitter, image: Any, landmarks: Any, **options: Any) -> Reconstruction:
        if Path(image).name == photo:
            raise error
        return plain(self, image, landmarks, **options)

    monkeypatch.setattr(PhotoFitter, "__call__", call)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("9 TiB"), 0, "not enough memory (9 TiB)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 0, "not enough memory (CUDA"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 0, "not enough memory (Default"),
        (RuntimeError("sizes differ"), NOTHING_WRITTEN, "RuntimeError: sizes differ"),
        (ValueError("of a library"), NOTHING_WRITTEN, "ValueError: of a library"),
        (AssertionError(), NOTHING_WRITTEN, "AssertionError"),
        (KeyError("x"), NOTHING_WRITTEN, "KeyError: 'x'"),
    ],
)
def test_one_photo_of_many_that_fails_does_not_stop_the_others(
    error: Exception,
    code: int,
    words: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, error)
    answer = answer_of(fit(photos, tmp_path / "out"), capsys, code)
    assert [Path(photo["photo"]).name for photo in answer["photos"]] == ["a.png", "c.png"]
    (skip,) = answer["skipped"]
    assert Path(skip["name"]).name == "b.png"
    assert words in skip["reason"]
    assert ("please report it" in skip["reason"]) == (code != 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_was_written_before_the_end_is_told(
    error: BaseException,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, error)
    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 3
    answer = answer_of(fit(photos, tmp_path / "out"), capsys, code)
    assert len(answer["written"]) == 6
    assert all(Path(path).is_file() for path in answer["written"])
    assert answer["error"]
    main(fit(photos, tmp_path / "out"))
    streams = capsys.readouterr()
    assert "1 of 1 were there already" in streams.out
    assert "Traceback" not in streams.err


def test_a_full_disk_ends_the_run_and_leaves_whole_results(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fits: list[str]
) -> None:
    out, sync, calls = tmp_path / "out", os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    answer = answer_of(fit(photos, out), capsys, REFUSED)
    assert "No space left on device" in answer["error"]
    assert [Path(photo["photo"]).name for photo in answer["photos"]] == ["a.png"]
    assert fits == ["a.png", "b.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted(f"a{suffix}" for suffix in RESULT_SUFFIXES)
    monkeypatch.setattr(os, "fsync", sync)
    assert len(answer_of(fit(photos, out), capsys)["photos"]) == 3
    assert fits == ["a.png", "b.png", "b.png", "c.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_fit_with_a_report(
    number: signal.Signals,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before, plain = signal.signal(number, default), PhotoFitter.__call__

    def call(self: PhotoFitter, image: Any, landmarks: Any, **options: Any) -> Reconstruction:
        if Path(image).name == "b.png":
            os.kill(os.getpid(), number)
        return plain(self, image, landmarks, **options)

    monkeypatch.setattr(PhotoFitter, "__call__", call)
    try:
        assert main([*fit(photos, tmp_path / "out"), "--json"]) == 128 + number
        assert signal.getsignal(number) == default
    finally:
        signal.signal(number, before)
    streams = capsys.readouterr()
    answer = json.loads(streams.out)
    assert answer["ok"] is False
    assert len(answer["written"]) == 6
    expected = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert answer["error"] == expected
    assert streams.err.splitlines()[-1] == expected


def test_eyes_on_one_point(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l.csv").write_text("a.png,32,30,32,30,28,38,30,45,31,46\n")
    arguments = [
        "fit",
        str(photos / "a.png"),
        "--landmarks",
        str(tmp_path / "l.csv"),
        "--out",
        str(tmp_path / "o"),
        *QUICK,
    ]
    answer = answer_of(arguments, capsys)
    assert answer["photos"][0]["landmark_error_percent"] is None
    assert answer["not_finite"] == ["photos.0.landmark_error_percent"]
    assert main(arguments) == 0
    assert " - " in capsys.readouterr().out


def test_a_result_with_numbers_that_are_not_finite_is_not_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PhotoFitter.__call__

    def call(self: PhotoFitter, image: Any, landmarks: Any, **options: Any) -> Reconstruction:
        result = plain(self, image, landmarks, **options)
        if Path(image).name == "b.png":
            result.parameters.lighting[0, 1, 2] = float("nan")
        return result

    monkeypatch.setattr(PhotoFitter, "__call__", call)
    answer = answer_of(fit(photos, tmp_path / "out"), capsys)
    (skip,) = answer["skipped"]
    assert skip["reason"].startswith("lighting.1.2: not finite")
    assert not list((tmp_path / "out").glob("b*"))


def test_numbers_of_numpy_are_settings(photos: Path, tmp_path: Path) -> None:
    settings = FitSettings(
        image_size=np.int64(32), coarse_steps=np.uint8(1), fine_steps=np.int32(1), jaw_sigma=np.float32(2.5)
    )
    assert (type(settings.image_size), type(settings.jaw_sigma)) == (int, float)
    model = MorphableModel.procedural("small", np.int64(3), np.int32(2), np.uint8(2))
    report = folder.run([photos], photos / "landmarks.csv", model, tmp_path, settings)
    assert len(report.written) == 3
    result = PhotoFitter(model, settings)(*_first(photos))
    assert result.render(np.int64(40))[0].shape == (3, 40, 40)  # type: ignore[arg-type]


def _first(photos: Path) -> tuple[Path, NDArray[np.float64]]:
    name, *values = (photos / "landmarks.csv").read_text().splitlines()[0].split(",")
    return photos / name, np.array(values, np.float64).reshape(-1, 2)


def test_places_for_results(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("gone")
    one = lambda out: ["fit", str(photos / "a.png"), *fit(photos, out)[2:]]  # noqa: E731
    for out in ("file", "file/below", "nowhere"):
        assert "folder" in answer_of(one(tmp_path / out), capsys, REFUSED)["error"]
    answer_of(one(tmp_path / "link"), capsys)
    assert len(list((tmp_path / "real").iterdir())) == 6
    monkeypatch.chdir(tmp_path)
    for out in (Path("relative"), Path("-dash"), Path("two\nlines \x1b[31m"), Path(os.fsdecode(b"byte-\xff"))):
        arguments = [word for word in one(out) if word != str(out)]
        arguments[arguments.index("--out")] = f"--out={out}"
        answer = answer_of(arguments, capsys)
        assert all(Path(path).is_file() for path in answer["written"])
        assert Path(answer["written"][0]).parent == out
        assert main(arguments) == 0
        assert "\x1b" not in capsys.readouterr().out
    (tmp_path / "real" / "a.glb").unlink()
    (tmp_path / "real" / "a.glb").mkdir()
    answer = answer_of(one(tmp_path / "real"), capsys, NOTHING_WRITTEN)
    assert "a folder is in its place" in answer["skipped"][0]["reason"]
    assert FAULT not in (0, NOTHING_WRITTEN, REFUSED, INTERRUPTED)


def test_photos_with_odd_names(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = (photos / "landmarks.csv").read_text().splitlines()[0].partition(",")[2]
    names = ["-dash.png", "with space.png", "two\nlines.png", os.fsdecode(b"byte-\xff/in.png"), "ünï.png"]
    Path(os.fsdecode(b"byte-\xff")).mkdir()
    for name in names:
        Path(name).write_bytes((photos / "a.png").read_bytes())
    rows = [*(name for name in names if "byte" not in name), "in.png"]
    Path("l.csv").write_text("".join(f'"{name}",{points}\n' for name in rows))
    answer = answer_of(["fit", "--landmarks", "l.csv", "--out", "out", *QUICK, "--json", "--", *names], capsys)
    assert not answer["skipped"]
    assert [photo["photo"] for photo in answer["photos"]] == names
    assert all(Path(path).is_file() for photo in answer["photos"] for path in photo["files"])
    assert main(["fit", "--landmarks", "l.csv", "--out", "out", *QUICK, "--", *names]) == 0
    assert r"two\x0alines.png" in capsys.readouterr().out
