"""Methods over several tasks: mean ranks, gains, and whether the order is more than chance.

Raw scores of different tasks have no common mean; ranks have, and gains over the baseline are
counted. Each task is one witness: Friedman's test over them, then Conover's for the pairs, with
Holm (Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006).
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

LEAST_METHODS, LEAST_TASKS = 3, 3  # with fewer, Friedman's test says nothing


@dataclass(frozen=True)
class Overall:
    """What the leaderboards of several tasks say together.

    Attributes
    ----------
    rows
        One per method that has a number everywhere, best mean rank first: method, mean_rank, and
        on how many tasks it is better, not different and worse than the baseline, significantly.
    scores
        Task by method: the means, sign turned where lower is better.
    p
        Of Friedman's test; None with too few tasks or methods.
    pairs
        Method by method: the corrected p-values; empty unless `p` is significant.
    """

    rows: pd.DataFrame
    scores: pd.DataFrame
    p: float | None
    pairs: pd.DataFrame

    @property
    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        tasks, methods = self.scores.shape
        over = f"{methods} methods over {tasks} questions"
        if self.p is None:
            return [f"{over}: too few for a test of the order (at least {LEAST_METHODS} each)."]
        if self.p > ALPHA:
            return [f"{over}: Friedman p = {self.p:.3f}; the order may be chance."]
        return [f"{over}: Friedman p = {self.p:.3g}; pairs by Conover's test with Holm."]


def overall(boards: Sequence[Leaderboard]) -> Overall | None:
    """Return what the leaderboards say together; None unless two have two methods in common."""
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

    with np.errstate(divide="ignore"):  # where all tasks agree, the statistic is infinite
        found: pd.DataFrame = scikit_posthocs.posthoc_conover_friedman(scores, p_adjust="holm")
    return found


def to_markdown(found: Overall) -> str:
    """Return the table over tasks as Markdown."""
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
    return "\n\n".join(["## Over all questions", text, *found.notes])
