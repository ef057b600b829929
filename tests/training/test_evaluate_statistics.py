"""Intervals and correlations against the reference implementations of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.evaluate.statistics import difference, estimate, rank_correlation, ratio


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).binomial(1, 0.8, 300).astype(float)
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=np.random.default_rng(1)
    ).confidence_interval
    found = estimate(values)
    assert found.mean == values.mean() and found.count == 300
    assert found.low == pytest.approx(reference.low, abs=0.006)
    assert found.high == pytest.approx(reference.high, abs=0.006)
    assert found == estimate(values), "the same numbers every time"


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    scene = rng.normal(size=200)  # what both share
    one, other = scene + 0.5 + 0.1 * rng.normal(size=200), scene + 0.1 * rng.normal(size=200)
    found = difference(one, other)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    assert estimate(one).high - estimate(one).low > 3 * (found.high - found.low)
    with pytest.raises(ValueError, match="same scenes"):
        difference(one, other[:10])


def test_a_ratio_resamples_both_sides_together() -> None:
    below = np.random.default_rng(3).uniform(1, 2, 100)
    found = ratio(0.1 * below, below)
    assert found.mean == pytest.approx(0.1) and found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 5, 12).tolist(), rng.normal(size=12).tolist()  # with ties
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert rank_correlation([0.0, 1.0, 2.0], [3.0, 3.0, 3.0]) == 0.0


def test_no_values_are_no_estimate() -> None:
    with pytest.raises(ValueError, match="one value a scene"):
        estimate([])
