"""Pictures of results, pixel by pixel where that can be said."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from focus.data import SyntheticFaces
from focus.face import MorphableModel, Renderer
from focus.report.panels import (
    OUTLIER_COLOR,
    cut_out,
    encode_png,
    grid,
    mark_points,
    overlay_mask,
    reconstruction_sheet,
    to_picture,
)


def test_to_picture_clamps_and_rounds() -> None:
    image = torch.tensor([[[-1.0, 0.5]], [[2.0, 0.25]], [[float("nan"), 1.0]]])
    assert to_picture(image).tolist() == [[[0, 255, 0], [128, 64, 255]]]
    assert to_picture(torch.tensor([[0.0, 1.0]])).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    with pytest.raises(ValueError, match="to_picture"):
        to_picture(torch.zeros(2, 4, 4))


def test_cut_out_is_transparent_outside_the_face() -> None:
    picture = cut_out(torch.ones(3, 1, 2), torch.tensor([[[1.0, 0.0]]]))
    assert picture.shape == (1, 2, 4)
    assert picture[0, :, 3].tolist() == [255, 0]


def test_overlay_shows_the_face_colours_what_is_hidden_and_fades_the_rest() -> None:
    image = torch.full((3, 1, 3), 0.2)
    picture = overlay_mask(image, torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]])) / 255
    np.testing.assert_allclose(picture[0, 0], 0.2, atol=1 / 255)
    np.testing.assert_allclose(picture[0, 1], 0.25 * 0.2 + 0.75 * np.array(OUTLIER_COLOR), atol=1 / 255)
    assert np.ptp(picture[0, 2]) == 0
    assert picture[0, 2, 0] > 0.5


def test_grid_puts_every_picture_in_its_place() -> None:
    red, clear = np.zeros((8, 8, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, 255
    sheet = grid([[red, clear], [clear]], gap=2)
    assert sheet.shape == (2 + 2 * 10, 2 + 2 * 10, 3)
    assert (sheet[2:10, 2:10] == (255, 0, 0)).all()
    assert (sheet[2:10, 12:20] == 255).all()  # transparent: paper
    labelled = grid([[red, clear]], column_labels=["one", "two"], captions=[["a", "b"]], gap=2)
    assert labelled.shape[0] > sheet.shape[0] / 2 + 8
    with pytest.raises(ValueError, match="grid"):
        grid([[red]], column_labels=["one", "two"])
    with pytest.raises(ValueError, match="captions"):
        grid([[red]], captions=[["a", "b"]])
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_points_are_marked_where_they_are() -> None:
    marked = mark_points(np.zeros((20, 20, 3), np.uint8), np.array([[5.0, 12.0]]))
    rows, columns = np.nonzero(marked.any(axis=2))
    assert rows.mean() == pytest.approx(12, abs=0.5)
    assert columns.mean() == pytest.approx(5, abs=0.5)


def test_png_holds_the_same_pixels() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.array(Image.open(io.BytesIO(encode_png(picture)))) == picture).all()


def test_reconstruction_sheet_has_a_row_for_each_face() -> None:
    model = MorphableModel.procedural("small", 2, 2, 2)
    batch = SyntheticFaces(model, 32, seed=0).batch(0, 3)
    assert batch.parameters is not None
    rendering = Renderer(model, 32)(batch.parameters)
    with_mask = reconstruction_sheet(batch, rendering, rendering.mask, count=2)
    without = reconstruction_sheet(batch, rendering, count=2)
    assert with_mask.shape[0] == without.shape[0]
    assert with_mask.shape[1] == 2 * without.shape[1] - 4
