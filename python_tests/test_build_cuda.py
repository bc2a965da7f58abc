"""What the build does about nvcc: works, is not there, or is there and does not work (`cmake/Cuda.cmake`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = f"""
cmake_minimum_required(VERSION 3.24)
project(try LANGUAGES CXX)
set(FOCUS_CUDA AUTO CACHE STRING "")
set(FOCUS_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "")
include({(ROOT / "cmake" / "Cuda.cmake").as_posix()})
configure_file({(ROOT / "csrc" / "bindings" / "build_info.h.in").as_posix()} build_info.h @ONLY)
message(STATUS "with: ${{FOCUS_WITH_CUDA}}, missing: ${{FOCUS_CUDA_MISSING}}")
"""
BROKEN = {
    "host compiler": "/usr/include/crt/host_config.h:137:2: error: #error -- unsupported GNU version!",
    "architecture": "nvcc fatal   : Unsupported gpu architecture 'compute_80'",
    "its own words": 'cicc: "quoted"; (in brackets) $HOME ${HOME} @HOME@ [x',
    "libraries": "nvcc: error while loading shared libraries: libnvcc-internal.so: cannot open shared object file",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that includes Cuda.cmake, and a folder `bin` that is all of the PATH."""
    for name in ("cmake", "ninja", "g++"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name}")
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    (tmp_path / "bin").mkdir()
    for name in ("cmake", "ninja", "g++", "as", "ld", "sh", "cat"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def write_nvcc(folder: Path, words: str, name: str = "bin/nvcc") -> Path:
    """A compiler that says something and fails."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{words}\nEND\nexit 3\n")
    path.chmod(0o755)
    return path


def configure(folder: Path, cuda: str, **environment: str) -> tuple[int, str]:
    """Exit code of cmake, and all that it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CUDA")}
    cmake = [str(folder / "bin" / "cmake"), "-S", str(folder), "-B", str(folder / "build"), "-G", "Ninja"]
    done = subprocess.run(
        # Without the folders that CMake searches in addition to the PATH: a machine may have nvcc there.
        [
            *cmake,
            f"-DFOCUS_CUDA={cuda}",
            f"-DCMAKE_CXX_COMPILER={folder / 'bin' / 'g++'}",
            "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF",
        ],
        env={**kept, "PATH": str(folder / "bin"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def decision(output: str) -> str:
    (line,) = (line for line in output.splitlines() if line.startswith("-- with: "))
    return line


@pytest.mark.parametrize("words", BROKEN.values(), ids=BROKEN)
def test_a_broken_nvcc_is_shown_and_left_out(words: str, folder: Path) -> None:
    nvcc = write_nvcc(folder, words)
    status, output = configure(folder, "AUTO")
    assert status == 0, output
    assert words in output
    assert decision(output) == f"-- with: FALSE, missing: {nvcc} does not work here: {words}"
    assert output.count("CUDA kernels: none (") == 1
    assert f"{nvcc} does not work here: {words}" in (folder / "build" / "build_info.h").read_text()


@pytest.mark.parametrize("words", BROKEN.values(), ids=BROKEN)
def test_where_cuda_is_required_it_ends_with_the_words_of_nvcc(words: str, folder: Path) -> None:
    write_nvcc(folder, words)
    status, output = configure(folder, "ON")
    assert status != 0
    assert words.split()[-1] in output
    assert "FOCUS_CUDA=ON, but" in output
    assert "CUDAHOSTCXX" in output


def _write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_architectures_that_nvcc_does_not_know_are_left_out(folder: Path) -> None:
    project = folder / "CMakeLists.txt"
    project.write_text(project.read_text().replace('"80-real;90"', "release"))
    listed = "; ".join(f"echo compute_{number}" for number in (75, 80, 86, 89, 90))
    _write_script(folder / "bin" / "nvcc", f'if [ "$1" = --list-gpu-arch ]; then {listed}; exit 0; fi; exit 7')
    _, output = configure(folder, "AUTO")
    assert "does not know 100-real;120: built for 75-real;80-real;86-real;89-real;90" in output, output


@pytest.mark.parametrize(
    ("card", "expected"), [("12.1", "120"), ("8.9", "86"), ("13.0", "120"), ("8.6", "86"), ("7.0", "70")]
)
def test_a_card_that_is_newer_than_nvcc_gets_what_runs_on_it(card: str, expected: str, folder: Path) -> None:
    _write_script(folder / "bin" / "nvidia-smi", f"echo {card}")
    listed = "; ".join(f"echo compute_{number}" for number in (75, 80, 86, 120))
    _write_script(folder / "bin" / "nvcc", f'if [ "$1" = --list-gpu-arch ]; then {listed}; exit 0; fi; exit 7')
    project = folder / "CMakeLists.txt"
    text = project.read_text().replace('"80-real;90"', "auto")
    project.write_text(text + 'message(STATUS "for: ${FOCUS_TRIED_ARCHITECTURES}.")\n')
    _, output = configure(folder, "AUTO")
    assert f"for: {expected}." in output, output


@pytest.mark.parametrize(
    ("cards", "expected"), [("echo 8.6; echo 8.6; echo 12.0", "86;120"), ("exit 9", "75-real;80-real;90")]
)
def test_the_cards_of_the_machine_are_built_for(cards: str, expected: str, folder: Path) -> None:
    _write_script(folder / "bin" / "nvidia-smi", cards)
    _write_script(folder / "bin" / "nvcc", "exit 7")
    project = folder / "CMakeLists.txt"
    text = project.read_text().replace('"80-real;90"', "auto")
    project.write_text(text + 'message(STATUS "for: ${FOCUS_TRIED_ARCHITECTURES}")\n')
    _, output = configure(folder, "AUTO")
    assert f"for: {expected}" in output, output


def test_an_nvcc_that_fails_without_a_word(folder: Path) -> None:
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\nexit 7\n")
    nvcc.chmod(0o755)
    status, output = configure(folder, "AUTO")
    assert status == 0, output
    assert decision(output).endswith(f"{nvcc} does not work here: exit status 7")


def test_cudacxx_goes_first_and_may_be_wrong(folder: Path) -> None:
    write_nvcc(folder, "not asked")
    other = write_nvcc(folder, "asked", "other/nvcc")
    assert "does not work here: asked" in decision(configure(folder, "AUTO", CUDACXX=str(other))[1])
    status, output = configure(folder, "AUTO", CUDACXX="/nowhere/nvcc")
    assert status == 0, output
    assert "/nowhere/nvcc does not work here: " in decision(output)
    assert configure(folder, "ON", CUDACXX="/nowhere/nvcc")[0] != 0


def test_no_nvcc(folder: Path) -> None:
    status, output = configure(folder, "AUTO")
    assert status == 0, output
    assert decision(output) == "-- with: FALSE, missing: no nvcc was found"
    assert "Warning" not in output
    status, output = configure(folder, "ON")
    assert status != 0
    assert "no nvcc was found" in output


def test_off_asks_nobody(folder: Path) -> None:
    write_nvcc(folder, "not asked")
    status, output = configure(folder, "OFF")
    assert status == 0, output
    assert "not asked" not in output
    assert decision(output) == "-- with: FALSE, missing: FOCUS_CUDA=OFF"


@pytest.mark.slow
def test_an_nvcc_that_works_is_used(folder: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    status, output = configure(folder, "ON", PATH=os.environ["PATH"])
    assert status == 0, output
    assert decision(output) == "-- with: TRUE, missing: "


RUNTIME = """
#include <cstdio>
#include <cstring>

#include "common/cuda_error.h"

extern "C" {
char const* cudaGetErrorString(cudaError_t) { return "in the words of CUDA"; }
cudaError_t cudaDriverGetVersion(int* version) { *version = DRIVER; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* card, int) {
    std::strcpy(card->name, "Some Card");
    card->major = 7;
    card->minor = 5;
    return cudaSuccess;
}
}

int main() { std::puts(focus::explain_cuda_error(ERROR).c_str()); }
"""


@pytest.mark.parametrize(
    ("error", "driver", "said"),
    [
        ("cudaErrorInsufficientDriver", 12040, "the driver here serves CUDA up to 12.4, and this build"),
        ("cudaErrorInsufficientDriver", 0, "no driver is installed here"),
        ("cudaErrorNoKernelImageForDevice", 13000, "for the architectures 90, and the card is a Some Card"),
        ("cudaErrorUnsupportedPtxVersion", 13000, "or with FOCUS_CUDA_ARCHITECTURES=75"),
        ("cudaErrorInvalidValue", 13000, "in the words of CUDA"),
    ],
)
def test_errors_of_cuda_say_what_to_do(error: str, driver: int, said: str, tmp_path: Path) -> None:
    compiler, nvcc = shutil.which("g++"), Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve()
    folders = [nvcc.parents[1] / "include", Path("/usr/local/cuda/include")]  # the second where nvcc is a script
    headers = next((folder for folder in folders if (folder / "cuda_runtime.h").is_file()), None)
    if compiler is None or headers is None:
        pytest.skip("no g++, or no headers of the CUDA runtime")
    (tmp_path / "main.cpp").write_text(RUNTIME)
    defined = [f"-DERROR={error}", f"-DDRIVER={driver}", '-DFOCUS_CUDA_ARCHITECTURES="90"']
    included = [f"-I{ROOT / 'csrc'}", f"-isystem{headers}"]
    subprocess.run([compiler, "-std=c++17", *defined, *included, "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert done.stdout.startswith("in the words of CUDA")
