"""Photos whose true masks are known, such as those of CelebA-HQ and AR: nothing else is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import limits
from focus.data.batches import FaceBatch
from focus.data.landmarks import Skip, name_parts
from focus.data.photos import PhotoFolder, PhotoItem
from focus.errors import FocusError
from focus.eval.benchmark import MaskRule, Method, mask_values
from focus.eval.mask_files import find_pictures, mask_of, read_all, read_mask, read_true_mask
from focus.eval.results import Result
from focus.face import MorphableModel, Renderer, Rendering
from focus.files import locate, read_input, read_text

VERSION = 0
"""Of results on photos: no version of the fixed test set."""


class MaskedPhotos:
    """The photos of a landmark file that have a true mask, aligned and cropped, and their masks by the same crops.

    A mask has the name of its photo, up to the suffix (or ``_mask`` and a suffix), in a folder of the same structure,
    and the size of the photo: white where the face is seen, black where it is not.

    Args:
        folder: of the photos.
        landmark_csv: see `read_landmarks`.
        truth: folder of the true masks.
        image_size: side S of the crops in pixels.
        occluded: names of the photos with something in front of the face, as in the landmark file or without suffix;
            None: not known, then there are no halves.

    Attributes:
        items: the photos that are used.
        skipped: what was left out, and why.
        subset: what results call these photos: the name of their folder.
        digest: SHA-256 of photos, masks, landmarks and image size.

    Raises:
        FocusError: no photo is usable, photos that would share a mask, or names of occluded photos that are no photos.
    """

    def __init__(
        self,
        folder: Path,
        landmark_csv: Path,
        truth: Path,
        image_size: int,
        *,
        occluded: Sequence[str] | None = None,
    ) -> None:
        self._photos = PhotoFolder(folder, landmark_csv, image_size)
        self.image_size, self.skipped = image_size, list(self._photos.skipped)
        self.subset = folder.resolve().name
        self.items: list[PhotoItem] = []
        self._indices: list[int] = []  # of the items in the folder of photos
        files = _Files(truth)
        files.refuse_shared([item.photo for item in self._photos.items])
        self._masks = files
        described = []
        for index, item in enumerate(self._photos.items):
            try:
                read_true_mask(files.of(item.photo), item.photo_size)
                described.append([item.name, item.landmarks.tolist(), _sha(item.path), _sha(files.of(item.photo))])
            except FocusError as error:
                self.skipped.append(Skip(item.name, str(error)))
                continue
            self.items.append(item)
            self._indices.append(index)
        if not self.items:
            first = self.skipped[-len(self._photos.items)]
            raise FocusError(
                f"{truth}: none of the {len(self._photos.items)} photos has a true mask to score; the first: "
                f"{first.name}: {first.reason}"
            )
        content = json.dumps({"image_size": image_size, "photos": described})
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self.occluded = None if occluded is None else self._halves(occluded)

    @property
    def names(self) -> tuple[str, ...]:
        """``[N]``, of the photos, as the landmark file has them."""
        return tuple(item.name for item in self.items)

    def batch(self, start: int, count: int) -> tuple[FaceBatch, Tensor]:
        """Photos `start` to `start + count - 1`, with `visible_mask`, and the pixels ``[B, 1, S, S]`` in {0, 1} that
        lie on the photos: where a crop reaches beyond its photo nothing is known.
        """
        items = self.items[start : start + count]
        batch = self._photos.batch(self._indices[start : start + count])
        masks = [item.alignment.crop_mask(read_mask(self._masks.of(item.photo), item.photo_size)) for item in items]
        batch.visible_mask = _stack(masks)
        return batch, _stack([item.alignment.inside(item.photo_size) for item in items])

    def folder_rule(self, name: str, folder: Path) -> MaskRule:
        """The masks of another program as a rule: of the photos' names and sizes, soft ones as grey values.

        Args:
            name: of the program.
            folder: of its masks.

        Raises:
            FocusError: no such folder, masks that are missing or cannot be used: their number, and the first of them;
                or labels of classes in their place.
        """
        files = _Files(folder)

        def read(item: PhotoItem) -> NDArray[np.uint8]:
            return read_mask(files.of(item.photo), item.photo_size)

        readers = [partial(read, item) for item in self.items]
        read_all(name, readers, "expected a mask for each photo that has a true one")
        known = {item.name: item for item in self.items}

        def rule(batch: FaceBatch, rendering: Rendering) -> Tensor:
            crops = [known[photo].alignment.crop_image(read(known[photo])) for photo in batch.names]
            return torch.from_numpy(np.stack(crops))[:, None].to(rendering.mask) / 255

        return rule

    def _halves(self, occluded: Sequence[str]) -> tuple[bool, ...]:
        names = [*(item.photo for item in self._photos.items), *(skip.name for skip in self.skipped)]
        known = {form for name in map(_composed, names) for form in (name, _stem(name))}
        unknown = [name for name in occluded if _composed(name) not in known]
        if unknown:
            raise FocusError(
                f"occluded photos: {len(unknown)} of {len(occluded)} names are in no row of the landmark file: "
                f"{', '.join(unknown[:5])}; expected names of photos, with or without suffix, one in a line"
            )
        chosen = set(map(_composed, occluded))
        photos = [_composed(item.photo) for item in self.items]
        return tuple(photo in chosen or _stem(photo) in chosen for photo in photos)


@torch.no_grad()
def evaluate_photos(
    methods: Sequence[Method],
    photos: MaskedPhotos,
    model: MorphableModel,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Scores the masks of methods on photos, each inside the face that it renders, as far as the photo goes.

    Args:
        methods: with networks in evaluation mode, on `device`.
        photos: with true masks.
        model: the face that the methods reconstruct with.
        batch_size: photos at a time.
        device: where the networks are.
        progress: called with (photos done, photos in all).

    Returns:
        Method -> value of `mask_values` -> ``[N]``. Shape and appearance are not known.
    """
    if len({method.name for method in methods}) != len(methods):
        raise FocusError(f"evaluate: expected methods of different names, got {', '.join(m.name for m in methods)}")
    renderer = Renderer(model, photos.image_size).to(device)
    values: dict[str, dict[str, list[NDArray[np.float64]]]] = {method.name: {} for method in methods}
    for start in range(0, len(photos.items), batch_size):
        batch, inside = photos.batch(start, batch_size)
        batch, inside = batch.to(device), inside.to(device)
        if batch.visible_mask is None:
            raise ValueError("evaluate_photos: expected photos whose true mask is known")
        for method in methods:
            rendering = renderer(method.reconstruct(batch.image))
            found = mask_values(method.mask(batch, rendering), batch.visible_mask, rendering.mask * inside)
            for key, value in found.items():
                values[method.name].setdefault(key, []).append(value.cpu().double().numpy())
        if progress is not None:
            progress(min(start + batch_size, len(photos.items)), len(photos.items))
    return {name: {key: np.concatenate(parts) for key, parts in rows.items()} for name, rows in values.items()}


