"""The files of a photo are whole, or refused by name: kills at every step of saving, changes, resumed runs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focus.cli import FAULT, INTERRUPTED, NOTHING_WRITTEN, REFUSED, main
from focus.data import SyntheticFaces, SyntheticSettings, write_image
from focus.errors import FocusError
from focus.eval.mask_files import read_mask
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
    answer_of([*fit(mine, out, "--cutoff", 2.5)[:-10], "--model", "procedural", *QUICK[2:], "--cutoff", "2.5"], capsys)
    assert len(fits) == 3  # another face model
    fits.clear()
    monkeypatch.setattr(folder, "__version__", "0.0.0")
    answer_of(fit(mine, out), capsys)
    assert len(fits) == 3


@pytest.mark.parametrize("suffix", RESULT_SUFFIXES)
@pytest.mark.parametrize("harm", ["missing", "changed", "empty", "cut"])
def test_results_that_are_not_whole_are_named_and_made_anew(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fits: list[str],
    suffix: str,
    harm: str,
) -> None:
    out = tmp_path / "out"
    arguments = ["fit", str(photos / "a.png"), *fit(photos, out)[2:]]
    answer_of(arguments, capsys)
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
    fits.clear()
    answer_of(arguments, capsys)
    assert fits == ["a.png"]
    assert contents(out) == before


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "3",
        '{"format": 1}',
        '{"format": 2}',
        '{"format": 2, "files": []}',
        '{"format": NaN}',
        "\xff",
        "[" * 9999,
    ]
    + ['{"format": 2, "files": {".ply": 1, ".obj": 1, ".glb": 1, "_mask.png": 1, "_overlay.png": 1}}'],
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


# One process, and a fork for each kill: starting Python with torch takes seconds.
KILLED_FITS = """
    import os, signal, sys
    import torch
    from focus.cli import main
    from focus.face import MorphableModel
    out, arguments = sys.argv[1], sys.argv[2:]
    model = MorphableModel.procedural("small")
    MorphableModel.procedural = classmethod(lambda cls, *_, **__: model)
    plain = {name: getattr(os, name) for name in ("replace", "unlink", "fsync")}
    number, killed = 0, True
    while killed:
        child = os.fork()
        if child == 0:
            left = [number]
            def step(name):
                def call(*arguments, **options):
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return plain[name](*arguments, **options)
                return call
            for name in plain:
                setattr(os, name, step(name))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(main([*arguments, "--out", f"{out}/{number}"]))
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0, status
        number += 1
    print(number)
"""


@pytest.mark.parametrize("there", [True, False])
def test_fits_that_are_killed_at_any_step_of_saving(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    other = ["fit", str(photos / "a.png"), *fit(photos, tmp_path)[2:-10], *QUICK, "--cutoff", "2"]
    wanted = ["fit", str(photos / "a.png"), *fit(photos, tmp_path)[2:]]
    if there:  # results of other settings, to be replaced
        for number in range(30):
            place = other.index("--out") + 1
            answer_of([*other[:place], str(tmp_path / str(number)), *other[place + 1 :]], capsys)
    place = wanted.index("--out")
    arguments = [*wanted[:place], *wanted[place + 2 :]]
    command = [sys.executable, "-c", textwrap.dedent(KILLED_FITS), str(tmp_path), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    count = int(result.stdout)
    assert count > 12
    answers = set()
    for number in range(count):
        out = tmp_path / str(number)
        if not out.is_dir():  # killed before the first file
            continue
        masks, record = out / "a_mask.png", out / "a.json"
        whole = record.is_file()
        if whole:
            check_result(record)  # then all is of one run
            read_mask(masks)
        elif masks.is_file():
            with pytest.raises(FocusError, match="never finished"):
                read_mask(masks)
        answers.add(whole)
        answer_of(["fit", str(photos / "a.png"), *fit(photos, out)[2:]], capsys)
        check_result(record)
        assert sorted(path.name for path in out.iterdir()) == sorted(f"a{suffix}" for suffix in RESULT_SUFFIXES)
    assert answers == {True, False}


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
def test_signals_end_a_fit_with_a_report(number: signal.Signals, photos: Path, tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from focus.cli import main
        from focus.fit import PhotoFitter
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        plain = PhotoFitter.__call__
        def call(self, image, landmarks, **options):
            if "b.png" in str(image):
                os.kill(os.getpid(), int(sys.argv[1]))
                os.kill(os.getpid(), int(sys.argv[1]))  # those who press twice
            return plain(self, image, landmarks, **options)
        PhotoFitter.__call__ = call
        sys.exit(main(sys.argv[2:]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(int(number)), *fit(photos, tmp_path / "out"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 128 + number, result.stderr
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert len(answer["written"]) == 6
    expected = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert answer["error"] == expected
    assert result.stderr.splitlines()[-1] == expected


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
    assert skip["reason"].startswith("lighting: not finite")
    assert not list((tmp_path / "out").glob("b*"))


def test_numbers_of_numpy_are_settings(photos: Path, tmp_path: Path) -> None:
    settings = FitSettings(
        image_size=np.int64(32), coarse_steps=np.uint8(1), fine_steps=np.int32(1), cutoff=np.float32(2.5)
    )
    assert (type(settings.image_size), type(settings.cutoff)) == (int, float)
    model = MorphableModel.procedural("small", np.int64(3), np.int32(2), np.uint8(2))
    report = folder.run([photos], photos / "landmarks.csv", model, tmp_path, settings)
    assert len(report.written) == 3
    result: Callable[..., tuple[Any, Any]] = PhotoFitter(model, settings)(*_first(photos)).render
    assert result(np.int64(40))[0].shape == (3, 40, 40)


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
