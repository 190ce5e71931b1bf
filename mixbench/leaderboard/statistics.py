"""Confidence intervals and p-values for the difference between two methods.

There are two sources of variation: the test images and the training seed. A two-way analysis of
variance of the differences (seeds x items) separates both from the noise of single predictions.
Images are many, so their contribution is normal; seeds are few, so theirs follows Student's t
distribution. The variance of the seeds is never taken to be smaller than the noise of single
predictions lets it appear: seeds whose results coincide by chance do not make a small difference
certain. `tests/test_statistics.py` checks on simulated tables that the family-wise error rate is at
most 5 % and that intervals cover the true difference in at least 95 % of the cases.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95  # confidence level of the intervals
LEAST_SEEDS = 3  # with fewer, the variance over seeds is unknown or too uncertain for a verdict
POWER = 0.8  # of the minimum detectable effect
QUANTILES = 100  # of the estimated variance of the seeds, for the minimum detectable effect
NODES = 1000  # of the numerical integration over the variance of the seeds
EXACT = 1e-12  # error of a root, in the unit of the metric


class Variance(NamedTuple):
    """The variance of a mean difference, by source, in the metric's unit squared.

    Attributes
    ----------
    seeds
        Variance due to the training seeds, with the noise of single predictions.
    items
        Variance due to the choice of the test items, without that noise.
    noise
        Variance due to the noise of single predictions, which is the least that `seeds` can be.
    """

    seeds: float
    items: float = 0.0
    noise: float = 0.0


class Comparison(NamedTuple):
    """The difference between two methods, with its confidence interval and p-value.

    Attributes
    ----------
    difference
        Mean of the first method minus mean of the second, over their common seeds.
    low
        Lower bound of the 95 % confidence interval; None with fewer than `LEAST_SEEDS` seeds, or if
        nothing varies.
    high
        Upper bound of the 95 % confidence interval; None as for `low`.
    p
        Two-sided p-value for the null hypothesis of no difference; None as for `low`.
    seeds
        Number of common seeds.
    items
        Number of test items; 0 if only the mean of each seed is known.
    variance
        Variance of the difference, by source; None as for `low`.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    items: int
    variance: Variance | None = None


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
    if seeds < LEAST_SEEDS or items < 2:
        return Comparison(mean, None, None, None, seeds, items)
    return _with_interval(mean, _analysis_of_variance(differences), seeds, items)


def _analysis_of_variance(differences: Floats) -> Variance:
    """Return the variance of the mean of differences, (seeds, items).

    It is computed from sums instead of means: for scores of 0 and 100 they are exact, so that the
    result does not depend on the order of seeds and items.
    """
    seeds, items = differences.shape
    number = differences.size
    total = float(differences.sum()) ** 2
    squares = number * float((differences**2).sum())
    by_seed = seeds * float((differences.sum(1) ** 2).sum())
    by_item = items * float((differences.sum(0) ** 2).sum())
    of_seeds = max(by_seed - total, 0.0) / (number**2 * (seeds - 1))
    of_items = max(by_item - total, 0.0) / (number**2 * (items - 1))
    freedom = (seeds - 1) * (items - 1)
    noise = max(squares - by_seed - by_item + total, 0.0) / (number**2 * freedom)
    return Variance(of_seeds, max(of_items - noise, 0.0), noise)


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
    mean, seeds = float(differences.mean()), len(differences)
    if seeds < LEAST_SEEDS:
        return Comparison(mean, None, None, None, seeds, 0)
    return _with_interval(mean, Variance(float(differences.var(ddof=1)) / seeds), seeds, 0)


def _with_interval(mean: float, variance: Variance, seeds: int, items: int) -> Comparison:
    """Return the comparison with its interval and p-value; without them if nothing varies."""
    if sum(variance) <= 1e-24 * max(mean**2, 1.0):  # rounding errors
        return Comparison(mean, None, None, None, seeds, items)
    half, p = _half_width(variance, seeds, 1 - LEVEL), _tail(abs(mean), variance, seeds)
    return Comparison(mean, mean - half, mean + half, p, seeds, items, variance)


def _tail(size: float, variance: Variance, seeds: int) -> float:
    """Return the two-sided probability of a mean difference of at least `size` by chance.

    Student's t is a normal distribution whose variance is the estimated one divided by a
    chi-squared variable over its degrees of freedom. Here that variance is at least the noise, and
    the variance of the items is added to it; the probability is the mean over the variable.
    """
    from scipy.special import ndtr

    shares, weights = _chi_squared(seeds - 1)
    deviations = (variance.items + np.maximum(variance.seeds / shares, variance.noise)) ** 0.5
    return min(float(2 * weights @ ndtr(-size / deviations)), 1.0)


def _half_width(variance: Variance, seeds: int, alpha: float) -> float:
    """Return the difference that has a p-value of `alpha`."""
    from scipy.optimize import brentq

    most = math.sqrt(variance.items + max(variance.seeds, variance.noise))
    while _tail(most, variance, seeds) > alpha:
        most *= 2
    found: float = brentq(lambda size: _tail(size, variance, seeds) - alpha, 0.0, most, xtol=EXACT)
    return found


@cache
def _chi_squared(freedom: int) -> tuple[Floats, Floats]:
    """Return quantiles of a chi-squared variable over its degrees of freedom, and their weights.

    The quantiles are dense near 0, where the variance is largest.
    """
    from scipy.special import gammaincinv

    at = (np.arange(NODES) + 0.5) / NODES
    weights = at**4 / (at**4).sum()
    shares: Floats = 2 * gammaincinv(freedom / 2, at**5) / freedom
    return shares, weights


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for multiple comparisons by Holm's method; None values are not counted."""
    rising = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for place, (p, number) in enumerate(rising):
        least = min(max(least, (len(rising) - place) * p), 1.0)
        corrected[number] = least
    return corrected


def pooled(variances: Sequence[Variance]) -> Variance:
    """Return the mean of the variances of some mean differences, with the floor of the noise."""
    seeds, items, noise = np.mean(np.array(variances), axis=0).tolist()
    return Variance(max(seeds, noise), items, noise)


def detectable(variance: Variance, seeds: int, alpha: float) -> float:
    """Return the minimum detectable effect at 80 % power.

    Parameters
    ----------
    variance
        Typical variance of a mean difference over `seeds` seeds, from `pooled`. A standard
        deviation of so few is too small on average, which is corrected.
    seeds
        Number of seeds.
    alpha
        Significance level.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaln, ndtr

    bias = (2 / (seeds - 1)) ** 0.5 * np.exp(gammaln(seeds / 2) - gammaln((seeds - 1) / 2))
    variance = variance._replace(seeds=variance.seeds / float(bias) ** 2)
    # The estimated variance of the seeds differs by chance, and with it the least significant
    # difference.
    shares, _ = _chi_squared(seeds - 1)
    at = (np.arange(NODES) + 0.5) / NODES
    chosen = np.searchsorted(at**5, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    least = np.array([
        _half_width(variance._replace(seeds=variance.seeds * float(share)), seeds, alpha)
        for share in shares[chosen]
    ])
    error = math.sqrt(variance.seeds + variance.items)
    found: float = brentq(
        lambda effect: float(ndtr((effect - least) / error).mean()) - POWER,
        0.0, float(least.max()) + 5 * error, xtol=EXACT,
    )  # fmt: skip
    return found
