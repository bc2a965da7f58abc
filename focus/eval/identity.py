"""Are shapes those of persons? Fits of one person from several sides against fits of different people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focus.eval.shape import shape_error

_FRONT = 7.5
"""Yaw in degrees up to which a face is one from the front,"""
_TURNED = (37.5, 52.5)
"""and those of faces from 45 degrees."""


@dataclass(frozen=True)
class IdentityScores:
    """How well neutral shapes tell people apart; NaN where there is nothing to compare."""

    within: float
    """Mean distance of two shapes of one person, mm."""
    between: float
    """The same of two people."""
    ratio: float
    """Of both: 0 is best, 1 says nothing."""
    nearest: float
    """How often the nearest shape from another angle is of the same person."""
    turned_to_front: float
    """How often the nearest front of a face from 45 degrees is of the same person."""

    def as_dict(self) -> dict[str, float]:
        """For tables and JSON."""
        return asdict(self)


def shape_distances(shapes: Tensor) -> NDArray[np.float64]:
    """``[N, V, 3]`` mm to ``[N, N]``: mean distance of vertices after the best similarity, symmetric."""
    count = len(shapes)
    distances = np.zeros((count, count))
    for row in range(count):
        target = shapes[row, None].expand(count, -1, -1)
        distances[row] = shape_error(shapes, target).double().mean(dim=1).numpy()
    symmetric: NDArray[np.float64] = (distances + distances.T) / 2
    return symmetric


def identity_scores(distances: NDArray[np.float64], people: Sequence[str], yaws: Sequence[float]) -> IdentityScores:
    """Scores of fits.

    Args:
        distances: ``[N, N]``, of the shapes.
        people: who each is of.
        yaws: degrees; two photos within a degree are from the same angle.
    """
    person, yaw = np.asarray(people), np.asarray(yaws, dtype=float)
    if distances.shape != (len(person), len(person)) or len(yaw) != len(person):
        raise ValueError(
            f"identity_scores: expected distances [{len(person)}, {len(person)}] and as many angles, got "
            f"{list(distances.shape)} and {len(yaw)}"
        )
    same = person[:, None] == person
    other = ~np.eye(len(person), dtype=bool)
    apart = np.abs(yaw[:, None] - yaw) > 1
    front = np.abs(yaw) <= _FRONT
    turned = (np.abs(yaw) >= _TURNED[0]) & (np.abs(yaw) <= _TURNED[1])
    within, between = _mean(distances[same & other]), _mean(distances[~same])
    return IdentityScores(
        within,
        between,
        within / between,
        _nearest(distances, same, apart, np.ones_like(front)),
        _nearest(distances, same, np.broadcast_to(front, same.shape) & other, turned),
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _nearest(
    distances: NDArray[np.float64], same: NDArray[np.bool_], allowed: NDArray[np.bool_], rows: NDArray[np.bool_]
) -> float:
    """How often the nearest allowed one is of the same person, in the rows where one of the same is allowed."""
    usable = rows & (same & allowed).any(axis=1)
    nearest = np.where(allowed, distances, np.inf).argmin(axis=1)
    return _mean(same[np.arange(len(same)), nearest][usable].astype(float))
