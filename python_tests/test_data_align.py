"""The five-point alignment: known cases by hand, exact round trips, and crops that show the right pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from focus.data.align import REFERENCE_POINTS, Alignment, estimate_alignment, five_from_68
from focus.data.images import read_image
from focus.data.landmarks import read_landmarks
from focus.errors import FocusError


def _project(scale: float, x: float, y: float, yaw: float = 0.0) -> np.ndarray:
    """The reference face under a scaled orthographic camera, y down."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    points = REFERENCE_POINTS @ turn.T
    return np.stack([scale * points[:, 0] + x, y - scale * points[:, 1]], axis=1)


@pytest.mark.parametrize("yaw", [0.0, 0.6])
def test_a_known_camera_is_found(yaw: float) -> None:
    alignment = estimate_alignment(_project(204.0, 300.0, 180.0, yaw), 224)
    assert alignment.scale == pytest.approx(0.5)
    assert alignment.center == pytest.approx((300, 180))
    # The reference origin is in the middle of the crop; one reference unit is 102 pixels of 224.
    assert alignment.to_crop(np.array([300.0, 180.0])) == pytest.approx(np.array([111.5, 111.5]))
    eye = alignment.to_crop(_project(204.0, 300.0, 180.0))[0]
    assert eye == pytest.approx(np.array([111.5 - 102 * 0.311487, 111.5 - 102 * 0.290361]))


def test_the_face_fills_the_same_share_of_every_crop() -> None:
    points = _project(150.0, 90.0, 80.0)
    small, large = estimate_alignment(points, 56), estimate_alignment(points, 224)
    assert large.scale == pytest.approx(4 * small.scale)
    assert (small.to_crop(points) + 0.5) * 4 == pytest.approx(large.to_crop(points) + 0.5)


def test_points_round_trip() -> None:
    alignment = Alignment(scale=0.3137, center=(512.3, 77.7), image_size=224)
    points = np.random.default_rng(0).uniform(-2000, 2000, (500, 2))
    assert np.abs(alignment.to_photo(alignment.to_crop(points)) - points).max() < 1e-3
    assert alignment.as_dict() == {"scale": 0.3137, "center": [512.3, 77.7], "image_size": 224}


def test_constant_colour_stays_constant_even_outside_of_the_photo() -> None:
    photo = np.full((50, 40, 3), (10, 200, 77), np.uint8)
    for scale in (0.2, 1.0, 3.7):
        crop = Alignment(scale, (35.2, -3.4), 64).crop_image(photo)
        assert crop.shape == (64, 64, 3)
        assert np.array_equal(crop, np.broadcast_to(photo[0, 0], crop.shape))


def test_a_crop_at_scale_one_is_a_cut_with_repeated_borders() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    alignment = Alignment(1.0, (17.5, 12.5), 16)
    assert np.array_equal(alignment.crop_image(photo), photo[5:21, 10:26])
    outside = Alignment(1.0, (3.5, 28.5), 16).crop_image(photo)
    expected = photo[np.clip(np.arange(21, 37), 0, 29)[:, None], np.clip(np.arange(-4, 12), 0, 39)]
    assert np.array_equal(outside, expected)


@pytest.mark.parametrize("scale", [0.31, 0.5, 1.0, 2.3])
def test_pixels_land_where_the_points_say(scale: float) -> None:
    """Ramps: the value of a pixel is its coordinate, so that a crop tells where in the photo each pixel lies."""
    photo = np.zeros((240, 240, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(240)[None, :], np.arange(240)[:, None]
    alignment = Alignment(scale, (121.3, 117.9), 32)
    crop = alignment.crop_image(photo)
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    where = alignment.to_photo(np.stack([columns, rows], axis=-1))
    assert np.abs(crop[..., :2] - where).max() <= 0.51  # rounding to bytes


def test_shrinking_does_not_alias() -> None:
    photo = np.zeros((400, 400), np.uint8)
    photo[:, ::2] = 255
    crop = Alignment(0.1, (199.5, 199.5), 32).crop_image(photo)
    assert np.abs(crop.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("scale", [0.2, 0.77, 1.0, 2.5])
def test_masks_go_back_to_the_photo(scale: float) -> None:
    alignment = Alignment(scale, (50.2, 40.7), 32)
    columns, rows = np.meshgrid(np.arange(32.0), np.arange(32.0))
    back = alignment.to_photo_image(np.stack([columns, rows], axis=-1), (90, 110), fill=-1)
    assert back.shape == (90, 110, 2)
    x, y = np.meshgrid(np.arange(110), np.arange(90))
    where = alignment.to_crop(np.stack([x, y], axis=-1))
    inside = ((where >= -0.5) & (where < 31.5)).all(axis=-1)
    assert np.array_equal(back[..., 0] != -1, inside)
    margin = max(1.0, 2 * scale)  # the filter and the repeated border reach that far
    interior = ((where > margin) & (where < 31 - margin)).all(axis=-1)
    assert interior.any()
    # When the crop shrinks, a triangle filter of a width that is no whole number moves a ramp by a hundredth.
    assert np.abs(back - where)[interior].max() < (1e-3 if scale <= 1 else 0.02)
    assert alignment.to_photo_image(np.ones((32, 32)), (90, 110)).shape == (90, 110)
    assert Alignment(scale, (1e4, 0), 32).to_photo_image(np.ones((32, 32)), (20, 30)).max() == 0


def test_bad_points_and_photos_are_refused() -> None:
    with pytest.raises(FocusError, match="5 finite points"):
        estimate_alignment(np.full((5, 2), np.nan), 224)
    with pytest.raises(FocusError, match="5 finite points"):
        estimate_alignment(np.zeros((4, 2)), 224)
    with pytest.raises(FocusError, match="distinct points on a face"):
        estimate_alignment(np.full((5, 2), 30.0), 224)
    photo = np.zeros((30, 30, 3), np.uint8)
    with pytest.raises(FocusError, match="do the landmarks belong to this photo"):
        Alignment(1.0, (500, 500), 32).crop_image(photo)
    with pytest.raises(FocusError, match="do the landmarks belong to this photo"):
        Alignment(0.01, (10, 10), 224).crop_image(photo)
    with pytest.raises(FocusError, match="float64"):
        Alignment(1.0, (10, 10), 32).crop_image(photo.astype(np.float64))  # type: ignore[arg-type]
    with pytest.raises(FocusError, match=r"\[32, 32\]"):
        Alignment(1.0, (10, 10), 32).to_photo_image(np.zeros((16, 16)), (20, 20))


def test_real_photos(shared_dir: Path) -> None:
    table = read_landmarks(shared_dir / "photos" / "landmarks.csv")
    assert len(table.points) == 13
    for name, points in table.points.items():
        alignment = estimate_alignment(five_from_68(points), 224)
        crop = alignment.crop_image(read_image(shared_dir / "photos" / name))
        left, right, nose, *_ = alignment.to_crop(five_from_68(points))
        # Where the reference face has them, give or take turned heads.
        assert np.abs(left - [79.7, 81.9]).max() < 22, name
        assert np.abs(right - [143.1, 81.9]).max() < 22, name
        assert abs(nose[1] - 116) < 20, name
        assert crop.std() > 10, name
