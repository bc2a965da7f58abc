"""Identity and expression of the procedural face: anthropometric fields first, then Gaussian-process ones.

An anthropometric field moves one proportion (nose width, jaw width, ...) by about one standard deviation of adults
(Farkas 1994), as a smooth displacement of the mean face. Gaussian-process fields (Luethi et al. 2018) add what
proportions leave out. Rotation, translation and size are taken out of the fields of identity: pose and camera have them
already.
"""

from __future__ import annotations

import functools

import numpy as np

from focus.face import gaussian_process as gp
from focus.face import template_surface as surface
from focus.face.template_mesh import EYEBALL, SKIN, TEETH, TemplateMesh, build_mesh
from focus.face.template_surface import Array, bump, pair, smoothstep

_EYE_X, _EYE_Y = surface.EYE_X, surface.EYE_ROW


def _vector(x: Array | float = 0.0, y: Array | float = 0.0, z: Array | float = 0.0) -> Array:
    parts = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64), np.asarray(z, np.float64))
    return np.stack(parts, axis=-1)


def _band(at: Array, low: float, high: float, edge: float) -> Array:
    """1 between low and high, 0 beyond `edge` outside."""
    return smoothstep(low - edge, low, at) * smoothstep(high + edge, high, at)


def _outwards(points: Array) -> Array:
    """Unit directions away from the vertical axis at z = 30."""
    direction = points * (1.0, 0.0, 1.0) - (0.0, 0.0, 30.0)
    result: Array = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1.0)
    return result


def _identity_fields(mesh: TemplateMesh) -> dict[str, Array]:
    """Displacements ``[V, 3]`` in mm at one standard deviation, the most visible first."""
    x, y, z = mesh.points.T
    ax = np.abs(x)
    eyes = smoothstep(30.0, 15.0, np.hypot(ax - _EYE_X, (y - _EYE_Y) * 1.15))  # 1 on lids and eyeballs
    out = _outwards(mesh.points)
    nose_down = smoothstep(40, -2, y) * smoothstep(-34, -9, y) * smoothstep(45, 8, ax)
    wings = 2.1 * np.tanh(x / 7) * bump(x, y, (0, -4), (15, 10)) + 0.7 * np.tanh(x / 6) * bump(x, y, (0, 18), (12, 13))
    cheeks = 4.0 * pair(x, y, (46, -22), (15, 19)) + 1.5 * bump(x, y, (0, -88), (28, 10))
    brows = _band(y, 44, 54, 14) * smoothstep(62, 35, ax)
    # The vermilion grows away from the mouth line and bulges.
    d = y - surface.mouth_line(x)
    spread = np.clip(1 - (x / (surface.MOUTH_CORNER_X + 3)) ** 2, 0, 1)
    lips_y = 1.6 * np.tanh(d / 5) * np.exp(-((d / 13) ** 2)) * spread
    lips_z = 1.5 * np.exp(-(((np.abs(d) - 4.5) / 5) ** 2)) * spread
    chin_down = smoothstep(-44, -72, y) * smoothstep(-125, -88, y) * smoothstep(70, 15, ax)
    lip_down = smoothstep(-12, -24, y) * smoothstep(-62, -40, y) * smoothstep(45, 15, ax)
    throat_y, throat_z = bump(x, y, (0, -92), (30, 10)), bump(x, y, (0, -96), (30, 12))
    return {
        "face width": _vector(0.043 * x * smoothstep(120, 20, y) * smoothstep(-130, -60, y)),
        "face length": _vector(y=0.044 * (y - 25) * smoothstep(-140, -75, y)),
        "jaw width": _vector(0.068 * x * _band(y, -75, -28, 42)),
        "cheek fullness": cheeks[:, None] * out,
        "nose length": _vector(y=-2.9 * nose_down),
        "nose width": _vector(wings),
        "chin forward": _vector(z=3.8 * bump(x, y, (0, -66), (26, 17))),
        "eye distance": _vector(1.6 * np.tanh(x / 4) * eyes),
        "nose forward": _vector(z=2.4 * bump(x, y, (0, 0), (11, 13))),
        "forehead slope": _vector(z=4.0 * smoothstep(45, 110, y) * smoothstep(-20, 60, z)),
        "lip fullness": _vector(y=lips_y, z=lips_z),
        "chin height": _vector(y=-3.2 * chin_down),
        "eye opening": _vector(y=0.13 * (y - _EYE_Y) * eyes),
        "brow ridge": _vector(y=-1.0 * brows, z=2.4 * pair(x, y, (18, 52), (22, 8))),
        "cheek bones": 2.8 * pair(x, y, (50, 10), (15, 13))[:, None] * out,
        "mouth width": _vector(0.085 * x * bump(x, y, (0, -34), (26, 13))),
        "nose bridge": _vector(z=2.2 * bump(x, y, (0, 26), (8, 14))),
        "jaw forward": _vector(z=2.6 * bump(x, y, (0, -33), (25, 14))),
        "forehead width": _vector(0.05 * x * smoothstep(35, 75, y)),
        "eye depth": _vector(z=1.8 * eyes),
        "chin width": _vector(3.0 * np.tanh(x / 16) * bump(x, y, (0, -68), (26, 14))),
        "nose tip up": _vector(y=2.2 * bump(x, y, (0, -3), (10, 8)), z=0.5 * bump(x, y, (0, -9), (7, 5))),
        "eye tilt": _vector(y=0.085 * (ax - _EYE_X) * eyes),
        "head depth": _vector(z=0.035 * (z - 60)),
        "brow height": _vector(y=2.0 * _band(y, 46, 58, 11) * smoothstep(66, 40, ax)),
        "upper lip length": _vector(y=-1.6 * lip_down),
        "under the chin": _vector(y=-2.4 * throat_y, z=4.0 * throat_z),
        "neck width": _vector(0.07 * x * smoothstep(-80, -105, y)),
        "jaw angle": _vector(y=-4.0 * pair(x, y, (55, -42), (12, 20))),
        "jaw to the side": _vector(1.2 * smoothstep(-5, -70, y) * smoothstep(-125, -85, y)),
        "nose to the side": _vector(0.8 * bump(x, y, (0, -2), (12, 14))),
    }


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
    # Towards the ear and down the neck the skin stays behind.
    weight = np.where(above, upper, lower) * smoothstep(-12.0, 62.0, z) * smoothstep(-135.0, -82.0, y)
    teeth = (mesh.lip_side < 0) * (1 - 0.5 * mesh.depth_ring)
    return np.where(mesh.part == TEETH, teeth, np.where(mesh.part == EYEBALL, 0.0, weight))


