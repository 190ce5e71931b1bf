"""When mixing helps: the gain over the baseline against the number of training images."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from mixbench.declare import BASELINE
from mixbench.figures.style import INK, QUIET, colour, label_ends, shapes
from mixbench.leaderboard.grouping import PER_CLASS, comparison_groups, group_key, group_name
from mixbench.leaderboard.table import leaderboards
from mixbench.records.schema import Record


def gains(records: Iterable[Record]) -> Iterator[tuple[str, pd.DataFrame, list[Record]]]:
    """Yield the gains over the baseline of each task that was trained on several numbers of images.

    The table has one row for each method and number of images per class, with the difference to
    the baseline and its confidence interval; it comes with the name of the comparison groups, but
    for that number, and with their records. Groups that use all images are left out, because their
    number is not known.
    """
    families: dict[str, list[list[Record]]] = defaultdict(list)
    for group in comparison_groups(records):
        if group[0].task.parameters.get(PER_CLASS):
            families[group_key(_without_number(group[0]))].append(group)
    for groups in families.values():
        if len(groups) > 1:
            whole = pd.concat(map(_table, groups)).sort_values(["method", PER_CLASS])
            own = [record for group in groups for record in group if record.status == "ok"]
            yield group_name(_without_number(own[0])), whole.reset_index(drop=True), own


def _without_number(record: Record) -> Record:
    """Return a record without the number of images per class."""
    changed = [name for name in record.task.changed if name != PER_CLASS]
    parameters = {n: v for n, v in record.task.parameters.items() if n != PER_CLASS}
    task = record.task.model_copy(update={"parameters": parameters, "changed": changed})
    return record.model_copy(update={"task": task})


def _table(group: list[Record]) -> pd.DataFrame:
    (board,) = leaderboards(group)
    rows = board.rows[board.rows["method"] != BASELINE]
    shown = rows[["method", "difference", "low", "high", "n"]].dropna(subset=["difference"])
    return shown.assign(**{PER_CLASS: group[0].task.parameters[PER_CLASS], "unit": board.unit})


def drawn(table: pd.DataFrame) -> Figure:
    """Return the gains as curves over the number of images per class, with 95 % intervals."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=QUIET, lw=1)
    methods, ends = list(dict.fromkeys(table["method"])), list[tuple[str, float]]()
    marked = shapes(methods)
    for place, method in enumerate(methods):
        rows = table[table["method"] == method]
        at = rows[PER_CLASS] * 1.02 ** (place - (len(methods) - 1) / 2)  # beside each other
        errors = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        axes.errorbar(
            at, rows["difference"], yerr=errors, fmt="".join(marked[method]), lw=1.5, ms=4,
            color=colour(method),
        )  # fmt: skip
        ends.append((method, float(rows["difference"].iloc[-1])))
    numbers = sorted(table[PER_CLASS].unique())
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.set(
        xlabel="training images of each class",
        ylabel=f"difference to {BASELINE} ({table['unit'].iloc[0]}), 95% CI",
    )
    label_ends(axes, numbers[-1] * 1.05, ends)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure
