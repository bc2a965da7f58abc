"""What README and docs tell people to type."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from focus.cli import main
from focus.data import read_image, read_landmarks
from focus.data.detection import DetectedFace, detectors

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks() -> list[tuple[str, str]]:
    """(where, code) of every fenced block of Python."""
    return [
        (f"{page.name}:{text[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
        for text in [page.read_text()]
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


def command_lines(first: str) -> list[tuple[str, str]]:
    """(page, line) of every indented line of commands that starts with `first`."""
    return [
        (page.name, match[1].strip())
        for page in PAGES
        for match in re.finditer(rf"^(?:    |\$ )({first} .*)$", page.read_text(), re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader has drawn the example (a small one); its photos also stand in for those of results.md."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert main(["example", "--out", "example", "--size", "128", "--frames", "2"]) == 0
    _thin_out(folder / "example")
    shutil.copytree(folder / "example" / "photos", folder / "photos")
    shutil.copy(folder / "example" / "landmarks.csv", folder)
    shutil.copy(folder / "example" / "photos" / "plain.jpg", folder / "photo.jpg")
    (folder / "points").mkdir()
    for name, points in read_landmarks(folder / "landmarks.csv").points.items():
        lines = "".join(f"{x + 1:.2f} {y + 1:.2f}\n" for x, y in points.tolist())
        (folder / "points" / f"{Path(name).stem}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}}}\n")
    return folder


def _thin_out(example: Path) -> None:
    """Half of the photos do for the commands, and take half of the time."""
    gone = ("hand", "glasses", "microphone")
    for name in gone:
        for path in (f"photos/{name}.jpg", f"true_masks/{name}.png", f"face_masks/{name}.png"):
            (example / path).unlink()
    for table in ("landmarks.csv", "occluded.txt"):
        lines = (example / table).read_text().splitlines(keepends=True)
        (example / table).write_text("".join(line for line in lines if not line.startswith(gone)))


@pytest.fixture
def detector(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of MediaPipe: it knows the photos of the example."""
    table = read_landmarks(folder / "landmarks.csv").points
    known = {read_image(folder / "photos" / name).tobytes(): points for name, points in table.items()}

    def find(image: NDArray[np.uint8]) -> list[DetectedFace]:
        points = known.get(image.tobytes())
        return [] if points is None else [DetectedFace(points, 0.9, (*points.min(0).tolist(), *points.max(0).tolist()))]

    monkeypatch.setitem(detectors._FACTORIES, "mediapipe", lambda model: find)


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value if len(value) < 40 else "")
def test_python_blocks_run(where: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    # The default of fit_photo is the full face at 224 pixels; here the small one says the same in a second.
    code = code.replace("MorphableModel.procedural()", 'MorphableModel.procedural("small")')
    exec(compile(code, where, "exec"), {})


def test_thresholds_in_the_table_are_those_of_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "weights.md").read_text()
    (code,) = (code for where, code in python_blocks() if where.startswith("weights.md"))
    exec(compile(code, "weights.md", "exec"), {})
    printed = {line.split()[0]: float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:]}
    rows = {name: re.search(rf"^\| .*`{name}` \| (0\.\d+) \|.*%", page, re.MULTILINE) for name in printed}
    assert set(printed) == {"paper", "official", "small"}
    for name, row in rows.items():
        assert row, name
        assert float(row[1]) == pytest.approx(printed[name], abs=0.002)


def test_readme_has_both_examples() -> None:
    assert [where.split(":")[0] for where, _ in python_blocks()].count("README.md") == 2


QUICK = {
    "fit": ["--model", "procedural-small", "--coarse-steps", "1", "--fine-steps", "2"],
    "example": ["--size", "128", "--frames", "2"],
    "landmarks": ["--workers", "1"],
    "model": [],
    "prepare": [],
    "export": [],
    "train": ["--scale", "0.0005", "--data.validation", "2", "--data.distinct", "16", "--log.tensorboard", "off"],
    "reconstruct": [],
    "demo": ["--scale", "0.0005", "--test-faces", "8"],
    "experiment ablation": [
        "--scale",
        "0.0005",
        "--seeds",
        "0",
        "--faces",
        "2",
        "--misfit-faces",
        "2",
        "--recipes",
        "FOCUS",
    ],
    "experiment table2": [
        *("--scale", "0.0005", "--seeds", "0", "--faces", "2", "--misfit-faces", "2"),
        *("--recipes", "FOCUS", "Deep3D"),
    ],
    "experiment hyperparameters": [
        *("--scale", "0.0005", "--seeds", "0", "--faces", "2", "--misfit-faces", "2", "--factors", "1"),
    ],
    "evaluate predictions": [],
    "evaluate now": ["--workers", "1"],
    "evaluate pictures": ["--faces", "2", "--subsets", "general", "large_pose"],
    "evaluate segmentation": ["--faces", "2", "--subsets", "general", "large_pose"],
    "evaluate compare": [],
    "evaluate pose": [],
    "evaluate masks": [],
    "evaluate misfit": ["--faces", "2", "--test-faces", "2"],
}
"""What is added to the commands of the pages, so that they take seconds."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("detector")
def test_focus_commands_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one after the other in one folder: later ones use what earlier ones wrote."""
    monkeypatch.chdir(folder)
    for _, line in (found for found in command_lines("focus") if found[0] == page.name):
        name, *arguments = shlex.split(line, comments=True)[1:]
        key = f"{name} {arguments[0]}" if name in ("evaluate", "experiment") else name
        # The options that make the test set small are not those of photos, which are few here.
        quick = [] if key == "evaluate segmentation" and "--photos" in arguments else QUICK[key]
        if key == "demo" and "--seeds" in arguments:
            quick = [*quick, "--seeds", "0", "1"]
        assert main([name, *_without(arguments, quick), *quick]) == 0, line


