"""Masks in files: those of other programs, read as they are written and refused by name where they cannot be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus.data.batches import FaceBatch
from focus.data.images import read_grey
from focus.errors import FocusError
from focus.eval.benchmark import MaskRule
from focus.face import Rendering
from focus.record import refuse_part

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of the files of a folder that are pictures."""

_SHOWN = 10
"""Problems that a message lists."""

_LABELS = 32
"""Class labels of faces end well below this grey value."""


def picture_stem(name: str, occluded: bool) -> str:
    """The stem of the files of a picture of the fixed test set: its face comes with an occluder and without one."""
    return f"{name}-{'occluded' if occluded else 'unoccluded'}"


def find_pictures(folder: Path) -> dict[str, Path]:
    """Stem -> file of all pictures in a folder, sorted; accents in the stems are composed.

    Raises:
        FocusError: no such folder, no picture in it, or two of one stem.
    """
    if not folder.is_dir():
        raise FocusError(f"{folder}: no such folder of masks")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES]
    found = {_composed(path.stem): path for path in paths}
    if len(found) < len(paths):
        twice = sorted(path.name for path in paths if found[_composed(path.stem)] != path)
        raise FocusError(f"{folder}: expected one mask of a name, got another one of {', '.join(twice[:5])}")
    if not found:
        raise FocusError(f"{folder}: expected pictures ({', '.join(PICTURE_SUFFIXES)}), found none")
    return found


def mask_of(found: Mapping[str, Path], stem: str) -> Path | None:
    """The mask of a photo among `find_pictures`: of its stem, or with ``_mask`` after it (focus reconstruct)."""
    stem = _composed(stem)
    return found.get(stem, found.get(f"{stem}_mask"))


def _composed(stem: str) -> str:
    """macOS writes accents apart from their letters; other systems do not."""
    return unicodedata.normalize("NFC", stem)


def read_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A mask as grey values: 255 where the face is seen, 0 where it is not, between them where it may be.

    Args:
        path: a grey picture.
        size: (height, width) that is expected; None: any.

    Returns:
        uint8 ``[H, W]``.

    Raises:
        FocusError: missing, empty or damaged, another size, colours or transparency; or part of a result of focus
            reconstruct that was never finished.
    """
    refuse_part(path)
    mask = read_grey(path)
    if size is not None and mask.shape != size:
        raise FocusError(
            f"{path}: expected a mask of {size[1]} x {size[0]} pixels, as its picture has, got {mask.shape[1]} x "
            f"{mask.shape[0]}"
        )
    return mask


def read_true_mask(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """`read_mask` of a truth, or of the pixels that count: some of it must be white.

    Raises:
        FocusError: as `read_mask`, or no pixel is as bright as 128: nothing can be scored against it.
    """
    mask = read_mask(path, size)
    if mask.max() < 128:
        raise FocusError(
            f"{path}: expected white (255) on the pixels of the face, got none brighter than {mask.max()}: is it "
            "empty, of 0 and 1, or of class labels?"
        )
    return mask


def refuse_labels(name: str, brightest: int) -> None:
    """Raises `FocusError` where the brightest pixel of all masks of a method is as dark as 0 and 1 or labels of classes
    are. A single soft mask may well be so dark.
    """
    if 0 < brightest <= _LABELS:
        raise FocusError(
            f"masks of {name}: expected values from 0 (not the face) to 255 (the face), got none above {brightest} in "
            "any mask: are they of 0 and 1, or labels of classes? Save 255 where the face is seen, and 0 elsewhere"
        )


def check_masks(name: str, folder: Path, stems: Iterable[str], size: int) -> None:
    """Reads the masks ``folder/STEM.png`` of a method once, before anything is scored.

    Args:
        name: of the method.
        folder: of its masks.
        stems: of all pictures.
        size: side of the pictures.

    Raises:
        FocusError: no such folder, masks that are missing or cannot be used: their number, and the first of them; or
            labels of classes in their place.
    """
    if not folder.is_dir():
        raise FocusError(f"masks of {name}: {folder}: no such folder; expected a mask for each picture of this subset")
    read_all(
        name,
        [partial(read_mask, folder / f"{stem}.png", (size, size)) for stem in stems],
        "expected a mask for each picture that focus evaluate pictures writes for the same faces, subsets and seed",
    )


def read_all(name: str, readers: Sequence[Callable[[], NDArray[np.uint8]]], expected: str) -> None:
    """Reads all masks of a method once.

    Args:
        name: of the method.
        readers: each reads a mask.
        expected: for the message, where some cannot be read.

    Raises:
        FocusError: masks that cannot be used: their number, and the first of them; or labels of classes in their place.
    """
    problems, brightest = [], 0
    for read in readers:
        try:
            brightest = max(brightest, int(read().max()))
        except FocusError as error:
            problems.append(str(error))
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        shown = "\n  ".join([*problems[:_SHOWN], *more])
        raise FocusError(f"masks of {name}: {len(problems)} of {len(readers)} cannot be used; {expected}:\n  {shown}")
    refuse_labels(name, brightest)


def folder_rule(folder: Path) -> MaskRule:
    """The masks of another program as a rule, for pictures of the fixed test set: ``folder/STEM.png``.

    Its masks are what the files say; what lies outside of the rendered face does not count, as for all rules.
    """

    def rule(batch: FaceBatch, rendering: Rendering) -> Tensor:
        size = (rendering.mask.shape[2], rendering.mask.shape[3])
        stems = [picture_stem(*pair) for pair in zip(batch.names, _occluded(batch.occluder), strict=True)]
        masks = np.stack([read_mask(folder / f"{stem}.png", size) for stem in stems])
        return torch.from_numpy(masks)[:, None].to(rendering.mask) / 255

    return rule


def _occluded(kinds: Sequence[str]) -> list[bool]:
    return [kind != "none" for kind in kinds]
