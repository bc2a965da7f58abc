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

from focus.cli import main
from focus.data.images import write_image
from focus.data.synthetic import SyntheticFaces, SyntheticSettings
from focus.face import MorphableModel
from focus.report.meshes import encode_meshes
from focus.train import shipped_checkpoint

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
def photo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with photo.jpg, two more in photos/, landmarks.csv of all, and the landmarks of the first."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    faces = SyntheticFaces(MorphableModel.procedural("small"), 128, 7, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 3)
    rows = []
    names = ("photo.jpg", "photos/a.jpg", "photos/b.jpg")
    for name, image, points in zip(names, batch.image, batch.landmarks, strict=True):
        write_image(folder / name, image.permute(1, 2, 0).numpy())
        rows.append(",".join([Path(name).name, *map(str, points.flatten().tolist())]))
    (folder / "landmarks.csv").write_text("\n".join(rows) + "\n")
    for name in ("my_masks", "true_masks", "rendered_faces"):
        (folder / name).mkdir()
        for stem, mask in zip("ab", batch.face_mask[1:, 0], strict=True):
            write_image(folder / name / f"{stem}.png", mask.numpy())
    (folder / "occluded.txt").write_text("a\n")
    network = shipped_checkpoint()
    assert network is not None
    shutil.copy(network, folder / "network.safetensors")
    assets = folder / "focus" / "assets"  # as seen from the folder of the repository
    assets.mkdir(parents=True)
    shutil.copy(network, assets)
    write_now(folder)
    return folder, batch.landmarks[0].numpy()


def write_now(folder: Path) -> None:
    """A scan and an image in the layout of the NoW challenge, dataset/, and a prediction of it, meshes/."""
    model = MorphableModel.procedural("small")
    assert model.landmarks7 is not None
    mesh = encode_meshes(model.mean_shape.numpy(), model.faces.numpy(), model.mean_albedo.numpy())[".obj"]
    points = model.mean_shape[model.landmarks7].numpy()
    picked = "".join(f'<point x="{x}" y="{y}" z="{z}"/>' for x, y, z in points.tolist())
    files = {
        "dataset/imagepathsvalidation.txt": b"A/selfie/1.jpg",
        "dataset/scans/A/1.obj": mesh,
        "dataset/scans_lmks_onlypp/A/1.pp": f"<PickedPoints>{picked}</PickedPoints>".encode(),
        "meshes/A/selfie/1.obj": mesh,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    np.save(folder / "meshes/A/selfie/1.npy", points)
    for name, suffix in (("iphone_pictures", "jpg"), ("detected_face", "npy")):
        path = folder / "dataset" / "final_release_version" / name / "A" / "selfie" / f"1.{suffix}"
        path.parent.mkdir(parents=True)
        if suffix == "jpg":
            shutil.copy(folder / "photo.jpg", path)
        else:
            np.save(path, np.array({"left": 20, "top": 20, "right": 108, "bottom": 108}, dtype=object))


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value if len(value) < 40 else "")
def test_python_blocks_run(
    where: str, code: str, photo: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, landmarks = photo
    monkeypatch.chdir(folder)
    # The default of fit_photo is the full face at 224 pixels; here the small one says the same in a second.
    code = code.replace("MorphableModel.procedural()", 'MorphableModel.procedural("small")')
    exec(compile(code, where, "exec"), {"landmarks": landmarks})


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
def test_focus_commands_run(page: Path, photo: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one after the other in one folder: later ones use what earlier ones wrote."""
    folder, _ = photo
    monkeypatch.chdir(folder)
    for _, line in (found for found in command_lines("focus") if found[0] == page.name):
        name, *arguments = shlex.split(line, comments=True)[1:]
        key = f"{name} {arguments[0]}" if name in ("evaluate", "experiment") else name
        # The options that make the test set small are not those of photos, which are few here.
        quick = [] if key == "evaluate segmentation" and "--photos" in arguments else QUICK[key]
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
def test_benchmark_commands_run(tmp_path: Path) -> None:
    """Of all pages, one after the other in one folder: the picture is drawn from what the runs wrote."""
    pytest.importorskip("matplotlib")
    for _, line in command_lines(r"python benchmarks/\S+"):
        script, *arguments = shlex.split(line, comments=True)[1:]
        quick = ["--quick"] if script.endswith("run.py") else []
        command = [sys.executable, str(ROOT / script), *arguments, *quick]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{line}\n{result.stderr}"


@pytest.mark.parametrize(("page", "line"), command_lines("make"))
def test_make_targets_exist(page: str, line: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in shlex.split(line, comments=True)[1:]:
        assert "=" in word or word in targets


def test_paths_in_pages_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
