"""Whether a difference between two methods is real, and which of several are.

Two things vary: which test images there are, and which seed a training had. Images are many and are
resampled. Seeds are few, three or five, and resampling those would understate how much they vary;
their share of the uncertainty is Student's. What the images of a fixed test set add beyond the
noise of single predictions is separated by a two-way analysis of variance, so that nothing counts
twice. `tests/test_statistics.py` holds the whole to its promises: 5 % false alarms on simulated
nulls, intervals that hold the true difference in 95 % of the cases.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95  # of the intervals
REPLICATES = 10_000
SEED = 20210  # of the resampling: the same records give the same numbers


class Comparison(NamedTuple):
    """What runs of two methods say about their difference.

    Attributes
    ----------
    difference
        Mean of the first less the second, over the seeds that both have.
    low, high
        Its interval; None where nothing tells how much it varies.
    p
        Probability of a difference as large if there were none; None likewise.
    seeds, items
        How many were compared; 0 items where only the seeds' means are known.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    items: int


def compare_items(first: Floats, second: Floats) -> Comparison:
    """Return the comparison of two methods, item by item.

    Parameters
    ----------
    first, second : (seeds, items)
        The metric of every test item; the same seeds and the same items in the same order.
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
    """Return the comparison of two methods of which only the result of every seed is known.

    Student's, paired by seed: it says nothing about other test images.
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
    """Return the exact p-value of McNemar's test for two single runs that are right or wrong.

    Parameters
    ----------
    first, second : (items,)
        Of two values, the larger of which is right.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number by Holm's method; absent ones do not count."""
    rising = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for place, (p, number) in enumerate(rising):
        least = min(max(least, (len(rising) - place) * p), 1.0)
        corrected[number] = least
    return corrected


def _shared(differences: Floats) -> float:
    """Return which part of the items' variance is the items' own, and not noise of single runs.

    With n items and s seeds the items' means vary by their own variance and a share of the noise,
    which the seeds' means bring already.
    """
    seeds, items = differences.shape
    by_item = differences.mean(0)
    residual = differences - by_item - differences.mean(1, keepdims=True) + differences.mean()
    noise = float((residual**2).sum()) / ((seeds - 1) * (items - 1)) / seeds
    variance = float(by_item.var(ddof=1))
    return max(1 - noise / variance, 0.0) if variance else 0.0


def _p_value(mean: float, resampled: Floats) -> float:
    """Return the two-sided p-value of a mean whose chance is told by centred replicates.

    Never 0: that many replicates cannot tell less than one in their number.
    """
    extreme = min((resampled <= -mean).sum(), (resampled >= -mean).sum())
    return float(min(2 * (extreme + 1) / (len(resampled) + 1), 1.0))


def detectable(spread: float, seeds: int, alpha: float) -> float:
    """Return the difference that Student's paired test finds in four of five cases.

    Parameters
    ----------
    spread
        Standard deviation of the seeds' differences.
    """
    return _detectable_size(seeds, alpha) * spread


@cache
def _detectable_size(seeds: int, alpha: float) -> float:
    """Return the difference in standard deviations: of the non-central t law, which is searched."""
    from scipy.special import nctdtr, stdtrit

    reach = stdtrit(seeds - 1, 1 - alpha / 2)

    def missed(size: float) -> float:
        shift = size * seeds**0.5
        below = np.array([nctdtr(seeds - 1, shift, at) for at in (reach, -reach)])
        upper, lower = np.nan_to_num(below)  # it knows no tail that is as good as 0
        return float(0.8 - (1 - upper + lower))

    low, high = 0.0, 1.0
    while missed(high) > 0:
        high *= 2
    for _ in range(50):  # halves: the library that searches takes longer to import than this does
        middle = (low + high) / 2
        low, high = (middle, high) if missed(middle) > 0 else (low, middle)
    return high
