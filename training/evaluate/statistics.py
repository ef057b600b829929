"""Counts with their uncertainty: bootstrap intervals over scenes, paired differences, rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95
_SEED = 7


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes and its percentile-bootstrap interval (Efron 1979) at 95 percent."""

    mean: float
    low: float
    high: float
    count: int

    def share(self) -> str:
        """In percent, with the interval."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def number(self) -> str:
        """As it is, with the interval."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of one value a scene. Raises ValueError without values."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"expected one value a scene, got an array of shape {found.shape}")
    means = found[_draws(len(found))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(found.mean()), float(low), float(high), len(found))


def difference(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of first less second, scene by scene: both are of the same scenes in the same order."""
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.shape != other.shape:
        raise ValueError(f"a paired difference needs the same scenes on both sides, got {one.shape} and {other.shape}")
    return estimate(one - other)


def ratio(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of one quantity over the mean of another of the same scenes, both resampled together.

    Infinite or not a number where the other's mean is 0.
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (above, below))
    if one.shape != other.shape or not len(one):
        raise ValueError(f"a ratio needs the same scenes on both sides, got {one.shape} and {other.shape}")
    draws = _draws(len(one))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = one[draws].mean(1) / other[draws].mean(1)
        means = means[~np.isnan(means)]
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(means) else (np.nan, np.nan)
        return Estimate(float(one.mean() / other.mean()), float(low), float(high), len(one))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one side does not vary."""
    one, other = (_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    spread = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / spread) if spread > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]


def _draws(count: int) -> np.ndarray:
    return np.random.default_rng(_SEED).integers(count, size=(RESAMPLES, count))
