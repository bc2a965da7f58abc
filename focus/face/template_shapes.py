"""Identity and expression of the procedural face: anthropometric fields first, then Gaussian-process ones.

An anthropometric field moves one proportion (nose width, jaw width, ...) by about one standard deviation of adults (Farkas
1994), as a smooth displacement of the mean face. Gaussian-process fields (Luethi et al. 2018) add what proportions leave out.
Rotation, translation and size are taken out of the fields of identity: pose and camera have them already.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from focus.face import gaussian_process as gp
from focus.face import template_surface as surface
from focus.face.template_mesh import EYEBALL, INNER_LIP, SKIN, TEETH, TemplateMesh
from focus.face.template_surface import Array, bump, smoothstep

Field = Callable[[TemplateMesh], Array]

_EYE = (surface.EYE_X, surface.EYE_ROW)


def _vector(x: Array | float = 0.0, y: Array | float = 0.0, z: Array | float = 0.0) -> Array:
    return np.stack(np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y), np.asarray(z)), axis=-1)


def _band(at: Array, low: float, high: float, edge: float) -> Array:
    """1 between low and high, 0 beyond `edge` outside."""
    return smoothstep(low - edge, low, at) * smoothstep(high + edge, high, at)


def _eye_window(x: Array, y: Array) -> Array:
    """1 on lids and eyeballs, fading over the orbit."""
    return smoothstep(30.0, 15.0, np.hypot(np.abs(x) - _EYE[0], (y - _EYE[1]) * 1.15))


def _nose_window(x: Array, y: Array, z: Array) -> Array:
    """1 on the nose, fading over cheek and lip."""
    return smoothstep(32.0, 13.0, np.abs(x)) * _band(y, -12.0, 30.0, 14.0)


def _outwards(points: Array) -> Array:
    """Unit directions away from the vertical axis at z = 30."""
    direction = points * (1.0, 0.0, 1.0) - (0.0, 0.0, 30.0)
    return direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1.0)


def _identity_fields() -> list[tuple[str, Field]]:
    """(name, displacement in mm at one standard deviation), the most visible first."""

    def at(function: Callable[[Array, Array, Array], Array]) -> Field:
        return lambda mesh: function(*mesh.points.T)

    def along_normal(amount: Callable[[Array, Array, Array], Array]) -> Field:
        return lambda mesh: amount(*mesh.points.T)[:, None] * _outwards(mesh.points)

    def sign(x: Array) -> Array:
        return np.tanh(x / 4.0)

    def lips(mesh: TemplateMesh) -> Array:
        x, y, _ = mesh.points.T
        d = y - surface.mouth_line(x)
        spread = np.clip(1 - (x / (surface.MOUTH_CORNER_X + 3)) ** 2, 0, 1)
        body = np.exp(-((np.abs(d) / 13.0) ** 2)) * spread
        # Vermilion grows away from the mouth line and bulges.
        return _vector(0, 1.6 * np.tanh(d / 5.0) * body, 1.5 * np.exp(-(((np.abs(d) - 4.5) / 5.0) ** 2)) * spread)

    return [
        ("face width", at(lambda x, y, z: _vector(0.043 * x * smoothstep(120, 20, y) * smoothstep(-130, -60, y)))),
        ("face length", at(lambda x, y, z: _vector(0, 0.044 * (y - 25.0) * smoothstep(-140, -75, y), 0))),
        ("jaw width", at(lambda x, y, z: _vector(0.068 * x * _band(y, -75, -28, 42)))),
        ("cheek fullness", along_normal(lambda x, y, z: 4.0 * bump(np.abs(x), y, (46, -22), (15, 19)) + 1.5 * bump(x, y, (0, -88), (28, 10)))),
        ("nose length", at(lambda x, y, z: _vector(0, -2.9 * smoothstep(40, -2, y) * smoothstep(-34, -9, y) * smoothstep(45, 8, np.abs(x)), 0))),
        ("nose width", at(lambda x, y, z: _vector(2.1 * np.tanh(x / 7.0) * bump(x, y, (0, -4), (15, 10)) + 0.7 * np.tanh(x / 6) * bump(x, y, (0, 18), (12, 13))))),
        ("chin forward", at(lambda x, y, z: _vector(0, 0, 3.8 * bump(x, y, (0, -66), (26, 17))))),
        ("eye distance", at(lambda x, y, z: _vector(1.6 * sign(x) * _eye_window(x, y)))),
        ("nose forward", at(lambda x, y, z: _vector(0, 0, 2.4 * bump(x, y, (0, 0), (11, 13))))),
        ("forehead slope", at(lambda x, y, z: _vector(0, 0, 4.0 * smoothstep(45, 110, y) * smoothstep(-20, 60, z)))),
        ("lip fullness", lips),
        ("chin height", at(lambda x, y, z: _vector(0, -3.2 * smoothstep(-44, -72, y) * smoothstep(-125, -88, y) * smoothstep(70, 15, np.abs(x))))),
        ("eye opening", at(lambda x, y, z: _vector(0, 0.13 * (y - _EYE[1]) * _eye_window(x, y)))),
        ("brow ridge", at(lambda x, y, z: _vector(0, -1.0 * _band(y, 44, 54, 14) * smoothstep(62, 35, np.abs(x)), 2.4 * bump(np.abs(x), y, (18, 52), (22, 8))))),
        ("cheek bones", along_normal(lambda x, y, z: 2.8 * bump(np.abs(x), y, (50, 10), (15, 13)))),
        ("mouth width", at(lambda x, y, z: _vector(0.085 * x * bump(x, y, (0, -34), (26, 13))))),
        ("nose bridge", at(lambda x, y, z: _vector(0, 0, 2.2 * bump(x, y, (0, 26), (8, 14))))),
        ("jaw forward", at(lambda x, y, z: _vector(0, 0, 2.6 * bump(x, y, (0, -33), (25, 14))))),
        ("forehead width", at(lambda x, y, z: _vector(0.05 * x * smoothstep(35, 75, y)))),
        ("eye depth", at(lambda x, y, z: _vector(0, 0, 1.8 * _eye_window(x, y)))),
        ("chin width", at(lambda x, y, z: _vector(3.0 * np.tanh(x / 16.0) * bump(x, y, (0, -68), (26, 14))))),
        ("nose tip up", at(lambda x, y, z: _vector(0, 2.2 * bump(x, y, (0, -3), (10, 8)), 0.5 * bump(x, y, (0, -9), (7, 5))))),
        ("eye tilt", at(lambda x, y, z: _vector(0, 0.085 * (np.abs(x) - _EYE[0]) * _eye_window(x, y)))),
        ("head depth", at(lambda x, y, z: _vector(0, 0, 0.035 * (z - 60.0)))),
        ("brow height", at(lambda x, y, z: _vector(0, 2.0 * _band(y, 46, 58, 11) * smoothstep(66, 40, np.abs(x))))),
        ("upper lip length", at(lambda x, y, z: _vector(0, -1.6 * smoothstep(-12, -24, y) * smoothstep(-62, -40, y) * smoothstep(45, 15, np.abs(x))))),
        ("under the chin", at(lambda x, y, z: _vector(0, -2.4 * bump(x, y, (0, -92), (30, 10)), 4.0 * bump(x, y, (0, -96), (30, 12))))),
        ("neck width", at(lambda x, y, z: _vector(0.07 * x * smoothstep(-80, -105, y)))),
        ("jaw angle", at(lambda x, y, z: _vector(0, -4.0 * bump(np.abs(x), y, (55, -42), (12, 20))))),
        ("jaw to the side", at(lambda x, y, z: _vector(1.2 * smoothstep(-5, -70, y) * smoothstep(-125, -85, y)))),
        ("nose to the side", at(lambda x, y, z: _vector(0.8 * bump(x, y, (0, -2), (12, 14))))),
    ]  # fmt: skip


def _jaw_weight(mesh: TemplateMesh) -> Array:
    """1 where the skin follows the jaw, 0 where it stays: parted at the mouth line, shared in halves at the corners."""
    x, y, z = mesh.points.T
    s = np.clip(np.abs(x) / surface.MOUTH_CORNER_X, 0.0, 1.0)
    parted = (1 - s**2.5) ** 1.2
    d = y - surface.mouth_line(x)
    share = 0.5 - 0.5 * parted
    upper = share * np.exp(-((np.maximum(d, 0) / 15.0) ** 2))
    lower = 1 - share * np.exp(-((np.minimum(d, 0) / 17.0) ** 2))
    # Inside the mouth the side of the slit decides, beyond its corners the height.
    above = np.where(np.abs(x) < surface.MOUTH_CORNER_X, mesh.lip_side > 0, d > 0)
    weight = np.where(above, upper, lower)
    # Towards the ear and down the neck the skin stays behind.
    weight = weight * smoothstep(-12.0, 62.0, z) * smoothstep(-135.0, -82.0, y)
    strict = (mesh.lip_side < 0).astype(np.float64)
    weight = np.where(mesh.part == TEETH, strict * (1 - 0.5 * mesh.depth_ring), weight)
    return np.where(mesh.part == EYEBALL, 0.0, weight)


def _rotated(points: Array, angle: float) -> Array:
    """First-order displacement of a turn of the jaw by `angle` (opening) about the axis through its joints."""
    y, z = points[:, 1] - 8.0, points[:, 2] - 12.0
    return _vector(0, -angle * z, angle * y)


def _is_face(mesh: TemplateMesh) -> Array:
    return np.where((mesh.part == TEETH) | (mesh.part == EYEBALL), 0.0, 1.0)


def _expression_fields() -> list[tuple[str, Field]]:
    """(name, displacement in mm per unit coefficient)."""

    def skin(function: Callable[[Array, Array, Array, TemplateMesh], Array]) -> Field:
        return lambda mesh: function(*mesh.points.T, mesh) * _is_face(mesh)[:, None]

    def jaw_open(mesh: TemplateMesh) -> Array:
        return _rotated(mesh.points, np.radians(3.4)) * _jaw_weight(mesh)[:, None]

    def smile(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        ax, side = np.abs(x), np.tanh(x / 6.0)
        corner = bump(ax, y, (surface.MOUTH_CORNER_X, -35), (10, 11))
        cheek = bump(ax, y, (36, -6), (13, 13))
        lips = bump(x, y, (0, -34), (22, 9))
        # The corners draw back round the dental arch, the cheeks rise and fill, the lips thin.
        return _vector(
            side * (2.6 * corner + 0.5 * cheek),
            2.9 * corner + 1.3 * cheek + 0.5 * bump(ax, y, (34, 22), (13, 7)),
            -1.6 * corner + 1.5 * cheek - 0.9 * lips,
        )

    def brow_window(x: Array, y: Array) -> Array:
        # Begins slowly at the crease of the lid, which a lowered brow must not fold.
        return smoothstep(36.0, 54.0, y) * smoothstep(84.0, 62.0, y) * smoothstep(68.0, 42.0, np.abs(x))

    def brows(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        return _vector(0, 2.6 * brow_window(x, y))

    def frown(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        inner = bump(np.abs(x), y, (13, 51), (10, 8))
        return _vector(-1.9 * np.tanh(x / 5.0) * inner, -2.4 * inner, 0.8 * bump(x, y, (0, 50), (7, 7)))

    def blink(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        upper, lower = surface.lid_openings(x)
        above = np.maximum(y - surface.eye_line(x) - upper, 0.0)
        below = np.maximum(surface.eye_line(x) + lower - y, 0.0)
        near = smoothstep(15.0, 0.0, above) * (mesh.lid_side > 0)
        closing = 0.3 * (upper - 0.85 * lower)
        down = -closing * near
        up = -0.15 * 0.3 * lower * smoothstep(10.0, 0.0, below) * (mesh.lid_side < 0)
        return _vector(0, down + up, 0.2 * closing * near)

    def pucker(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        region = bump(x, y, (0, -34), (20, 12))
        d = y - surface.mouth_line(x)
        return _vector(-0.17 * x * bump(x, y, (0, -34), (24, 13)), 0.05 * np.tanh(d / 5) * region, 2.6 * region)

    def upper_lip(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        s = np.clip(1 - (x / surface.MOUTH_CORNER_X) ** 2, 0, 1)
        d = y - surface.mouth_line(x)
        return _vector(0, 1.5 * s * np.exp(-((np.maximum(d, 0) / 14) ** 2)) * (mesh.lip_side > 0), 0.0)

    def lower_lip(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        s = np.clip(1 - (x / surface.MOUTH_CORNER_X) ** 2, 0, 1)
        d = y - surface.mouth_line(x)
        return _vector(
            0,
            -1.5 * s * np.exp(-((np.minimum(d, 0) / 13) ** 2)) * (mesh.lip_side < 0),
            0.3 * s * (mesh.lip_side < 0) * np.exp(-((d / 9) ** 2)),
        )

    def puff(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        return 3.0 * bump(np.abs(x), y, (40, -26), (14, 15))[:, None] * _outwards(mesh.points)

    def corners_down(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        corner = bump(np.abs(x), y, (surface.MOUTH_CORNER_X - 2, -37), (9, 9))
        return _vector(0.5 * np.tanh(x / 6) * corner, -2.2 * corner, -0.4 * corner)

    def squint(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        _, lower = surface.lid_openings(x)
        below = np.maximum(surface.eye_line(x) + lower - y, 0.0)
        span = np.clip(-lower / 2.0, 0.0, 1.0)
        return _vector(
            0, 1.2 * smoothstep(14, 0, below) * (mesh.lid_side < 0) * span, 0.4 * bump(np.abs(x), y, (33, 22), (12, 5))
        )

    def nose_wrinkle(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        wing = bump(np.abs(x), y, (14, -5), (8, 9))
        return _vector(0.5 * np.tanh(x / 5) * wing, 1.6 * wing + 0.8 * bump(x, y, (0, -20), (16, 8)), 0)

    def mouth_sideways(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        return _vector(2.0 * bump(x, y, (0, -35), (30, 14)))

    def jaw_sideways(mesh: TemplateMesh) -> Array:
        return _vector(1.8 * _jaw_weight(mesh))

    def brow_one_side(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        return _vector(0, 1.4 * brow_window(x, y) * np.tanh(x / 14.0))

    def smile_one_side(x: Array, y: Array, z: Array, mesh: TemplateMesh) -> Array:
        return np.tanh(x / 10.0)[:, None] * 0.5 * smile(x, y, z, mesh)

    return [
        ("jaw open", jaw_open),
        ("smile", skin(smile)),
        ("brow raise", skin(brows)),
        ("blink", skin(blink)),
        ("pucker", skin(pucker)),
        ("frown", skin(frown)),
        ("upper lip raise", skin(upper_lip)),
        ("lower lip down", skin(lower_lip)),
        ("corners down", skin(corners_down)),
        ("squint", skin(squint)),
        ("cheek puff", skin(puff)),
        ("nose wrinkle", skin(nose_wrinkle)),
        ("mouth sideways", skin(mouth_sideways)),
        ("jaw sideways", jaw_sideways),
        ("brow of one side", skin(brow_one_side)),
        ("smile of one side", skin(smile_one_side)),
    ]


IDENTITY_NAMES = tuple(name for name, _ in _identity_fields())
EXPRESSION_NAMES = tuple(name for name, _ in _expression_fields())


def _without_similarity(fields: Array, canonical_fields: Array, mesh: TemplateMesh, canonical: TemplateMesh) -> Array:
    """Removes the part of fields that a small rotation, translation or scaling explains (over the canonical skin)."""
    skin = canonical.part == SKIN

    def motions(points: Array) -> Array:
        centred = points - np.array([0.0, 0.0, 55.0])
        one, zero = np.ones(len(points)), np.zeros(len(points))
        x, y, z = centred.T
        moves = [
            (one, zero, zero),
            (zero, one, zero),
            (zero, zero, one),
            (zero, -z, y),
            (z, zero, -x),
            (-y, x, zero),
            (x, y, z),
        ]
        return np.stack([np.stack(move, -1) for move in moves])

    moves = motions(canonical.points[skin]).reshape(7, -1)
    amounts, *_ = np.linalg.lstsq(moves.T, canonical_fields[:, skin].reshape(len(fields), -1).T, rcond=None)
    return fields - np.einsum("mk,mvc->kvc", amounts, motions(mesh.points))


def _gaussian_process_fields(points: Array, canonical: TemplateMesh, kernel: gp.Kernel, count: int) -> Array:
    """Left-right symmetric vector fields (x odd; y and z even), ``[count, V, 3]``, by falling variance."""
    inducing = canonical.points[(canonical.part == SKIN) & (canonical.points[:, 0] >= -1e-9)][::4]
    each = -(-count // 3)
    fields, variances = [], []
    for parity, axes in ((-1, (0,)), (1, (1, 2))):
        functions, variance = gp.eigenfunctions(gp.mirrored_kernel(kernel, parity), inducing, points, each)
        for axis in axes:
            vectors = np.zeros((each, len(points), 3))
            vectors[:, :, axis] = functions
            fields.append(vectors)
            # Equal variances (of y and z) are told apart, so that the order does not hang on rounding.
            variances.append(variance * (1 + 0.01 * axis))
    order = np.argsort(-np.concatenate(variances), kind="stable")[:count]
    return np.concatenate(fields)[order]


def _evaluate(fields: list[tuple[str, Field]], mesh: TemplateMesh) -> Array:
    return np.stack([field(mesh) for _, field in fields])


def identity_basis(mesh: TemplateMesh, canonical: TemplateMesh, count: int) -> Array:
    """``[count, V, 3]`` mm.

    Args:
        mesh: where to evaluate.
        canonical: a fixed sampling of the face (the small mesh) that defines the functions.
        count: at least the number of anthropometric fields.
    """
    fields = _identity_fields()
    kernel = gp.gaussian_kernel((60.0, 0.8), (26.0, 0.55))
    points = np.concatenate((mesh.points, canonical.points))
    smooth = _gaussian_process_fields(points, canonical, kernel, count - len(fields))
    here = np.concatenate((_evaluate(fields, mesh), smooth[:, : len(mesh.points)]))
    there = np.concatenate((_evaluate(fields, canonical), smooth[:, len(mesh.points) :]))
    return _without_similarity(here, there, mesh, canonical)


def expression_basis(mesh: TemplateMesh, canonical: TemplateMesh, count: int) -> Array:
    """``[count, V, 3]`` mm; arguments as for `identity_basis`. Gaussian-process fields are local to mouth and brows."""
    fields = _expression_fields()

    def weight(points: Array) -> Array:
        x, y, _ = points.T
        mouth = bump(x, y, (0, -34), (24, 18))
        brows = 0.7 * bump(np.abs(x), y, (28, 54), (18, 8))
        return mouth + brows

    kernel = gp.local_kernel(gp.gaussian_kernel((22.0, 0.9)), weight)
    smooth = _gaussian_process_fields(mesh.points, canonical, kernel, count - len(fields))
    inner = np.isin(mesh.part, (SKIN, INNER_LIP, 1)).astype(np.float64)
    return np.concatenate((_evaluate(fields, mesh), smooth * inner[None, :, None]))
