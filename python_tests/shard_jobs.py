"""Photos, and the shards of them, for several files of tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from focus.cli import main
from focus.data import write_image

SIZE = 32
COUNT = 11


def make_photos(folder: Path) -> Path:
    """Eleven photos with five or 68 points, and a row without a photo."""
    rng = np.random.default_rng(1)
    rows = ["missing.png," + ",".join(["1"] * 10)]
    for number in range(COUNT):
        name = f"p{number}.png"
        coarse = rng.integers(0, 256, (12, 13, 3), dtype=np.uint8)
        write_image(folder / name, np.kron(coarse, np.ones((20, 20, 1), dtype=np.uint8)))
        points = rng.uniform((90, 80), (170, 160), (68, 2))
        points[[36, 39, 42, 45]] = [[98, 90], [112, 90], [148, 90], [162, 90]]
        points[[30, 48, 54]] = [[130, 118], [108, 142], [152, 142]]
        if number % 3 == 0:
            points = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), *points[[30, 48, 54]]])
        rows.append(",".join([name, *(f"{value:.3f}" for value in points.reshape(-1))]))
    (folder / "landmarks.csv").write_text("\n".join(rows))
    return folder


def run_command(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err
