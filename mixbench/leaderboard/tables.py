"""Write leaderboards for readers: terminal, Markdown, CSV, JSON."""

import json
import math
from collections.abc import Sequence
from itertools import accumulate

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixbench.declare import BASELINE
from mixbench.leaderboard.board import Leaderboard

PIPE = 200  # columns of an output that has no width of its own
ESSENTIAL = 4  # columns that are always shown


def display(board: Leaderboard) -> pd.DataFrame:
    """Return the leaderboard's rows as texts, under the headings that people read."""
    rows = board.rows
    table = pd.DataFrame({
        "#": rows["rank"].astype(str),
        "method": rows["method"],
        f"{board.metric} ({board.unit})": [
            _plus_minus(m, d) for m, d in zip(rows["mean"], rows["deviation"], strict=True)
        ],
        f"vs {BASELINE}": [
            _difference(*v)
            for v in rows[["difference", "low", "high"]].itertuples(index=False, name=None)
        ],
        "seeds": rows["n"].astype(str),
    })
    if "published" in rows:
        table["published"] = rows["published"]
    if "tuned_to" in rows:
        table["tuned to"] = rows["tuned_to"]
    for name in board.secondary:
        table[name] = [f"{value:.3g}" for value in rows[name]]
    table["images"] = [_thousands(value) for value in rows["images"]]
    table["minutes"] = [f"{value:.2f}" for value in rows["minutes"]]
    table["extra params"] = [f"{value:,.0f}" for value in rows["extra_parameters"]]
    return table


def to_terminal(board: Leaderboard) -> None:
    """Print the leaderboard, without its last columns where the terminal is too narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE)
    texts, dropped = _fitting(display(board), console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in texts.columns:
        left = heading == "method"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in texts.itertuples(index=False, name=None):
        table.add_row(*(escape(text) for text in row))
    console.print(f"\n[bold]{escape(board.title)}[/bold]", highlight=False)
    for line in board.facts:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    more = [f"Not shown here: {', '.join(dropped)}; see mixbench report --format markdown."]
    for line in (*board.notes, *(more if dropped else ())):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fitting(texts: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns that fit into a width, and the headings of those that do not."""
    widths = [max(len(name), *map(len, texts[name])) + 3 for name in texts.columns]
    fitting = max(sum(total <= width for total in accumulate(widths)), ESSENTIAL)
    return texts.iloc[:, :fitting], list(texts.columns[fitting:])


def to_markdown(boards: Sequence[Leaderboard]) -> str:
    """Return the leaderboards as Markdown, headings and notes included."""
    parts = []
    for board in boards:
        facts = "\n".join(f"- {fact}" for fact in board.facts if fact)
        texts = display(board).map(lambda text: text.replace("|", "\\|"))
        align = ["left" if name == "method" else "right" for name in texts.columns]
        table = texts.to_markdown(index=False, disable_numparse=True, colalign=align)
        parts.append("\n\n".join([f"### {board.title}", facts, table, *board.notes]))
    return "\n\n".join(parts) + "\n"


def to_csv(boards: Sequence[Leaderboard]) -> str:
    """Return all rows with full precision; what is absent is empty."""
    frames = [board.rows.assign(leaderboard=board.name) for board in boards]
    if not frames:
        return ""
    return str(pd.concat(frames).to_csv(index=False, lineterminator="\n"))


def to_json(boards: Sequence[Leaderboard]) -> str:
    """Return the leaderboards as JSON; what is absent is null."""
    content = [
        {
            "name": board.name,
            "title": board.title,
            "metric": board.metric,
            "unit": board.unit,
            "facts": [fact for fact in board.facts if fact],
            "notes": list(board.notes),
            "rows": json.loads(board.rows.to_json(orient="records", double_precision=15)),
        }
        for board in boards
    ]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _plus_minus(mean: float, deviation: float) -> str:
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def _difference(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None or math.isnan(mean):
        return ""
    if low is None or high is None or math.isnan(low):
        return f"{mean:+.2f}"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f} k" if value >= 1000 else f"{value:.0f}"
