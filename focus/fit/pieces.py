"""Pieces of a photo, and what is heard of each as a whole.

A hand before a face has the colour of the face, and no pixel of it tells; but it has an outline where the face has
none, and what is inside of it belongs together. So a photo is cut into pieces once, before anything is known of the
face, and each is judged by what is known of all of its pixels and by its border.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from focus.fit.appearance import PixelFace
from focus.fit.structure import blur, local_correlation, shrunk, steepness

_SMOOTHING = 0.6
_SCALE = 0.02
"""The larger, the larger pieces are: a border must be steeper than a piece is inside by this, over its pixels."""
_SMALLEST = 12
_SIZE = 112
_WINDOW = 22.0
"""Standard deviation in pixels at a crop of 224."""
_LEAST_SURPLUS = 0.01
"""How much steeper than the reconstruction a photo is, per pixel, where it has a border of its own."""
_FEW_OF_BORDER, _FEW_OF_OUTLINE, _FEW_PIXELS = 3, 6, 10
HEARD = (
    "colors",
    "tint",
    "correlation 4",
    "correlation 8",
    "structure of the face",
    "colors of this photo",
    "colors of skin",
)
"""Witnesses of pixels whose mean over a piece is one of the piece."""
PIECE_NAMES = (
    *(f"piece: {name}" for name in HEARD),
    "piece: correlation 22",
    "piece: border of its own",
    "piece: goes on off the face",
    "piece: outline",
)
"""Of what `piece_witnesses` says, in its order."""


def find_pieces(photo: Tensor) -> Tensor:
    """Cuts a photo into pieces, by the graph-based segmentation of Felzenszwalb and Huttenlocher (IJCV 2004).

    Two pieces become one where the smallest difference across their border is hardly larger than the largest that is
    needed within each of them. They look at one pair after the other, by size; here, as in Boruvka's algorithm for
    spanning trees, every piece looks at the smallest difference at which it may join another, and all join at once: a
    dozen rounds on any device. Since several join by the bounds of before, pieces are somewhat larger than theirs.

    Args:
        photo: ``[3, H, W]`` in [0, 1].

    Returns:
        ``[H, W]`` int64, the number of the piece of each pixel, from 0.
    """
    height, width = photo.shape[-2:]
    count = height * width
    beyond = round(3 * _SMOOTHING)
    padded = F.pad(photo[None], (beyond,) * 4, mode="replicate")[0]
    smooth = blur(padded, _SMOOTHING)[:, beyond:-beyond, beyond:-beyond].flatten(1)
    number = torch.arange(count, dtype=torch.int64, device=photo.device).view(height, width)
    pairs = (
        (number[:, 1:], number[:, :-1]),
        (number[1:], number[:-1]),
        (number[1:, 1:], number[:-1, :-1]),
        (number[1:, :-1], number[:-1, 1:]),
    )
    one, other = (torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1))
    difference, order = (smooth[:, one] - smooth[:, other]).norm(dim=0).sort(stable=True)
    one, other = one[order], other[order]

    piece = number.flatten()
    within = torch.zeros(count, dtype=photo.dtype, device=photo.device)  # the largest difference that is needed
    for joins_small in (False, True):
        while True:
            area = torch.bincount(piece, minlength=count)
            between = piece[one] != piece[other]
            one, other, difference = one[between], other[between], difference[between]
            a, b = piece[one], piece[other]
            if joins_small:
                joined = torch.minimum(area[a], area[b]) < _SMALLEST
            else:
                bound = within + _SCALE / area.clamp(min=1)
                joined = difference <= torch.minimum(bound[a], bound[b])
            edges = joined.nonzero()[:, 0]
            if not len(edges):
                break
            a, b = a[edges], b[edges]
            # The smallest difference of each piece is the first one, since they are sorted.
            first = torch.full((count,), len(difference), dtype=torch.int64, device=photo.device)
            for ends in (a, b):
                first.scatter_reduce_(0, ends, edges, "amin")
            joining = (first < len(difference)).nonzero()[:, 0]
            first = first[joining]
            parent = number.flatten().clone()
            near, far = piece[one[first]], piece[other[first]]
            parent[joining] = torch.where(near == joining, far, near)
            parent = _roots(parent)
            moved = torch.zeros_like(within).scatter_reduce_(0, parent, within, "amax")
            within = moved.scatter_reduce_(0, parent[joining], difference[first], "amax")
            piece = parent[piece]
    numbered: Tensor = torch.unique(piece, return_inverse=True)[1].view(height, width)
    return numbered


def _roots(parent: Tensor) -> Tensor:
    """The last parent of each; of two that are each other's, the smaller is the last."""
    number = torch.arange(len(parent), dtype=parent.dtype, device=parent.device)
    parent = torch.where((parent[parent] == number) & (number < parent), number, parent)
    while not torch.equal(parent[parent], parent):
        parent = parent[parent]
    return parent


