"""Image files: every kind that a camera or the web makes, and every way in which one can be broken."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus.data import image_size, read_image, write_image
from focus.data.images import read_grey
from focus.errors import FocusError


def _gradient(height: int = 20, width: int = 30) -> np.ndarray:
    """[H, W, 3] with a different value in every corner, so that no turn or flip leaves it as it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 12, columns * 8, rows * 3 + columns * 2], axis=-1).astype(np.uint8)


def _png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_rgb_is_read_unchanged(tmp_path: Path) -> None:
    picture = _gradient()
    Image.fromarray(picture).save(tmp_path / "a.png")
    loaded = read_image(tmp_path / "a.png")
    assert loaded.dtype == np.uint8
    assert np.array_equal(loaded, picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    picture = _gradient()
    # How the camera stored the upright picture, for each value of the tag (TIFF 6.0: where row 0 and column 0 are).
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    assert image_size(tmp_path / "a.png") == picture.shape[:2]


def test_grey_has_three_equal_channels(tmp_path: Path) -> None:
    grey = _gradient()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(grey[..., None], 3, axis=2))


def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 109
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], (values >> 8).astype(np.uint8))


def _png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of RGB or RGBA, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "rgb.png", "rgba.png", "rgb.ppm"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_numbers_of_few_bits_in_16_are_refused(tmp_path: Path, kind: str, bits: int) -> None:
    path, grey = tmp_path / kind, np.linspace(0, (1 << bits) - 1, 20 * 30).reshape(20, 30).astype(np.uint16)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    if kind.startswith("grey"):
        Image.fromarray(grey).save(path)
    elif kind == "rgb.ppm":
        path.write_bytes(b"P6\n30 20\n65535\n" + rgb.astype(">u2").tobytes())
    else:
        opaque = np.full((20, 30, 1), 65535, np.uint16)
        path.write_bytes(_png_of_16_bits(rgb if kind == "rgb.png" else np.concatenate((rgb, opaque), axis=2)))
    if bits == 16:
        assert np.abs(read_image(path)[..., 0] - (grey >> 8).astype(np.float64)).max() <= 1
        return
    expected = "save it with 8" if bits == 8 else f"it uses {bits} of its 16 bits; scale it"
    with pytest.raises(FocusError, match=rf"{kind}: .*no value above {(1 << bits) - 1}, which is .*black.*{expected}"):
        read_image(path)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:8, :, 3] = 255
    rgba[8:, :, 3] = 51  # one fifth
    Image.fromarray(rgba).save(tmp_path / "a.png")
    loaded = read_image(tmp_path / "a.png")
    assert loaded[0, 0].tolist() == [200, 0, 0]
    assert np.abs(loaded[15, 0].astype(int) - [244, 204, 204]).max() <= 1


def test_palette_with_transparency_and_cmyk(tmp_path: Path) -> None:
    palette = Image.fromarray(np.zeros((16, 16), np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30] + [0] * 765)
    palette.save(tmp_path / "opaque.png")
    palette.save(tmp_path / "clear.png", transparency=0)
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    assert read_image(tmp_path / "opaque.png")[0, 0].tolist() == [10, 20, 30]
    assert read_image(tmp_path / "clear.png")[0, 0].tolist() == [255, 255, 255]
    red = read_image(tmp_path / "red.jpg")[8, 8]
    assert red[0] > 240
    assert red[1:].max() < 15