def _expression_fields(mesh: TemplateMesh) -> dict[str, Array]:
    """Displacements ``[V, 3]`` in mm per unit coefficient, the most visible first."""
    x, y, z = mesh.points.T
    ax, side = np.abs(x), np.tanh(x / 6)
    face = ((mesh.part != TEETH) & (mesh.part != EYEBALL)).astype(np.float64)[:, None]
    upper_side, lower_side = mesh.lip_side > 0, mesh.lip_side < 0
    d = y - surface.mouth_line(x)
    within = np.clip(1 - (x / surface.MOUTH_CORNER_X) ** 2, 0, 1)
    # The jaw turns about the axis through its joints (first order).
    jaw = _jaw_weight(mesh)
    opening = np.radians(3.4) * jaw
    # Smile: the corners draw back round the dental arch, the cheeks rise and fill, the lips thin.
    corner = pair(x, y, (surface.MOUTH_CORNER_X, -35), (10, 11))
    cheek = pair(x, y, (38, -7), (13, 13))
    smile = _vector(
        side * (2.6 * corner + 0.5 * cheek),
        2.9 * corner + 1.3 * cheek + 0.5 * pair(x, y, (34, 22), (13, 7)),
        -1.6 * corner + 1.3 * cheek - 0.9 * bump(x, y, (0, -34), (22, 9)),
    )
    # Brows: begin slowly at the crease of the lid, which a lowered brow must not fold.
    brows = smoothstep(36, 54, y) * smoothstep(84, 62, y) * smoothstep(68, 42, ax)
    inner_brow = pair(x, y, (13, 51), (10, 8))
    # Lids slide over the eyeball; the groove of the crease fills as it comes over the cornea.
    lid_up, lid_low = surface.lid_openings(x)
    above = np.maximum(y - surface.eye_line(x) - lid_up, 0.0)
    below = np.maximum(surface.eye_line(x) + lid_low - y, 0.0)
    closing = 0.3 * (lid_up - 0.85 * lid_low) * smoothstep(15, 0, above) * (mesh.lid_side > 0)
    lower_lid = -0.045 * lid_low * smoothstep(10, 0, below) * (mesh.lid_side < 0)
    groove = np.exp(-(((above - 4.4) / 1.8) ** 2))
    squint = 1.2 * smoothstep(14, 0, below) * (mesh.lid_side < 0) * np.clip(-lid_low / 2, 0, 1)
    mouth = bump(x, y, (0, -34), (20, 12))
    lower_lip = within * lower_side
    corner_down = pair(x, y, (surface.MOUTH_CORNER_X - 2, -37), (9, 9))
    wing = pair(x, y, (14, -5), (8, 9))
    return {
        "jaw open": _vector(0.0, -opening * (z - 12), opening * (y - 8)),
        "smile": smile * face,
        "brow raise": _vector(y=2.6 * brows) * face,
        "blink": _vector(y=lower_lid - closing, z=closing * (0.2 + 0.28 * groove)) * face,
        "pucker": _vector(-0.17 * x * bump(x, y, (0, -34), (24, 13)), 0.05 * np.tanh(d / 5) * mouth, 2.6 * mouth)
        * face,
        "frown": _vector(-1.9 * side * inner_brow, -2.4 * inner_brow, 0.8 * bump(x, y, (0, 50), (7, 7))) * face,
        "upper lip raise": _vector(y=1.5 * within * np.exp(-((np.maximum(d, 0) / 14) ** 2)) * upper_side) * face,
        "lower lip down": face
        * _vector(
            y=-1.5 * lower_lip * np.exp(-((np.minimum(d, 0) / 13) ** 2)), z=0.3 * lower_lip * np.exp(-((d / 9) ** 2))
        ),
        "corners down": _vector(0.5 * side * corner_down, -2.2 * corner_down, -0.4 * corner_down) * face,
        "squint": _vector(y=squint, z=0.4 * pair(x, y, (33, 22), (12, 5))) * face,
        "cheek puff": 3.0 * pair(x, y, (40, -26), (14, 15))[:, None] * _outwards(mesh.points) * face,
        "nose wrinkle": _vector(0.5 * side * wing, 1.6 * wing + 0.8 * bump(x, y, (0, -20), (16, 8))) * face,
        "mouth sideways": _vector(2.0 * bump(x, y, (0, -35), (30, 14))) * face,
        "jaw sideways": _vector(1.8 * jaw),
        "brow of one side": _vector(y=1.4 * brows * np.tanh(x / 14)) * face,
        "smile of one side": smile * face * 0.5 * np.tanh(x / 10)[:, None],
    }


