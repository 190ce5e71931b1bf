"""Compare methods over several tasks: mean ranks, wins and losses, and significance tests.

Raw scores of different tasks cannot be averaged, so methods are compared by their mean ranks and
by how often they beat the baseline. Each leaderboard is one observation: Friedman's test over all
methods is followed by Conover's test for pairs, with Holm's correction (Demsar, "Statistical
comparisons of classifiers over multiple data sets", JMLR 7, 2006).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixbench.declare import BASELINE
from mixbench.leaderboard.ranks import ALPHA
from mixbench.leaderboard.rows import verdict
from mixbench.leaderboard.table import Leaderboard

LEAST_METHODS, LEAST_TASKS = 3, 3  # minimum for Friedman's test


@dataclass(frozen=True)
class Overall:
    """The comparison of methods over several leaderboards.

    Attributes
    ----------
    rows
        One row for each method with a result in every leaderboard, best mean rank first. Columns:
        method, mean_rank, and the number of leaderboards in which the method is significantly
        better than the baseline (better), significantly worse (worse), or neither (undecided).
    scores
        Mean of each method in each leaderboard, shape (leaderboards, methods), negated if a lower
        value is better.
    p
        P-value of Friedman's test; None if there are too few leaderboards or methods.
    pairs
        P-values of Conover's test, corrected by Holm's method, shape (methods, methods); empty
        unless `p` is significant.
    """

    rows: pd.DataFrame
    scores: pd.DataFrame
    p: float | None
    pairs: pd.DataFrame

    @property
    def notes(self) -> list[str]:
        """Notes to print below the table."""
        tasks, methods = self.scores.shape
        over = f"{methods} methods over {tasks} leaderboards"
        if self.p is None:
            return [f"{over}: too few for a significance test (at least {LEAST_METHODS} of each)."]
        if self.p > ALPHA:
            return [f"{over}: Friedman test p = {self.p:.3f}; no significant difference in rank."]
        return [f"{over}: Friedman test p = {self.p:.3g}; pairs by Conover's test (Holm)."]


def overall(boards: Sequence[Leaderboard]) -> Overall | None:
    """Return the comparison over leaderboards; None unless two or more share two methods."""
    columns = {
        board.name: board.rows.set_index("method")["mean"] * (1 if board.higher_is_better else -1)
        for board in boards
    }
    table = pd.DataFrame(columns)
    shared = table.dropna(axis=0) if len(columns) > 1 else table.iloc[:0]
    if len(shared) < 2:
        return None
    scores = shared.T
    ranks = scores.rank(axis=1, ascending=False)
    rows = pd.DataFrame({"method": scores.columns, "mean_rank": list(ranks.mean())})
    for word in ("better", "undecided", "worse"):
        rows[word] = [sum(_verdict(b, m) == word for b in boards) for m in rows["method"]]
    rows.loc[rows["method"] == BASELINE, ["better", "worse", "undecided"]] = 0
    rows = rows.sort_values(["mean_rank", "method"]).reset_index(drop=True)
    p = _friedman(scores)
    return Overall(rows, scores, p, _pairs(scores) if p is not None and p <= ALPHA else scores[:0])


def _verdict(board: Leaderboard, method: str) -> str:
    row = board.rows.set_index("method").loc[method].to_dict()
    return verdict(row, higher_is_better=board.higher_is_better)


def _friedman(scores: pd.DataFrame) -> float | None:
    tasks, methods = scores.shape
    if methods < LEAST_METHODS or tasks < LEAST_TASKS:
        return None
    from scipy.stats import friedmanchisquare

    p = float(friedmanchisquare(*(scores[method] for method in scores)).pvalue)
    return None if math.isnan(p) else p


def _pairs(scores: pd.DataFrame) -> pd.DataFrame:
    import scikit_posthocs

    with np.errstate(divide="ignore"):  # the statistic is infinite if all tasks agree
        found: pd.DataFrame = scikit_posthocs.posthoc_conover_friedman(scores, p_adjust="holm")
    return found


def to_markdown(found: Overall) -> str:
    """Return the comparison over leaderboards as Markdown."""
    rows = found.rows
    table = pd.DataFrame({
        "method": rows["method"],
        "mean rank": [f"{value:.2f}" for value in rows["mean_rank"]],
        f"better than {BASELINE}": rows["better"].astype(str),
        "undecided": rows["undecided"].astype(str),
        "worse": rows["worse"].astype(str),
    })
    align = ["left", *["right"] * 4]
    text = str(table.to_markdown(index=False, disable_numparse=True, colalign=align))
    return "\n\n".join(["## All leaderboards", text, *found.notes])