def test_grey_is_read_as_it_is_and_nothing_is_guessed(tmp_path: Path) -> None:
    grey = _gradient()[..., 0]
    white = np.where(grey > 100, 255, 0).astype(np.uint8)
    path = tmp_path / "a.png"
    good = (
        (Image.fromarray(grey), grey),
        (Image.fromarray(np.repeat(grey[..., None], 3, axis=2)), grey),
        (Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])), grey),
        (Image.fromarray(white > 0), white),
        (Image.fromarray(grey.astype(np.uint16) * 256), grey),
        (Image.fromarray(np.zeros((20, 30), np.uint16)), np.zeros_like(grey)),
    )
    for picture, expected in good:
        picture.save(path)
        assert np.array_equal(read_grey(path), expected)
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=70)
    assert np.abs(read_grey(tmp_path / "a.jpg").astype(int) - grey).max() < 16
    palette = Image.fromarray((white > 0).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(path)
    assert np.array_equal(read_grey(path), white)
    palette.putpalette([0, 0, 0, 128, 0, 0])
    bad = (
        (palette, r"got colours \(channels up to 128 apart"),
        (Image.fromarray(np.dstack([white, 0 * white, 0 * white])), "got colours"),
        (Image.fromarray(np.dstack([0 * white + 255, white]), "LA"), "transparent pixels"),
        (Image.fromarray(np.dstack([grey, grey, grey, white])), "transparent pixels"),
        (Image.fromarray((white > 0).astype(np.uint16)), "no value above 1, which is black"),
        (Image.fromarray(white.astype(np.uint16)), "no value above 255, which is black"),
    )
    for picture, message in bad:
        picture.save(path)
        with pytest.raises(FocusError, match=message):
            read_grey(path)


def test_damaged_exif_leaves_the_pixels(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_gradient()).save(buffer, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


Image.init()
AVIF = "AVIF" in Image.SAVE
SUFFIXES = [".jpg", ".png", ".tiff", ".webp", ".bmp", ".gif", ".ppm", *([".avif"] if AVIF else [])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_the_list_is_read_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    picture = np.full((20, 30, 3), 128, np.uint8)
    Image.fromarray(picture).save(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.photo")
    assert np.abs(read_image(tmp_path / "a.photo").astype(int) - picture).max() <= 4
    assert image_size(tmp_path / "a.photo") == (20, 30)


def _other_kinds() -> dict[str, bytes]:
    """Files of what Pillow knows and FOCUS does not read."""
    Image.init()
    kinds = {}
    for name in ("EPS", "PDF", "TGA", "PCX", "SGI", "ICO", "ICNS", "DDS", "MSP", "SPIDER", "JPEG2000", "QOI"):
        if name in Image.SAVE:
            file = io.BytesIO()
            picture = Image.fromarray(_gradient(32, 32))
            (picture.convert("1") if name == "MSP" else picture).save(file, name)
            kinds[name] = file.getvalue()
    kinds["PostScript"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n%%EndComments\nshowpage\n%%EOF\n"
    kinds["WMF"] = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 2000, 2000, 72) + bytes(60)
    kinds["FITS"] = b"".join(line.ljust(80) for line in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 0", b"END")) * 9
    kinds["GRIB"], kinds["HDF5"] = b"GRIB\0\0\0\1" + bytes(60), b"\x89HDF\r\n\x1a\n" + bytes(60)
    kinds["PSD"] = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 32, 32, 8, 3) + bytes(64)
    return kinds


@pytest.mark.parametrize("kind", _other_kinds())
def test_no_other_kind_is_read_and_no_program_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def start(*_: object, **__: object) -> None:
        pytest.fail("a program was started")

    for module, name in ((subprocess, "Popen"), (os, "system"), (os, "posix_spawn"), (os, "fork")):
        monkeypatch.setattr(module, name, start)
    (tmp_path / "photo.jpg").write_bytes(_other_kinds()[kind])
    for read in (read_image, read_grey, image_size):
        with pytest.raises(FocusError, match=r"photo\.jpg: the file is not an image of a kind that is read here"):
            read(tmp_path / "photo.jpg")


def test_images_are_opened_in_one_place() -> None:
    """Every call that opens an image by its contents, in all of the package."""
    source = Path(__file__).resolve().parents[1] / "focus"
    found = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            opens = name == "open" and isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("Image")
            if opens or name in ("imread", "imiter", "mimread", "improps", "immeta", "imopen", "get_reader", "Parser"):
                found.add(path.relative_to(source).as_posix())
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            packages = {module.partition(".")[0] for module in modules}
            if packages & {"cv2", "skimage", "torchvision"}:
                found.add(path.relative_to(source).as_posix())
    assert found == {"data/images.py"}


def test_heic_names_the_package_that_reads_it_and_is_read_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heix", b"msf1\0\0\0\0hevcmiaf"):
        path.write_bytes(b"\0\0\0\x18ftyp" + brands + bytes(200))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(FocusError, match=r"IMG_0001\.HEIC: is a HEIC photo; .*pip install pillow-heif.*JPEG"):
            read_image(path)
    package, opened = types.ModuleType("pillow_heif"), []
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
    monkeypatch.setitem(Image.OPEN, "HEIF", (lambda file, name: Image.new("RGB", (40, 20)), None))
    package.register_heif_opener = lambda: opened.append(1)  # type: ignore[attr-defined]
    assert read_image(path).shape == (20, 40, 3)
    assert opened


def test_avif_that_pillow_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(100))
    monkeypatch.setattr("focus.data.images._decoders", lambda: ("JPEG", "PNG"))
    with pytest.raises(FocusError, match=r"a\.avif: is an AVIF image, .*pillow 11\.3"):
        read_image(tmp_path / "a.avif")


def test_damaged_tags_are_no_warning(tmp_path: Path) -> None:
    Image.fromarray(_gradient()).save(tmp_path / "a.tiff", tiffinfo={270: "description"})
    data = (tmp_path / "a.tiff").read_bytes()
    entry = data.index(struct.pack("<HH", 270, 2))
    (tmp_path / "a.tiff").write_bytes(data[: entry + 4] + struct.pack("<I", 1 << 30) + data[entry + 8 :])
    with contextlib.suppress(FocusError):  # Pillow 10 cannot open it; what counts is that no warning ends the test
        assert np.array_equal(read_image(tmp_path / "a.tiff"), _gradient())


@pytest.mark.skipif(not AVIF, reason="this Pillow has no AVIF")
def test_damaged_avif_is_refused(tmp_path: Path) -> None:
    Image.fromarray(_gradient()).save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    place = data.index(b"mdat") + 4  # what the decoder says of its contents is a RuntimeError
    (tmp_path / "a.avif").write_bytes(data[:place] + bytes(len(data) - place))
    with pytest.raises(FocusError, match=r"a\.avif: "):
        read_image(tmp_path / "a.avif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp", ".bmp"])
def test_truncated_files_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FocusError, match="cut"):
            read_image(path)


def test_things_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for length in range(1, 13):  # shorter than what its kind is told by
        (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[:length])
        with pytest.raises(FocusError, match=r"short\.png.*not an image"):
            read_image(tmp_path / "short.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    with pytest.raises(FocusError, match=r"pipe\.jpg: is a FIFO"):
        image_size(tmp_path / "pipe.jpg")
    with pytest.raises(FocusError, match=r"endless\.png: is a character device"):
        read_image(tmp_path / "endless.png")
    with pytest.raises(FocusError, match=r"text\.jpg.*not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(FocusError, match=r"empty\.png.*empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(FocusError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(FocusError, match=r"missing\.png.*no such file"):
        read_image(tmp_path / "missing.png")


def test_sizes_outside_of_the_range_are_refused_from_the_header(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(FocusError, match=r"dot\.png: 1 x 1 pixels is too small"):
        read_image(tmp_path / "dot.png")
    for width, height in (
        (16_000, 12_500),
        (14_000, 10_000),
    ):  # 200 and 140 megapixels: beyond Pillow's limit, and beyond ours only
        (tmp_path / "huge.png").write_bytes(_png_header(width, height))
        with pytest.raises(FocusError, match=r"huge\.png.*120,000,000 pixels; shrink"):
            read_image(tmp_path / "huge.png")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(FocusError, match="floating-point"):
        read_image(tmp_path / "a.tiff")


def test_write_round_trip_and_rounding(tmp_path: Path) -> None:
    picture = _gradient()
    write_image(tmp_path / "a.png", picture)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    values = np.full((16, 16), 0.5)
    values[0, 0], values[0, 1] = 7.0, -1.0
    write_image(tmp_path / "b.png", values)
    loaded = read_image(tmp_path / "b.png")[..., 0]
    assert (loaded[0, 0], loaded[0, 1], loaded[1, 1]) == (255, 0, 128)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png", _gradient())
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(FocusError, match=r"a\.png.*No space left"):
        write_image(path, _gradient())
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.zeros((4, 4, 2), np.uint8), "shape"),
        ("a.png", np.zeros((4, 4), np.int32), "int32"),
        ("a.nothing", np.zeros((4, 4), np.uint8), "suffix"),
        ("missing/a.png", np.zeros((4, 4), np.uint8), "folder"),
    ],
)
def test_bad_writes_are_refused(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(FocusError, match=message):
        write_image(tmp_path / name, array)
