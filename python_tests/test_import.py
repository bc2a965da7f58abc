"""The first import: what `focus` offers, and what it says where its compiled module is missing or cannot be loaded."""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import focus
from focus import _C
from focus._compiled import card_obstacle, explain_absence
from focus.cli import main

PACKAGE = Path(focus.__file__).parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
WAYS = (
    "from focus import ops",
    "import focus; focus.ops",
    "from focus import fit_photo",
    "from focus import _C",
    "import focus.face",
)


def make_folder(folder: Path, *, sources: bool, compiled: dict[str, bytes] | None = None) -> Path:
    """A folder with a package `focus` as it is in a checkout or in site-packages, less its compiled module."""
    shutil.copytree(PACKAGE, folder / "focus", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "assets"))
    for name, content in (compiled or {}).items():
        (folder / "focus" / name).write_bytes(content)
    if sources:
        (folder / "CMakeLists.txt").touch()
        (folder / "csrc").mkdir()
    return folder


def start(folder: Path, code: str, *more: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Python started in `folder` with `more` on its search path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, more)), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("checkout"), sources=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiled = Path(_C.__file__)
    return make_folder(tmp_path_factory.mktemp("site"), sources=False, compiled={compiled.name: compiled.read_bytes()})


def test_in_the_source_folder_where_nothing_is_installed(tmp_path: Path) -> None:
    message = explain_absence(make_folder(tmp_path, sources=True) / "focus", [str(tmp_path)])
    assert "the folder of its sources" in message
    assert "pip install .` here and start Python in another folder" in message
    assert "pip install -e .` to work on the sources" in message


def test_in_the_source_folder_where_it_is_installed(checkout: Path, installed: Path) -> None:
    attempts = "".join(
        f"try: {code}\nexcept ImportError as error: print(type(error).__name__, error)\n" for code in WAYS
    )
    done = start(checkout, attempts, installed)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(WAYS)
    for line in lines:
        assert line.startswith("CompiledModuleError focus was imported from ")
        assert f"installed in {installed / 'focus'}" in line
        assert "start Python in another folder" in line
        assert "`python -P`" in line
        assert "the command `focus`" in line


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P came with 3.11")
def test_the_cure_works(checkout: Path, installed: Path, tmp_path: Path) -> None:
    code = "from focus import ops; print(ops.__file__)"
    for folder, options in ((checkout, ("-P",)), (tmp_path, ())):
        done = start(folder, code, installed, options=options)
        assert done.stdout.strip() == str(installed / "focus" / "ops" / "__init__.py"), done.stderr


def test_a_module_for_another_python_is_named(tmp_path: Path) -> None:
    other = "_C.cpython-39-x86_64-linux-gnu.so"
    line = last_line(start(make_folder(tmp_path, sources=False, compiled={other: b""}), "from focus import ops"))
    assert f"Python {sys.version_info.major}.{sys.version_info.minor} (expected _C{SUFFIX}, found {other}" in line
    assert "--force-reinstall" in line


def test_a_package_without_its_module_is_to_be_installed_again(tmp_path: Path) -> None:
    line = last_line(start(make_folder(tmp_path, sources=False), "from focus import ops"))
    assert "its compiled module is missing" in line
    assert "--force-reinstall" in line


def test_a_damaged_module(tmp_path: Path) -> None:
    line = last_line(start(make_folder(tmp_path, sources=False, compiled={f"_C{SUFFIX}": b"no library"}), WAYS[0]))
    assert "cannot be loaded" in line
    assert "damaged or was built for another machine" in line


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("kind", ["missing library", "newer library"])
def test_a_missing_shared_library_is_named(kind: str, tmp_path: Path) -> None:
    site = make_folder(tmp_path / "site", sources=False)
    (tmp_path / "needed.cpp").write_text("int needed() { return 0; }\n")
    (tmp_path / "module.cpp").write_text('int needed(); extern "C" int PyInit__C() { return needed(); }\n')
    name = "libfocusneeded.so" if kind == "missing library" else "libstdc++.so.6"
    build = ["g++", "-shared", "-fPIC", "-nostdlib"]
    if kind == "missing library":
        subprocess.run([*build, "needed.cpp", "-o", name], cwd=tmp_path, check=True)
    else:
        (tmp_path / "versions").write_text("GLIBCXX_9.9.99 { global: *; };\n")
        command = [*build, "-Wl,--version-script=versions", f"-Wl,-soname={name}", "needed.cpp", "-o", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    command = [*build, "module.cpp", "-L.", f"-l:{name}", "-o", str(site / "focus" / f"_C{SUFFIX}")]
    subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / name).unlink()
    line = last_line(start(site, "from focus import ops"))
    assert "cannot be loaded" in line
    assert name in line
    expected = "install the library that provides" if kind == "missing library" else "GLIBCXX_9.9.99"
    assert expected in line


