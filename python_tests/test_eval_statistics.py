"""Paired bootstrap: deterministic, and its intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from focus.eval.statistics import Interval, paired_bootstrap


def test_the_same_inputs_give_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = [rng.normal(size=50) for _ in range(3)], [rng.normal(size=50) for _ in range(3)]
    one = paired_bootstrap(first, second, resamples=500)
    assert one == paired_bootstrap(first, second, resamples=500)
    assert one != paired_bootstrap(first, second, resamples=500, seed=1)


def test_pairing_removes_what_images_have_in_common() -> None:
    rng = np.random.default_rng(1)
    hardness = rng.normal(scale=10, size=200)
    better = hardness + 0.5 + rng.normal(scale=0.5, size=200)
    interval = paired_bootstrap([better], [hardness], resamples=2000)
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low < 0.2
    assert interval.sign == 1
    assert paired_bootstrap([hardness], [better], resamples=2000).sign == -1


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        interval = paired_bootstrap(
            [rng.normal(0.3, 1, size=60)], [np.zeros(60)], resamples=400, confidence=0.9, seed=trial
        )
        covered += interval.low <= 0.3 <= interval.high
    assert 0.84 < covered / 300 < 0.95  # 0.9, give or take three standard errors of the trial


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_few_images_seldom_pass_for_a_difference(count: int) -> None:
    rng = np.random.default_rng(7)
    false = sum(
        paired_bootstrap([rng.normal(size=count)], [np.zeros(count)], resamples=400, seed=trial).sign != 0
        for trial in range(400)
    )
    assert false / 400 < 0.1  # 5% by its name; without the factor 48%, 26%, 17% and 12%


@pytest.mark.parametrize("resample_runs", [False, True])
def test_the_same_images_in_several_runs_are_not_more_images(resample_runs: bool) -> None:
    rng = np.random.default_rng(5)
    difference, zero = rng.normal(size=100), np.zeros(100)
    one = paired_bootstrap([difference], [zero])
    copies = paired_bootstrap([difference] * 3, [zero] * 3, same_images=True, resample_runs=resample_runs)
    assert copies == pytest.approx(one, abs=0.01)  # another order of the random numbers
    wrong = paired_bootstrap([difference] * 3, [zero] * 3)
    assert wrong.high - wrong.low < 0.65 * (one.high - one.low)
    with pytest.raises(ValueError, match="same_images"):
        paired_bootstrap([difference, difference[:50]], [zero, zero[:50]], same_images=True)


def test_intervals_over_runs_on_the_same_images_cover_the_truth() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for trial in range(200):
        images = rng.normal(0.3, 1, size=60)  # what an image does in all runs
        runs = [images + rng.normal(0, 0.3, size=60) for _ in range(3)]
        interval = paired_bootstrap(
            runs, [np.zeros(60)] * 3, resamples=400, confidence=0.9, seed=trial, same_images=True
        )
        covered += interval.low <= 0.3 <= interval.high
    assert 0.82 < covered / 200 < 0.97


def test_resampling_runs_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    runs = [offset + rng.normal(scale=0.1, size=100) for offset in (0.0, 1.0, 2.0)]
    zeros = [np.zeros(100)] * 3
    images, both = (paired_bootstrap(runs, zeros, resample_runs=flag, resamples=2000) for flag in (False, True))
    assert images.mean == both.mean == pytest.approx(1, abs=0.05)
    assert images.high - images.low < 0.05
    assert both.high - both.low > 1


def test_runs_may_have_different_numbers_of_images() -> None:
    interval = paired_bootstrap([np.full(3, 2.0), np.full(5, 4.0)], [np.zeros(3), np.zeros(5)], resamples=10)
    assert interval == Interval(3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], []),
        ([np.zeros(3)], []),
        ([np.zeros(3)], [np.zeros(4)]),
        ([np.zeros(0)], [np.zeros(0)]),
        ([np.zeros((2, 2))], [np.zeros((2, 2))]),
        ([np.array([np.nan, 0])], [np.zeros(2)]),
        ([np.ones(1)], [np.zeros(1)]),
    ],
)
def test_what_does_not_pair_is_refused(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="paired_bootstrap"):
        paired_bootstrap(first, second)
