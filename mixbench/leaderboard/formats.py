"""Format leaderboards for the terminal and as Markdown, LaTeX, CSV and JSON."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import pandas as pd
from rich.console import Console
from rich.markup import escape

from mixbench.declare import BASELINE
from mixbench.leaderboard.numbers import difference_text, p_text, plus_minus
from mixbench.leaderboard.table import Leaderboard

DIGITS = 10  # of numbers in CSV and JSON
PIPE = 200  # characters per line if the output is not a terminal
ESSENTIAL = 4  # number of columns that are always shown
COSTS = (
    ("time (min)", "minutes", "{:.2f}"),
    ("GPU-hours", "gpu_hours", "{:.3g}"),
    ("GPU-hours (total)", "gpu_hours_total", "{:.3g}"),
    ("GPU (GiB)", "peak_gpu_gib", "{:.1f}"),
    ("RAM (GiB)", "peak_host_gib", "{:.1f}"),
    ("energy (kWh)", "energy_kwh", "{:.3g}"),
)
# Special characters of LaTeX, and characters that its fonts have only in math mode.
LATEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
})  # fmt: skip


def display(board: Leaderboard) -> pd.DataFrame:
    """Return the rows of a leaderboard as formatted text, with display headings."""
    rows = board.rows
    marks = rows["other_seeds"].map({True: "*", False: ""})
    ranks = zip(rows["first_rank"], rows["last_rank"], strict=True)
    pairs = rows[["difference", "low", "high"]].itertuples(index=False, name=None)
    columns: dict[str, list[str]] = {
        "#": [_rank(first, last) for first, last in ranks],
        "method": list(rows["method"]),
        f"{board.metric} ({board.unit})": [
            plus_minus(m, d) for m, d in zip(rows["mean"], rows["std"], strict=True)
        ],
        f"vs {BASELINE} (95% CI)": [difference_text(*v) for v in pairs],
        "p (Holm)": [p_text(p) for p in rows["p"]],
    }
    for heading, name in (
        ("published", "published"),
        ("vs published", "off"),
        ("tuned values", "tuned_to"),
    ):
        if name in rows:
            columns[heading] = list(rows[name])
    columns["seeds"] = [f"{n}{mark}" for n, mark in zip(rows["n"], marks, strict=True)]
    columns |= {name: _formatted(rows[name], "{:.3g}") for name in board.secondary}
    columns["best - last"] = _formatted(rows["best_gap"], "{:+.2f}")
    for heading, name, form in (("train accuracy (%)", "train_accuracy", "{:.1f}"), *COSTS):
        if not rows[name].isna().all():
            columns[heading] = _formatted(rows[name], form)
    columns["images"] = [_thousands(value) for value in rows["images"]]
    columns["extra parameters"] = _formatted(rows["extra_parameters"], "{:,.0f}")
    columns["verified"] = list(rows["verified"])
    return pd.DataFrame(columns)


def _rank(first: float, last: float) -> str:
    """Format the ranks that a method can have; empty if the comparisons allow no verdict."""
    if math.isnan(first):
        return ""
    return f"{first:.0f}" if first == last else f"{first:.0f}-{last:.0f}"


def _formatted(values: Iterable[float], form: str) -> list[str]:
    """Format numbers; NaN becomes an empty text."""
    return ["" if math.isnan(value) else form.format(value) for value in values]


def to_terminal(board: Leaderboard) -> None:
    """Print a leaderboard; omit the last columns if the terminal is too narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE)
    texts, dropped = _fitting(display(board), console.width)
    head, *lines = _lines(texts)
    more = [f"Omitted columns: {', '.join(dropped)}; see mixbench report --format markdown."]
    notes = [*board.notes, *(more if dropped else ())]
    for bold, plain in (
        (board.title, board.facts),
        (head, (f" {'─' * (len(head) - 1)}", *lines, "", *notes)),
    ):
        console.print(f"\n[bold]{escape(bold)}[/bold]", highlight=False, soft_wrap=True)
        # One call for all lines: each call of rich is slow.
        console.print("\n".join(plain), markup=False, highlight=False, soft_wrap=True)


def _lines(texts: pd.DataFrame) -> Iterator[str]:
    """Yield the heading and the rows of a table; a rich table would take ten times as long."""
    columns = [[str(name), *texts[name]] for name in texts.columns]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = zip(texts.columns, row, widths, strict=True)
        yield " " + "   ".join(
            text.ljust(width) if name == "method" else text.rjust(width)
            for name, text, width in cells
        )