def test_the_command_line_says_it_in_one_line(checkout: Path, installed: Path) -> None:
    code = "import sys; from focus.cli import main; sys.exit(main(['model', 'procedural-small', '--json']))"
    done = start(checkout, code, installed)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: focus was imported from ")
    assert json.loads(done.stdout)["ok"] is False


def test_it_is_an_import_error_and_one_of_ours(tmp_path: Path) -> None:
    code = (
        "import focus\n"
        "for kind in (ImportError, focus.FocusError):\n"
        "    try: from focus import ops\n"
        "    except kind as error: assert error.name == 'focus._C'\n"
    )
    done = start(make_folder(tmp_path, sources=False), code)
    assert done.returncode == 0, done.stderr


def test_parts_are_attributes_after_import_focus(tmp_path: Path) -> None:
    code = (
        "import sys, focus\n"
        "assert 'torch' not in sys.modules\n"
        "parts = [name for name in dir(focus) if not name.startswith('_')]\n"
        "print(*parts)\n"
        "for name in parts: assert getattr(focus, name) is not None\n"
    )
    done = start(tmp_path, code, PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {
        *("FocusError", "Reconstruction", "Reconstructor", "fit_photo", "fit_photos"),
        *("data", "eval", "experiment", "face", "fit", "losses", "nets", "ops", "report", "train"),
    }


def test_no_such_part() -> None:
    with pytest.raises(AttributeError, match="module 'focus' has no attribute 'paint'"):
        _ = focus.paint


def test_doctor_says_why_there_are_no_cuda_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "/opt/nvcc does not work here: nvcc fatal : Unsupported gpu architecture"
    monkeypatch.setattr(_C, "cuda_version", None)
    monkeypatch.setattr(_C, "cuda_missing", reason)
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert f"CPU only ({reason})" in checks["compiled module"]["text"]


@pytest.mark.parametrize(
    ("runtime", "driver", "architectures", "capability", "obstacle"),
    [
        ("13.0", "13.0", "75-real,80-real,90", (8, 6), None),  # 8.x runs the code of 8.0
        ("12.8", "12.2", "80-real,90", (9, 0), None),  # an older driver of the same major version
        ("12.8", "13.1", "80-real,90", (12, 0), None),  # the PTX of 90
        ("13.0", None, "90", (9, 0), None),
        ("12.8", "12.2", "80-real,90", (12, 0), "the driver serves CUDA up to 12.2, which cannot compile it"),
        ("12.8", "12.8", "120-virtual", (12, 0), None),
        ("13.0", "13.0", "90a", (9, 0), None),
        ("13.0", "13.0", "90a", (10, 0), "kernels for the architectures 90a"),
        ("13.0", "13.0", "100f-real", (10, 3), None),
        ("13.0", "13.0", "100f-real", (12, 0), "kernels for the architectures 100f-real"),
        ("13.0", "13.0", "native", (8, 9), None),
        (
            "13.0",
            "12.8",
            "90",
            (9, 0),
            "the driver serves CUDA up to 12.8, and this build has the runtime of CUDA 13.0",
        ),
        ("13.0", "13.0", "80-real,90", (7, 5), "kernels for the architectures 80-real,90, and the card is of 75"),
        ("13.0", "13.0", "80-real", (9, 0), "FOCUS_CUDA_ARCHITECTURES=90"),
    ],
)
def test_what_keeps_a_card_from_running_the_kernels(
    runtime: str, driver: str | None, architectures: str, capability: tuple[int, int], obstacle: str | None
) -> None:
    found = card_obstacle(runtime, driver, architectures, capability)
    assert (found is None) == (obstacle is None)
    assert obstacle is None or obstacle in str(found)


def test_the_build_says_what_it_has() -> None:
    assert _C.cuda_driver() == "" or _C.cuda_version is not None
    assert (_C.cuda_version is None) == bool(_C.cuda_missing)
