"""Pieces of a photo: connected, as few as there are colours, and what is heard of each as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.lighting import ambient_lighting
from focus.fit.appearance import PixelFace
from focus.fit.pieces import HEARD, PIECE_NAMES, find_pieces, piece_witnesses, pieces_of_crop, resized_pieces
from focus.fit.witnesses import NAMES, vertex_fields, witnesses

SIZE = 96


def checkers(side: int, cell: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((x // cell + y // cell) % 2).float()


def connected(pieces: Tensor) -> bool:
    """Whether each piece is one part, by flood from its first pixel through its eight neighbours."""
    height, width = pieces.shape
    values = pieces.tolist()
    for number in range(int(pieces.max()) + 1):
        pixels = {(y, x) for y in range(height) for x in range(width) if values[y][x] == number}
        queue = [min(pixels)]
        reached = set(queue)
        while queue:
            y, x = queue.pop()
            near = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} & pixels
            queue += near - reached
            reached |= near
        if reached != pixels:
            return False
    return True


def test_flat_areas_are_pieces() -> None:
    photo = torch.stack([checkers(60, 30), torch.zeros(60, 60), 1 - checkers(60, 30)])
    photo[:, 8:20, 8:20] = 0.5  # a spot in one of the four squares
    pieces = find_pieces(photo)
    spot, around = pieces[14, 14], pieces[2, 2]
    assert spot != around
    assert (pieces[10:18, 10:18] == spot).all()
    corners = [int(pieces[y, x]) for y in (2, 57) for x in (2, 57)]
    assert len({*corners[:2]}) == 2 == len({*corners[2:]})
    assert corners[0] != corners[2]


def test_one_colour_is_one_piece() -> None:
    assert not find_pieces(torch.full((3, 17, 31), 0.4)).any()


def test_slow_changes_make_no_border() -> None:
    noise = 0.005 * torch.randn(3, 60, 60, generator=torch.Generator().manual_seed(0))
    assert not find_pieces(torch.linspace(0.3, 0.6, 60) + noise).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_are_connected_and_no_specks(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    photo = torch.nn.functional.interpolate(coarse, size=(36, 36), mode="bicubic")[0].clamp(0, 1)
    photo += 0.05 * torch.rand(photo.shape, generator=generator)
    pieces = find_pieces(photo)
    assert connected(pieces)
    assert pieces.flatten().bincount().min() >= 12
    assert 1 < int(pieces.max()) + 1 < 36 * 36 / 12
    assert torch.equal(pieces, find_pieces(photo))


def test_noise_of_a_camera_cuts_nothing() -> None:
    photo = 0.5 + 0.005 * torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert not find_pieces(photo).any()


def test_pieces_at_other_sizes() -> None:
    pieces = torch.arange(16).view(4, 4)
    assert torch.equal(resized_pieces(resized_pieces(pieces, 12), 4), pieces)
    assert torch.equal(resized_pieces(pieces, 8)[::2, 1::2], pieces)
    large = torch.zeros(1, 3, 224, 224)
    large[..., 112:] = 1
    found = pieces_of_crop(large)
    assert found.shape == (224, 224)
    assert found[0, 0] != found[0, -1]


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=2, expression=2, albedo=2)


def test_a_piece_of_the_colour_of_skin_is_told_by_its_border(model: MorphableModel) -> None:
    parameters = FaceParameters.mean(model)
    parameters.translation[:] = torch.tensor([0.0, 0.0, 60.0])
    parameters.lighting = ambient_lighting(1)
    rendering = Renderer(model, SIZE)(parameters)
    box = (slice(11, 22), slice(38, 58))
    photo = rendering.image.clone()
    photo[0, :, box[0], box[1]] = 0.8 * photo[0, :, 16, 48, None, None]  # on the forehead, a little darker
    pieces = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    pieces[box] = 1
    face = PixelFace.draw(photo, rendering, model, vertex_fields(model), pieces)
    colors, visible = face.of(rendering.image), torch.ones(1, len(face.pixels))
    heard = witnesses(face, colors, visible)
    assert heard.shape == (1, len(NAMES), len(face.pixels))
    said = dict(zip(NAMES, face.image(heard)[0], strict=True))
    inside, outside = (16, 48), (70, 30)
    for name in PIECE_NAMES:  # one number for each piece
        assert said[name][box].unique().numel() == 1, name
    for name in HEARD:
        pixels = face.of(face.image(heard[:, NAMES.index(name)]))[0][face.of(pieces) == 1]
        torch.testing.assert_close(said[f"piece: {name}"][inside], pixels.mean())
    assert said["piece: border of its own"][inside] > 0.6
    unbroken = PixelFace.draw(rendering.image, rendering, model, vertex_fields(model), pieces)
    without = dict(zip(NAMES, face.image(witnesses(unbroken, colors, visible))[0], strict=True))
    assert without["piece: border of its own"][inside] < 0.1
    assert said["piece: goes on off the face"][inside] == 0  # it ends within the face
    assert said["piece: goes on off the face"][outside] == 2
    assert said["piece: outline"][inside] == 0 < said["piece: outline"][outside]


def test_pieces_are_heard_of_each_reconstruction(model: MorphableModel) -> None:
    parameters = FaceParameters.mean(model)
    parameters.translation[:] = torch.tensor([0.0, 0.0, 60.0])
    parameters.lighting = ambient_lighting(1)
    rendering = Renderer(model, SIZE)(parameters)
    face = PixelFace.draw(rendering.image, rendering, model, vertex_fields(model), pieces_of_crop(rendering.image))
    colors = torch.cat([face.of(rendering.image), 0.5 * face.of(rendering.image)])
    heard = torch.rand(2, len(HEARD), len(face.pixels), generator=torch.Generator().manual_seed(0))
    both = piece_witnesses(face, colors, heard)
    for b in (0, 1):
        torch.testing.assert_close(both[b : b + 1], piece_witnesses(face, colors[b : b + 1], heard[b : b + 1]))
