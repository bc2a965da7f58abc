"""Photo folders: what is skipped, what a batch holds, and augmentation that moves pixels and points alike."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import focus.data.photos
from focus.data import AugmentationSettings, FaceBatch, PhotoFolder, estimate_alignment, write_image
from focus.data.changes import Change, Changes
from focus.data.landmarks import MIRRORED_LANDMARKS
from focus.errors import FocusError
from focus.sealed import seal_json


def _face_points() -> np.ndarray:
    """[68, 2]: a rough face about 100 pixels wide, round (130, 110)."""
    rng = np.random.default_rng(0)
    points = rng.uniform((90, 80), (170, 160), (68, 2))
    points[[36, 39, 42, 45]] = [[98, 90], [112, 90], [148, 90], [162, 90]]
    points[[30, 48, 54]] = [[130, 118], [108, 142], [152, 142]]
    return points


def _row(name: str, points: np.ndarray) -> str:
    return ",".join([name, *(f"{value:.2f}" for value in points.reshape(-1))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, rng.integers(0, 256, (240, 260, 3), dtype=np.uint8))
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:5000])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def test_good_photos_are_used_and_bad_ones_are_listed(folder: Path) -> None:
    points = _face_points()
    five = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), points[30], points[48], points[54]])
    rows = [
        _row("a.png", points),
        _row("../a.png", points),
        _row("c.png", points),
        _row("missing.png", points),
        _row("text.png", points),
        _row("short.png", points[:60]),
        _row("b.png", five),
    ]
    (folder / "l.csv").write_text("\n".join(rows))
    photos = PhotoFolder(folder, folder / "l.csv", 64)
    assert [item.name for item in photos.items] == ["a.png", "b.png"]
    reasons = dict(photos.skipped)
    assert list(reasons) == ["short.png", "../a.png", "c.png", "missing.png", "text.png"]
    assert "leaves the photo folder" in reasons["../a.png"]
    assert "damaged or truncated" in reasons["c.png"]

    batch = photos.batch([1, 0])
    assert batch.image.shape == (2, 3, 64, 64)
    assert batch.names == ["b.png", "a.png"]
    assert (batch.visible_mask, batch.parameters, batch.occluder) == (None, None, [])
    assert batch.landmark_weights.sum(dim=1).tolist() == [3, 68]
    # Both files have the same five points, so the same crop of different noise.
    assert photos.items[0].alignment == photos.items[1].alignment == estimate_alignment(five, 64)
    expected = photos.items[0].alignment.to_crop(points)
    assert np.abs(batch.landmarks[1].numpy() - expected).max() < 0.005  # the file has two decimals

    uncached = PhotoFolder(folder, folder / "l.csv", 64, cache_bytes=0)
    assert torch.equal(uncached.batch([1, 0]).image, batch.image)


def test_all_faces_of_a_photo_are_used(folder: Path) -> None:
    points = _face_points()
    rows = [_row("a.png", points), _row("b.png", points), _row("a.png", points + 20), _row("a.png", points)]
    (folder / "l.csv").write_text("\n".join(rows))
    photos = PhotoFolder(folder, folder / "l.csv", 64)
    assert [item.name for item in photos.items] == ["a.png, face 1", "b.png", "a.png, face 2"]
    assert [item.photo for item in photos.items] == ["a.png", "b.png", "a.png"]
    assert not torch.equal(*photos.batch([0, 2]).image)
    (skip,) = photos.skipped
    assert "second row of the same face" in skip.reason


def test_nothing_usable_is_an_error(folder: Path) -> None:
    (folder / "l.csv").write_text(_row("missing.png", _face_points()))
    with pytest.raises(FocusError, match=r"none of the 1 rows.*missing\.png: no such file"):
        PhotoFolder(folder, folder / "l.csv", 64)
    with pytest.raises(FocusError, match="no such folder"):
        PhotoFolder(folder / "nowhere", folder / "l.csv", 64)


def test_augmentation_depends_on_the_seed_and_the_photo_only(folder: Path) -> None:
    (folder / "l.csv").write_text("\n".join([_row("a.png", _face_points()), _row("b.png", _face_points())]))
    photos = PhotoFolder(folder, folder / "l.csv", 64)
    both, alone, other = (
        photos.batch([0, 1], augment_seed=5),
        photos.batch([1], augment_seed=5),
        photos.batch([1], augment_seed=6),
    )
    assert torch.equal(both.image[1:], alone.image)
    assert torch.equal(both.landmarks[1:], alone.landmarks)
    assert not torch.equal(alone.image, other.image)
    assert not torch.equal(photos.batch([1]).image, alone.image)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_augmented_points_follow_the_pixels(flip: float) -> None:
    """A bright dot at a landmark is found at the moved landmark."""
    settings = AugmentationSettings(flip_probability=flip, gain=0, gamma=0)
    for seed in range(10):
        landmarks = np.full((68, 2), 31.5)
        landmarks[36] = (14, 40)
        y, x = np.mgrid[:80, :80]
        dot = np.exp(-((x - (14 + 8)) ** 2 + (y - (40 + 8)) ** 2) / 8)  # a margin of 8 pixels round 64
        crop = np.repeat((255 * dot)[..., None], 3, axis=2).astype(np.uint8)
        change = Change.draw(settings, 64, np.random.default_rng(seed))
        image, (moved, weights) = change.image(crop, 64), change.landmarks(landmarks, np.arange(68.0), 64)
        weight = image[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64]
        found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        index = 45 if flip else 36  # the outer corner of the other eye after mirroring
        assert np.abs(found - moved[index]).max() < 0.1
        assert weights[index] == 36
        assert np.array_equal(weights, np.arange(68.0)[MIRRORED_LANDMARKS] if flip else np.arange(68.0))


def test_colour_changes_keep_black_and_order() -> None:
    crop = np.zeros((80, 80, 3), np.uint8)
    crop[:, 40:] = 120
    settings = AugmentationSettings(rotation=0, scale=0, shift=0, flip_probability=0)
    image = Change.draw(settings, 64, np.random.default_rng(0)).image(crop, 64)
    assert image[:, :30].max() == 0
    assert len(np.unique(image[:, 34:, 0])) == 1
    assert 90 < image[0, 40, 0] < 150


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("shading", [0.0, 0.5])
def test_a_batch_is_changed_as_its_photos_are(size: int, shading: float) -> None:
    """On any device at once what Pillow does one by one, but for the last level of one value in a thousand."""
    settings = AugmentationSettings(rotation=0.4, scale=0.2, shift=0.3, shading=shading)
    rng = np.random.default_rng(size)
    noise = rng.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    side = size + 8
    crops = [np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)) for picture in noise]
    changes = [Change(), *(Change.draw(settings, size, rng) for _ in crops[1:])]
    expected = np.stack([change.image(crop, size) for change, crop in zip(changes, crops, strict=True)])
    batch = Changes.of(changes, size)
    found = batch.images(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
    assert found.dtype == torch.float32
    levels = (found * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.allclose(levels / 255, found.permute(0, 2, 3, 1).numpy(), atol=1e-7)
    assert np.array_equal(levels[0], expected[0])
    assert (expected == 0).mean() > 0.01, "no picture shows what is beside its crop"
    error = np.abs(levels - expected)
    assert error.max() <= 2  # one before the curve of the colour
    assert (error > 0).mean() < 1e-3


def test_photos_may_be_changed_where_they_are_used(folder: Path) -> None:
    (folder / "l.csv").write_text("\n".join([_row("a.png", _face_points()), _row("b.png", _face_points())]))
    photos = PhotoFolder(folder, folder / "l.csv", 64)
    for seed in (None, 5):
        now, later = photos.batch([0, 1], seed), photos.later.batch([0, 1], seed)
        assert later.image.dtype == torch.uint8
        joined = FaceBatch.cat([later[:1], later[1:]])
        assert joined.names == now.names
        changed = joined.changed()
        assert changed.changes is None
        assert torch.equal(changed.landmarks, now.landmarks)
        assert changed.image.shape == now.image.shape
        error = (changed.image - now.image).abs() * 255
        assert float(error.max()) < 2.01
        assert float((error > 0.01).float().mean()) < 1e-3
        assert torch.equal(now.changed().image, now.image)


def test_batches_join_and_split(folder: Path) -> None:
    (folder / "l.csv").write_text("\n".join([_row("a.png", _face_points()), _row("b.png", _face_points())]))
    photos = PhotoFolder(folder, folder / "l.csv", 32)
    both = photos.batch([0, 1])
    joined = FaceBatch.cat([photos.batch([0]), photos.batch([1])])
    assert torch.equal(joined.image, both.image)
    assert joined.names == both.names
    assert both[1:].names == ["b.png"]
    assert torch.equal(both[[1, 0]].landmarks[0], both.landmarks[1])
    assert both[torch.tensor([1])].names == ["b.png"]
    with pytest.raises(ValueError, match="at least one"):
        FaceBatch.cat([])


def test_real_photos(shared_dir: Path) -> None:
    photos = PhotoFolder(shared_dir / "photos", shared_dir / "photos" / "landmarks.csv", 96)
    assert len(photos) == 13
    assert photos.skipped == []
    batch = photos.batch(range(13), augment_seed=3)
    assert batch.image.shape == (13, 3, 96, 96)
    assert batch.landmarks.isfinite().all()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which photos are decoded from now on."""
    names: list[str] = []
    read = focus.data.photos.read_image
    monkeypatch.setattr(focus.data.photos, "read_image", lambda path: (names.append(Path(path).name), read(path))[1])
    return names


