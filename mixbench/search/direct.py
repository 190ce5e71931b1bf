"""Direct search: find the worst mask of every pair, then take the N worst pairs.

The fitness is a mean of scores that do not depend on each other, so each item can be optimised
separately. Within a pair, scores are smooth in the mask: a ridge regression on the mask's bits and
on the products of neighbouring bits is fitted to random masks and predicts which masks to score
next. The best mask is then improved by flipping single bits.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mixbench.search.result import SearchResult
from mixbench.search.space import Ids, Masks, Space

Score = Callable[[Ids, Masks], NDArray[np.float64]]
RANDOM, PREDICTED, ROUNDS, POLISH = 256, 128, 2, 4  # per pair; at most 600 masks in total
CANDIDATES = 1 << 16  # masks that the regression chooses from
RIDGE = 0.01


def solve(
    space: Space,
    score: Score,
    seed: int,
    *,
    maximise: bool,
    report: Callable[[int, int, dict[str, float]], None],
) -> SearchResult:
    """Return the best pairs, each with the best mask found for it.

    Parameters
    ----------
    space
        The pairs and masks to choose from.
    score
        Function that scores (pair, mask) items.
    seed
        Seed of the candidate masks.
    maximise
        Whether larger scores are better.
    report
        Function called after every pair with the number of finished pairs, the number of all pairs
        and the best score of this pair.
    """
    ids = np.concatenate([space.cross(np.arange(space.num_cross)), space.same])
    source, flips = space.ordered(ids, np.zeros(len(ids), space.dtype))
    sign = -1.0 if maximise else 1.0
    # (j, i) under a mask is (i, j) under its complement, so only one is solved.
    solved = np.flatnonzero(source == ids)
    masks, lowest = lowest_masks(
        space,
        lambda i, m: sign * score(i, m),
        seed,
        ids[solved],
        lambda done, value: report(done, len(solved), {"score": sign * value}),
    )
    position = {int(pair): number for number, pair in enumerate(ids[solved])}
    rows = np.array([position[int(pair)] for pair in source])
    best, scores = masks[rows] ^ flips, lowest[rows]
    order = np.argsort(scores[: space.num_cross], kind="stable")[: space.num_pairs]
    chosen = np.concatenate([order, np.arange(space.num_cross, len(ids))])
    return SearchResult(ids[chosen], best[chosen], sign * scores[chosen])


def lowest_masks(
    space: Space,
    score: Score,
    seed: int,
    ids: Ids,
    report: Callable[[int, float], None] = lambda _done, _score: None,
) -> tuple[Masks, NDArray[np.float64]]:
    """Return, for every pair, the mask with the lowest score found, and its score."""
    features, masks = _candidates(space, seed)
    single = space.pack(np.eye(space.num_bits, dtype=bool))  # masks with a single cell set
    best, scores = np.zeros(len(ids), space.dtype), np.zeros(len(ids))
    for number, pair in enumerate(ids):
        lowest = _Lowest(space, pair, score)
        lowest.ask(masks[np.random.default_rng([seed, pair]).permutation(len(masks))[:RANDOM]])
        for _ in range(ROUNDS):
            lowest.ask(lowest.predicted(features, masks))
        for _ in range(POLISH):
            lowest.ask(lowest.mask ^ single)
        best[number], scores[number] = lowest.mask, lowest.score
        report(number + 1, lowest.score)
    return best, scores


class _Lowest:
    """All masks tried for a pair, with their scores."""

    def __init__(self, space: Space, pair: np.int32, score: Score) -> None:
        self._pair, self._score = pair, score
        self._tried = np.empty(0, space.dtype)
        self._scores = np.empty(0)

    @property
    def mask(self) -> np.unsignedinteger:
        """The mask with the lowest score."""
        mask: np.unsignedinteger = self._tried[np.argmin(self._scores)]
        return mask

    @property
    def score(self) -> float:
        """The lowest score."""
        return float(self._scores.min())

    def ask(self, masks: Masks) -> None:
        """Score the masks that were not tried before."""
        new = np.setdiff1d(masks, self._tried)
        ids = np.full(len(new), self._pair, np.int32)
        self._tried = np.concatenate([self._tried, new])
        self._scores = np.concatenate([self._scores, self._score(ids, new)])

    def predicted(self, features: NDArray[np.float32], masks: Masks) -> Masks:
        """Return the untried masks with the lowest scores predicted by a ridge regression."""
        known = np.isin(masks, self._tried, assume_unique=True)
        order = np.searchsorted(masks, self._tried)
        rows = features[order].astype(np.float64)
        penalty = RIDGE * len(rows) * np.eye(rows.shape[1])
        weights = np.linalg.solve(rows.T @ rows + penalty, rows.T @ self._scores)
        guess = np.where(known, np.inf, features @ weights.astype(np.float32))
        number = min(PREDICTED, int((~known).sum()))
        return masks[np.argsort(guess, kind="stable")[:number]]


def _candidates(space: Space, seed: int) -> tuple[NDArray[np.float32], Masks]:
    """Return candidate masks (all masks if there are few) and their features."""
    if space.full < CANDIDATES:
        masks: Masks = np.arange(space.full + 1).astype(space.dtype)
    else:
        rng = np.random.default_rng([seed])
        drawn = rng.integers(space.full, size=CANDIDATES, dtype=space.dtype, endpoint=True)
        masks = np.unique(drawn)
    signs = (2 * space.bits(masks) - 1).astype(np.float32)
    grid = signs.reshape(-1, space.grid, space.grid)
    across = (grid[:, :, 1:] * grid[:, :, :-1]).reshape(len(masks), -1)
    down = (grid[:, 1:] * grid[:, :-1]).reshape(len(masks), -1)
    ones = np.ones((len(masks), 1), np.float32)
    return np.concatenate([ones, signs, across, down], 1), masks
