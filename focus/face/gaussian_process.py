"""Gaussian-process deformation models: from a kernel to scaled eigenfunctions.

Luethi, Gerig, Jud, Vetter: Gaussian Process Morphable Models, TPAMI 2018. A deformation (or colour) field is a draw
of a Gaussian process; its leading Karhunen-Loeve eigenfunctions, times the square roots of their eigenvalues, are a
basis whose coefficients are standard normal. They are computed from a few inducing points and carried to any other
point by the Nystroem formula, so that two samplings of one surface get the same functions.

Kernels here are scalar and the components of a field independent of each other. Eigenvectors are made unique: the
number of largest magnitude is positive.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]
"""``[N, 3]``, ``[M, 3]`` -> ``[N, M]``, positive semi-definite."""

_MIRROR = np.array([-1.0, 1.0, 1.0])


def squared_distances(first: Array, second: Array) -> Array:
    """``[N, 3]``, ``[M, 3]`` -> ``[N, M]``, mm^2, not negative."""
    result: Array = first @ (-2 * second.T)
    result += (first**2).sum(1)[:, None]
    result += (second**2).sum(1)
    return np.maximum(result, 0.0, out=result)


def gaussian_kernel(*scales: tuple[float, float]) -> Kernel:
    """A sum of deviation^2 exp(-|p - q|^2 / scale^2): details of several scales.

    Args:
        scales: pairs of a correlation length in mm and a standard deviation.
    """
    for scale, deviation in scales:
        if scale <= 0 or deviation < 0:
            raise ValueError(f"gaussian_kernel: expected scale > 0 and deviation >= 0, got {scale} and {deviation}")

    def kernel(first: Array, second: Array) -> Array:
        distances = squared_distances(first, second)
        result = np.zeros_like(distances)
        for scale, deviation in scales:
            result += deviation**2 * np.exp(distances * (-1 / scale**2))
        return result

    return kernel


def local_kernel(kernel: Kernel, weight: Callable[[Array], Array]) -> Kernel:
    """w(p) k(p, q) w(q): a process that is quiet where the weight is zero.

    Args:
        kernel: the process to confine.
        weight: ``[N, 3]`` -> ``[N]``, usually in [0, 1].
    """

    def localised(first: Array, second: Array) -> Array:
        return weight(first)[:, None] * kernel(first, second) * weight(second)[None, :]

    return localised


def mirrored_kernel(kernel: Kernel, parity: int) -> Kernel:
    """k(p, q) + parity * k(p, Mq), M: x -> -x: the even (+1) or odd (-1) part of a process, times sqrt(2).

    That is the covariance of (f(p) + parity f(Mp)) / sqrt(2), which keeps the deviation of `kernel` away from x = 0.
    A vector field whose y and z are even and whose x is odd is symmetric between left and right.

    Args:
        kernel: a process that does not prefer a side, k(Mp, Mq) = k(p, q).
        parity: 1 or -1.
    """
    if parity not in (1, -1):
        raise ValueError(f"mirrored_kernel: parity: expected 1 or -1, got {parity}")

    def symmetric(first: Array, second: Array) -> Array:
        return kernel(first, second) + parity * kernel(first, second * _MIRROR)

    return symmetric


def eigenfunctions(kernel: Kernel, inducing_points: Array, points: Array, count: int) -> tuple[Array, Array]:
    """The leading eigenfunctions of a scalar process, scaled by their standard deviation.

    Args:
        kernel: covariance.
        inducing_points: ``[M, 3]`` mm, a sample of the surface; defines the functions.
        points: ``[N, 3]`` mm, where to evaluate.
        count: number of functions, at most M.

    Returns:
        ``[count, N]`` functions (their weighted sum with standard normal weights has covariance `kernel`, up to the
        functions left out), and ``[count]`` variances, the mean of each function's square over the inducing points,
        falling.
    """
    if not 0 <= count <= len(inducing_points):
        raise ValueError(f"eigenfunctions: count: expected 0 to {len(inducing_points)} (inducing points), got {count}")
    covariance = kernel(inducing_points, inducing_points)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    # Directions of negligible variance would be divided by rounding noise.
    usable = values > 1e-10 * max(float(covariance.trace()), 1e-300)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)[0]
    signs = np.where(largest < 0, -1.0, 1.0)
    weights = np.where(usable, signs / np.sqrt(np.where(usable, values, 1.0)), 0.0)
    functions = (kernel(points, inducing_points) @ (vectors * weights)).T
    return functions, np.where(usable, values, 0.0) / len(inducing_points)
