"""Topology and points of the procedural face: skin with slits for the eyes and the mouth, eyeballs, and teeth.

The skin is one grid over the chart of `template_surface`, denser at the eyes, nose and mouth. Along three runs of grid
edges it is slit; the slits of the eyes open into almonds, the one of the mouth stays closed in the mean and opens with
the jaw. From every slit, strips lead inwards: the edges of the lids, and the inner side of the lips. Everything is a
function of the chart, so the small and the full grid sample one face, and grids are mirror images of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focus.face import template_surface as surface
from focus.face.template_surface import Array

Detail = Literal["small", "full"]
Indices = NDArray[np.int64]

# Parts of the mesh, one number per vertex.
SKIN, LID_EDGE, INNER_LIP, EYEBALL, TEETH = range(5)

_SIDE_LIMIT = np.radians(102.0)
_TOP_ROW, _BOTTOM_ROW = 108.0, -120.0

# Grid lines: (end of the segment, number of intervals, relative width of the last interval to the first).
_ROW_SEGMENTS = {
    "full": (
        (-88, 11, 0.5), (-76, 9, 1.0), (-50, 18, 0.7), (-40, 13, 0.8), (surface.MOUTH_ROW, 10, 0.8), (-24, 13, 1.1),
        (-14, 11, 0.7), (-3, 21, 1.1), (8, 13, 1.6), (24, 13, 0.9), (surface.EYE_ROW, 12, 0.8), (45, 16, 1.2), (60, 14,
        1.6), (_TOP_ROW, 16, 1.6),
    ),
    "small": (
        (-88, 3, 0.5), (-76, 2, 1.0), (-50, 4, 0.7), (-40, 3, 0.8), (surface.MOUTH_ROW, 3, 0.8), (-24, 3, 1.1),
        (-14, 2, 0.7), (-3, 5, 1.0), (8, 3, 1.6), (24, 3, 0.9), (surface.EYE_ROW, 3, 0.8), (45, 4, 1.2), (60, 3, 1.4),
        (_TOP_ROW, 4, 1.6),
    ),
}  # fmt: skip
_COLUMN_COUNTS = {"full": (20, 15, 18, 27), "small": (5, 4, 4, 8)}
_EYEBALL_COUNTS = {"full": (40, (0, 4, 1, 4, 1, 7)), "small": (12, (0, 1, 1, 1, 1, 2))}
_TEETH_COLUMNS = {"full": 40, "small": 10}


@dataclass
class TemplateMesh:
    """The mean shape with what other functions of the template need.

    Attributes:
        points: ``[V, 3]`` mm.
        faces: ``[F, 3]`` counterclockwise from outside.
        uv: ``[V, 2]`` in [0, 1].
        part: ``[V]`` one of SKIN, LID_EDGE, INNER_LIP, EYEBALL, TEETH.
        lip_side: ``[V]`` +1 above the mouth line, -1 below it; tells the coinciding lips apart.
        lid_side: ``[V]`` likewise for the eyes.
        nostril: ``[V]`` 1 inside the nostrils, 0 elsewhere.
        depth_ring: ``[V]`` 0 at the outer edge of a strip that leads inwards, 1 at its inner one; 0 elsewhere.
        mirror: ``[V]`` the vertex at the mirrored position.
    """

    points: Array
    faces: Indices
    uv: Array
    part: Indices
    lip_side: Array
    lid_side: Array
    nostril: Array
    depth_ring: Array
    mirror: Indices


def _graded(start: float, end: float, count: int, ratio: float) -> Array:
    """`count` intervals from start to end whose widths change linearly; the last is `ratio` times the first."""
    widths = np.linspace(1.0, ratio, count)
    result: Array = start + (end - start) * np.cumsum(widths) / widths.sum()
    return result


def _grid_lines(detail: Detail) -> tuple[Array, Array]:
    """Azimuths (all columns, from the image's left) and rows (upwards)."""
    rows = [np.array([_BOTTOM_ROW])]
    for end, count, ratio in _ROW_SEGMENTS[detail]:
        rows.append(_graded(rows[-1][-1], end, count, ratio))
    corners = [
        (surface.EYE_INNER_X, surface.EYE_ROW),
        (surface.MOUTH_CORNER_X, surface.MOUTH_ROW),
        (surface.EYE_OUTER_X, surface.EYE_ROW),
    ]
    ends = [float(surface.chart(np.array([x]), np.array([y]))[0][0]) for x, y in corners] + [_SIDE_LIMIT]
    half = [np.array([0.0])]
    for end, count, ratio in zip(ends, _COLUMN_COUNTS[detail], (0.9, 1.0, 1.2, 2.2), strict=True):
        half.append(_graded(half[-1][-1], end, count, ratio))
    right = np.concatenate(half)
    return np.concatenate((-right[:0:-1], right)), np.concatenate(rows)


def _slit_offsets(
    x: Array, distance: Array, above: NDArray[np.bool_], line: Array, openings: tuple[Array, Array], reach: float
) -> Array:
    """How far rows near a slit move in y, so that the slit follows `line` and opens; fades over `reach` mm."""
    fade = np.maximum(1 - np.abs(distance) / reach, 0.0) ** 2 * (1 + np.abs(distance) / reach)
    return (line + np.where(above, openings[0], openings[1])) * fade


def _warp(phi: Array, row: Array, lid_side: Array, lip_side: Array) -> Array:
    """Points of the skin for chart coordinates of the even grid; sides decide where a row coincides with a slit."""
    points = surface.skin(phi, row)
    x, y, _ = points.T
    front = surface.smoothstep(np.radians(62), np.radians(44), np.abs(phi))
    eyes = _slit_offsets(
        x, row - surface.EYE_ROW, lid_side > 0, surface.eye_line(x) - surface.EYE_ROW, surface.lid_openings(x), 16.0
    )
    closed = np.zeros_like(x)
    mouth = _slit_offsets(
        x, row - surface.MOUTH_ROW, lip_side > 0, surface.mouth_line(x) - surface.MOUTH_ROW, (closed, closed), 14.0
    )
    # The chart's own lift of the rows is undone round the slits, so that corners and lines meet.
    lift = sum(np.exp(-(((row - line) / 14.0) ** 2)) for line in (surface.MOUTH_ROW, surface.EYE_ROW)) * (row - y)
    level = lift * surface.smoothstep(np.radians(58), np.radians(30), np.abs(phi))
    offset = (eyes + mouth) * front + level
    moved = np.abs(offset) > 0.01
    points[moved] = surface.skin(*surface.chart(x[moved], (y + offset)[moved]))
    return points


class _Builder:
    """Collects vertices and faces of the parts."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Array]] = {
            k: [] for k in ("points", "uv", "part", "lip_side", "lid_side", "depth_ring")
        }
        self.faces: list[Indices] = []
        self.count = 0

    def add(
        self,
        points: Array,
        uv: Array,
        part: int,
        lip_side: Array | float,
        lid_side: Array | float,
        ring: Array | float = 0.0,
    ) -> Indices:
        n = len(points)
        values = {
            "points": points,
            "uv": uv,
            "part": part,
            "lip_side": lip_side,
            "lid_side": lid_side,
            "depth_ring": ring,
        }
        for key, value in values.items():
            array = np.asarray(value, np.float64)
            self.columns[key].append(np.broadcast_to(array, (n,)) if array.ndim < 2 else array)
        self.count += n
        return np.arange(self.count - n, self.count)

    def add_quads(self, a: Indices, b: Indices, c: Indices, d: Indices) -> None:
        """Quads (counterclockwise), split along the diagonal that keeps the mesh symmetric: away from the middle."""
        x = np.concatenate(self.columns["points"])[:, 0]
        middle = x[a] + x[b] + x[c] + x[d] >= 0
        first = np.where(middle[:, None], np.stack((a, b, c), 1), np.stack((b, c, d), 1))
        second = np.where(middle[:, None], np.stack((a, c, d), 1), np.stack((b, d, a), 1))
        self.faces += [first, second]


def _skin(builder: _Builder, detail: Detail) -> list[Indices]:
    """The grid with its slits; returns the loops round the image's left eye, its right eye and the mouth."""
    phi, row = _grid_lines(detail)
    columns, rows = len(phi), len(row)
    grid = np.arange(rows * columns).reshape(rows, columns)
    phi_grid, row_grid = np.meshgrid(phi, row)
    eye_row = int(np.abs(row - surface.EYE_ROW).argmin())
    mouth_row = int(np.abs(row - surface.MOUTH_ROW).argmin())
    first, second, third, _ = _COLUMN_COUNTS[detail]
    middle = columns // 2
    right_eye = (middle + first, middle + first + second + third)
    left_eye = (columns - 1 - right_eye[1], columns - 1 - right_eye[0])
    mouth = (middle - first - second, middle + first + second)
    slits = [(eye_row, *left_eye), (eye_row, *right_eye), (mouth_row, *mouth)]
    # Grid vertices of a slit are its upper side; copies make the lower one.
    lower_of = grid.copy()
    lower_phi: list[Array] = []
    lower_row: list[Array] = []
    for line, start, end in slits:
        inner = np.arange(start + 1, end)
        lower_of[line, inner] = rows * columns + sum(len(part) for part in lower_phi) + np.arange(len(inner))
        lower_phi.append(phi[inner])
        lower_row.append(np.full(len(inner), row[line]))
    all_phi = np.concatenate([phi_grid.ravel(), *lower_phi])
    all_row = np.concatenate([row_grid.ravel(), *lower_row])
    lid_side = np.where(all_row >= row[eye_row], 1.0, -1.0)
    lip_side = np.where(all_row >= row[mouth_row], 1.0, -1.0)
    lid_side[rows * columns : rows * columns + 2 * (second + third - 1)] = -1.0
    lip_side[rows * columns + 2 * (second + third - 1) :] = -1.0
    points = _warp(all_phi, all_row, lid_side, lip_side)
    uv = np.stack(
        (0.5 + all_phi / (2 * _SIDE_LIMIT), (all_row - _BOTTOM_ROW) / (_TOP_ROW - _BOTTOM_ROW)), axis=1
    ) * np.array([1.0, 0.8]) + np.array([0.0, 0.2])  # fmt: skip
    builder.add(points, uv, SKIN, lip_side, lid_side)
    lower_corner = grid[:-1]
    upper_corner = lower_of[1:]
    builder.add_quads(
        lower_corner[:, :-1].ravel(),
        lower_corner[:, 1:].ravel(),
        upper_corner[:, 1:].ravel(),
        upper_corner[:, :-1].ravel(),
    )
    loops = []
    for line, start, end in slits:
        # From the image's left corner along the upper side to the right corner and back along the lower side.
        upper = grid[line, start : end + 1]
        loops.append(np.concatenate((upper, lower_of[line, start + 1 : end][::-1])))
    return loops


def _strip(builder: _Builder, outer: Indices, inner: Indices) -> None:
    """Quads between two loops that run clockwise (over the top from left to right); the strip leads inwards."""
    builder.add_quads(outer, inner, np.roll(inner, -1), np.roll(outer, -1))


def _add_loop(builder: _Builder, outer: Indices, offsets: Array, part: int, ring: float) -> Indices:
    """A loop inside `outer`, moved by ``[N, 3]`` offsets, and the strip between."""
    stacked = {key: np.concatenate(value) for key, value in builder.columns.items()}
    inner = builder.add(
        stacked["points"][outer] + offsets,
        stacked["uv"][outer],
        part,
        stacked["lip_side"][outer],
        stacked["lid_side"][outer],
        ring,
    )
    _strip(builder, outer, inner)
    return inner


def _lid_edges(builder: _Builder, loop: Indices) -> None:
    """From the margin of the lids back to the eyeball, and under it."""
    points = np.concatenate(builder.columns["points"])[loop]
    behind = surface.eye_surface(points[:, 0], points[:, 1]) - points[:, 2]
    zero = np.zeros(len(loop))
    inner = _add_loop(builder, loop, np.stack((zero, zero, behind + 0.15), 1), LID_EDGE, 0.5)
    side = np.concatenate(builder.columns["lid_side"])[loop]
    _add_loop(builder, inner, np.stack((zero, 1.2 * side, zero - 2.5), 1), LID_EDGE, 1.0)


def _inner_lips(builder: _Builder, loop: Indices) -> None:
    """The wet side of the lips, curling in to the gums."""
    points = np.concatenate(builder.columns["points"])[loop]
    side = np.concatenate(builder.columns["lip_side"])[loop]
    open_height = np.clip(1 - (points[:, 0] / surface.MOUTH_CORNER_X) ** 2, 0.0, 1.0)
    inwards = -0.02 * points[:, 0]
    side = side * np.sqrt(open_height)
    inner = loop
    for ring, dy, dz in ((0.3, 0.5, -2.2), (0.6, 2.2, -2.6), (0.9, 4.0, -3.2), (1.0, 3.0, -14.0)):
        inner = _add_loop(builder, inner, np.stack((inwards, dy * side, np.full(len(loop), dz)), 1), INNER_LIP, ring)
    # A wall at the back of the mouth, from the upper to the lower side of the last loop.
    columns = len(loop) // 2 + 1
    upper, lower = inner[:columns], np.concatenate((inner[:1], inner[: columns - 2 : -1]))
    builder.add_quads(lower[1:-2], lower[2:-1], upper[2:-1], upper[1:-2])
    ends = [(upper[0], lower[1], upper[1]), (lower[-2], upper[-1], upper[-2])]
    builder.faces.append(np.array(ends))


def _eyeball(builder: _Builder, detail: Detail, sign: float) -> None:
    """The visible part of an eyeball with a cornea, as rings round the pupil; `sign` is that of its x."""
    spokes, counts = _EYEBALL_COUNTS[detail]
    limits = (0.35, 1.85, 2.25, 5.5, 6.1, 18.0)  # mm: centre, pupil, its edge, iris, its edge, beyond the lids
    radii = [limits[0]]
    for end, count in zip(limits[1:], counts[1:], strict=True):
        radii += list(np.linspace(radii[-1], end, count + 1)[1:])
    radius = np.array(radii)[:, None]
    angle = np.linspace(0, 2 * np.pi, spokes, endpoint=False)[None] + np.pi / spokes
    # The iris is round; beyond it the rings grow less in height than in width, like the opening.
    height = np.minimum(radius, 6.1) + 0.37 * np.maximum(radius - 6.1, 0.0)
    dx, dy = radius * np.cos(angle), height * np.sin(angle)
    x, y = surface.EYE_X + 0.4 + dx, surface.EYE_ROW + 0.9 + dy
    cornea = 0.7 * np.clip(1 - (radius / 6.4) ** 2, 0.0, 1.0) ** 1.2
    z = surface.eye_surface(x, y) + cornea
    points = np.stack((sign * x, y, z), -1).reshape(-1, 3)
    centre_u = 0.25 if sign < 0 else 0.45
    uv = np.stack((centre_u + sign * dx / 220, 0.1 + dy / 220), -1).reshape(-1, 2)
    ids = builder.add(points, uv, EYEBALL, 1.0, 0.0).reshape(len(radii), spokes)
    inner, outer = ids[:-1], ids[1:]
    a, b, c, d = inner, outer, np.roll(outer, -1, 1), np.roll(inner, -1, 1)
    quad = (a, b, c, d) if sign > 0 else (d, c, b, a)
    builder.add_quads(*(q.ravel() for q in quad))
    centre = builder.add(
        np.array([[sign * (surface.EYE_X + 0.4), surface.EYE_ROW + 0.9, points[0, 2]]]),
        np.array([[centre_u, 0.1]]),
        EYEBALL,
        1.0,
        0.0,
    )[0]
    ring = ids[0] if sign > 0 else ids[0][::-1]
    builder.faces.append(np.stack((np.full(spokes, centre), ring, np.roll(ring, -1)), 1))


def _teeth(builder: _Builder, detail: Detail) -> None:
    """Upper gum and teeth, the dark of the mouth, lower teeth and gum: one folded sheet behind the lips."""
    columns = _TEETH_COLUMNS[detail]
    s = np.linspace(-1, 1, columns + 1)
    s = (s - s[::-1]) / 2  # exactly odd, so that left and right are mirror images to the last bit
    x = 23.0 * np.sin(s * np.pi / 2 * 0.9) / np.sin(np.pi / 2 * 0.9)
    arch = 92.5 - 20.0 * (x / 23.0) ** 2
    profile = (  # y, z, side
        (-20.0, -3.0, 1), (-25.0, -0.5, 1), (-30.0, 0.0, 1), (-36.0, -0.6, 1), (-34.0, -3.0, 1), (-30.0, -22.0, 1),
        (-39.0, -22.0, -1), (-36.8, -4.5, -1), (-37.2, -2.4, -1), (-40.0, -2.0, -1), (-43.0, -2.0, -1), (-48.0, -4.0,
        -1),
    )  # fmt: skip
    rows = []
    for y, z, side in profile[::-1]:
        points = np.stack((x * (1 + 0.012 * z), np.full_like(x, y), arch + z), 1)
        uv = np.stack((0.75 + 0.2 * x / 23.0, np.full_like(x, 0.02 + 0.14 * (y + 48) / 28)), 1)
        rows.append(builder.add(points, uv, TEETH, float(side), 0.0, np.full_like(x, 1.0 if z < -20 else 0.0)))
    ids = np.stack(rows)
    builder.add_quads(ids[:-1, :-1].ravel(), ids[:-1, 1:].ravel(), ids[1:, 1:].ravel(), ids[1:, :-1].ravel())


def _mirror_map(points: Array, part: Indices, lip_side: Array, lid_side: Array) -> Indices:
    """For every vertex the one at the mirrored position in the same part and on the same side of the slits."""
    keys = np.round(points, 5)
    keys[:, 0] = np.abs(keys[:, 0])
    order = np.lexsort((points[:, 0], lid_side, lip_side, part, keys[:, 0], keys[:, 2], keys[:, 1]))
    mirror = np.arange(len(points))
    i = 0
    while i < len(order) - 1:
        a, b = order[i], order[i + 1]
        if keys[a, 0] > 1e-5 and np.abs(points[a] * (-1, 1, 1) - points[b]).max() < 1e-4:
            mirror[a], mirror[b] = b, a
            i += 2
        else:
            i += 1
    return mirror


def build_mesh(detail: Detail) -> TemplateMesh:
    """The mean face."""
    builder = _Builder()
    loops = _skin(builder, detail)
    for loop in loops[:2]:
        _lid_edges(builder, loop)
    _inner_lips(builder, loops[2])
    for sign in (-1.0, 1.0):
        _eyeball(builder, detail, sign)
    _teeth(builder, detail)
    stacked = {key: np.concatenate(value) for key, value in builder.columns.items()}
    part = stacked.pop("part").astype(np.int64)
    points = stacked["points"]
    inside = surface.nostril(points) * (part == SKIN)
    points += inside[:, None] * np.array([0.0, 3.4, -0.5])
    mirror = _mirror_map(points, part, stacked["lip_side"], stacked["lid_side"])
    return TemplateMesh(faces=np.concatenate(builder.faces), part=part, nostril=inside, mirror=mirror, **stacked)
