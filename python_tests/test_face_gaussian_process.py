"""Kernels are covariances, and eigenfunctions rebuild them."""

from __future__ import annotations

import numpy as np
import pytest

from focus.face import gaussian_process as gp


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-50, 50, size=(40, 3))


def _kernels() -> dict[str, gp.Kernel]:
    base = gp.gaussian_kernel((30.0, 2.0), (10.0, 0.5))
    return {
        "gaussian": base,
        "even": gp.mirrored_kernel(base, 1),
        "odd": gp.mirrored_kernel(base, -1),
        "local": gp.local_kernel(base, lambda p: np.exp(-(p**2).sum(1) / 900)),
    }


@pytest.mark.parametrize("name", list(_kernels()))
def test_kernels_are_symmetric_and_positive(points: np.ndarray, name: str) -> None:
    matrix = _kernels()[name](points, points)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_gaussian_kernel_by_hand() -> None:
    kernel = gp.gaussian_kernel((10.0, 3.0))
    value = kernel(np.zeros((1, 3)), np.array([[6.0, 8.0, 0.0]]))
    assert float(value[0, 0]) == pytest.approx(9 * np.exp(-1))


def test_bad_kernels() -> None:
    with pytest.raises(ValueError, match="scale > 0"):
        gp.gaussian_kernel((0.0, 1.0))
    with pytest.raises(ValueError, match="parity"):
        gp.mirrored_kernel(gp.gaussian_kernel((1.0, 1.0)), 0)


@pytest.mark.parametrize("parity", [1, -1])
def test_mirrored_eigenfunctions_have_their_parity(points: np.ndarray, parity: int) -> None:
    kernel = gp.mirrored_kernel(gp.gaussian_kernel((40.0, 1.0)), parity)
    inducing = points[points[:, 0] > 0]
    here, _ = gp.eigenfunctions(kernel, inducing, points, 6)
    there, _ = gp.eigenfunctions(kernel, inducing, points * (-1, 1, 1), 6)
    np.testing.assert_allclose(there, parity * here, atol=1e-9)


def test_eigenfunctions_rebuild_the_kernel(points: np.ndarray) -> None:
    kernel = gp.gaussian_kernel((60.0, 1.5))
    functions, variances = gp.eigenfunctions(kernel, points, points, len(points))
    np.testing.assert_allclose(functions.T @ functions, kernel(points, points), atol=1e-6)
    np.testing.assert_allclose(variances, (functions**2).mean(1), atol=1e-9)
    assert (np.diff(variances) <= 1e-12).all()


def test_eigenfunctions_are_the_same_functions_on_any_points(points: np.ndarray) -> None:
    kernel = gp.gaussian_kernel((60.0, 1.0))
    on_all, _ = gp.eigenfunctions(kernel, points[:20], points, 5)
    on_some, _ = gp.eigenfunctions(kernel, points[:20], points[7:12], 5)
    np.testing.assert_allclose(on_all[:, 7:12], on_some, atol=1e-9)


def test_signs_are_fixed_and_counts_checked(points: np.ndarray) -> None:
    functions, _ = gp.eigenfunctions(gp.gaussian_kernel((60.0, 1.0)), points, points, 8)
    largest = np.take_along_axis(functions, np.abs(functions).argmax(1)[:, None], 1)
    assert (largest > 0).all()
    with pytest.raises(ValueError, match="expected 0 to 40"):
        gp.eigenfunctions(gp.gaussian_kernel((60.0, 1.0)), points, points, 41)


def test_degenerate_process_gives_zeros_not_noise() -> None:
    same = np.zeros((5, 3))
    functions, variances = gp.eigenfunctions(gp.gaussian_kernel((10.0, 1.0)), same, same, 3)
    np.testing.assert_allclose(functions[0], 1.0)
    assert not functions[1:].any()
    assert not variances[1:].any()
