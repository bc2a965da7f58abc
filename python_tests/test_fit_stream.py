"""Photos through a network in batches, with files read ahead and written behind."""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focus.data.align import Alignment
from focus.data.landmarks import Skip
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel
from focus.fit.crop import OpenPhoto
from focus.fit.faces import PhotoFace
from focus.fit.folder import reconstruct_photos
from focus.fit.results import FitReport
from focus.reconstruction import Reconstruction

COUNT = 11


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small").truncated(4, 2, 3)


class Network:
    """Notes what it is given; fails for photos whose names say so."""

    def __init__(self, model: MorphableModel, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.batches: list[list[str]] = []
        self.opened: list[str] = []

    def open(self, image: str | Path, landmarks: NDArray[np.float64], *, name: str) -> OpenPhoto:
        self.opened.append(name)
        if "unreadable" in name:
            raise FocusError(f"{image}: no good")
        blank = np.full((64, 64, 3), len(name), np.uint8)
        return OpenPhoto(name, blank, landmarks, Alignment(0.2, (31.5, 31.5), 8), torch.ones(3, 8, 8))

    def photos(self, photos: Sequence[OpenPhoto]) -> list[Reconstruction]:
        names = [photo.name for photo in photos]
        self.batches.append(names)
        if any("odd" in name for name in names):
            raise ArithmeticError("too odd")
        if any("stop" in name for name in names):
            raise KeyboardInterrupt
        return [
            Reconstruction(
                model=self.model,
                parameters=FaceParameters.mean(self.model),
                image=photo.crop,
                rendering=photo.crop,
                face=photo.crop[:1],
                mask=photo.crop[:1],
                alignment=photo.alignment,
                photo=photo.photo,
                name=photo.name,
            )
            for photo in photos
        ]


@pytest.fixture
def faces(tmp_path: Path) -> list[PhotoFace]:
    return named(tmp_path, [f"p{number:02d}.png" for number in range(COUNT)])


def named(folder: Path, names: Sequence[str]) -> list[PhotoFace]:
    points = np.random.default_rng(0).uniform(10, 50, (68, 2))
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [(folder / name, points) for name in names]


def run(network: Network, faces: list[PhotoFace], out: Path, **options: Any) -> FitReport:
    report = FitReport()
    return reconstruct_photos([], faces, out, network, 1, made_by={"by": "test"}, report=report, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_all_come_in_order_and_in_batches(
    model: MorphableModel, faces: list[PhotoFace], tmp_path: Path, batch_size: int
) -> None:
    network = Network(model, batch_size)
    report = run(network, faces, tmp_path / "out")
    assert [Path(written.name).name for written in report.written] == [path.name for path, _ in faces]
    assert [len(batch) for batch in network.batches] == [
        min(batch_size, COUNT - start) for start in range(0, COUNT, batch_size)
    ]
    assert all(file.exists() for written in report.written for file in written.files)
    again = run(network, faces, tmp_path / "out")
    assert all(written.there_already for written in again.written)
    assert len(network.opened) == COUNT, "nothing is read again"
    (tmp_path / "out" / "p04.json").unlink()
    third = run(network, faces, tmp_path / "out")
    assert [written.there_already for written in third.written].count(False) == 1
    assert [Path(written.name).name for written in third.written] == [path.name for path, _ in faces]


def test_one_that_fails_takes_no_other_with_it(model: MorphableModel, tmp_path: Path) -> None:
    names = ["a.png", "unreadable.png", "b.png", "odd.png", "c.png", "d.png"]
    network = Network(model, 4)
    report = run(network, named(tmp_path, names), tmp_path / "out")
    assert [Path(written.name).stem for written in report.written] == ["a", "b", "c", "d"]
    unreadable, odd = report.skipped
    assert (Path(unreadable.name).stem, unreadable.reason) == ("unreadable", "no good")
    assert Path(odd.name).stem == "odd"
    assert odd.reason.startswith("ArithmeticError: too odd")
    assert report.faults == 1


def test_filters_of_warnings_stay_as_they_were(model: MorphableModel, faces: list[PhotoFace], tmp_path: Path) -> None:
    """Photos are decoded under filters of their own, in two threads."""

    class Warned(Network):
        def open(self, image: str | Path, landmarks: NDArray[np.float64], *, name: str) -> OpenPhoto:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                time.sleep(0.01 * (1 + len(self.opened) % 3))
                return super().open(image, landmarks, name=name)

    before = list(warnings.filters)
    run(Warned(model, 2), faces, tmp_path / "out")
    assert list(warnings.filters) == before


def test_photos_that_are_open_are_bounded(
    model: MorphableModel, faces: list[PhotoFace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("focus.fit.stream._MOST_BYTES", 3 * 64 * 64 * 3)
    network = Network(model, 16)
    report = run(network, faces, tmp_path / "out")
    assert len(report.written) == COUNT
    assert max(map(len, network.batches)) <= 4


def test_a_full_disk_is_told_once(
    model: MorphableModel, faces: list[PhotoFace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Reconstruction.save

    def full(self: Reconstruction, folder: Path, stem: str, **options: Any) -> Any:
        if stem >= "p05":
            raise FocusError(f"{folder}: cannot be written") from OSError(errno.ENOSPC, "No space left on device")
        return save(self, folder, stem, **options)

    monkeypatch.setattr(Reconstruction, "save", full)
    report = run(Network(model, 2), faces, tmp_path / "out")
    assert [Path(written.name).stem for written in report.written] == [f"p{number:02d}" for number in range(5)]
    assert len(report.skipped) == 1
    assert report.stopped is not None


def test_what_was_written_before_an_interrupt_is_told(model: MorphableModel, tmp_path: Path) -> None:
    names = [*(f"p{number}.png" for number in range(4)), "stop.png", "q.png"]
    report = FitReport()
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        reconstruct_photos([], named(tmp_path, names), out, Network(model, 1), 1, report=report)
    told = {file for written in report.written for file in written.files}
    assert told == {path for path in out.iterdir() if not path.name.startswith(".")}
    assert report.skipped == list[Skip]()
