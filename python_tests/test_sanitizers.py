"""The CUDA kernels, emulated with one thread of the system per CUDA thread, under the sanitizers of the compiler."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_kernels_under_sanitizers(build_emulation: Callable[[str, str], Path], sanitizers: str) -> None:
    """exercise_kernels also compares the results with those of the CPU kernels."""
    program = build_emulation("exercise_kernels", sanitizers)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    result = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]
    for operator in ("rasterize", "interpolate", "render", "vertex_normals", "sh_shading"):
        assert operator in result.stdout.splitlines()
