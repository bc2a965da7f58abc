"""The files of a photo are whole, or refused by name: kills at every step of saving, changes, resumed runs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focus.cli import FAULT, INTERRUPTED, NOTHING_WRITTEN, REFUSED, main
from focus.data import SyntheticFaces, SyntheticSettings, write_image
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.files import write_files
from focus.fit import FitSettings, PhotoFitter, folder
from focus.reconstruction import RESULT_SUFFIXES, Reconstruction
from focus.record import check_result, read_record

QUICK = ["--model", "procedural-small", "--image-size", "32", "--coarse-steps", "1", "--fine-steps", "1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic photos and landmarks.csv."""
    place = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(MorphableModel.procedural("small"), 64, 5, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 3)
    lines = []
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(place / name, batch.image[number].permute(1, 2, 0).numpy())
        lines.append(",".join([name, *map(str, batch.landmarks[number].flatten().tolist())]))
    (place / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return place


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


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The photos that are fitted, in order."""
    done: list[str] = []
    plain = PhotoFitter.__call__

    def call(self: PhotoFitter, image: Any, landmarks: Any, **options: Any) -> Reconstruction:
        done.append(Path(image).name)
        return plain(self, image, landmarks, **options)

    monkeypatch.setattr(PhotoFitter, "__call__", call)
    return done


def test_a_second_run_takes_what_is_there(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fits: list[str]
) -> None:
    out = tmp_path / "out"
    first = answer_of(fit(photos, out), capsys)
    before = contents(out)
    assert [photo["there_already"] for photo in first["photos"]] == [False] * 3
    second = answer_of(fit(photos, out), capsys)
    assert fits == ["a.png", "b.png", "c.png"]
    assert second["written"] == []
    assert [photo["there_already"] for photo in second["photos"]] == [True] * 3
    for one, other in zip(first["photos"], second["photos"], strict=True):
        for same in ("photo", "files", "occluded_fraction", "landmark_error_percent"):
            assert one[same] == other[same]
    assert contents(out) == before
    assert main(fit(photos, out)) == 0
    assert "3 of 3 were there already" in capsys.readouterr().out
    fits.clear()
    answer_of(fit(photos, out, "--again"), capsys)
    assert len(fits) == 3
    assert contents(out) == before


def test_what_changed_is_made_anew(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = tmp_path / "photos", tmp_path / "out"
    mine.mkdir()
    for path in photos.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    answer_of(fit(mine, out), capsys)
    fits.clear()

    table = (mine / "landmarks.csv").read_text().splitlines()
    table[0] = table[0].replace(table[0].split(",")[1], str(float(table[0].split(",")[1]) + 0.25), 1)
    (mine / "landmarks.csv").write_text("\n".join(table))
    write_image(mine / "b.png", 1 - np.asarray(np.random.default_rng(0).random((64, 64, 3)), np.float32) / 8)
    answer_of(fit(mine, out), capsys)
    assert fits == ["a.png", "b.png"]
    fits.clear()
    answer_of(fit(mine, out), capsys)
    assert fits == []
    answer_of(fit(mine, out, "--cutoff", 2.5), capsys)
    assert len(fits) == 3
    fits.clear()
    other = tmp_path / "other.focusmodel"
    MorphableModel.procedural("small", 3, 2, 2).save(other)
    answer_of(["fit", str(mine / "a.png"), *fit(mine, out)[2:6], "--model", str(other), *QUICK[2:]], capsys)
    assert fits == ["a.png"]
    fits.clear()
    monkeypatch.setattr(folder, "__version__", "0.0.0")
    answer_of(fit(mine, out), capsys)
    assert len(fits) == 3


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a.png."""
    out = tmp_path_factory.mktemp("whole")
    assert main(["fit", str(photos / "a.png"), *fit(photos, out)[2:]]) == 0
    return out


@pytest.mark.parametrize("suffix", RESULT_SUFFIXES)
@pytest.mark.parametrize("harm", ["missing", "changed", "empty", "cut"])
def test_results_that_are_not_whole_are_named_and_made_anew(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fits: list[str],
    whole: Path,
    suffix: str,
    harm: str,
) -> None:
    out = tmp_path / "out"
    arguments = ["fit", str(photos / "a.png"), *fit(photos, out)[2:]]
    shutil.copytree(whole, out)
    before, harmed = contents(out), out / f"a{suffix}"
    check_result(out / "a.json")
    data = harmed.read_bytes()
    if harm == "missing":
        harmed.unlink()
    else:
        harmed.write_bytes({"changed": data.replace(b"0", b"1"), "empty": b"", "cut": data[: len(data) // 2]}[harm])
    if (suffix, harm) != (".json", "changed"):  # whose values are its own
        with pytest.raises(FocusError, match=r"a\.json|a\.(ply|obj|glb)|a_(mask|overlay)\.png"):
            check_result(out / "a.json")
    answer_of(arguments, capsys)
    assert fits == ["a.png"]
    assert contents(out) == before


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "null", "3", '{"format": 1}', '{"format": 2}', '{"format": 2, "files": []}', '{"format": NaN}', "\xff"),
        "[" * 9999,
        '{"format": 2, "files": {".ply": 1, ".obj": 1, ".glb": 1, "_mask.png": 1, "_overlay.png": 1}}',
    ],
)
def test_damaged_records(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FocusError, match=r"a\.json"):
        read_record(path)


KILL = """
    import os, signal, sys
    moves = {"left": int(sys.argv[1])}
    for name in ("replace", "rename", "unlink"):
        def move(*arguments, plain=getattr(os, name), **options):
            moves["left"] -= 1
            if moves["left"] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments, **options)
        setattr(os, name, move)
    from focus.files import write_files
    from pathlib import Path
    out = Path(sys.argv[2])
    names = sys.argv[3:]
    write_files({out / name: f"new {name}".encode() for name in names})
"""


@pytest.mark.parametrize("there", [True, False])
def test_the_last_file_speaks_for_all_however_a_run_is_killed(tmp_path: Path, there: bool) -> None:
    names = ["a.ply", "a_mask.png", "a.json"]
    killed, number = True, 0
    while killed:
        out = tmp_path / str(number)
        out.mkdir()
        if there:
            write_files({out / name: f"old {name}".encode() for name in names})
        command = [sys.executable, "-c", textwrap.dedent(KILL), str(number), str(out), *names]
        killed = subprocess.run(command, check=False).returncode == -signal.SIGKILL
        left = contents(out)
        ages = {data.split()[0] for data in left.values()}
        if "a.json" in left:
            assert (len(left), len(ages)) == (3, 1), number
        write_files({out / name: f"newer {name}".encode() for name in names})
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {n: f"newer {n}".encode() for n in names}
        number += 1
    assert number > 6


# One process, and a fork for each kill: starting Python with torch takes seconds. What is saved is computed once.
KILLED_FITS = """
    import os, shutil, signal, sys
    from pathlib import Path
    from focus import FocusError
    from focus.cli import main
    from focus.eval.mask_files import read_mask
    from focus.face import MorphableModel
    from focus.fit import PhotoFitter
    from focus.record import check_result
    out, before, arguments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    model = MorphableModel.procedural("small")
    MorphableModel.procedural = classmethod(lambda cls, *_, **__: model)
    fit, results = PhotoFitter.__call__, []
    def fit_once(self, *given, **options):
        if not results:
            results.append(fit(self, *given, **options))
        return results[0]
    PhotoFitter.__call__ = fit_once
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    assert main([*arguments, "--out", str(out / "reference")]) == 0
    names = sorted(path.name for path in (out / "reference").iterdir())
    reference = [(out / "reference" / name).read_bytes() for name in names]
    plain = {name: getattr(os, name) for name in ("replace", "unlink", "fsync")}
    number, killed, kinds = 0, True, set()
    while killed:
        place = out / str(number)
        if before.is_dir():
            shutil.copytree(before, place)
        child = os.fork()
        if child == 0:
            left = [number]
            def step(name):
                def call(*given, **options):
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return plain[name](*given, **options)
                return call
            for name in plain:
                setattr(os, name, step(name))
            os._exit(main([*arguments, "--out", str(place)]))
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0, (number, status)
        whole = (place / "a.json").is_file()
        if whole:
            check_result(place / "a.json")  # all six are of one run
            read_mask(place / "a_mask.png")
        elif (place / "a_mask.png").is_file():
            try:
                read_mask(place / "a_mask.png")
            except FocusError as error:
                assert "never finished" in str(error), error
            else:
                raise AssertionError(f"{number}: a part of a result was read")
        kinds.add(whole)
        assert main([*arguments, "--out", str(place)]) == 0
        assert sorted(path.name for path in place.iterdir()) == names, number
        assert [(place / name).read_bytes() for name in names] == reference, number
        number += 1
    assert kinds == {True, False}, kinds
    assert number > 12, number
"""


@pytest.mark.parametrize("there", [True, False])
def test_fits_that_are_killed_at_any_step_of_saving(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    arguments = ["fit", str(photos / "a.png"), "--landmarks", str(photos / "landmarks.csv"), *QUICK]
    if there:  # results of other settings, to be replaced
        answer_of([*arguments, "--out", str(tmp_path / "before"), "--cutoff", "2"], capsys)
    command = [sys.executable, "-c", textwrap.dedent(KILLED_FITS), str(tmp_path), str(tmp_path / "before"), *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr


def test_masks_of_part_of_a_result_are_refused_by_whoever_scores_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, truth = tmp_path / "out", tmp_path / "truth"
    answer_of(fit(photos, out), capsys)
    truth.mkdir()
    for name in "abc":
        write_image(truth / f"{name}.png", np.ones((64, 64), np.float32))
    (out / "b.json").unlink()
    (out / "c_mask.png").write_bytes((out / "a_mask.png").read_bytes())
    answer = answer_of(["evaluate", "masks", str(out), "--truth", str(truth)], capsys)
    assert [Path(path).name for path in answer["read"]] == ["a_mask.png"]
    reasons = {skip["name"]: skip["reason"] for skip in answer["skipped"] if "_mask" in skip["name"]}
    assert "never finished (b.json is missing)" in reasons["b_mask.png"]
    assert "is not the file that c.json was written with" in reasons["c_mask.png"]
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in "abc":
        (alone / f"{name}_mask.png").write_bytes((out / f"{name}_mask.png").read_bytes())
    (alone / "b.json").write_text('{"shapes": []}')  # of another program
    assert len(answer_of(["evaluate", "masks", str(alone), "--truth", str(truth)], capsys)["read"]) == 3


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
        image_size=np.int64(32), coarse_steps=np.uint8(1), fine_steps=np.int32(1), cutoff=np.float32(2.5)
    )
    assert (type(settings.image_size), type(settings.cutoff)) == (int, float)
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