def results_of_photos(
    values: Mapping[str, Mapping[str, NDArray[np.float64]]], photos: MaskedPhotos, *, commit: str
) -> list[Result]:
    """A result for each method of `evaluate_photos`."""
    return [
        Result(
            method=method,
            seed=0,
            subset=photos.subset,
            version=VERSION,
            digest=photos.digest,
            commit=commit,
            names=photos.names,
            occluded=photos.occluded or (),
            occluder=(),
            yaw=(),
            values={name: tuple(np.round(column, 6).tolist()) for name, column in columns.items()},
        )
        for method, columns in values.items()
    ]


def read_names(path: Path) -> list[str]:
    """A text file of names, one in a line; empty lines do not count.

    Raises:
        FocusError: missing, no text, or without a name.
    """
    expected = "expected names of photos, one in a line"
    try:
        lines = read_text(path, limits.TEXT_FILE).splitlines()
    except FocusError as error:
        reason = str(error).removeprefix(f"{path}: ")
        detail = reason if reason == "no such file" else f"cannot be read as text ({reason})"
        raise FocusError(f"{path}: {detail}; {expected}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise FocusError(f"{path}: {expected}, found none")
    return names


class _Files:
    """The masks of a folder by the names of their photos."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FocusError(f"{folder}: no such folder of masks")
        self._folder = folder
        self._found: dict[Path, dict[str, Path]] = {}

    def of(self, name: str) -> Path:
        """Raises `FocusError` where there is none, or more than one."""
        place = locate(self._folder, Path(name).parent)
        if place not in self._found:
            self._found[place] = find_pictures(place)
        path = mask_of(self._found[place], Path(name).stem)
        if path is None:
            raise FocusError(f"{place / Path(name).stem}.png: no such file; expected the mask of {name}, of its size")
        return path

    def refuse_shared(self, names: Sequence[str]) -> None:
        """Raises `FocusError` where two photos have one mask."""
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(_stem(name), name)
            if other != name:
                raise FocusError(
                    f"{other} and {name} would share the mask {self._folder / _stem(name)}; rename one of the photos"
                )


def _composed(name: str) -> str:
    """A name of a photo as those of the photos are compared."""
    return "/".join(name_parts(name))


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _stack(masks: Sequence[NDArray[np.bool_]]) -> Tensor:
    """``[S, S]`` each to float32 ``[B, 1, S, S]``."""
    return torch.from_numpy(np.stack(masks))[:, None].float()


def _sha(path: Path) -> str:
    return hashlib.sha256(read_input(path, limits.IMAGE_FILE)).hexdigest()
