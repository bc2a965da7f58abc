"""The files of a photo are whole, or refused by name: kills at every step of saving, changes, resumed runs."""

from __future__ import annotations

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

from focus.cli import main
from focus.data import write_image
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.files import write_files
from focus.fit import results
from focus.reconstruction import RESULT_SUFFIXES
from focus.record import check_result, read_record

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


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith(".")}


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
    answer_of(fit(mine, out, "--jaw-sigma", 2.5), capsys)
    assert len(fits) == 3
    fits.clear()
    other = tmp_path / "other.focusmodel"
    MorphableModel.procedural("small", 3, 2, 2).save(other)
    answer_of(["fit", str(mine / "a.png"), *fit(mine, out)[2:6], "--model", str(other), *QUICK[2:]], capsys)
    assert fits == ["a.png"]
    fits.clear()
    monkeypatch.setattr(results, "__version__", "0.0.0")
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
        killed = subprocess.run(command, check=False, cwd=tmp_path).returncode == -signal.SIGKILL
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
        answer_of([*arguments, "--out", str(tmp_path / "before"), "--jaw-sigma", "2"], capsys)
    command = [sys.executable, "-c", textwrap.dedent(KILLED_FITS), str(tmp_path), str(tmp_path / "before"), *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
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
