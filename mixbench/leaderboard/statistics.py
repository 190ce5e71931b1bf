"""Confidence intervals and p-values for the difference between two methods.

There are two sources of variation: the test images and the training seed. Images are many, so they
are resampled (bootstrap). Seeds are few, typically three or five, and resampling them would
underestimate their variance; their contribution follows Student's t distribution. A two-way
analysis of variance separates the variance of the images from the noise of single predictions, so
that no variance is counted twice. `tests/test_statistics.py` checks on simulated data that the
false positive rate is 5 % and that the intervals cover the true difference in 95 % of the cases.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95  # confidence level of the intervals
REPLICATES = 10_000
SEED = 20210  # fixed seed of the bootstrap, for reproducible tables


class Comparison(NamedTuple):
    """The difference between two methods, with its confidence interval and p-value.

    Attributes
    ----------
    difference
        Mean of the first method minus mean of the second, over their common seeds.
    low
        Lower bound of the 95 % confidence interval; None if the variance is unknown.
    high
        Upper bound of the 95 % confidence interval; None if the variance is unknown, as for `low`.
    p
        Two-sided p-value for the null hypothesis of no difference; None if it is unknown.
    seeds
        Number of common seeds.
    items
        Number of test items; 0 if only the mean of each seed is known.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    items: int


def compare_items(first: Floats, second: Floats) -> Comparison:
    """Compare two methods by their per-item scores.

    Parameters
    ----------
    first
        Scores of the first method, shape (seeds, items).
    second
        Scores of the second method, shape (seeds, items), for the same seeds and items in the same
        order.
    """
    differences = first - second
    seeds, items = differences.shape
    mean = float(differences.mean())
    by_item, by_seed = differences.mean(0), differences.mean(1)
    if items < 2 or not np.ptp(differences):  # no two items differ
        if mean == 0 and items > 1:
            return Comparison(mean, mean, mean, 1.0, seeds, items)
        return Comparison(mean, None, None, None, seeds, items)
    rng = np.random.default_rng(SEED)
    levels, counts = np.unique(by_item, return_counts=True)
    resampled = rng.multinomial(items, counts / items, REPLICATES) @ levels / items - mean
    if seeds > 1:
        resampled *= _shared(differences) ** 0.5
        of_seeds = float(by_seed.std(ddof=1)) / seeds**0.5
        resampled += of_seeds * rng.standard_t(seeds - 1, REPLICATES)
    low, high = np.quantile(mean + resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Comparison(mean, float(low), float(high), _p_value(mean, resampled), seeds, items)


def compare_means(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two methods by one result for each seed, with Student's paired t-test.

    The comparison does not account for the variation over test images.

    Parameters
    ----------
    first
        Result of the first method for each seed.
    second
        Result of the second method for the same seeds in the same order.
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean, number = float(differences.mean()), len(differences)
    if number < 2:
        return Comparison(mean, None, None, None, number, 0)
    from scipy import special

    half = float(differences.std(ddof=1)) / number**0.5
    reach = half * float(special.stdtrit(number - 1, (1 + LEVEL) / 2))
    if half == 0:
        return Comparison(mean, mean, mean, 1.0 if mean == 0 else 0.0, number, 0)
    p = 2 * float(special.stdtr(number - 1, -abs(mean) / half))
    return Comparison(mean, mean - reach, mean + reach, p, number, 0)


def mcnemar_p(first: Floats, second: Floats) -> float:
    """Return the exact p-value of McNemar's test for two runs with binary scores.

    Parameters
    ----------
    first
        Scores of the first run, shape (items,): two distinct values, of which the larger is right.
    second
        Scores of the second run, shape (items,), with the same two values.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for multiple comparisons by Holm's method; None values are not counted."""
    rising = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for place, (p, number) in enumerate(rising):
        least = min(max(least, (len(rising) - place) * p), 1.0)
        corrected[number] = least
    return corrected


def _shared(differences: Floats) -> float:
    """Return the fraction of the variance between items that is not noise of single runs.

    The variance of the item means includes the noise variance divided by the number of seeds, which
    the variance of the seed means already accounts for.
    """
    seeds, items = differences.shape
    by_item = differences.mean(0)
    residual = differences - by_item - differences.mean(1, keepdims=True) + differences.mean()
    noise = float((residual**2).sum()) / ((seeds - 1) * (items - 1)) / seeds
    variance = float(by_item.var(ddof=1))
    return max(1 - noise / variance, 0.0) if variance else 0.0


def _p_value(mean: float, resampled: Floats) -> float:
    """Return the two-sided p-value of a mean, given centred bootstrap replicates.

    The p-value is never 0, because N replicates cannot resolve probabilities below 1 / N.
    """
    extreme = min((resampled <= -mean).sum(), (resampled >= -mean).sum())
    return float(min(2 * (extreme + 1) / (len(resampled) + 1), 1.0))


def detectable(spread: float, seeds: int, alpha: float) -> float:
    """Return the minimum detectable effect of Student's paired t-test at 80 % power.

    Parameters
    ----------
    spread
        Standard deviation of the differences paired by seed.
    seeds
        Number of seeds.
    alpha
        Significance level.
    """
    return _detectable_size(seeds, alpha) * spread


@cache
def _detectable_size(seeds: int, alpha: float) -> float:
    """Return the effect size, by bisection on the power of the noncentral t distribution."""
    from scipy.special import nctdtr, stdtrit

    reach = stdtrit(seeds - 1, 1 - alpha / 2)

    def missed(size: float) -> float:
        shift = size * seeds**0.5
        below = np.array([nctdtr(seeds - 1, shift, at) for at in (reach, -reach)])
        upper, lower = np.nan_to_num(below)  # nctdtr returns NaN for tails close to 0
        return float(0.8 - (1 - upper + lower))

    low, high = 0.0, 1.0
    while missed(high) > 0:
        high *= 2
    for _ in range(50):  # bisection, because importing scipy.optimize is slower
        middle = (low + high) / 2
        low, high = (middle, high) if missed(middle) > 0 else (low, middle)
    return high
