"""Draw the charts of the site as SVG, with the colours and fonts of the page."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixbench.declare import BASELINE
from mixbench.figures.style import PALETTE, method_of, number_of, shapes
from mixbench.leaderboard.overall import Overall
from mixbench.leaderboard.table import Leaderboard

# Placeholder colours, replaced by CSS variables: text, secondary text, lines, and methods.
INK, QUIET, LINE = "#010203", "#020304", "#030405"
ACCENT, PAPER = "#040508", "#040509"
METHODS = tuple(f"#0506{n:02x}" for n in range(len(PALETTE)))
LONG = 24  # characters of a label
WIDE = 48  # characters of a line of one that names a leaderboard
ON_WHITE = {
    "var(--ink)": "#1c2127", "var(--quiet)": "#5b6570", "var(--line)": "#e3e4e0",
    "var(--link)": "#0b5cad", "var(--raised)": "#ffffff",
}  # fmt: skip
PAGE = {
    INK: "var(--ink)", QUIET: "var(--quiet)", LINE: "var(--line)", ACCENT: "var(--link)",
    PAPER: "var(--raised)",
    **{colour: f"var(--method-{n})" for n, colour in enumerate(METHODS)},
}  # fmt: skip
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "mixbench", "font.size": 10,
    "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": QUIET, "axes.edgecolor": LINE, "xtick.color": QUIET,
    "ytick.color": QUIET, "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": LINE, "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip
Curve = Sequence[Mapping[str, float]]  # metrics of each epoch
Curves = Mapping[str, Sequence[Curve]]  # by method and seed


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Return the placeholder of each method's colour, which is that of all other figures."""
    numbers = ((label, number_of(label)) for label in methods)
    return {label: QUIET if number is None else METHODS[number] for label, number in numbers}


def differences(board: Leaderboard) -> str:
    """Draw each method's difference to the baseline, with its confidence interval.

    Decided differences are filled; what is undecided, or was not declared, is hollow.
    """
    number = int(board.rows["difference"].notna().sum())
    if not number:
        return ""
    with rc_context(STYLE):
        figure, axes = _axes(5.2, 0.75 + 0.3 * number)
        _draw_differences(axes, board)
        return _svg(figure, f"Differences to {BASELINE}: {board.title}")


def where_it_helps(method: str, boards: Iterable[tuple[str, Leaderboard]]) -> str:
    """Draw a method's difference to the baseline on leaderboards, by their names.

    They are those whose results are percentages that are better if they are higher.
    """
    found = []
    for name, board in boards:
        if board.unit == "%" and board.higher_is_better:
            rows = board.rows[board.rows["difference"].notna()]
            own = rows[rows["method"].map(method_of) == method]
            labels = [fill(f"{name} {row[len(method) :]}", WIDE) for row in own["method"]]
            found.append(own.assign(method=labels))
    rows = pd.concat(found) if found else pd.DataFrame()
    if rows.empty:
        return ""
    with rc_context(STYLE):
        figure, axes = _axes(7, 0.75 + 0.3 * len(rows))
        _draw_rows(axes, rows)
        axes.set_xlabel(f"difference to {BASELINE} in points, 95% CI")
        return _svg(figure, f"{method}: differences to {BASELINE}")


def side_by_side(boards: Mapping[str, Leaderboard]) -> str:
    """Draw the differences of several leaderboards, by their titles, on white.

    It is for pages that do not have the colours of the site.
    """
    most = max(int(board.rows["difference"].notna().sum()) for board in boards.values())
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(boards), 1.05 + 0.3 * most), layout="constrained")
        for axes, (title, board) in zip(figure.subplots(1, len(boards)), boards.items(),
                                        strict=True):  # fmt: skip
            _draw_differences(axes, board)
            axes.set_title(title, loc="left", fontsize=10, color=INK)
        text = _svg(figure, f"Differences to {BASELINE}")
    for name, colour in ON_WHITE.items():
        text = text.replace(name, colour)
    return text


def _draw_differences(axes: Axes, board: Leaderboard) -> None:
    rows = board.rows[board.rows["difference"].notna()]
    _draw_rows(axes, rows.assign(method=rows["method"].map(_short)))
    points = "points" if board.unit == "%" else board.unit
    better = "" if board.higher_is_better else ", lower is better"
    axes.set_xlabel(f"{board.metric}, difference to {BASELINE} in {points}, 95% CI{better}")


