"""What people get who install this: metadata, files of the wheel and the source distribution, required versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def files_of(folder: str, *patterns: str) -> set[str]:
    """Relative to the root; what interpreters leave behind does not count."""
    found = (path for pattern in patterns for path in (ROOT / folder).rglob(pattern))
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts}


def requirements(text: str, sign: str) -> dict[str, str]:
    """Name -> version of everything written as name SIGN version."""
    return dict(re.findall(rf"^([A-Za-z0-9-]+)(?:\[\w+\])?{sign}([\d.]+)", text, re.MULTILINE))


def test_lowest_versions_are_those_that_are_tried() -> None:
    tried, companions = (ROOT / "scripts" / "lowest.txt").read_text().split("# Not named there")
    tables = PROJECT[PROJECT.index("\ndependencies = [") : PROJECT.index("# Exact where")]
    # MediaPipe has an environment of its own (`make test-detect`); its lowest version was tried by hand.
    tables = re.sub(r"^detect = \[.*?^\]$", "", tables, flags=re.MULTILINE | re.DOTALL)
    asked = requirements("\n".join(re.findall(r'"([^"]+)"', tables)), ">=")
    assert asked.pop("torch") == "2.6"
    assert len(asked) >= 12
    exact = requirements(tried, "==")
    assert set(exact) == set(asked)
    for name, version in asked.items():
        assert exact[name].split(".")[: len(version.split("."))] == version.split("."), name
        assert set(exact[name].split(".")[len(version.split(".")) :]) <= {"0"}, name
    assert requirements(companions, "==")


def test_everything_that_is_asked_for_is_imported() -> None:
    names = {"pillow": "PIL", "libigl": "igl"}
    files = sorted(files_of("focus", "*.py") - {"focus/cli/doctor.py"})  # which lists them all
    sources = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    for name in requirements((ROOT / "scripts" / "lowest.txt").read_text().split("# Not named there")[0], "=="):
        module = names.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b|\"{module}[\".]", sources, re.MULTILINE), name


@pytest.fixture(scope="module")
def distribution() -> importlib.metadata.Distribution:
    """The installed one, as `make test` has it."""
    try:
        return importlib.metadata.distribution("focus-face")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("focus-face is not installed")


def test_the_wheel_has_everything(distribution: importlib.metadata.Distribution) -> None:
    installed = {path.as_posix() for path in distribution.files or [] if "__pycache__" not in path.parts}
    assert files_of("focus", "*") - files_of("focus", "*.so") <= installed
    assert {"focus/py.typed", "focus/_C.pyi"} <= installed
    assert any(re.fullmatch(r"focus/_C\..*so", name) for name in installed)
    assert {name.rsplit("/", 1)[1] for name in installed if "/licenses/" in name} == {"LICENSE", "NOTICES"}
    outside = {name for name in installed if not name.startswith(("focus/", "focus_face-", "../../../bin/focus"))}
    assert not outside


def test_the_metadata_says_who_what_and_where(distribution: importlib.metadata.Distribution) -> None:
    fields = distribution.metadata
    assert fields["License-Expression"] == "MIT"
    assert set(fields.get_all("License-File") or []) == {"LICENSE", "NOTICES"}
    assert fields["Author"] == "The FOCUS contributors"
    assert fields["Description-Content-Type"] == "text/markdown"
    assert "Programming Language :: Python :: 3.10" in (fields.get_all("Classifier") or [])


def test_the_page_of_a_package_index_needs_no_other_file(distribution: importlib.metadata.Distribution) -> None:
    text = (ROOT / "docs" / "package.md").read_text(encoding="utf-8")
    description = str(distribution.metadata["Description"] or distribution.metadata.get_payload())
    assert description.strip() == text.strip()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("https://"), link


def test_the_page_renders() -> None:
    markdown = pytest.importorskip("readme_renderer.markdown")
    html = markdown.render((ROOT / "docs" / "package.md").read_text(encoding="utf-8"))
    assert html is not None
    assert re.search(r"<h1[^>]*>FOCUS<", html)  # some versions put a link into it
    assert "focus fit example/photos/mask.jpg" in html


def test_the_source_distribution_has_everything(tmp_path: Path) -> None:
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("no scikit-build-core")
    code = "import sys; from scikit_build_core.build import build_sdist; print(build_sdist(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "NOTICES",
        "Makefile",
        "CMakeLists.txt",
        "pyproject.toml",
        ".ci/run",
    }
    for folder in ("benchmarks", "cmake", "csrc", "docs", "focus", "fuzz", "python_tests", "scripts"):
        wanted |= files_of(folder, "*")
    wanted -= files_of("focus", "*.so")
    assert wanted <= packed, sorted(wanted - packed)
    assert not {name for name in packed if name.startswith(("build/", "out/", ".venv/")) or name.endswith(".so")}


def write_python(folder: Path, body: str) -> Path:
    path = folder / "other python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('case "$2" in *print*) echo 3.8;; *) exit 1;; esac', "is Python 3.8; expected 3.10 or newer"),
        (f'case "$2" in *ensurepip*) exit 1;; *) exec "{sys.executable}" "$@";; esac', "apt install python3."),
        (None, "no such program; expected Python 3.10 or newer"),
    ],
    ids=["too old", "without venv", "missing"],
)
def test_environments_say_what_python_lacks(body: str | None, expected: str, tmp_path: Path) -> None:
    python = tmp_path / "nowhere" if body is None else write_python(tmp_path, body)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "new_environment.sh"), str(tmp_path / "environment")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert str(python) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "environment").exists()


def test_every_environment_of_the_makefile_is_made_by_that_script() -> None:
    assert "-m venv" not in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("tool", [["auditwheel", "show"], ["twine", "check", "--strict"]], ids=["auditwheel", "twine"])
def test_a_registry_would_take_the_wheel(tool: list[str]) -> None:
    """The one that `make wheel` has built; auditwheel names the oldest systems that it runs on."""
    wheels = sorted((ROOT / "build" / "wheel").glob("*.whl"))
    if not wheels or importlib.util.find_spec(tool[0]) is None:
        pytest.skip("no wheel was built here, or the tool is not installed")
    command = [sys.executable, "-m", *tool, str(wheels[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    if tool[0] == "auditwheel":
        (tag,) = set(re.findall(r"manylinux_2_\d+_\w+", wheels[0].name))
        assert f'consistent with the following platform tag: "{tag}"' in said, said
        assert "libtorch" not in said
