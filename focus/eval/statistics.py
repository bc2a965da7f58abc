"""Is one method better than another, or was it luck? Paired bootstrap over images, and over training runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from focus._optional import require

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean difference with its percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is on that side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


class PairedTests(NamedTuple):
    """Two tests of whether paired values differ; p-values are two-sided."""

    t: float
    """Student's t of the differences, positive where the first values are larger; +-1e300 where all differences are
    the same, which JSON can hold and infinity is not.
    """
    t_p: float
    wilcoxon_p: float
    """Wilcoxon's signed ranks, which do not care how the differences are distributed."""


def paired_tests(first: NDArray[np.floating], second: NDArray[np.floating]) -> PairedTests:
    """Student's paired t-test, which the paper reports, and Wilcoxon's signed-rank test beside it (scipy).

    Args:
        first: ``[N]``, N > 1.
        second: ``[N]``, of the same things in the same order. Where all pairs are equal nothing differs: p = 1.

    Raises:
        ValueError: shapes that do not pair up, or values that are not finite.
        FocusError: scipy is not installed.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2 or not np.isfinite(a + b).all():
        raise ValueError(f"paired_tests: expected finite values [N] in pairs, N > 1, got {a.shape} and {b.shape}")
    if (a == b).all():
        return PairedTests(0.0, 1.0, 1.0)
    stats = require("scipy.stats", extra="evaluate", purpose="test differences")
    # One difference for all, but for the rounding of its subtraction: t is infinite.
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(a).max(), np.abs(b).max())
    t = stats.ttest_rel(a, b) if np.ptp(a - b) > rounding else None
    found = (float(t.statistic), float(t.pvalue)) if t is not None else (float(np.sign((a - b)[0])) * 1e300, 0.0)
    return PairedTests(*found, float(stats.wilcoxon(a, b).pvalue))


def paired_bootstrap(
    first: Sequence[NDArray[np.floating]],
    second: Sequence[NDArray[np.floating]],
    *,
    resample_runs: bool = False,
    same_images: bool = False,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean of first - second with a percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    The two methods see the same images, so whole pairs are drawn: what makes an image hard for both cancels. The
    interval is widened about the mean by sqrt(N / (N - 1)) t / z, with the quantiles of Student's t for N - 1 degrees
    of freedom and of the normal distribution: without, that of a few images would be far too narrow (Hesterberg 2015,
    The American Statistician 69). It is 1.6 times as wide for 5 images, and 1.003 times for 500.

    Args:
        first: for each training run the values of one method, ``[N]``, one for each image of that run's test set; at
            least two images in all, since one says nothing about others.
        second: the same for the other method, in the same order.
        resample_runs: also draws the runs, before the images within them. The interval then speaks of training runs
            that were not made; with three of them it is wide, and coarse. Without, it speaks of these runs on other
            images.
        same_images: all runs were tested on the same images, in the same order. What makes one of them hard it then
            does in every run: they are drawn for all runs together. Drawn by themselves, the images of three runs would
            pass for three times as many, and the interval would be too narrow.
        resamples: number of bootstrap samples.
        confidence: mass of the interval.
        seed: of the resampling; the same inputs give the same interval.

    Raises:
        ValueError: no runs, runs without images, one image alone, values that are not finite, or shapes that do not
            pair up.
    """
    if not first or len(first) != len(second):
        raise ValueError(
            f"paired_bootstrap: expected the same positive number of runs, got {len(first)} and {len(second)}"
        )
    differences = []
    for a, b in zip(first, second, strict=True):
        pair = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        if pair[0].shape != pair[1].shape or pair[0].ndim != 1 or pair[0].size == 0 or not np.isfinite(pair).all():
            raise ValueError(
                "paired_bootstrap: expected runs of finite values [N] in pairs, N > 0, "
                f"got shapes {list(pair[0].shape)} and {list(pair[1].shape)}"
            )
        differences.append(pair[0] - pair[1])
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"paired_bootstrap: expected 0 < confidence < 1 and resamples > 0, got {confidence} and {resamples}"
        )
    if same_images and len({len(difference) for difference in differences}) > 1:
        raise ValueError(f"paired_bootstrap: same_images: got runs of {[len(d) for d in differences]} images")
    count = len(differences[0]) if same_images else sum(map(len, differences))
    if count < 2:
        raise ValueError("paired_bootstrap: expected at least two images, got one: it says nothing about others")
    rng = np.random.default_rng(seed)
    if same_images:
        means = _resampled_means(np.stack(differences, axis=1), resamples, rng).T  # [runs, resamples]
    else:
        means = np.stack([_resampled_means(d[:, None], resamples, rng)[:, 0] for d in differences])
    if resample_runs:
        chosen = rng.integers(len(differences), size=means.shape)
        columns = np.broadcast_to(np.arange(resamples), means.shape)
        if not same_images:  # a run drawn twice gets other images each time
            columns = rng.permuted(columns, axis=1)
        means = means[chosen, columns]
    mean = float(np.mean([d.mean() for d in differences]))
    quantiles = np.quantile(means.mean(axis=0), [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = mean + _small_sample_factor(count, confidence) * (quantiles - mean)
    return Interval(mean, float(low), float(high))


def _small_sample_factor(count: int, confidence: float) -> float:
    """sqrt(N / (N - 1)) t / z: t exactly for N = 2 and 3, then by its series in 1 / (N - 1) (Abramowitz and Stegun
    26.7.5).
    """
    z, freedom = NormalDist().inv_cdf((1 + confidence) / 2), count - 1
    if freedom == 1:
        t = math.tan(math.pi * confidence / 2)
    elif freedom == 2:
        t = confidence * math.sqrt(2 / (1 - confidence**2))
    else:
        t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return math.sqrt(count / freedom) * t / z


def _resampled_means(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means over `resamples` samples of the rows of ``[N, K]`` with replacement, ``[resamples, K]``."""
    count = len(values)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, 2_000_000 // values.size)  # a whole matrix of indices would need gigabytes for large test sets
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        means[start:stop] = values[rng.integers(count, size=(stop - start, count))].mean(axis=1)
    return means