def _draw_rows(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the differences of rows below each other, the first on top."""
    rows = rows.iloc[::-1]
    axes.axvline(0, color=QUIET, lw=1)
    for place, row in enumerate(rows.to_dict("records")):
        decided = row["verdict"] in {"better", "worse"}
        colour = ACCENT if decided else QUIET
        if not pd.isna(row["low"]):
            axes.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=2, zorder=2)
        axes.plot(
            row["difference"], place, "o", color=colour, ms=6.5, mew=1.6, zorder=3,
            mfc=colour if decided else PAPER,
        )  # fmt: skip
        axes.annotate(
            f"{row['difference']:+.1f}", (1, place), (4, 0), va="center", fontsize=9,
            xycoords=("axes fraction", "data"), textcoords="offset points",
            color=INK if decided else QUIET,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), rows["method"], color=INK)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", lw=0.6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _short(label: str) -> str:
    """Return a label without the names of the parameters, if it is long."""
    return label if len(label) <= LONG else re.sub(r"([\[,])\w+=(?!True|False)", r"\1", label)


def cost(board: Leaderboard) -> str:
    """Draw the score of each method against the cost of a run."""
    rows = board.rows
    name = "gpu_hours_total" if rows["gpu_hours_total"].notna().all() else "minutes"
    with rc_context(STYLE):
        figure, axes = _axes(5.2, 3 + 0.12 * len(rows))
        shades, marked = colours(rows["method"]), shapes(rows["method"])
        for row in rows.to_dict("records"):
            colour, (marker, _) = shades[row["method"]], marked[row["method"]]
            spread = None if pd.isna(row["std"]) else row["std"]
            axes.errorbar(
                row[name], row["mean"], yerr=spread, fmt=marker, color=colour, ms=6, lw=1.2,
                label=_short(row["method"]),
            )  # fmt: skip
        figure.legend(loc="outside lower left", ncols=2, fontsize=9, handletextpad=0.2)
        axes.set(
            xlabel="GPU-hours (total)" if name != "minutes" else "time (min)",
            ylabel=f"{board.metric} ({board.unit})",
        )
        axes.margins(x=0.18, y=0.15)
        axes.grid(lw=0.6)
        return _svg(figure, "Score and cost")


def learning(curves: Curves, metric: str, unit: str) -> str:
    """Draw the validation metric over epochs: each method's mean and range over seeds."""
    column = f"validation_{metric}"
    there = {
        method: runs
        for method, runs in curves.items()
        if runs and all(point.get(column) is not None for run in runs for point in run)
    }
    if not there:
        return ""
    with rc_context(STYLE):
        figure, axes = _axes(5.2, 3 + 0.12 * len(there))
        shades, marked = colours(there), shapes(there)
        for method, runs in there.items():
            length = min(map(len, runs))
            values = np.array([[point[column] for point in run[:length]] for run in runs])
            epochs = [point["epoch"] for point in runs[0][:length]]
            colour, (_, line) = shades[method], marked[method]
            axes.plot(epochs, values.mean(0), line, color=colour, lw=1.6, label=_short(method))
            if len(runs) > 1:
                axes.fill_between(
                    epochs, values.min(0), values.max(0), color=colour, alpha=0.12, lw=0
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=f"validation {metric} ({unit})")
        axes.grid(lw=0.6)
        figure.legend(loc="outside lower left", ncols=2, fontsize=9)
        return _svg(figure, "Learning curves")


def critical_difference(found: Overall) -> str:
    """Draw the mean ranks on a line; bars join methods that do not differ significantly."""
    if found.pairs.empty:
        return ""
    import scikit_posthocs

    ranks = found.rows.set_index("method")["mean_rank"]
    with rc_context(STYLE):
        figure, axes = _axes(7.2, 1.2 + 0.3 * len(ranks))
        scikit_posthocs.critical_difference_diagram(
            ranks, found.pairs, ax=axes, text_h_margin=0.05,
            color_palette=colours(ranks.index), crossbar_props={"color": INK},
        )  # fmt: skip
        return _svg(figure, "Critical-difference diagram")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element that uses the CSS colours of the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Title": title})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in PAGE.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", '<svg role="img" class="chart" ', 1)