@pytest.fixture
def stored(folder: Path) -> Callable[..., PhotoFolder]:
    write_image(folder / "c.png", np.random.default_rng(2).integers(0, 256, (240, 260, 3), dtype=np.uint8))

    def photos(names: str = "ab", size: int = 64, shift: float = 0, **options: Any) -> PhotoFolder:
        rows = [_row(f"{name}.png", _face_points() + shift) for name in names]
        (folder / "l.csv").write_text("\n".join(rows))
        return PhotoFolder(folder, folder / "l.csv", size, store=folder / "crops", **options)

    return photos


def test_crops_in_a_file_are_those_in_memory(stored: Callable[..., PhotoFolder], decoded: list[str]) -> None:
    first = stored()
    plain = PhotoFolder(first.folder, first.folder / "l.csv", 64)
    decoded.clear()
    again = stored()
    copy = pickle.loads(pickle.dumps(again))
    for photos in (first, again, copy):
        for seed in (None, 3):
            assert torch.equal(photos.batch([1, 0], seed).image, plain.batch([1, 0], seed).image)
    assert decoded == []
    assert len(pickle.dumps(again)) < 40_000  # without the crops
    assert [item.digest for item in again.items] == [item.digest for item in plain.items]
    assert [item.photo_size for item in again.items] == [(240, 260)] * 2


