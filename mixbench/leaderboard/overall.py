"""Compare methods over several tasks: mean ranks, wins and losses, and significance tests.

Raw scores of different tasks cannot be averaged, so methods are compared by their mean ranks and
by how often they beat the baseline. Each data set is one observation, because results of several
models, attacks and corruptions on the same images are not independent: ranks are averaged over its
leaderboards first. Friedman's test over all methods is followed by Conover's test for pairs, with
Holm's correction (Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7,
2006).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.formats import in_markdown
from mixbench.leaderboard.ranks import ALPHA
from mixbench.leaderboard.statistics import holm
from mixbench.leaderboard.table import Leaderboard

LEAST_METHODS, LEAST_SETS = 3, 3  # minimum for Friedman's test


@dataclass(frozen=True)
class Overall:
    """The comparison of methods over several leaderboards.

    Attributes
    ----------
    rows
        One row for each method with a result in every leaderboard, best mean rank first. Columns:
        method, mean_rank (over data sets), and the number of leaderboards in which the method is
        significantly better than the baseline (better), significantly worse (worse), or neither
        (undecided).
    ranks
        Rank of each method in each data set, shape (data sets, methods).
    leaderboards
        Number of leaderboards.
    p
        P-value of Friedman's test; None if there are too few data sets or methods.
    pairs
        P-values of Conover's test, corrected by Holm's method, shape (methods, methods); empty
        unless `p` is significant.
    """

    rows: pd.DataFrame
    ranks: pd.DataFrame
    leaderboards: int
    p: float | None
    pairs: pd.DataFrame

    @property
    def notes(self) -> list[str]:
        """Notes to print below the table."""
        sets, methods = self.ranks.shape
        over = f"{methods} methods over {sets} data sets ({self.leaderboards} leaderboards)"
        if self.p is None:
            return [
                f"{over}: too few for a significance test (at least {LEAST_METHODS} methods and "
                f"{LEAST_SETS} data sets)."
            ]
        if self.p > ALPHA:
            return [f"{over}: Friedman test p = {self.p:.4f}; no significant difference in rank."]
        return [f"{over}: Friedman test p = {self.p:.3g}; pairs by Conover's test (Holm)."]


def overall(boards: Sequence[Leaderboard]) -> Overall | None:
    """Return the comparison over leaderboards; None unless two or more share two methods."""
    table = pd.DataFrame({
        number: board.rows.set_index("method")["mean"] * (1 if board.higher_is_better else -1)
        for number, board in enumerate(boards)  # two boards may have one name
    })
    shared = table.dropna(axis=0) if len(boards) > 1 else table.iloc[:0]
    if len(shared) < 2:
        return None
    ranks = shared.T.rank(axis=1, ascending=False)
    by_set = ranks.groupby([board.data_set for board in boards], sort=True).mean()
    blocks = by_set.rank(axis=1)
    rows = pd.DataFrame({"method": blocks.columns, "mean_rank": list(blocks.mean())})
    for word in ("better", "undecided", "worse"):
        rows[word] = [sum(_verdict(b, m) == word for b in boards) for m in rows["method"]]
    rows = rows.sort_values(["mean_rank", "method"]).reset_index(drop=True)
    p = _friedman(blocks)
    pairs = _pairs(blocks) if p is not None and p <= ALPHA else blocks[:0]
    return Overall(rows, blocks, len(boards), p, pairs)


def _verdict(board: Leaderboard, method: str) -> str:
    return str(board.rows.set_index("method")["verdict"].loc[method])


def _friedman(blocks: pd.DataFrame) -> float | None:
    sets, methods = blocks.shape
    if methods < LEAST_METHODS or sets < LEAST_SETS:
        return None
    from scipy.stats import friedmanchisquare

    if (blocks.nunique(axis=1) == 1).all():  # all methods are tied everywhere
        return 1.0
    p = float(friedmanchisquare(*(-blocks[method] for method in blocks)).pvalue)
    return None if math.isnan(p) else p


def _pairs(blocks: pd.DataFrame) -> pd.DataFrame:
    """Return Conover's p-values of all pairs, corrected by Holm's method."""
    import scikit_posthocs

    with np.errstate(divide="ignore", invalid="ignore"):  # the statistic may be infinite
        found: pd.DataFrame = scikit_posthocs.posthoc_conover_friedman(-blocks)
    found = found.fillna(1.0)  # 0 / 0: all data sets agree, and give both methods the same rank
    places = [(i, j) for i in range(len(found)) for j in range(i)]
    corrected = holm([float(found.to_numpy()[place]) for place in places])
    for (i, j), p in zip(places, corrected, strict=True):
        found.iat[i, j] = found.iat[j, i] = p
    return found


def to_markdown(found: Overall) -> str:
    """Return the comparison over leaderboards as Markdown."""
    rows = found.rows
    table = pd.DataFrame({
        "method": rows["method"].map(in_markdown),
        "mean rank": [f"{value:.2f}" for value in rows["mean_rank"]],
        f"better than {BASELINE}": rows["better"].astype(str),
        "undecided": rows["undecided"].astype(str),
        "worse": rows["worse"].astype(str),
    })
    align = ["left", *["right"] * 4]
    text = str(table.to_markdown(index=False, disable_numparse=True, colalign=align))
    return "\n\n".join(["## All leaderboards", text, *found.notes])