@functools.lru_cache(maxsize=1)
def identity_names() -> tuple[str, ...]:
    """Names of the first identity components; Gaussian-process ones follow without names."""
    return tuple(_identity_fields(build_mesh("small")))


@functools.lru_cache(maxsize=1)
def expression_names() -> tuple[str, ...]:
    """Names of the first expression components; Gaussian-process ones follow without names."""
    return tuple(_expression_fields(build_mesh("small")))


def _without_similarity(fields: Array, canonical_fields: Array, mesh: TemplateMesh, canonical: TemplateMesh) -> Array:
    """Removes what a small rotation, translation or scaling explains of fields (over the canonical skin)."""
    skin = canonical.part == SKIN

    def motions(points: Array) -> Array:
        """``[7, V, 3]``: translations, rotations, scaling about the middle of the face."""
        x, y, z = (points - (0.0, 0.0, 55.0)).T
        rotations = [_vector(0.0, -z, y), _vector(z, 0.0, -x), _vector(-y, x, 0.0)]
        translations = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
        return np.stack([*translations, *rotations, _vector(x, y, z)])

    moves = motions(canonical.points[skin]).reshape(7, -1)
    wanted = canonical_fields[:, skin].reshape(len(fields), -1)
    amounts = np.linalg.solve(moves @ moves.T, moves @ wanted.T)
    return fields - np.tensordot(amounts.T, motions(mesh.points), 1)


def _gaussian_process_fields(points: Array, canonical: TemplateMesh, kernel: gp.Kernel, count: int) -> Array:
    """Left-right symmetric vector fields (x odd; y and z even), ``[count, V, 3]``, by falling variance."""
    inducing = canonical.points[(canonical.part == SKIN) & (canonical.points[:, 0] >= -1e-9)][::6]
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
    result: Array = np.concatenate(fields)[order]
    return result


def identity_basis(mesh: TemplateMesh, canonical: TemplateMesh, count: int) -> Array:
    """``[count, V, 3]`` mm.

    Args:
        mesh: where to evaluate.
        canonical: a fixed sampling of the face (the small mesh) that defines the functions.
        count: at least the number of `identity_names`.
    """
    here, there = (np.stack(list(_identity_fields(m).values())) for m in (mesh, canonical))
    kernel = gp.gaussian_kernel((60.0, 0.8), (26.0, 0.55))
    points = np.concatenate((mesh.points, canonical.points))
    smooth = _gaussian_process_fields(points, canonical, kernel, count - len(here))
    here = np.concatenate((here, smooth[:, : len(mesh.points)]))
    there = np.concatenate((there, smooth[:, len(mesh.points) :]))
    return _without_similarity(here, there, mesh, canonical)


def expression_basis(mesh: TemplateMesh, canonical: TemplateMesh, count: int) -> Array:
    """``[count, V, 3]`` mm; arguments as for `identity_basis`. Gaussian-process fields are local to mouth and brows."""

    def weight(points: Array) -> Array:
        x, y, _ = points.T
        return bump(x, y, (0, -34), (24, 18)) + 0.7 * pair(x, y, (28, 54), (18, 8))

    fields = np.stack(list(_expression_fields(mesh).values()))
    kernel = gp.local_kernel(gp.gaussian_kernel((22.0, 0.75)), weight)
    smooth = _gaussian_process_fields(mesh.points, canonical, kernel, count - len(fields))
    smooth *= ((mesh.part != TEETH) & (mesh.part != EYEBALL))[None, :, None]
    return np.concatenate((fields, smooth))
