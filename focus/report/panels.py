"""Pictures of results: images, reconstructions and masks side by side, as uint8 arrays and PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from focus.data.batches import FaceBatch
from focus.face import Rendering

Picture = NDArray[np.uint8]
"""[H, W, 3] RGB, or [H, W, 4] with transparency."""

OUTLIER_COLOR = (0.92, 0.33, 0.10)
"""RGB laid over the part of the face that a mask calls hidden."""
_OUTSIDE = 0.35
_PAPER, _INK, _MARK = (255, 255, 255), (40, 40, 40), (40, 220, 190)


def to_picture(image: Tensor | NDArray[np.floating]) -> Picture:
    """An image ``[3, H, W]``, or a mask ``[1, H, W]`` or ``[H, W]``, in [0, 1] (clamped) to a `Picture`."""
    values = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image, dtype=np.float32)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(
            f"to_picture: expected an image [3, H, W] or a mask [1, H, W] or [H, W], got {list(values.shape)}"
        )
    rounded = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rounded.transpose(1, 2, 0), (*rounded.shape[1:], 3)))


def cut_out(image: Tensor, mask: Tensor) -> Picture:
    """A rendered face ``[3, H, W]`` that is transparent outside its mask ``[1, H, W]``: ``[H, W, 4]``."""
    return np.concatenate([to_picture(image), to_picture(mask)[..., :1]], axis=2)


def overlay_mask(image: Tensor, visible: Tensor, rendered: Tensor) -> Picture:
    """A photo that shows what a mask says: the face that is seen as it is, its hidden part in colour, the rest faded.

    Args:
        image: ``[3, H, W]`` in [0, 1].
        visible: ``[1, H, W]`` in [0, 1], 1 = the face is seen here.
        rendered: ``[1, H, W]`` in {0, 1}, the rendered face.
    """
    grey = image.mean(dim=0, keepdim=True).expand_as(image)
    faded = _OUTSIDE * grey + (1 - _OUTSIDE) * 0.8
    color = torch.tensor(OUTLIER_COLOR, dtype=image.dtype, device=image.device)[:, None, None]
    hidden = 0.25 * image + 0.75 * color
    face = visible * image + (1 - visible) * hidden
    return to_picture(rendered * face + (1 - rendered) * faded)


def mark_points(picture: Picture, points: NDArray[np.floating]) -> Picture:
    """A picture with dots at ``[N, 2]`` pixels, x right and y down."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    radius = max(1.0, picture.shape[0] / 160)
    for x, y in np.asarray(points, dtype=np.float64):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_MARK)
    return np.array(image)


def grid(
    rows: Sequence[Sequence[Picture]],
    *,
    column_labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int | None = None,
    gap: int = 4,
) -> Picture:
    """Lays pictures out in rows and columns on white.

    Args:
        rows: of square pictures; transparent ones lie on white.
        column_labels: one above each column, or none.
        captions: one below each picture, in rows as they are, or none.
        cell: side of a cell in pixels; None: that of the first picture.
        gap: between cells, pixels.

    Returns:
        ``[H, W, 3]``.
    """
    if not rows or not rows[0]:
        raise ValueError("grid: expected at least one picture, got none")
    columns = max(len(row) for row in rows)
    if len(column_labels) not in (0, columns) or (captions and [*map(len, captions)] != [*map(len, rows)]):
        raise ValueError(
            f"grid: expected no labels or one for each of {columns} columns, and no captions or one for each picture, "
            f"got {len(column_labels)} labels and {sum(map(len, captions))} captions for {sum(map(len, rows))} pictures"
        )
    side = cell or rows[0][0].shape[0]
    size = max(10, min(15, side // 7))
    font, line = ImageFont.load_default(size=size), round(1.5 * size)
    top = gap + (line if column_labels else 0)
    step_x, step_y = side + gap, side + gap + (line if captions else 0)
    sheet = Image.new("RGB", (gap + columns * step_x, top + len(rows) * step_y), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        pen.text((gap + column * step_x + side / 2, top - gap), label, fill=_INK, font=font, anchor="ms")
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            x, y = gap + column * step_x, top + number * step_y
            image = Image.fromarray(picture)
            if image.size != (side, side):
                image = image.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(image, (x, y), image if image.mode == "RGBA" else None)
            if captions:
                place = (x + side / 2, y + side + 0.9 * size)
                pen.text(place, captions[number][column], fill=_INK, font=font, anchor="ms")
    return np.array(sheet)


def encode_png(picture: Picture) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    # Level 4 is a tenth of the time of the best, which would save 6% of the bytes.
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def reconstruction_sheet(batch: FaceBatch, rendering: Rendering, mask: Tensor | None = None, count: int = 6) -> Picture:
    """The first faces of a batch, one in each row: photo, reconstruction, mask, and what the mask hides.

    Args:
        batch: B photos.
        rendering: of their reconstructions.
        mask: ``[B, 1, S, S]``; None leaves out the last two columns.
        count: number of faces at most.
    """
    rows = []
    for index in range(min(count, len(batch))):
        row = [to_picture(batch.image[index]), cut_out(rendering.image[index], rendering.mask[index])]
        if mask is not None:
            seen = mask[index] * rendering.mask[index]
            row += [to_picture(seen), overlay_mask(batch.image[index], mask[index], rendering.mask[index])]
        rows.append(row)
    labels = ["photo", "reconstruction", "mask", "hidden"]
    return grid(rows, column_labels=labels[: len(rows[0])], cell=max(batch.image.shape[-1], 96))
