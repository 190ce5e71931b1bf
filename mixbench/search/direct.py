"""Direct search: find the worst mask of every pair, then take the N worst pairs.

The fitness is a mean of scores that do not depend on each other, so each item can be optimised
separately. Within a pair, scores are smooth in the mask: a ridge regression on the mask's bits and
on the products of neighbouring bits is fitted to random masks and predicts which masks to score
next. The best mask is then improved by flipping single bits.

To solve a pair takes up to 600 masks. If the budget does not suffice for all pairs, they are
screened first: every pair by 32 images, each composed under another random mask, then the best ones
by 64 more, and only the best of these are solved.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mixbench.errors import UsageError
from mixbench.search.result import SearchResult
from mixbench.search.space import Ids, Masks, Space

Score = Callable[[Ids, Masks], NDArray[np.float64]]
RANDOM, PREDICTED, ROUNDS, POLISH = 256, 128, 2, 4  # per pair; see `masks_per_pair`
CANDIDATES = 1 << 16  # masks that the regression chooses from
RIDGE = 0.01
SCREENED, AGAIN, FINALISTS = 32, 64, 4  # images of all pairs, of those left, and how many are left


def masks_per_pair(space: Space) -> int:
    """Return the largest number of masks that solving a pair scores."""
    asked = RANDOM + ROUNDS * PREDICTED + POLISH * space.num_bits
    return min(asked, space.full + 1)


def pairs_within(space: Space, per_pair: int, budget: int) -> int:
    """Return how many unordered cross-class pairs a budget suffices to solve.

    Parameters
    ----------
    space
        The pairs and masks to choose from.
    per_pair
        Number of images that are composed to score an item.
    budget
        Number of images that may be passed through the model.

    Raises
    ------
    UsageError
        If the budget does not suffice to solve as many pairs as a solution needs.
    """
    unordered, cost = space.num_cross // 2, masks_per_pair(space) * per_pair
    same = len(space.same) * cost
    if same + unordered * cost <= budget:
        return unordered
    screening = unordered * SCREENED + same
    each = cost + FINALISTS * AGAIN  # of a pair that is solved
    wanted, needed = 2 * space.num_pairs, -(-space.num_pairs // 2)
    number = min(wanted, unordered, (budget - screening) // each)
    if number < needed:
        raise UsageError(
            f"The direct search needs a budget of at least {screening + needed * each:,} images "
            f"for {space.num_pairs} pairs of {space.num_classes} classes (got {budget:,}): "
            "increase budget, or reduce image_pairs or num_pairs."
        )
    return number


def screened(space: Space, screen: Score, seed: int, number: int, *, maximise: bool) -> Ids:
    """Return the most promising unordered cross-class pairs.

    Parameters
    ----------
    space
        The pairs to choose from.
    screen
        Function of pairs, (M,), and masks, (M, n), that returns the mean score of each pair over n
        images, one under each mask.
    seed
        Seed of the masks.
    number
        Number of pairs to return.
    maximise
        Whether larger scores are better.
    """
    ids = unordered_pairs(space)
    rng = np.random.default_rng([seed, 1])
    sign = -1.0 if maximise else 1.0
    total = np.zeros(len(ids))
    for images, left in ((SCREENED, FINALISTS * number), (AGAIN, number)):
        masks = rng.integers(space.full, size=(len(ids), images), dtype=space.dtype, endpoint=True)
        total += sign * images * screen(ids, masks)
        kept = np.sort(np.argsort(total, kind="stable")[:left])
        ids, total = ids[kept], total[kept]
    return ids


def unordered_pairs(space: Space) -> Ids:
    """Return the cross-class pairs with the smaller class first."""
    ids = space.cross(np.arange(space.num_cross))
    return ids[ids // space.num_classes < ids % space.num_classes]


def solve(
    space: Space,
    score: Score,
    seed: int,
    pairs: Ids,
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
    pairs
        The cross-class pairs to solve, with the smaller class first. A solution may contain a pair
        in both orders.
    maximise
        Whether larger scores are better.
    report
        Function called after every pair with the number of finished pairs, the number of all pairs
        and the best score of this pair.
    """
    solved, sign = np.concatenate([pairs, space.same]), -1.0 if maximise else 1.0
    masks, lowest = lowest_masks(
        space,
        lambda i, m: sign * score(i, m),
        seed,
        solved,
        lambda done, value: report(done, len(solved), {"score": sign * value}),
    )
    # (j, i) under a mask is (i, j) under its complement.
    first, second = np.divmod(pairs, space.num_classes)
    both = np.sort(np.concatenate([pairs, second * space.num_classes + first]))
    ids = np.concatenate([both.astype(np.int32), space.same])
    source, flips = space.ordered(ids, np.zeros(len(ids), space.dtype))
    position = {int(pair): number for number, pair in enumerate(solved)}
    rows = np.array([position[int(pair)] for pair in source])
    best, scores = masks[rows] ^ flips, lowest[rows]
    order = np.argsort(scores[: len(both)], kind="stable")[: space.num_pairs]
    chosen = np.concatenate([order, np.arange(len(both), len(ids))])
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
