"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def _cuda_is_required() -> bool:
    return os.environ.get("FOCUS_REQUIRE_CUDA", "0") == "1"


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs a test on the CPU, and on CUDA where there is a card; `FOCUS_REQUIRE_CUDA=1` makes a missing card a failure."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if _cuda_is_required():
            pytest.fail("FOCUS_REQUIRE_CUDA=1, and torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data for development (golden renders, photos, a scan-based model); the test is skipped where it is absent."""
    path = Path(os.environ.get("FOCUS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"no reference data at {path} (set FOCUS_SHARED to its folder)")
    return path