def _without(arguments: list[str], quick: list[str]) -> list[str]:
    """The arguments of a command less the options, each with its values, that are given otherwise."""
    kept, keep = [], True
    for word in arguments:
        keep = word not in quick if word.startswith("--") else keep
        kept += [word] if keep else []
    return kept


@pytest.mark.parametrize(("page", "line"), command_lines(r"python scripts/\S+"))
def test_scripts_run(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    script, *arguments = shlex.split(line, comments=True)[1:]
    quick = ["--faces", "2", "--size", "64", "--steps", "1", "--iterations", "1"]
    runpy.run_path(str(ROOT / script))["main"]([*arguments, *quick])
    assert "on - off" in capsys.readouterr().out


@pytest.mark.slow
def test_benchmark_commands_run(folder: Path) -> None:
    """Of all pages, one after the other in one folder: the picture is drawn from what the runs wrote."""
    pytest.importorskip("matplotlib")
    for _, line in command_lines(r"python benchmarks/\S+"):
        script, *arguments = shlex.split(line, comments=True)[1:]
        name = Path(script).name
        tiny = ("run.py", "bench_overhead.py", "peers.py", "photos.py", "bench_training.py", "bench_inference.py")
        quick = ["--quick"] if name in tiny else ["--seeds", "1"] if name == "gallery.py" else []
        command = [sys.executable, str(ROOT / script), *arguments, *quick]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{line}\n{result.stderr}"


@pytest.mark.parametrize(("page", "line"), command_lines("make"))
def test_make_targets_exist(page: str, line: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    variables = re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)
    for word in shlex.split(line, comments=True)[1:]:
        assert word.partition("=")[0] in (variables if "=" in word else targets)


NOT_RUN = {
    "python3 -m venv ~/focus-environment": "scripts/new_environment.sh, which .ci/run uses, does it",
    ". ~/focus-environment/bin/activate": "changes the shell that reads it",
    "pip install .": "make test-plain installs the wheel that this would build",
    "pip install focus-face": "the same, from an index",
    'pip install "focus-face[detect]"': "make test-detect installs the wheel with this extra",
    "cd ..": "changes the shell that reads it",
    'pip install "focus-face[export]"': "make test installs the wheel with this extra",
    "python examples/onnx_without_torch.py out/onnx crop.png mask.png": "python_tests/test_train_portable.py runs it",
}
"""Commands of the pages that no test runs, and why."""

LONG = {
    "make torture": "fuzz/torture.py",
    "make fuzz-files": "fuzz/fuzz_files.py",
    "make fuzz": "fuzz/fuzz_borders.cpp",
}
"""Too long for each run, or in need of clang: their programs, of which tests run a short form or hold the findings."""

WORDS = ("focus", "make", "python", "python3", "pip", "git", "cd", ".", "bash", "sudo", "apt", "export", "conda")


def shell_lines() -> list[str]:
    """Every indented line of the pages that begins as a command does."""
    lines = [line[4:] for page in PAGES for line in page.read_text().splitlines() if re.match(r" {4}\S", line)]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line.split()[0] in WORDS or re.match(r"[A-Z_]+=", line)]


def test_every_command_is_run_or_has_a_reason() -> None:
    run = re.compile(r"focus |python (scripts|benchmarks)/|make ")
    assert {line for line in shell_lines() if not run.match(line)} == set(NOT_RUN)
    stages = (ROOT / ".ci" / "run").read_text()
    for line in shell_lines():
        if line in LONG:
            assert LONG[line] in (ROOT / "Makefile").read_text() + (ROOT / "CMakeLists.txt").read_text(), line
        elif line.startswith("make "):
            assert re.search(rf"^stage {line.split()[1]}\b", stages, re.MULTILINE), line


def test_the_blocks_of_the_readme_are_commands_or_the_citation() -> None:
    for block in re.findall(r"(?:^ {4}.*\n)+", (ROOT / "README.md").read_text(), re.MULTILINE):
        first = block.split()[0]
        assert first in WORDS or first.startswith("@inproceedings"), block


def _inline_commands() -> list[tuple[str, ...]]:
    """Commands within sentences: (command, further words ...)."""
    spans = {tuple(span.split()) for page in PAGES for span in re.findall(r"`focus ([a-z][^`]*)`", page.read_text())}
    return sorted(spans)


@pytest.mark.parametrize("words", _inline_commands(), ids=" ".join)
def test_commands_within_sentences_exist(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The command, what it is a choice of, and every option."""
    name = words[: 2 if words[0] in ("evaluate", "experiment") else 1]
    assert main([*(word for word in name if not word.startswith("-")), "--help"]) == 0
    text = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in text


def test_paths_in_pages_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