def pieces_of_crop(target: Tensor) -> Tensor:
    """The pieces of a crop ``[1, 3, S, S]``, found at a size of at most 112 pixels: ``[S, S]`` int64."""
    size = target.shape[-1]
    small = min(size, _SIZE)
    photo = target if small == size else F.interpolate(target, size=(small, small), mode="area")
    return resized_pieces(find_pieces(photo[0]), size)


def resized_pieces(pieces: Tensor, size: int) -> Tensor:
    """Pieces ``[s, s]`` at another size."""
    return F.interpolate(pieces[None, None].double(), size=(size, size), mode="nearest-exact")[0, 0].long()


def piece_witnesses(face: PixelFace, colors: Tensor, heard: Tensor) -> Tensor:
    """What is heard of each pixel's piece.

    Args:
        face: by pixel.
        colors: ``[B, 3, P]``, of B reconstructions.
        heard: ``[B, W, P]``, of each pixel: what the piece is asked for the mean of.

    Returns:
        ``[B, W + 4, P]``, numbers of the order of 1: the means; the mean correlation in a window as wide as a piece;
        the part of the piece's border that is steeper than in the reconstruction; how far the piece goes on off the
        face; and how much of it is outline.
    """
    numbers, piece = torch.unique(face.of(face.pieces), return_inverse=True)
    count = len(numbers)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(*values.shape[:-1], count).index_add_(-1, piece, values)

    inside = face.image(torch.ones_like(face.photo[0]))
    inner, middle = shrunk(inside, 2), shrunk(inside, 1)
    reconstruction = F.max_pool2d(steepness(face.image(colors.mean(dim=1))), 5, stride=1, padding=2)
    own = face.of(steepness(face.target.mean(dim=0, keepdim=True)) - reconstruction > _LEAST_SURPLUS)
    at_border = face.of(_borders(face.pieces).to(inside) * inner)
    area, border, outline = total(torch.ones_like(at_border)), total(at_border), total(1 - face.of(middle))
    ring = (F.max_pool2d(inside[None], 9, stride=1, padding=4)[0] - inside) > 0
    off_face = torch.bincount(face.pieces[ring], minlength=int(face.pieces.max()) + 1)[numbers].to(area)
    means = total(torch.cat([heard, local_correlation(face, colors, _WINDOW)[0][:, None]], dim=1)) / area
    of_all = ((off_face / (2 * outline + _FEW_OF_OUTLINE)).clamp(max=2), outline / (area + _FEW_PIXELS))
    said = (
        means,
        total(own * at_border)[:, None] / (border + _FEW_OF_BORDER),
        *(values.expand(len(colors), 1, -1) for values in of_all),
    )
    return torch.cat(said, dim=1)[..., piece]


def _borders(pieces: Tensor) -> Tensor:
    """Where a pixel of ``[S, S]`` has another piece above, below, to the left or to the right: bool."""
    border = torch.zeros_like(pieces, dtype=torch.bool)
    across, down = pieces[:, 1:] != pieces[:, :-1], pieces[1:] != pieces[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    return border