def test_what_is_new_is_decoded_alone(stored: Callable[..., PhotoFolder], decoded: list[str]) -> None:
    stored()
    decoded.clear()
    assert len(stored("cab")) == 3
    assert decoded == ["c.png"]
    decoded.clear()
    assert len(stored("bca")) == 3  # in any order
    assert decoded == []
    shifted = stored("ab", shift=2)  # other landmarks
    assert decoded == ["a.png", "b.png"]
    assert not torch.equal(shifted.batch([0]).image, stored("ab").batch([0]).image)
    write_image(shifted.folder / "a.png", np.zeros((240, 260, 3), np.uint8))
    decoded.clear()
    assert float(stored().batch([0]).image.max()) == 0
    assert decoded == ["a.png"]


@pytest.mark.parametrize("hurt", ["line", "crop", "lines cut", "crops cut", "lines gone", "crops gone", "rubbish"])
def test_what_is_damaged_is_made_anew(stored: Callable[..., PhotoFolder], hurt: str) -> None:
    photos = stored("abc")
    expected = photos.batch([0, 1, 2]).image
    lines, crops = (photos.folder / "crops" / name for name in ("crops_80.jsonl", "crops_80.bin"))
    if hurt == "line":
        lines.write_bytes(lines.read_bytes().replace(b'"crop": 1', b'"crop": 2'))
    elif hurt == "crop":
        data = bytearray(crops.read_bytes())
        data[len(data) // 2] ^= 1
        crops.write_bytes(data)
    elif hurt.endswith("cut"):
        path = lines if hurt == "lines cut" else crops
        path.write_bytes(path.read_bytes()[:-7])
    elif hurt.endswith("gone"):
        (lines if hurt == "lines gone" else crops).unlink()
    else:
        lines.write_text('{"key": [], "crop": {}}\nnothing\n')
    assert torch.equal(stored("abc").batch([0, 1, 2]).image, expected)
    assert torch.equal(stored("abc").batch([0, 1, 2]).image, expected)
    assert crops.stat().st_size == 3 * 80 * 80 * 3
    assert lines.read_bytes().count(b"\n") == 3


def test_a_file_of_crops_is_bounded(stored: Callable[..., PhotoFolder], decoded: list[str]) -> None:
    photos = stored("abc", store_bytes=2 * 80 * 80 * 3 + 5, cache_bytes=0)
    assert (photos.folder / "crops" / "crops_80.bin").stat().st_size == 2 * 80 * 80 * 3
    decoded.clear()
    assert torch.equal(photos.batch([0, 1, 2]).image, stored("abc").batch([0, 1, 2]).image)
    assert decoded[0] == "c.png"


def test_a_full_disk_ends_no_run(stored: Callable[..., PhotoFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("focus.data.crops._append", full)
        photos = stored("abc")
    assert torch.equal(photos.batch([0, 1, 2]).image, stored("abc").batch([0, 1, 2]).image)


def test_links_are_not_written_through(stored: Callable[..., PhotoFolder], folder: Path) -> None:
    mine = folder / "mine"
    mine.write_bytes(b"precious" * 10_000)
    stored("a")
    crops = folder / "crops" / "crops_80.bin"
    crops.unlink()
    crops.symlink_to(mine)
    assert len(stored("abc")) == 3
    assert mine.read_bytes() == b"precious" * 10_000
    crops.unlink()
    os.mkfifo(crops)
    with contextlib.suppress(FocusError):
        stored("ab")


def test_stores_of_other_sizes_are_left_alone(stored: Callable[..., PhotoFolder], decoded: list[str]) -> None:
    stored("abc")
    assert len(stored("ab", size=48)) == 2
    decoded.clear()
    assert len(stored("abc")) == 3
    assert decoded == []


def test_what_is_no_file_is_no_store(stored: Callable[..., PhotoFolder], folder: Path) -> None:
    (folder / "crops").write_text("")
    assert len(stored("ab")) == 2
    (folder / "crops").unlink()
    (folder / "crops" / "crops_80.bin").mkdir(parents=True)
    assert len(stored("ab")) == 2


def test_a_line_that_comes_twice_is_left_out(stored: Callable[..., PhotoFolder], folder: Path) -> None:
    expected = stored("ab").batch([0, 1]).image
    lines = folder / "crops" / "crops_80.jsonl"
    first = json.loads(lines.read_text().splitlines()[0])
    del first["checksum"]
    lines.write_text(seal_json(first) + "\n" + seal_json({**first, "crop": 1}) + "\n")
    assert torch.equal(stored("ab").batch([0, 1]).image, expected)


def test_room_is_left_on_the_disk(stored: Callable[..., PhotoFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=3 << 30))
    photos = stored("ab")
    assert not (photos.folder / "crops" / "crops_80.bin").exists()
    assert len(photos.batch([0, 1])) == 2


def test_a_copy_elsewhere_decodes_photos_itself(stored: Callable[..., PhotoFolder], decoded: list[str]) -> None:
    """On another machine, without the folder of the run."""
    photos = stored("ab")
    expected = photos.batch([0, 1]).image
    copy = pickle.loads(pickle.dumps(photos))
    shutil.rmtree(photos.folder / "crops")
    decoded.clear()
    assert torch.equal(copy.batch([0, 1]).image, expected)
    assert decoded == ["a.png", "b.png"]
