"""Colour of the procedural face: a painted mean, and a basis of pigments, regions and Gaussian-process fields.

Colours are RGB as displayed, in [0, 1]. Average skin and the direction of melanin and haemoglobin follow the order of
magnitude in measured skin (Tsumura et al. 2003); none of the numbers was fitted to anybody.
"""

from __future__ import annotations

import numpy as np

from focus.face import gaussian_process as gp
from focus.face import template_surface as surface
from focus.face.template_mesh import EYEBALL, INNER_LIP, LID_EDGE, SKIN, TEETH, TemplateMesh
from focus.face.template_surface import Array, bump, smoothstep

SKIN_COLOR = np.array([0.635, 0.465, 0.385])
MELANIN = np.array([0.122, 0.108, 0.097])
HAEMOGLOBIN = np.array([0.016, -0.012, -0.009])
_LIP_COLOR = np.array([0.545, 0.325, 0.30])
_HAIR_COLOR = np.array([0.17, 0.115, 0.085])


def value_noise(points: Array, scale: float, seed: int) -> Array:
    """Smooth noise in [-1, 1] of 3D points, the same on every machine (integer hashing of a lattice).

    Args:
        points: ``[N, 3]`` mm.
        scale: size of a lattice cell, mm.
        seed: selects the field.
    """
    cell = points / scale
    base = np.floor(cell).astype(np.int64)
    t = cell - base
    t = t * t * (3 - 2 * t)
    result = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        index = (base + corner + 4096).astype(np.uint64)
        h = index[:, 0] * np.uint64(73856093) ^ index[:, 1] * np.uint64(19349663) ^ index[:, 2] * np.uint64(83492791)
        h = (h + np.uint64(seed * 7919)) * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)
        h = ((h >> np.uint64(15)) ^ h) * np.uint64(2246822519) & np.uint64(0xFFFFFFFF)
        h = (h >> np.uint64(13)) ^ h
        value = (h % np.uint64(65536)).astype(np.float64) / 32767.5 - 1
        weight = np.prod(np.where(np.array(corner) == 1, t, 1 - t), axis=1)
        result += value * weight
    return result


def _mix(color: Array, other: Array, amount: Array) -> Array:
    return color + (other - color) * amount[:, None]


def brow_density(mesh: TemplateMesh) -> Array:
    """How much of the skin the hair of the brows hides, ``[V]`` in [0, 1], in strokes."""
    x, y, _ = mesh.points.T
    ax = np.abs(x)
    s = (ax - 10.5) / 43.0  # 0 at the inner end, 1 at the outer one
    centre = 48.8 + 6.4 * np.sin(np.clip(s, 0, 1) * 2.05) - 5.4 * smoothstep(0.5, 1.15, s)
    half_height = 3.9 * (1 - 0.62 * smoothstep(0.3, 1.05, s)) * (0.8 + 0.2 * smoothstep(0.0, 0.3, s))
    d = (y - centre) / half_height
    shape = smoothstep(1.3, 0.25, np.abs(d)) * smoothstep(-0.06, 0.2, s) * smoothstep(1.1, 0.75, s)
    # Hairs stand upright at the inner end and lie along the brow at the outer one.
    lean = np.radians(80) * (1 - smoothstep(0.0, 0.55, s)) + np.radians(8)
    across = ax * np.sin(lean) - (y - centre) * np.cos(lean)
    hairs = value_noise(np.stack((across, 0.22 * (ax + y), np.zeros_like(x)), axis=1), 1.1, 3)
    return np.clip(shape * (0.78 + 0.34 * hairs), 0.0, 0.93)


