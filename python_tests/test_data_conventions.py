"""What a landmark table does not say: pixels as shown or as stored, axes, units, order. Refused where it is certain."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from focus.data import PhotoFolder, five_from_68
from focus.data.conventions import _INNER_POINTS, _shown_from_stored, check_contrast, check_landmarks, check_order
from focus.data.images import image_orientation, read_image
from focus.errors import FocusError, FocusWarning
from focus.face import MorphableModel
from focus.fit.crop import open_photo

Points = NDArray[np.float64]

STORED_FROM_SHOWN = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
STORED_WITH = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that takes a photo as shown to the photo as stored."""


def face(center: tuple[float, float] = (110, 130), scale: float = 1.1) -> Points:
    """[68, 2]: the mean face from the front."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([65 * np.cos(angles), 15 - 75 * np.sin(angles)], axis=1)
    points = np.concatenate([jaw, _INNER_POINTS[:, :2]]) * (scale, -scale) + center
    return np.asarray(points)


def draw(points: Points, size: tuple[int, int] = (240, 320)) -> Image.Image:
    """A bright face with dark eyes, brows and mouth on noise; its size is (width, height)."""
    noise = np.random.default_rng(0).integers(60, 140, (size[1], size[0], 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    pen = ImageDraw.Draw(photo)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    pen.ellipse([left - 5, top - 30, right + 5, bottom + 5], fill=(205, 165, 140))
    for part in (points[36:42], points[42:48], points[48:60]):
        (left, top), (right, bottom) = part.min(axis=0) - 4, part.max(axis=0) + 4
        pen.ellipse([left, top, right, bottom], fill=(60, 35, 30))
    return photo


def store(photo: Image.Image, path: Path, orientation: int) -> None:
    """As a telephone does it: turned pixels, and a tag."""
    turn = STORED_FROM_SHOWN[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (photo if turn is None else photo.transpose(turn)).save(path, exif=exif)


def as_stored(points: Points, photo: Image.Image, orientation: int) -> Points:
    """Where a detector finds them that looks at the stored pixels."""
    if orientation == 1:
        return points
    width, height = photo.size if orientation < 5 else photo.size[::-1]
    return _shown_from_stored(points, height, width, STORED_WITH[orientation])


def turned(points: Points, photo: Image.Image) -> tuple[Points, Image.Image]:
    """Both turned by a quarter, clockwise: a person who lies."""
    x, y = points.T
    return np.stack([photo.height - 1 - y, x], axis=1), photo.transpose(Image.Transpose.ROTATE_270)


def _by_open_photo(path: Path, points: Points) -> None:
    open_photo(path, points, 64)


def _by_photo_folder(path: Path, points: Points) -> None:
    table = path.parent / "landmarks.csv"
    table.write_text(",".join([path.name, *(repr(float(value)) for value in points.ravel())]) + "\n")
    PhotoFolder(path.parent, table, 64)


EVERYWHERE = pytest.mark.parametrize("use", [_by_open_photo, _by_photo_folder])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_points_go_where_the_pixels_go(orientation: int, tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 30))
    photo.putpixel((7, 3), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.png", exif=exif)
    assert image_orientation(tmp_path / "a.png") == orientation
    shown = read_image(tmp_path / "a.png")
    row, column = np.argwhere(shown[..., 0] == 255)[0]
    found = _shown_from_stored(np.full((5, 2), (7.0, 3.0)), *shown.shape[:2], orientation)
    assert found.tolist() == [[column, row]] * 5


@EVERYWHERE
@pytest.mark.parametrize("count", [68, 5])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_landmarks_of_the_photo_as_shown_are_used_those_as_stored_refused(
    use: Callable[[Path, Points], None], count: int, orientation: int, tmp_path: Path
) -> None:
    points = face()
    photo = draw(points)
    store(photo, tmp_path / "a.png", orientation)
    given = points if count == 68 else five_from_68(points)
    use(tmp_path / "a.png", given)  # a warning would be an error
    stored = as_stored(given, photo, orientation)
    if orientation != 1:
        with pytest.raises(FocusError, match=rf"as stored, not as shown \(EXIF orientation {orientation}.*Turn the"):
            use(tmp_path / "a.png", stored)


@EVERYWHERE
@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_people_may_lie_in_a_photo(
    use: Callable[[Path, Points], None], quarters: int, orientation: int, tmp_path: Path
) -> None:
    points = face()
    photo = draw(points)
    for _ in range(quarters):
        points, photo = turned(points, photo)
    store(photo, tmp_path / "a.png", orientation)
    use(tmp_path / "a.png", points)


def test_where_pixels_tell_nothing_the_user_is_asked() -> None:
    flat = np.full((300, 300, 3), 128, np.uint8)
    points = face((140, 140), 1)
    check_landmarks(points, flat, 6)
    lying, _ = turned(points, Image.fromarray(flat))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_landmarks(lying, flat)
    with pytest.warns(FocusWarning, match=r"a\.jpg: landmarks of a face that lies .* orientation 8.* is this right\?"):
        check_landmarks(lying, flat, 8, "a.jpg")


@EVERYWHERE
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p / (240, 320), "fractions of its size"),
        (lambda p: p * (1, -1), "y count upwards"),
        (lambda p: (0, 319) + p * (1, -1), "y count upwards"),
        (lambda p: p[:, ::-1], "x and y swapped"),
        (lambda p: p * 4, "do they belong to it"),
        (lambda p: p * 0 + 50, "span a crop of only"),
        (lambda p: (239, 0) + p * (-1, 1), "mirrored after its landmarks were made"),
    ],
)
def test_other_axes_and_units_are_named(
    use: Callable[[Path, Points], None], change: Callable[[Points], Points], words: str, tmp_path: Path
) -> None:
    points = face()
    draw(points).save(tmp_path / "a.png")
    for given in (points, five_from_68(points)):
        with pytest.raises(FocusError, match=words):
            use(tmp_path / "a.png", change(given))


def test_points_in_another_order_are_no_face() -> None:
    points = face()
    check_order(points)
    check_order(five_from_68(points))
    rng = np.random.default_rng(0)
    for order in (np.roll(np.arange(68), 17), np.arange(68)[::-1], rng.permutation(68)):
        with pytest.raises(FocusError, match=r"in the order of iBUG"):
            check_order(points[order])


def test_the_mean_points_are_those_of_the_procedural_face() -> None:
    model = MorphableModel.procedural("small", 1, 1, 1)
    points = model.mean_shape[model.landmarks68][17:].numpy()
    np.testing.assert_allclose(_INNER_POINTS, points, atol=0.51)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_photos_without_contrast_are_refused(value: int) -> None:
    photo = np.full((60, 80, 3), value, np.uint8)
    points = np.random.default_rng(0).uniform(15, 45, (68, 2))
    photo[:5] = 0 if value else 255  # beside the face
    with pytest.raises(FocusError, match=r"a\.png: no contrast at the landmarks"):
        check_contrast(points, photo, "a.png")
    photo[20:40, 20:40] = 0 if value else 255
    check_contrast(points, photo, "a.png")
