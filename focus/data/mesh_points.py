"""The points of MediaPipe's face mesh that stand for those of iBUG 68, of five points, and of the NoW challenge.

The mesh has 468 vertices (478 with the irises). Its numbering is that of ``canonical_face_model.obj`` of MediaPipe
(Google, Apache 2.0); `OVAL` is half of its list ``FACEMESH_FACE_OVAL``, the eyes and lips are vertices of
``FACEMESH_LEFT_EYE``, ``FACEMESH_RIGHT_EYE`` and ``FACEMESH_LIPS``. Which vertex is which point of iBUG was chosen on
the mesh by the definitions of Multi-PIE (Gross et al., 2010) and looked at on photos; where iBUG has a point between
two vertices, it is their middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MESH_COUNTS = (468, 478)
"""Vertices of the mesh, without and with the irises."""

OVAL = (
    *(127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),
    *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356),
)
"""The outline of the mesh from the image's left temple over the chin (`_CHIN`) to its right temple."""
CHIN = 152
CHEEKS = (
    *(18, 32, 34, 36, 43, 50, 57, 83, 100, 101, 111, 116, 117, 118, 119, 123, 135, 137, 138, 139, 140, 147, 169),
    *(170, 171, 175, 177, 182, 186, 187, 192, 194, 199, 200, 201, 202, 204, 205, 206, 207, 208, 210, 211, 212),
    *(213, 214, 215, 216, 227, 262, 264, 266, 273, 280, 287, 313, 329, 330, 340, 345, 346, 347, 348, 352, 364),
    *(366, 367, 368, 369, 376, 394, 395, 396, 401, 406, 410, 411, 416, 418, 421, 422, 424, 425, 426, 427, 428),
    *(430, 431, 432, 433, 434, 435, 436, 447),
)
"""Vertices of cheeks and chin inside the oval, up to five edges from it, without lips, nose and eyes: the outline of a
face that is turned away runs over them."""

# Points 17 to 67 of iBUG: a vertex, or the two whose middle it is.
INNER: tuple[tuple[int, ...], ...] = (
    *((70,), (63,), (105,), (66,), (107,)),  # the image's left brow, its upper edge
    *((336,), (296,), (334,), (293,), (300,)),
    *((168,), (6, 197), (195, 5), (4,)),  # bridge of the nose, from between the eyes to its tip
    *((64, 98), (97,), (2,), (326,), (294, 327)),  # lower edge of the nose, from wing to wing
    *((33,), (160,), (158,), (133,), (153,), (144,)),  # the image's left eye
    *((362,), (385,), (387,), (263,), (373,), (380,)),
    *(
        (61,),
        (39,),
        (37,),
        (0,),
        (267,),
        (269,),
        (291,),
        (405,),
        (314,),
        (17,),
        (84,),
        (181,),
    ),  # outer edge of the lips
    *((78,), (81,), (13,), (311,), (308,), (402,), (14,), (178,)),  # inner edge
)
_FIRST, _SECOND = np.array([(pair[0], pair[-1]) for pair in INNER]).T

FIVE = ((33, 133), (362, 263), (4,), (61,), (291,))
"""Eye centres (of the eye corners), tip of the nose and mouth corners, the image's left first."""
SEVEN = (33, 133, 362, 263, 2, 61, 291)
"""Of the NoW challenge: eye corners from left to right, base of the nose, mouth corners."""


def ibug_from_mesh(mesh: NDArray[np.floating]) -> Array:
    """The 68 points of iBUG: ``[468 or 478, 2]`` pixels -> ``[68, 2]``.

    The jaw's 17 points lie at equal distances on the visible outline, eight from each temple to the chin.
    """
    mesh = np.asarray(mesh, dtype=np.float64)
    inner = (mesh[_FIRST] + mesh[_SECOND]) / 2
    return np.concatenate([jaw_line(mesh), inner])


def five_from_mesh(mesh: NDArray[np.floating]) -> Array:
    """Eye centres, tip of the nose and mouth corners: ``[468 or 478, D]`` -> ``[5, D]``."""
    mesh = np.asarray(mesh, dtype=np.float64)
    return np.stack([mesh[list(pair)].mean(axis=0) for pair in FIVE])


def seven_from_mesh(mesh: NDArray[np.floating]) -> Array:
    """The seven points of NoW: ``[468 or 478, D]`` -> ``[7, D]``."""
    return np.asarray(mesh, dtype=np.float64)[list(SEVEN)]


def jaw_line(mesh: NDArray[np.floating]) -> Array:
    """The 17 points of the jaw: ``[468 or 478, 2]`` pixels -> ``[17, 2]``.

    iBUG's annotators drew them where the face ends in the picture. Seen from the front that is the oval; on the far
    side of a turned head the cheek hides the oval, and the outline is that of the cheek.
    """
    vertices = np.asarray(mesh, dtype=np.float64)
    points: Array = vertices[[*OVAL, *CHEEKS]]
    first, last, chin = vertices[OVAL[0]], vertices[OVAL[-1]], vertices[CHIN]
    left, right = _outline(points, first, chin, last), _outline(points, last, chin, first)
    return np.concatenate([_spaced(left, 9), _spaced(right, 9)[-2::-1]])


def _outline(points: Array, temple: Array, chin: Array, other: Array) -> Array:
    """The convex outline of points ``[N, 2]`` from a temple to the chin, on the side away from the other temple."""
    down = chin - (temple + other) / 2
    across = temple - other
    out = across - down * (across @ down) / max(float(down @ down), 1e-12)
    below, beside = (points - temple) @ down, (points - temple) @ out
    end, end_beside = float((chin - temple) @ down), float((chin - temple) @ out)
    inside = (below > 0) & (below < end)
    chain = [(0.0, 0.0, temple)]
    order = np.argsort(below[inside], kind="stable")
    steps = zip(below[inside][order].tolist(), beside[inside][order].tolist(), points[inside][order], strict=True)
    for y, x, point in [*steps, (end, end_beside, chin)]:
        # Andrew's chain: the last point goes where it lies within the line from the one before it to this one.
        while len(chain) > 1 and _within(chain[-2], chain[-1], y, x):
            chain.pop()
        chain.append((y, x, point))
    return np.array([point for _, _, point in chain])


def _within(first: tuple[float, float, Array], middle: tuple[float, float, Array], y: float, x: float) -> bool:
    return (middle[1] - first[1]) * (y - first[0]) <= (x - first[1]) * (middle[0] - first[0])


def _spaced(line: Array, count: int) -> Array:
    """Points at equal distances along a polyline ``[N, 2]``: ``[count, 2]``, its ends among them."""
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, line[:, axis]) for axis in range(2)], axis=1)
