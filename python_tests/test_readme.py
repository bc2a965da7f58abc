"""What README and docs tell people to type."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from focus.cli import COMMANDS
from focus.data.images import write_image
from focus.data.synthetic import SyntheticFaces, SyntheticSettings
from focus.face import MorphableModel

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
    """A folder with photo.jpg, and the landmarks in it."""
    folder = tmp_path_factory.mktemp("readme")
    faces = SyntheticFaces(MorphableModel.procedural("small"), 128, 7, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 1)
    write_image(folder / "photo.jpg", (batch.image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    return folder, batch.landmarks[0].numpy()


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value if len(value) < 40 else "")
def test_python_blocks_run(
    where: str, code: str, photo: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, landmarks = photo
    monkeypatch.chdir(folder)
    # The default of fit_photo is the full face at 224 pixels; here the small one says the same in a second.
    code = code.replace("MorphableModel.procedural()", 'MorphableModel.procedural("small")')
    exec(compile(code, where, "exec"), {"landmarks": landmarks})


def test_readme_has_both_examples() -> None:
    assert [where.split(":")[0] for where, _ in python_blocks()].count("README.md") == 2


@pytest.mark.parametrize(("page", "line"), command_lines("focus"))
def test_focus_commands_parse(page: str, line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    assert name in COMMANDS
    if arguments:
        importlib.import_module(f"focus.cli.{name}").parse(arguments)


@pytest.mark.parametrize(("page", "line"), command_lines("make"))
def test_make_targets_exist(page: str, line: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in shlex.split(line, comments=True)[1:]:
        assert "=" in word or word in targets


def test_paths_in_pages_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
