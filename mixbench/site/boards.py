"""Leaderboards as pages show them: their charts, and what the comparison of two methods reads."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from markupsafe import Markup
from pydantic import JsonValue

from mixbench.datasets.locate import SYNTHETIC
from mixbench.declare import BASELINE
from mixbench.figures.style import method_of
from mixbench.leaderboard.grouping import PER_CLASS, method_label
from mixbench.leaderboard.numbers import difference_text, plus_minus
from mixbench.leaderboard.ranks import compared, runs_by_method
from mixbench.leaderboard.table import Leaderboard
from mixbench.records.schema import Record

FIRST = ("clothing_finetune", "cifar10_few", "tiny_few")  # photographs
SEVERAL = 3  # methods of a leaderboard on the first page


@dataclass(frozen=True)
class Board:
    """A leaderboard with everything that its page shows.

    Attributes
    ----------
    board
        The leaderboard.
    texts
        Formatted table of the leaderboard.
    more
        Formatted tables of its other metrics and costs.
    effects
        Chart of the differences to the baseline; empty if there is none.
    subtitle
        What the chart is about, in a few words.
    probabilities
        Formatted rows of the table of cross-entropy and calibration error.
    probabilities_note
        Note below that table.
    charts
        Title and SVG of each chart.
    pictures
        Method and paths of its pictures, relative to the top of the site. An empty method stands
        for pictures that compare all methods.
    records
        Records of the leaderboard, sorted by method and seed.
    """

    board: Leaderboard
    texts: pd.DataFrame
    more: list[pd.DataFrame]
    effects: Markup
    subtitle: str
    probabilities: Sequence[Mapping[Hashable, str]]
    probabilities_note: str
    charts: list[tuple[str, Markup]]
    pictures: list[tuple[str, list[str]]]
    records: list[Record]


def images_a_class(record: Record) -> list[str]:
    """Return the number of training images of each class; empty if all are used."""
    number = (record.base_task or record.task).parameters.get(PER_CLASS)
    return [f"{number} images a class"] if number else []


def subtitle(board: Leaderboard, record: Record) -> str:
    """Return the model of a leaderboard, its number of training images, and its seeds."""
    images = images_a_class(record)
    seeds = sorted({int(n) for n in board.rows["n"]})
    told = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return ", ".join([board.model, *images, told])


def overview(boards: Mapping[str, Sequence[Board]]) -> Iterator[tuple[str, Board]]:
    """Yield the leaderboards of the first page, with the names of their suites.

    They are of real data, compare several methods, and show a method that no earlier one shows on
    that data set; photographs come first.
    """
    order = {name: place for place, name in enumerate(FIRST)}
    seen: set[tuple[str, str, str]] = set()
    for name in sorted(boards, key=lambda one: order.get(one, len(order))):
        for shown in boards[name]:
            methods = {*shown.board.rows["method"].map(method_of)}
            about = shown.board.data_set, shown.subtitle.partition(", ")[2]
            new = {(*about, method) for method in methods - {BASELINE}}
            real = shown.records[0].data.origin != SYNTHETIC
            if shown.effects and real and len(new) >= SEVERAL and new - seen:
                seen |= new
                yield name, shown


def comparisons(titles: Mapping[str, str], boards: Mapping[str, Sequence[Board]]) -> JsonValue:
    """Return the scores and differences that the comparison of two methods shows.

    Parameters
    ----------
    titles
        Title of each suite, by name.
    boards
        The leaderboards of each suite.
    """
    return [
        {
            "title": f"{titles[name]}: {shown.board.title}",
            "place": f"suites/{name}.html#{shown.board.name}",
            "unit": "points" if shown.board.unit == "%" else shown.board.unit,
            "rows": _scores_of(shown),
            "pairs": _pairs_of(shown),
        }
        for name, of_suite in boards.items()
        for shown in of_suite
    ]


def _scores_of(shown: Board) -> dict[str, JsonValue]:
    """Return the score of each row as text, by its label."""
    both = zip(shown.board.rows["mean"], shown.board.rows["std"], strict=True)
    scores = (plus_minus(mean, std) for mean, std in both)
    return dict(zip(shown.board.rows["method"], scores, strict=True))


def _pairs_of(shown: Board) -> list[JsonValue]:
    """Return the difference of each pair of rows as text, and the number of common seeds."""
    good = [record for record in shown.records if record.status == "ok"]
    runs = runs_by_method((method_label(record), record) for record in good)
    return [
        [first, second, difference_text(*found[:3]), found.seeds]
        for first, second in combinations(runs, 2)
        if (found := compared(runs[first], runs[second])) is not None
    ]