def _regions(mesh: TemplateMesh) -> dict[str, Array]:
    """Masks in [0, 1], ``[V]``."""
    x, y, _ = mesh.points.T
    ax = np.abs(x)
    outer = (mesh.part == SKIN).astype(np.float64)
    upper, lower = surface.lip_heights(x)
    d = y - surface.mouth_line(x)
    height = np.where(mesh.lip_side > 0, upper, lower)
    span = smoothstep(surface.MOUTH_CORNER_X + 0.8, surface.MOUTH_CORNER_X - 2.5, ax)
    lips = smoothstep(0.7, -0.9, np.abs(d) - height) * span * (np.abs(d) < 14) * outer
    lid_up, lid_low = surface.lid_openings(x)
    above = y - surface.eye_line(x) - lid_up
    below = surface.eye_line(x) + lid_low - y
    span_eye = smoothstep(surface.EYE_INNER_X - 1.0, surface.EYE_INNER_X + 3.0, ax) * smoothstep(
        surface.EYE_OUTER_X + 3.0, surface.EYE_OUTER_X - 0.5, ax
    )
    upper_lash = smoothstep(1.5, 0.2, np.abs(above)) * (mesh.lid_side > 0) * span_eye * (np.abs(above) < 6)
    lower_lash = smoothstep(1.0, 0.1, np.abs(below)) * (mesh.lid_side < 0) * span_eye * (np.abs(below) < 6)
    return {
        "skin": outer * (1 - lips),
        "lips": np.where(mesh.part == INNER_LIP, 1.0, lips),
        "brows": brow_density(mesh) * outer,
        "lashes": np.maximum(upper_lash, 0.45 * lower_lash) * outer,
        "nostrils": mesh.nostril,
        "beard": _beard(ax, y) * outer * (1 - lips),
        "cheeks": bump(ax, y, (36, 0), (14, 12)) * outer,
        "lids": smoothstep(22, 8, np.hypot((ax - surface.EYE_X) * 0.8, y - surface.EYE_ROW)) * outer,
        "eyeballs": (mesh.part == EYEBALL).astype(np.float64),
    }


def _beard(ax: Array, y: Array) -> Array:
    """Where a beard grows, in [0, 1]: upper lip, chin, jaw and the upper neck."""
    moustache = bump(ax, y, (10, -20), (13, 6))
    border = -14.0 - 26.0 * np.exp(-(((ax - 34) / 12.0) ** 2)) * smoothstep(70, 50, ax)
    jaw = smoothstep(8.0, -14.0, y - border) * smoothstep(12, 26, ax)
    chin = bump(x=ax, y=y, centre=(0, -64), widths=(28, 17))
    return np.clip(moustache + chin + jaw, 0, 1) * smoothstep(-112, -84, y)


def _eye_colors(mesh: TemplateMesh, points: Array) -> tuple[Array, Array]:
    """Colours of the eyeballs, and the mask of the iris."""
    x, y = np.abs(points[:, 0]), points[:, 1]
    dx, dy = x - (surface.EYE_X + 0.4), y - (surface.EYE_ROW + 0.9)
    radius = np.hypot(dx, dy)
    sclera = np.tile(np.array([0.73, 0.70, 0.675]), (len(points), 1))
    sclera = _mix(sclera, np.array([0.66, 0.44, 0.40]), 0.9 * smoothstep(-9.5, -15.0, dx))  # caruncle
    sclera = _mix(sclera, np.array([0.70, 0.58, 0.54]), 0.5 * smoothstep(8.5, 13.5, dx))
    angle = np.arctan2(dy, dx)
    spokes = 0.5 + 0.25 * np.sin(11 * angle) + 0.25 * np.sin(17 * angle + 1.3)
    iris_color = np.array([0.25, 0.165, 0.10]) * (0.8 + 0.5 * spokes * smoothstep(5.8, 2.0, radius))[:, None]
    iris_color = _mix(iris_color, np.array([0.08, 0.06, 0.05]), smoothstep(4.6, 5.9, radius))
    iris = smoothstep(6.1, 5.5, radius)
    color = _mix(sclera, iris_color, iris)
    color = _mix(color, np.array([0.03, 0.025, 0.025]), smoothstep(2.25, 1.85, radius))
    # The upper lid and its lashes shade the eye; a window is mirrored in the cornea.
    upper, lower = surface.lid_openings(x)
    below_lid = surface.eye_line(x) + upper - y
    color = color * (0.45 + 0.55 * smoothstep(-0.5, 4.0, below_lid))[:, None]
    above_lid = y - surface.eye_line(x) - lower
    color = color * (0.78 + 0.22 * smoothstep(-0.5, 1.5, above_lid))[:, None]
    # Light falls from one side: the spot is not mirrored.
    spot = smoothstep(1.15, 0.7, np.hypot(points[:, 0] - np.sign(points[:, 0]) * (surface.EYE_X + 0.4) - 1.7, dy - 1.9))
    return _mix(color, np.array([0.86, 0.86, 0.86]), spot), iris


def mean_albedo(mesh: TemplateMesh) -> Array:
    """``[V, 3]`` in [0, 1]."""
    x, y, z = mesh.points.T
    ax = np.abs(x)
    region = _regions(mesh)
    color = np.tile(SKIN_COLOR, (len(x), 1))
    # Blood near the surface, and less of it on the forehead.
    red = (
        0.9 * region["cheeks"]
        + 0.9 * bump(x, y, (0, 0), (10, 9))
        + 0.35 * bump(x, y, (0, -64), (14, 9))
        + 0.4 * region["lids"]
    )
    color = color + red[:, None] * np.array([0.018, -0.028, -0.022])
    color = color + bump(x, y, (0, 80), (40, 22))[:, None] * np.array([0.012, 0.014, 0.006])
    mottle = 0.5 * value_noise(mesh.points, 9.0, 1) + 0.5 * value_noise(mesh.points, 3.0, 2)
    color = color * (1 + 0.026 * mottle)[:, None]
    # Light that hardly reaches hollows: part of what a camera sees under any light.
    upper, _ = surface.lid_openings(x)
    above = y - surface.eye_line(x) - upper
    crease = np.exp(-(((above - 4.6) / 1.3) ** 2)) * region["lids"] * (mesh.lid_side > 0)
    shade = 1 - 0.30 * crease
    shade *= 1 - 0.16 * bump(ax, y, (16.5, 35.5), (5.0, 6.5)) - 0.10 * bump(ax, y, (31, 41), (13, 4))
    shade *= 1 - 0.10 * bump(ax, y, (27, 25.5), (10, 3.5), -0.1)
    shade *= 1 - 0.26 * bump(ax, y, (18.3, -5.5), (1.6, 5.5), 0.25)
    shade *= 1 - 0.30 * bump(x, y, (0, -11.5), (13, 2.0)) * smoothstep(118, 108, z)
    shade *= 1 - 0.16 * bump(x, y, (0, -47.0), (15, 3.2))
    shade *= 1 - 0.24 * smoothstep(-72, -106, y + 0.5 * (92 - np.clip(z, 40, 92)))
    shade *= 1 - 0.10 * smoothstep(55, 68, ax)
    color = color * shade[:, None]
    # Lips.
    d = y - surface.mouth_line(x)
    lip = _LIP_COLOR * (1 + 0.07 * (mesh.lip_side < 0) + 0.025 * np.sin(2.4 * x) * np.exp(-((d / 6) ** 2)))[:, None]
    color = _mix(color, lip, 0.88 * region["lips"])
    line = np.exp(-((d / 0.85) ** 2)) * smoothstep(surface.MOUTH_CORNER_X + 2.5, surface.MOUTH_CORNER_X - 1.0, ax)
    color = color * (1 - 0.55 * line * (mesh.part == SKIN))[:, None]
    # Hair and holes.
    color = _mix(color, _HAIR_COLOR, region["brows"])
    color = _mix(color, np.array([0.10, 0.07, 0.06]), 0.85 * region["lashes"])
    color = _mix(color, np.array([0.10, 0.05, 0.045]), region["nostrils"])
    # Strips that lead inwards, eyeballs, teeth.
    wet = np.array([0.45, 0.2, 0.19]) * (1.0 - 0.75 * mesh.depth_ring)[:, None]
    color = np.where((mesh.part == INNER_LIP)[:, None], wet, color)
    edge = np.where((mesh.lid_side > 0)[:, None], np.array([0.30, 0.19, 0.17]), np.array([0.56, 0.37, 0.33]))
    color = np.where((mesh.part == LID_EDGE)[:, None], edge, color)
    eyes, _ = _eye_colors(mesh, mesh.points)
    color = np.where((mesh.part == EYEBALL)[:, None], eyes, color)
    return np.where((mesh.part == TEETH)[:, None], _teeth_colors(mesh), color)


def _teeth_colors(mesh: TemplateMesh) -> Array:
    x, y, _ = mesh.points.T
    gum = np.array([0.42, 0.2, 0.19])
    tooth = np.array([0.62, 0.58, 0.5]) * (1 - 0.45 * smoothstep(6, 22, np.abs(x)))[:, None]
    gaps = np.exp(-(((np.abs(np.mod(x + 4, 8) - 4) - 4) / 0.6) ** 2))
    tooth = tooth * (1 - 0.35 * gaps)[:, None]
    is_tooth = np.where(mesh.lip_side > 0, smoothstep(-23.5, -26.0, y), smoothstep(-44.5, -42.0, y))
    return _mix(_mix(np.tile(gum, (len(x), 1)), tooth, is_tooth), np.array([0.07, 0.03, 0.03]), mesh.depth_ring)


