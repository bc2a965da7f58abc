"""Fixtures of the whole suite."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

from focus import _C
from focus.ops import _native

if TYPE_CHECKING:  # a machine with a card has the operators, and what they need, alone
    from focus.train import Settings

ROOT = Path(__file__).resolve().parents[1]


def _skip_unless_required(variable: str, reason: str) -> None:
    """Skips the test, or fails it where the environment says that it must run."""
    if os.environ.get(variable, "0") == "1":
        pytest.fail(f"{variable}=1, and {reason}")
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cpu", "cuda", "emulated"), help="only tests of operators, and only there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--device")
    if wanted is None:
        return

    def is_wanted(item: pytest.Item) -> bool:
        given = getattr(item, "callspec", None)
        where = () if given is None else (given.params.get("device"), given.params.get("kernel_device"))
        return wanted in where or (wanted == "cuda" and "cuda_device" in getattr(item, "fixturenames", ()))

    kept = [item for item in items if is_wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = kept


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs a test on the CPU, and on CUDA where there is a card (`FOCUS_REQUIRE_CUDA=1`: without one it fails)."""
    if request.param == "cuda" and not torch.cuda.is_available():
        _skip_unless_required("FOCUS_REQUIRE_CUDA", "torch sees no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def cuda_device() -> torch.device:
    """For what only a card can show."""
    if not torch.cuda.is_available():
        _skip_unless_required("FOCUS_REQUIRE_CUDA", "torch sees no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def every_vector_code() -> Iterator[list[Callable[[], None]]]:
    """Calls that choose AVX-512, AVX2 and the baseline, as far as the processor has them; all is as before after it."""

    def choose(avx2: bool, avx512: bool) -> None:
        _C.set_avx2(avx2)
        _C.set_avx512(avx512)

    before = _C.uses_avx2(), _C.uses_avx512()
    yield [partial(choose, True, True), partial(choose, True, False), partial(choose, False, False)]
    choose(*before)


@pytest.fixture(params=["cpu", "cuda", "emulated"])
def kernel_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Runs a test of an operator once for each implementation: CPU, CUDA, and the CUDA kernels emulated on the CPU.

    "emulated" takes float32 tensors of the CPU. Each thread of a kernel is a thread of the system: keep inputs tiny.
    """
    if request.param == "emulated":
        monkeypatch.setattr(_native, "module", request.getfixturevalue("emulated_module"))
        return torch.device("cpu")
    if request.param == "cuda" and not torch.cuda.is_available():
        _skip_unless_required("FOCUS_REQUIRE_CUDA", "torch sees no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def emulated_module(build_emulation: Callable[[str, str], Path]) -> ModuleType:
    """`focus._C` with the CUDA kernels emulated on the CPU."""
    library = build_emulation("_C_emulated", "")
    spec = importlib.util.spec_from_file_location("_C_emulated", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build_emulation() -> Callable[[str, str], Path]:
    """Builds a target of CMakeLists.txt with the CUDA kernels emulated: (target, sanitizers) -> its file.

    The build folders are kept under build/ between runs. Without compiler, cmake, ninja or pybind11 the test is
    skipped; `FOCUS_REQUIRE_EMULATION=1` makes that a failure.
    """

    def build(target: str, sanitizers: str) -> Path:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        tools = {tool: shutil.which(tool, path=path) for tool in ("cmake", "ninja", "g++")}
        missing = [tool for tool, found in tools.items() if found is None]
        if importlib.util.find_spec("pybind11") is None:
            missing.append("pybind11")
        if missing:
            _skip_unless_required("FOCUS_REQUIRE_EMULATION", f"{', '.join(missing)} not found, to build {target}")
        python = hashlib.sha256(f"{sys.prefix} {sys.version}".encode()).hexdigest()[:8]  # a cache knows one interpreter
        folder = ROOT / "build" / f"emulation-{python}-{sanitizers.replace(',', '-') or 'plain'}"
        folder.mkdir(parents=True, exist_ok=True)
        pybind11 = _run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _run(
                *(str(tools["cmake"]), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
                f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}",
                f"-DCMAKE_CXX_COMPILER={tools['g++']}",
                "-DCMAKE_BUILD_TYPE=Debug",
                "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1",
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11}",
                "-DFOCUS_CUDA=OFF",
                "-DFOCUS_EMULATION=ON",
                f"-DFOCUS_SANITIZE={sanitizers}",
            )
            _run(str(tools["cmake"]), "--build", str(folder), "--target", target)
        return next(file for file in folder.glob(f"{target}*") if file.is_file())

    return build


def _run(*command: str) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout[-4000:]}")
    return result.stdout


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data for development (golden renders, photos, a scan-based model); the test is skipped where it is
    absent."""
    path = Path(os.environ.get("FOCUS_SHARED", ROOT.parent / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"no reference data at {path} (set FOCUS_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three synthetic photos, a.png, b.png and c.png, and landmarks.csv of them."""
    from focus.data import SyntheticFaces, SyntheticSettings, write_image
    from focus.face import MorphableModel

    place = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(MorphableModel.procedural("small"), 64, 5, SyntheticSettings(occluded_fraction=0))
    batch = faces.batch(0, 3)
    lines = []
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(place / name, batch.image[number].permute(1, 2, 0).numpy())
        lines.append(",".join([name, *map(str, batch.landmarks[number].flatten().tolist())]))
    (place / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the photos that are fitted from now on, in order."""
    from focus.fit import PhotoFitter

    done: list[str] = []
    plain = PhotoFitter.__call__

    def call(self: PhotoFitter, image: str | Path, *given: object, **options: object) -> object:
        done.append(Path(image).name)
        return plain(self, image, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PhotoFitter, "__call__", call)
    return done


def _run_in_two_processes(program: str, *arguments: str, cwd: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONFAULTHANDLER": "1"}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), *arguments],
            env={**os.environ, **address, "RANK": str(rank), "PYTHONPATH": path},
            cwd=cwd,  # not the repository: its folder `focus` may have no compiled module
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]


@pytest.fixture(scope="session")
def run_in_two_processes() -> Callable[..., None]:
    """A program under torchrun's environment: (program, *arguments, cwd=folder)."""
    return _run_in_two_processes


@pytest.fixture(scope="session")
def train_in_two_processes() -> Callable[[Settings, Path], None]:
    """One run of two processes, each with half of each batch."""

    def train(settings: Settings, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        file = run.parent / f"{run.name}.json"
        file.write_text(json.dumps(settings.to_dict()))
        program = """
            import json, sys
            from pathlib import Path
            from focus.train import Settings, train
            assert train(Settings.from_dict(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]))
        """
        _run_in_two_processes(program, str(file), str(run), cwd=run.parent)

    return train
