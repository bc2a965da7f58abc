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
_CHIN = OVAL.index(152)

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
    """The 17 points of the jaw: ``[468 or 478, 2]`` pixels -> ``[17, 2]``."""
    oval = np.asarray(mesh, dtype=np.float64)[list(OVAL)]
    left, right = _spaced(oval[: _CHIN + 1], 9), _spaced(oval[_CHIN:], 9)
    return np.concatenate([left, right[1:]])


def _spaced(line: Array, count: int) -> Array:
    """Points at equal distances along a polyline ``[N, 2]``: ``[count, 2]``, its ends among them."""
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, line[:, axis]) for axis in range(2)], axis=1)
