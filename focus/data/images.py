"""Image files in and out: whatever a camera or a web page made becomes uint8 RGB, and nothing is ever half-written.

Images are opened in this module alone, by decoders of a closed list: Pillow goes by the contents of a file, knows more
than forty formats, and hands some of them to other programs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from focus import limits
from focus.errors import FocusError
from focus.files import check_input, write_files

MINIMUM_SIDE = 16
"""Pixels. A face on fewer has nothing to fit, and such files are nearly always placeholders."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
"""What is decoded, by Pillow's names; AVIF where Pillow can. HEIC comes to it where the package pillow-heif is."""
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".avif", ".heic", ".heif")
"""By which photos are told in folders and tables; what a file is, its contents say."""
_FORMATS_TEXT = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or PPM"

# Brands of ISO media files (ISO/IEC 23008-12, 10.2; AV1 Image File Format, 8), which photos of telephones are.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF = (b"avif", b"avis")

_GREY = 24
"""Channels of a grey picture differ by this at most: JPEG may put a little colour into one."""

_NARROW_BITS = (10, 12)
"""Of cameras whose numbers are often saved as if they had 16."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise for damaged files: OSError for most, the others from broken chunks and headers.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels of an image file as `read_image` would return it, from its header alone.

    Raises:
        FocusError: the file is not an image, or its size is outside of the accepted range.
    """
    with _open(Path(path)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def image_orientation(path: str | Path) -> int:
    """The EXIF orientation of an image file, 1 to 8, which `read_image` applies; 1 where there is none.

    Raises:
        FocusError: as `image_size`.
    """
    with _open(Path(path)) as image:
        return _orientation(image)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Reads a photo as RGB.

    The EXIF orientation is applied, so that pixel coordinates (landmarks) refer to the photo as viewers show it. Grey,
    palette and CMYK images are converted; 16-bit grey keeps its high byte; transparent pixels are composited on white;
    of an animation the first frame is read. Embedded colour profiles are ignored (values are taken as sRGB).

    Returns:
        uint8 [H, W, 3], sRGB.

    Raises:
        FocusError: the file is missing, a folder, not an image, truncated, smaller than `MINIMUM_SIDE` on a side, or
            larger than `focus.limits.IMAGE_PIXELS` (found in the header: nothing is decoded); more than 8 bits a
            channel of which only the lowest 12 or fewer are used.
    """
    return _decode(Path(path), _to_rgb)


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """As `read_image`, of the bytes of an image file; `name` is for messages."""
    return _decode(Path(name), _to_rgb, data)


def encode_image(image: NDArray[np.uint8], suffix: str) -> bytes:
    """The bytes of an image file: ``.png``, or ``.jpg`` with all of its colours (4:4:4, quality 95).

    Args:
        image: [H, W, 3] RGB.
        suffix: names the format.
    """
    encoded = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
    Image.fromarray(image).save(encoded, format={".jpg": "JPEG", ".png": "PNG"}[suffix], **options)
    return encoded.getvalue()


def read_grey(path: str | Path) -> NDArray[np.uint8]:
    """Reads a picture of one quantity, such as a mask. What would have to be guessed is refused.

    Returns:
        uint8 [H, W], turned as `read_image` does; 16-bit grey keeps its high byte.

    Raises:
        FocusError: as `read_image`; colours, also those of a palette; transparency.
    """
    return _decode(Path(path), _to_grey)


def _decode(
    path: Path, convert: Callable[[Image.Image, Path], Image.Image], data: bytes | None = None
) -> NDArray[np.uint8]:
    with _open(path, data) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags, which are not needed
        try:
            added = _added_to_high_bytes(image)
            image.load()
            _check_depth(image, added, path)
            orientation = _orientation(image)
            converted = convert(image, path)
            if orientation in _TRANSPOSITIONS:
                converted = converted.transpose(_TRANSPOSITIONS[orientation])
            return np.array(converted, dtype=np.uint8)
        except FocusError:
            raise
        except MemoryError as error:
            raise FocusError(f"{path}: not enough memory to decode {image.width} x {image.height} pixels") from error
        except _DAMAGE as error:
            raise FocusError(
                f"{path}: the image is damaged or truncated ({error}); expected a complete file. Copy it again"
            ) from error


def write_image(path: str | Path, image: NDArray[np.generic]) -> Path:
    """Writes an image file; the suffix names the format (.png, .jpg, ...).

    The file appears under its name only when it is complete: a full disk or a kill leaves the old file, or none.

    Args:
        path: the file; its folder must exist.
        image: [H, W] grey or [H, W, 3] RGB; uint8, or floating point in [0, 1] (clipped, rounded to 8 bits).

    Raises:
        FocusError: wrong shape or dtype, unknown suffix, or the file system refused.
    """
    path = Path(path)
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise FocusError(
            f"write_image: expected an array [H, W] or [H, W, 3], got shape {list(array.shape)} for {path}"
        )
    if np.issubdtype(array.dtype, np.floating):
        array = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise FocusError(
            f"write_image: expected uint8 or floating point values in [0, 1], got {array.dtype} for {path}"
        )
    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise FocusError(f"{path}: the suffix {path.suffix!r} names no image format; use .png or .jpg")
    image_format = Image.EXTENSION[path.suffix.lower()]
    options = {"quality": 95} if image_format == "JPEG" else {}
    encoded = io.BytesIO()
    try:
        Image.fromarray(array).save(encoded, format=image_format, **options)
        write_files({path: encoded.getvalue()})
    except (OSError, ValueError, KeyError) as error:
        raise FocusError(
            f"{path}: cannot be written ({error}); is its folder there and writable, is the disk full, can the "
            "format hold it?"
        ) from error
    return path


def _open(path: Path, data: bytes | None = None) -> ImageFile.ImageFile:
    """Opens the header and checks the size; the caller closes the image. Of a file, or of the bytes of one."""
    if data is None and path.is_dir():
        raise FocusError(
            f"{path}: is a folder; expected an image file. Name one photo, or use an option that takes folders"
        )
    if data is None:
        check_input(path, limits.IMAGE_FILE)
    formats = _formats(path, _start(path) if data is None else data[:64])
    try:
        with warnings.catch_warnings():
            # Of damaged tags, and of 89 megapixels; it refuses 179, and our own limit, checked below, lies between.
            warnings.simplefilter("ignore")
            image = Image.open(path if data is None else io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise FocusError(
            f"{path}: more than {limits.IMAGE_PIXELS:,} pixels; shrink the photo and scale its landmarks alike"
        ) from error
    except UnidentifiedImageError as error:
        raise FocusError(
            f"{path}: the file is not an image of a kind that is read here, or its header is damaged; "
            f"expected {_FORMATS_TEXT}"
        ) from error
    except _DAMAGE as error:
        raise FocusError(f"{path}: cannot be read as an image ({error})") from error
    width, height = image.size
    if min(width, height) < MINIMUM_SIDE or width * height > limits.IMAGE_PIXELS:
        image.close()
        if min(width, height) < MINIMUM_SIDE:
            raise FocusError(
                f"{path}: {width} x {height} pixels is too small; expected at least {MINIMUM_SIDE} on each side"
            )
        raise FocusError(
            f"{path}: {width} x {height} is more than {limits.IMAGE_PIXELS:,} pixels; "
            "shrink the photo and scale its landmarks alike"
        )
    return image


@functools.cache
def _decoders() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise FocusError(f"{path}: cannot be read ({error.strerror or error})") from error


def _formats(path: Path, start: bytes) -> tuple[str, ...]:
    """What may open a file that begins so, by Pillow's names."""
    # A box of size, "ftyp", its brand, a version, and the brands that it is compatible with.
    brands: set[bytes] = set()
    if start[:3] == b"\0\0\0" and start[4:8] == b"ftyp":
        brands = {start[8:12], *(start[place : place + 4] for place in range(16, min(len(start), start[3]), 4))}
    if brands.intersection(_AVIF) and "AVIF" not in _decoders():
        raise FocusError(f"{path}: is an AVIF image, which this Pillow cannot read; install pillow 11.3 or newer")
    if brands.intersection(_HEIC):
        if importlib.util.find_spec("pillow_heif") is None:
            raise FocusError(
                f"{path}: is a HEIC photo; FOCUS reads it once the package pillow-heif is there (pip install "
                "pillow-heif). Or save it as JPEG"
            )
        importlib.import_module("pillow_heif").register_heif_opener()
        return ("HEIF",)
    return _decoders()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or the EXIF block is damaged (the pixels are still good)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of tags that it cannot read
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _added_to_high_bytes(image: Image.Image) -> int | None:
    """What values may have above 256 times those that Pillow gives, where it makes 8 bits of colours of 16; known until
    they are loaded. None: these are no such colours."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        words = arguments if isinstance(arguments, tuple) else (arguments,)
        if codec.startswith("ppm") and words[-1] == (1 << 16) - 1:
            return -1  # rounded
        if any(isinstance(word, str) and ";16" in word for word in words):
            return 255  # cut off
    return None


def _check_depth(image: Image.Image, added: int | None, path: Path) -> None:
    """Refuses numbers of 8, 10 or 12 bits that were saved as those of 16, and would be read as nearly black."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if int(values.min()) < 0 or (largest := int(values.max())) == 0:  # nothing there, as in an empty mask
            return
    elif added is not None and image.mode in ("RGB", "RGBA", "RGBa", "RGBX"):
        high = int(np.asarray(image)[..., :3].max())
        largest = max(255, 256 * high + added)
    else:
        return
    text = f"no value above {largest}"
    if largest < 256:
        raise FocusError(f"{path}: more than 8 bits for each pixel, but {text}, which is black; save it with 8")
    for bits in _NARROW_BITS:
        if largest < 1 << bits:
            raise FocusError(
                f"{path}: 16 bits for each pixel, but {text}, which is nearly black: it uses {bits} of its 16 bits; "
                f"scale it (multiply by {1 << 16 - bits}) or save it with 8"
            )


def _to_grey(image: Image.Image, path: Path) -> Image.Image:
    """Converts what is grey to 8 bits, and refuses the rest."""
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if transparent and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise FocusError(f"{path}: expected grey values alone, got transparent pixels; save it without transparency")
    rgb = np.asarray(_to_rgb(image, path))
    color = int(np.ptp(rgb, axis=2).max())
    if color > _GREY:
        raise FocusError(
            f"{path}: expected grey values, got colours (channels up to {color} apart, of 255); save it as grey"
        )
    return Image.fromarray(np.rint(rgb.mean(axis=2, dtype=np.float32)).astype(np.uint8))


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Converts any Pillow mode to 8-bit RGB."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion to 8 bits clips at 255 instead of scaling
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise FocusError(f"{path}: values from {values.min()} to {values.max()}; expected 8 or 16 bits per channel")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise FocusError(f"{path}: floating-point pixels, whose range is unknown; expected 8 or 16 bits per channel")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
