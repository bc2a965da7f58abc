"""The surface of the procedural face: smooth analytic fields in millimetres.

The skin is a height field over (phi, row): phi is the azimuth round a vertical axis through the ears, row a vertical
coordinate that equals y at the front and follows the jaw and the hairline towards the sides. A cross-section at a row
is an ellipse; features of the front are added to its depth as functions of (x, y).

Measures are rounded averages of young adults, women and men together: Farkas, Anthropometry of the Head and Face
(1994), tables of North American norms. Face height nasion-gnathion 120, nasion-subnasale 50, bizygomatic width 137,
bigonial width 104, nose width 34, nose protrusion 20, mouth width 51, biocular width 90, intercanthal width 32, pupils
63 apart, subnasale-stomion 22, vermilion heights 8 and 9. Origin: between the ears, so that y = 0 is near the nose tip
and z = 0 at the tragus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EYE_ROW = 33.0
EYE_X = 31.0
EYE_INNER_X = 16.0
EYE_OUTER_X = 45.2
EYE_APEX_Z = 87.0
MOUTH_ROW = -33.0
MOUTH_CORNER_X = 25.5
JAW_ROW = -80.0


def natural_spline(knots: ArrayLike, values: ArrayLike, at: Array) -> Array:
    """Natural cubic spline through (knots, values), C2; linear outside."""
    x, y = np.asarray(knots, np.float64), np.asarray(values, np.float64)
    h = np.diff(x)
    slope = np.diff(y) / h
    n = len(x)
    matrix, right = np.eye(n), np.zeros(n)
    for k in range(1, n - 1):
        matrix[k, k - 1 : k + 2] = h[k - 1], 2 * (h[k - 1] + h[k]), h[k]
        right[k] = 6 * (slope[k] - slope[k - 1])
    second = np.linalg.solve(matrix, right)
    inside = np.clip(at, x[0], x[-1])
    i = np.clip(np.searchsorted(x, inside) - 1, 0, n - 2)
    left, rest = inside - x[i], x[i + 1] - inside
    result: Array = (second[i] * rest**3 + second[i + 1] * left**3) / (6 * h[i])
    result += (y[i] / h[i] - second[i] * h[i] / 6) * rest + (y[i + 1] / h[i] - second[i + 1] * h[i] / 6) * left
    first_slope = slope[0] - h[0] * second[1] / 6
    last_slope = slope[-1] + h[-1] * second[-2] / 6
    result += np.where(at < x[0], first_slope, last_slope) * (at - inside)
    return result


def smoothstep(low: float, high: float, at: Array) -> Array:
    """0 below `low`, 1 above `high` (or falling, if high < low), C2 in between."""
    t = np.clip((at - low) / (high - low), 0.0, 1.0)
    result: Array = t**3 * (t * (6 * t - 15) + 10)
    return result


def bump(x: Array, y: Array, centre: tuple[float, float], widths: tuple[float, float], tilt: float = 0.0) -> Array:
    """Gaussian of height 1; `tilt` in radians turns its axes counterclockwise."""
    dx, dy = x - centre[0], y - centre[1]
    c, s = np.cos(tilt), np.sin(tilt)
    result: Array = np.exp(-0.5 * (((c * dx + s * dy) / widths[0]) ** 2 + ((c * dy - s * dx) / widths[1]) ** 2))
    return result


def pair(x: Array, y: Array, centre: tuple[float, float], widths: tuple[float, float], tilt: float = 0.0) -> Array:
    """`bump` at `centre` and at its mirror image, without a crease where they meet."""
    return bump(x, y, centre, widths, tilt) + bump(-x, y, centre, widths, tilt)


def smooth_maximum(first: Array, second: Array, radius: float | Array) -> Array:
    """Maximum with a fillet: differs from it where the two are closer than about 2 * radius; always above it."""
    return 0.5 * (first + second + np.sqrt((first - second) ** 2 + radius**2))


# --- cross-sections ---------------------------------------------------------------------------------------------------

_ROWS = (-130, -115, -103, -96, -90, -85, -80, -74, -64, -50, -33, -12, 10, 33, 54, 75, 90, 104, 114)
_FRONT = (38, 41, 46, 52, 61, 73, 84, 90.5, 93.5, 94, 96, 95.5, 91.5, 89, 96, 96, 90.5, 81, 70)
_HALF_WIDTH = (54, 52, 51, 51.5, 54, 57.5, 60.5, 62.5, 64.5, 66.5, 68.5, 70.5, 72, 71.5, 71, 70, 67.5, 63, 59)
_SIDE = (-16, -14, -10, -6, -3, 2, 6, 10, 15, 19, 22, 24, 24, 23, 18, 14, 12, 9, 6)


def half_width(row: Array) -> Array:
    """Half the width of the cross-section at a row, mm."""
    return natural_spline(_ROWS, _HALF_WIDTH, row)


def _skew(phi: Array, row: Array) -> Array:
    """y - row: lifts the rows of jaw and neck towards the gonion, lowers those of the forehead towards the temple."""
    side = np.sin(phi) ** 2
    jaw = 43.0 * side**1.35 * smoothstep(20.0, -98.0, row)
    temple = -26.0 * side**2 * smoothstep(20.0, 114.0, row)
    return jaw + temple


# --- features ---------------------------------------------------------------------------------------------------------


def eye_line(x: Array) -> Array:
    """y of the line between the corners of an eye; the outer corner is 2 mm higher."""
    return EYE_ROW - 1.2 + 2.2 * smoothstep(EYE_INNER_X - 6.0, EYE_OUTER_X + 8.0, np.abs(x))


def lid_openings(x: Array) -> tuple[Array, Array]:
    """Heights of the upper and the lower lid margin over `eye_line`, mm (the lower is negative); 0 outside."""
    s = np.clip((np.abs(x) - EYE_INNER_X) / (EYE_OUTER_X - EYE_INNER_X), 0.0, 1.0)
    # Almond: the upper arch is highest nasal of the middle, the lower one deepest temporal of it.
    upper = 5.9 * (4 * s * (1 - s)) ** 0.85 * (1.12 - 0.24 * s)
    lower = -4.0 * (4 * s * (1 - s)) ** 0.95 * (0.82 + 0.36 * s)
    return upper, lower


def mouth_line(x: Array) -> Array:
    """y where the closed lips meet: a tubercle in the middle, corners slightly lower."""
    s = np.abs(x) / MOUTH_CORNER_X
    return (
        MOUTH_ROW
        - 0.9 * np.exp(-((x / 5.0) ** 2))
        + 0.9 * np.exp(-(((np.abs(x) - 11) / 6.0) ** 2))
        - 1.3 * np.clip(s, 0, 1.3) ** 3
    )


def lip_heights(x: Array) -> tuple[Array, Array]:
    """Heights of the upper and the lower vermilion over and under `mouth_line`, mm, both positive, 0 at the corners."""
    s = np.clip(np.abs(x) / MOUTH_CORNER_X, 0.0, 1.0)
    bow = 1.0 - 0.2 * np.exp(-((x / 3.6) ** 2))
    upper = 7.7 * bow * (1 - s**1.9) ** 0.95
    lower = 9.2 * (1 - s**2.4) ** 0.85
    return upper, lower


def eye_surface(x: Array, y: Array) -> Array:
    """Depth of the front of the eyeballs (without cornea) at (x, y), continued beyond them as paraboloids."""
    dx, dy = np.abs(x) - EYE_X, y - (EYE_ROW + 0.6)
    return EYE_APEX_Z - 0.2 * dx - dx**2 / 30.0 - dy**2 / 25.0


def _nose(x: Array, y: Array) -> Array:
    """Depth of the nose as a ridge with flanks; far below the face away from it."""
    ridge = natural_spline(
        (-26, -18, -13.5, -11, -8.5, -5, -1, 3, 8, 16, 26, 36, 44, 54, 64),
        (84, 91, 98, 104, 111, 116.2, 118.6, 118.8, 116.8, 111.8, 105.2, 98.6, 96.2, 91, 80),
        y,
    )
    # Width of the rounded back and slope of the flanks.
    round_width = natural_spline((-20, -8, 1, 10, 22, 36, 50, 64), (5.5, 6.0, 6.4, 5.0, 4.2, 4.8, 8.0, 10.0), y)
    slope = natural_spline((-20, -8, 1, 10, 22, 36, 50, 64), (1.9, 1.9, 1.7, 1.4, 1.2, 1.0, 0.9, 0.9), y)
    body = ridge - slope * (np.sqrt(x**2 + round_width**2) - round_width)
    # Tip and wings are ellipsoids, each a cap above a paraboloid.
    ax = np.abs(x)
    tip = 119.6 - (x / 7.4) ** 2 * 4.2 - ((y - 0.2) / 8.0) ** 2 * 5.0
    wing = 108.2 - ((ax - 11.6) / 5.2) ** 2 * 4.4 - ((y + 4.6) / 6.4) ** 2 * 4.4 - 0.25 * (ax - 11.6)
    return smooth_maximum(smooth_maximum(body, tip, 2.0), wing, 2.2)


def _lips(x: Array, y: Array) -> Array:
    """Height of the lips over the face, mm."""
    upper, lower = lip_heights(x)
    s = np.clip(np.abs(x) / MOUTH_CORNER_X, 0.0, 1.4)
    d = y - mouth_line(x)
    fullness = np.clip(1 - s**2.2, 0.0, 1.0) ** 0.7
    above = d / np.maximum(upper, 1.2)
    below = -d / np.maximum(lower, 1.4)
    # From the wet line over the fullest place to the border (at 1), with the white roll, and out.
    up = natural_spline(
        (0, 0.2, 0.45, 0.8, 1.0, 1.25, 1.7, 2.4), (-2.6, 1.2, 2.9, 2.0, 1.05, 0.75, 0.2, 0), np.clip(above, 0, 2.4)
    )
    low = natural_spline(
        (0, 0.2, 0.5, 0.8, 1.0, 1.3, 1.8, 2.4), (-2.6, 1.6, 3.6, 2.6, 1.2, 0.1, 0.0, 0), np.clip(below, 0, 2.4)
    )
    corner = 1.6 * bump(np.abs(x), y, (MOUTH_CORNER_X + 0.5, MOUTH_ROW - 1.4), (3.2, 3.0))
    return np.where(d >= 0, up, low) * fullness - corner


def front_depth(x: Array, y: Array, base: Array) -> Array:
    """Depth of the skin at the front.

    Args:
        x, y: mm.
        base: depth of the bare cross-section there, mm.
    """
    ax = np.abs(x)
    z = base.copy()
    # Bone and soft tissue, from the forehead down.
    z += 1.3 * pair(x, y, (24, 80), (18, 15))  # frontal eminences
    z += 3.2 * pair(x, y, (28, 53), (13, 5.5), 0.05) + 2.0 * bump(x, y, (0, 53), (11, 7))  # brow ridges, glabella
    z += 2.0 * pair(x, y, (44, 48), (7, 6))
    z -= 1.8 * pair(x, y, (28, 39), (11.5, 6.0)) + 2.6 * pair(x, y, (15.5, 32), (5.0, 9.0))  # orbits
    z += 3.6 * pair(x, y, (53, 31), (8, 11))  # outer rims of the orbits
    z += 3.0 * pair(x, y, (44, 10), (13, 10), -0.5)  # cheek bones
    z += 3.0 * pair(x, y, (29, 2), (12, 12))  # cheek fat
    z -= 1.6 * pair(x, y, (46, -24), (12, 14))  # hollow under the cheek bone
    z += 5.2 * bump(x, y, (0, -27), (21, 17))  # dental arches
    z -= 3.0 * bump(x, y, (0, -48.5), (15, 4.8))  # mentolabial fold
    z += 5.2 * bump(x, y, (0, -65), (15, 9.5))  # chin
    # Eyelids lie on the eyeballs; orbit and lids blend.
    upper, lower = lid_openings(x)
    above = y - eye_line(x) - upper
    below = eye_line(x) + lower - y
    window = smoothstep(EYE_INNER_X - 3, EYE_INNER_X + 7, ax) * smoothstep(EYE_OUTER_X + 7, EYE_OUTER_X - 6, ax)
    far = np.maximum(np.hypot((ax - EYE_X) * 0.8, y - EYE_ROW) - 13.0, 0.0)
    z = smooth_maximum(z, eye_surface(x, y) + 1.5 - 0.25 * far**2, 2.2 + 3.0 * smoothstep(32.0, 24.0, y))
    z -= 1.3 * np.exp(-(((above - 4.2) / 1.1) ** 2)) * window  # crease of the upper lid
    z += 2.0 * np.exp(-(((above - 8.6) / 3.0) ** 2)) * window  # fold over it
    z -= 0.35 * np.exp(-(((below - 6.5) / 2.8) ** 2)) * window  # furrow under the lower lid
    # Nose.
    z = smooth_maximum(z, _nose(x, y), 2.2 + 4.0 * smoothstep(2.0, 22.0, y))
    z -= 1.5 * pair(x, y, (18.0, -5.0), (1.5, 6.0), 0.25)  # groove round the wing
    # Lips and their surroundings.
    z += _lips(x, y)
    z -= 0.9 * bump(x, y, (0, -19.0), (1.9, 4.8)) - 0.5 * pair(x, y, (4.3, -19.5), (1.5, 4.6))  # philtrum
    fold_x = 21.0 + 11.5 * smoothstep(-4.0, -38.0, y)
    z -= (
        1.1 * np.exp(-(((ax - fold_x) / 3.6) ** 2)) * smoothstep(4.0, -12.0, y) * smoothstep(-46.0, -24.0, y)
    )  # nasolabial
    return z


def skin(phi: Array, row: Array) -> Array:
    """Points of the skin.

    Args:
        phi: azimuth in radians, 0 in the middle, positive to the image's right.
        row: vertical coordinate, mm.

    Returns:
        ``[..., 3]`` mm.
    """
    width = half_width(row)
    x = width * np.sin(phi)
    y = row + _skew(phi, row)
    side = natural_spline(_ROWS, _SIDE, row)
    # In front of the widest place an ellipse; behind it straight back to about the same depth at all rows.
    forward, back = natural_spline(_ROWS, _FRONT, row) - side, np.maximum((side + 14.0) / 0.208, 20.0)
    z = side + np.where(np.cos(phi) > 0, forward, back) * np.cos(phi)
    front = front_depth(x, y, z)
    blend = smoothstep(np.radians(84), np.radians(52), np.abs(phi))
    z = z + (front - z) * blend
    return np.stack((x, y, z), axis=-1)


def chart(x: Array, y: Array) -> tuple[Array, Array]:
    """(phi, row) of a point of the front: the inverse of `skin` for x and y."""
    row = y.copy()
    for _ in range(40):  # a contraction at eyes and mouth, where it is used; not along the jaw
        phi = np.arcsin(np.clip(x / half_width(row), -1.0, 1.0))
        row = y - _skew(phi, row)
    return phi, row


def nostril(points: Array) -> Array:
    """1 inside the nostrils, falling to 0 at their rims: a function of (x, z) on the underside of the nose."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    # The opening's long axis leans towards the tip.
    dx, dz = x - 6.6 + 0.28 * (z - 107.5), z - 107.5
    radius = np.sqrt((dx / 2.7) ** 2 + (dz / 5.2) ** 2)
    return smoothstep(1.25, 0.75, radius) * smoothstep(-4.2, -6.4, y) * smoothstep(-14.5, -12.0, y)