def _fitting(texts: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns that fit into a width, and the headings of the others."""
    widths = [max(len(name), *map(len, texts[name])) + 3 for name in texts.columns]
    fitting = max(sum(total <= width for total in accumulate(widths)), ESSENTIAL)
    return texts.iloc[:, :fitting], list(texts.columns[fitting:])


def to_markdown(boards: Sequence[Leaderboard]) -> str:
    """Return leaderboards as Markdown, with headings, tables and notes."""
    parts = []
    for board in boards:
        facts = "\n".join(f"- {in_markdown(fact)}" for fact in board.facts if fact)
        texts = display(board).map(in_markdown)
        align = ["left" if name == "method" else "right" for name in texts.columns]
        table = texts.to_markdown(index=False, disable_numparse=True, colalign=align)
        notes = map(in_markdown, board.notes)
        parts.append("\n\n".join([f"### {in_markdown(board.title)}", facts, table, *notes]))
        if board.probabilities:
            parts.append("\n\n".join(_probabilities(board)))
    return "\n\n".join(parts) + "\n"


def _probabilities(board: Leaderboard) -> Iterator[str]:
    """Yield the table of the metrics of probabilities, with a heading and a note."""
    metrics = {metric: None for metric, *_ in board.probabilities}
    yield f"#### {' and '.join(metrics)} of {in_markdown(board.title)}"
    texts = display_probabilities(board).map(in_markdown)
    align = ("left", "left", "left", "right", "right")
    yield texts.to_markdown(index=False, disable_numparse=True, colalign=align)
    yield probabilities_note(board)


def display_probabilities(board: Leaderboard) -> pd.DataFrame:
    """Return the comparisons on the metrics of probabilities as formatted text."""
    return pd.DataFrame(
        {
            "metric": one.metric,
            "method": one.first,
            "vs": one.second,
            "difference (95% CI)": difference_text(*one.comparison[:3]),
            "p (Holm)": p_text(one.corrected),
        }
        for one in board.probabilities
    )


def probabilities_note(board: Leaderboard) -> str:
    """Return how the comparisons on the metrics of probabilities are made."""
    return (
        "Lower is better. Mean differences of runs with the same seed, with 95% confidence "
        "intervals over seeds; unlike the table above, they do not contain the variation over "
        f"test images. p is corrected for the {len(board.probabilities)} comparisons of this table."
    )


def in_markdown(text: str) -> str:
    """Escape what Markdown would interpret in a text: tables, HTML, emphasis, code, math, links.

    Underscores inside words and brackets without a link behind them mean nothing.
    """
    text = re.sub(r"[\\|<>*`~$@]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return re.sub(r"\](?=[(\[])|:(?=//)|\.(?<=www\.)", r"\\\g<0>", text)


def to_latex(boards: Sequence[Leaderboard]) -> str:
    """Return leaderboards as LaTeX tables for `booktabs`, with the best results in bold."""
    return "\n".join(map(_latex, boards))


def _latex(board: Leaderboard) -> str:
    texts = display(board)
    first = texts.columns[:5]
    kept = [*first, *(name for name in ("published", "seeds") if name in texts)]
    table = texts[kept].map(_escaped)
    best = [last == 1 for last in board.rows["last_rank"]]
    table.iloc[best, 2] = table.iloc[best, 2].map(lambda text: rf"\textbf{{{text}}}")
    caption = _escaped(". ".join([board.title, *(fact for fact in board.facts if fact)]) + ".")
    notes = _escaped(" ".join(board.notes))
    return "\n".join([
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\centering",
        _tabular(table, f"rl{'r' * (len(kept) - 2)}"),
        rf"\par\smallskip\footnotesize {notes}",
        r"\end{table}",
        "",
    ])


def _tabular(escaped: pd.DataFrame, columns: str | None = None) -> str:
    """Return the LaTeX ``tabular`` of a table of escaped texts; `columns` is its column format."""
    heads = [_escaped(str(name)) for name in escaped.columns]
    table = escaped.set_axis(heads, axis=1).to_latex(index=False, column_format=columns)
    return str(table).rstrip()


def _escaped(text: str) -> str:
    """Escape the characters of a text that LaTeX would interpret."""
    return text.translate(LATEX)


def to_csv(boards: Sequence[Leaderboard]) -> str:
    """Return all rows as CSV, with numbers of ten digits; missing values are empty.

    A text that a spreadsheet would calculate has an apostrophe in front.
    """
    frames = [board.rows.assign(leaderboard=board.name) for board in boards]
    if not frames:
        return ""
    rows = _rounded(pd.concat(frames))
    texts = rows.select_dtypes(exclude="number").map(_no_formula)
    return str(rows.assign(**texts).to_csv(index=False, lineterminator="\n"))


def _rounded(rows: pd.DataFrame) -> pd.DataFrame:
    """Round numbers to ten significant digits: the last of the sixteen depend on the CPU."""
    numbers = rows.select_dtypes(include="float")
    return rows.assign(**numbers.map(lambda value: float(f"{value:.{DIGITS}g}")))


def _no_formula(value: object) -> object:
    text = value if isinstance(value, str) else ""
    signed = text[:1] in {"+", "-"} and not text[1:2].isdigit()
    return f"'{text}" if signed or text[:1] in {"=", "@"} else value


def to_json(boards: Sequence[Leaderboard]) -> str:
    """Return leaderboards as JSON, with numbers of ten digits; missing values are null."""
    content = [
        {
            "name": board.name,
            "title": board.title,
            "metric": board.metric,
            "unit": board.unit,
            "facts": [fact for fact in board.facts if fact],
            "notes": list(board.notes),
            "rows": json.loads(_rounded(board.rows).to_json(orient="records", double_precision=15)),
        }
        for board in boards
    ]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def text_of(frame: pd.DataFrame, form: str) -> str:
    """Format a table of texts as ``table``, ``markdown``, ``latex``, ``csv`` or ``json``."""
    flat = frame if frame.index.name is None else frame.reset_index()
    if form == "json":
        return f"{flat.to_json(orient='records', indent=1, force_ascii=False)}\n"
    if form == "csv":
        return str(flat.to_csv(index=False))
    if form == "latex":
        return f"{_tabular(flat.map(_escaped))}\n"
    style = "github" if form == "markdown" else "simple"
    text = flat.to_markdown(index=False, tablefmt=style, disable_numparse=True)
    return f"{text}\n" if len(flat) else "No cell has finished yet; see mixbench status.\n"


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f} k" if value >= 1000 else f"{value:.0f}"