def _pigment_fields(mesh: TemplateMesh, mean: Array) -> list[tuple[str, Array]]:
    """(name, ``[V, 3]`` at one standard deviation), the most visible first."""
    region = _regions(mesh)
    x, y, _ = mesh.points.T
    tissue = np.where((mesh.part == EYEBALL) | (mesh.part == TEETH), 0.0, 1.0)
    # Pigment multiplies: dark places change less.
    relative = np.clip(mean.mean(1) / SKIN_COLOR.mean(), 0.0, 1.1) * tissue * (1 - 0.75 * region["brows"])
    _, iris = _eye_colors(mesh, mesh.points)
    iris = (
        iris
        * (mesh.part == EYEBALL)
        * smoothstep(2.0, 2.6, np.hypot(np.abs(x) - surface.EYE_X - 0.4, y - surface.EYE_ROW - 0.9))
    )
    blush = region["cheeks"] + 0.7 * bump(x, y, (0, 0), (9, 9)) * region["skin"]

    def paint(mask: Array, color: tuple[float, float, float]) -> Array:
        result: Array = mask[:, None] * np.array(color)
        return result

    return [
        ("melanin", relative[:, None] * MELANIN),
        ("haemoglobin", relative[:, None] * HAEMOGLOBIN),
        ("brow darkness", paint(region["brows"], (0.085, 0.075, 0.06))),
        ("lip colour", paint(region["lips"], (0.022, -0.018, -0.01))),
        ("beard shadow", paint(region["beard"], (-0.032, -0.024, -0.015))),
        ("yellow to pink", relative[:, None] * np.array([0.002, -0.002, 0.013])),
        ("cheek redness", paint(blush, (0.016, -0.011, -0.008))),
        ("eye colour", paint(iris, (0.035, 0.045, 0.055))),
        ("lids", paint(bump(np.abs(x), y, (29, 27), (14, 7)) * region["skin"], (0.035, 0.035, 0.03))),
        ("lip lightness", paint(region["lips"], (0.05, 0.04, 0.04))),
        ("forehead", paint(smoothstep(45, 75, y) * region["skin"], (0.02, 0.018, 0.014))),
        ("lash darkness", paint(region["lashes"], (0.05, 0.045, 0.04))),
    ]  # fmt: skip


# Deviations of Gaussian-process colour along lightness, redness and yellowness.
_COLOR_AXES = (
    np.array([0.022, 0.022, 0.020]),
    np.array([0.007, -0.006, -0.005]),
    np.array([0.003, 0.002, -0.007]),
)


def gaussian_process_colors(inducing_points: Array, points: Array, mask: Array, count: int, kernel: gp.Kernel) -> Array:
    """Smooth, left-right symmetric changes of colour, ``[count, V, 3]``, by falling variance.

    Args:
        inducing_points: ``[M, 3]`` mm, with x >= 0; define the functions.
        points: ``[V, 3]`` mm.
        mask: ``[V]``, where colour changes.
        count: number of fields.
        kernel: covariance of a scalar field of deviation 1.
    """
    functions, variances = gp.eigenfunctions(
        gp.mirrored_kernel(kernel, 1), inducing_points, points, min(count, len(inducing_points))
    )
    fields, sizes = [], []
    for color in _COLOR_AXES:
        fields.append(functions[:, :, None] * color * mask[:, None])
        sizes.append(variances * (color**2).sum())
    order = np.argsort(-np.concatenate(sizes), kind="stable")[:count]
    result: Array = np.concatenate(fields)[order]
    return result


def albedo_basis(mesh: TemplateMesh, canonical: TemplateMesh, mean: Array, count: int) -> Array:
    """``[count, V, 3]``; arguments as for `template_shapes.identity_basis`, `mean` from `mean_albedo`."""
    fields = np.stack([field for _, field in _pigment_fields(mesh, mean)])
    if count <= len(fields):
        return fields[:count]
    inducing = canonical.points[(canonical.part == SKIN) & (canonical.points[:, 0] >= -1e-9)][::6]
    kernel = gp.gaussian_kernel((45.0, 0.8), (18.0, 0.6))
    mask = np.isin(mesh.part, (SKIN, LID_EDGE)).astype(np.float64)
    smooth = gaussian_process_colors(inducing, mesh.points, mask, count - len(fields), kernel)
    return np.concatenate((fields, smooth))
