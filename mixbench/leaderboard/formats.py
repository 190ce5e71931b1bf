"""Format leaderboards for the terminal and as Markdown, LaTeX, CSV and JSON."""

import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
from rich.console import Console
from rich.markup import escape

from mixbench.declare import BASELINE
from mixbench.leaderboard.numbers import difference_text, p_text, plus_minus
from mixbench.leaderboard.table import Leaderboard

DIGITS = 10  # of numbers in CSV and JSON
PIPE = 100  # characters per line if the output is not a terminal
MOST_COLUMNS = 9  # of a Markdown table
LONG_HEAD = 12  # characters of a head in LaTeX
# What a narrow terminal leaves out last, after the method, its score and the difference.
KEPT = ("p (Holm)", "seeds", "#")
COSTS = (
    ("time (min)", "minutes", "{:.2f}"),
    ("GPU-hours", "gpu_hours", "{:.3g}"),
    ("GPU-hours (total)", "gpu_hours_total", "{:.3g}"),
    ("GPU (GiB)", "peak_gpu_gib", "{:.1f}"),
    ("RAM (GiB)", "peak_host_gib", "{:.1f}"),
    ("energy (kWh)", "energy_kwh", "{:.3g}"),
)
COST_FORMS = {  # of the columns of `costs`
    "extra parameters": "{:,.0f}",
    "extra / model parameters": "{:.1%}",
    "step time (ms)": "{:.1f}",
    "base models (s)": "{:.1f}",
    "preparation (s)": "{:.1f}",
    "images": "{:,.0f}",
    "total time (s)": "{:.1f}",
    f"time vs {BASELINE}": "{:.2f} x",
    "seeds": "{:.0f}",
}
# Special characters of LaTeX, and characters that its fonts have only in math mode.
LATEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
})  # fmt: skip


def display(board: Leaderboard) -> pd.DataFrame:
    """Return the results of a leaderboard as formatted text, with display headings."""
    rows = board.rows
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
    columns["seeds"] = _numbers_of_seeds(rows)
    return pd.DataFrame(columns)


def _numbers_of_seeds(rows: pd.DataFrame) -> list[str]:
    """Return the number of seeds of each row, with a mark if they are not those of the baseline."""
    both = zip(rows["n"], rows["other_seeds"], strict=True)
    return [f"{number}{'*' if other else ''}" for number, other in both]


def display_more(board: Leaderboard) -> list[pd.DataFrame]:
    """Return the other metrics of a leaderboard, and the costs, as tables of formatted text."""
    rows = board.rows
    metrics = {name: _alike(rows[name]) for name in board.secondary}
    if not rows["train_accuracy"].isna().all():
        metrics["train accuracy (%)"] = _formatted(rows["train_accuracy"], "{:.1f}")
    metrics["best - last"] = _formatted(rows["best_gap"], "{:+.2f}")
    costs = {
        heading: _formatted(rows[name], form)
        for heading, name, form in COSTS
        if not rows[name].isna().all()
    }
    costs["images"] = [_thousands(value) for value in rows["images"]]
    if rows["extra_parameters"].fillna(0).any():
        costs["extra parameters"] = _formatted(rows["extra_parameters"], "{:,.0f}")
    costs["verified"] = list(rows["verified"])
    tables = []
    for columns in (metrics, costs):
        names = [name for name, texts in columns.items() if any(texts)]
        for start in range(0, len(names), MOST_COLUMNS - 1):
            part = {name: columns[name] for name in names[start : start + MOST_COLUMNS - 1]}
            tables.append(pd.DataFrame({"method": list(rows["method"]), **part}))
    return tables


def _rank(first: float, last: float) -> str:
    """Format the ranks that a method can have; empty if the comparisons allow no verdict."""
    if math.isnan(first):
        return ""
    return f"{first:.0f}" if first == last else f"{first:.0f}-{last:.0f}"


def _formatted(values: Iterable[float], form: str) -> list[str]:
    """Format numbers; NaN becomes an empty text."""
    return ["" if math.isnan(value) else form.format(value) for value in values]


def _alike(values: pd.Series) -> list[str]:
    """Format the numbers of a column with as many decimals as three digits of the largest need."""
    largest = values.abs().max()
    if not (math.isfinite(largest) and largest > 0):
        return _formatted(values, "{:.3g}")
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 6)
    return _formatted(values, f"{{:.{decimals}f}}")


def to_terminal(board: Leaderboard) -> None:
    """Print a leaderboard; leave out what matters least if the terminal is too narrow."""
    console = Console()
    width = console.width if console.is_terminal else PIPE
    whole = display(board)
    for table in display_more(board):
        whole = whole.join(table.drop(columns="method"))
    texts, dropped = _fitting(whole, width)
    head, *lines = _lines(texts)
    more = [f"Left out: {', '.join(dropped)}; see mixbench report --format markdown."]
    notes = [*board.notes, *(more if dropped else ())]
    for bold, plain in (
        (_wrapped(board.title, width), [_wrapped(fact, width) for fact in board.facts if fact]),
        (head, [f" {'─' * (min(len(head), width) - 1)}", *lines, "",
                *(_wrapped(note, width) for note in notes)]),
    ):  # fmt: skip
        console.print(f"\n[bold]{escape(bold)}[/bold]", highlight=False, soft_wrap=True)
        # One call for all lines: each call of rich is slow.
        console.print("\n".join(plain), markup=False, highlight=False, soft_wrap=True)


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most this width, between words."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _lines(texts: pd.DataFrame) -> Iterator[str]:
    """Yield the heading and the rows of a table; a rich table would take ten times as long.

    What a label has in brackets stands below it.
    """
    columns = [[str(name), *texts[name]] for name in texts.columns]
    widths = [
        max(_longest(text) if name == "method" else len(text) for text in column)
        for name, column in zip(texts.columns, columns, strict=True)
    ]
    before = 1 + sum(width + 3 for width in widths[: list(texts.columns).index("method")])
    for row in zip(*columns, strict=True):
        below: list[str] = []
        shown = []
        for name, text, width in zip(texts.columns, row, widths, strict=True):
            if name == "method":
                first, *below = _label_lines(text)
                shown.append(first.ljust(width))
            else:
                shown.append(text.rjust(width))
        yield f" {'   '.join(shown)}".rstrip()
        yield from (" " * before + line for line in below)


def _label_lines(label: str) -> list[str]:
    """Return a label in lines: the name of the method, then each changed parameter."""
    name, bracket, changed = label.partition("[")
    if not bracket:
        return [label]
    return [name, *(f"  {one}" for one in changed.rstrip("]").split(","))]


def _longest(label: str) -> int:
    return max(map(len, _label_lines(label)))


def _fitting(texts: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns that fit into a width, and the headings of the others.

    Columns that matter most are kept; all keep their order.
    """
    needed = {
        name: 3
        + max(len(name), *(_longest(t) if name == "method" else len(t) for t in texts[name]))
        for name in texts.columns
    }
    names = list(texts.columns)
    at = names.index("method")
    important = [at, at + 1, at + 2, *(names.index(n) for n in KEPT if n in names)]
    order = [*dict.fromkeys([*important, *range(len(names))])]
    kept: set[str] = set()
    left = width + 1  # no space after the last column
    for place in order:
        name = names[place]
        left -= needed[name]
        if left < 0 and len(kept) >= 3:  # method, score and difference
            break
        kept.add(name)
    return texts[[n for n in names if n in kept]], [n for n in names if n not in kept]


def to_markdown(boards: Sequence[Leaderboard]) -> str:
    """Return leaderboards as Markdown, with headings, tables and notes."""
    parts = []
    for board in boards:
        facts = "\n".join(f"- {in_markdown(fact)}" for fact in board.facts if fact)
        results, *others = (_in_markdown(table) for table in (display(board), *display_more(board)))
        notes = map(in_markdown, board.notes)
        parts.append("\n\n".join([f"### {in_markdown(board.title)}", facts, results, *notes]))
        if board.probabilities:
            parts.append("\n\n".join(_probabilities(board)))
        parts += [f"#### Further metrics and costs of {in_markdown(board.title)}", *others]
    return "\n\n".join(parts) + "\n"


def _in_markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown."""
    align = ["left" if name in {"method", "verified"} else "right" for name in table.columns]
    texts = table.map(in_markdown)
    return str(texts.to_markdown(index=False, disable_numparse=True, colalign=align))


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
    r"""Return leaderboards as LaTeX tables that fit into a column of text.

    They need ``\usepackage{array,booktabs,siunitx}``. A result is bold if its method is
    significantly better than all others.
    """
    return "\n".join(map(_latex, boards))


def _stacked(head: str) -> str:
    """Return a column's head, in two lines if it is long: it must fit into half a page's width."""
    if len(head) <= LONG_HEAD or "_" not in head:
        return _escaped(head)
    ends = [place.end() for place in re.finditer("_", head)]
    middle = min(ends, key=lambda end: abs(2 * end - len(head)))
    return rf"\shortstack{{{_escaped(head[:middle])}\\{_escaped(head[middle:])}}}"


def _latex(board: Leaderboard) -> str:
    rows = board.rows
    decimals = max(len(text.split(" ")[0].partition(".")[2]) for text in _scores(board))
    whole = max(len(f"{abs(mean):.0f}") for mean in rows["mean"])
    unlike = rows["n"].nunique() > 1 or rows["other_seeds"].any()
    heads = ["method", rf"{{{_stacked(f'{board.metric} ({board.unit})')}}}",
             rf"vs {BASELINE} [95\,\% CI]", "$p$", *(["seeds"] if unlike else [])]  # fmt: skip
    pairs = rows[["difference", "low", "high"]].itertuples(index=False, name=None)
    lines = []
    numbers = _numbers_of_seeds(rows)
    every = zip(rows["method"], _scores(board), rows["last_rank"], pairs, rows["p"], numbers,
                strict=True)  # fmt: skip
    for label, score, last, pair, p, n in every:
        name = re.sub(r"(\\_|,|=|(?=\[))", r"\1\\allowbreak ", _escaped(label))  # may break there
        shown = rf"\bfseries {score}" if last == 1 else score
        cells = (
            name,
            shown,
            _signed(difference_text(*pair)),
            p_text(p).replace("<", "$<$"),
            *([n] if unlike else []),
        )
        lines.append(f"{' & '.join(cells)} \\\\")
    width = ".18" if unlike else ".28"  # of the methods' names, which break
    number = rows["n"].iloc[0]
    seeds = [] if unlike else [f"{number} seed{'' if number == 1 else 's'}"]
    facts = "; ".join([*seeds, *filter(None, board.facts)])
    return "\n".join([
        r"\begin{table}",
        rf"\caption{{{_escaped(board.title)}.}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', board.name.lower())}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{@{{}}>{{\raggedright\arraybackslash}}p{{{width}\linewidth}}"
        rf"S[table-format={whole}.{decimals}(2),separate-uncertainty,detect-weight]"
        rf"lr{'r' if unlike else ''}@{{}}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\scriptsize {_escaped(facts)}. "
        rf"{_escaped(' '.join(board.notes))}\end{{minipage}}",
        r"\end{table}",
        "",
    ])


def _scores(board: Leaderboard) -> list[str]:
    """Return means with their deviations as siunitx reads them."""
    both = zip(board.rows["mean"], board.rows["std"], strict=True)
    return [plus_minus(mean, std).replace("±", r"\pm") for mean, std in both]


def _signed(text: str) -> str:
    """Return a difference with its interval in math mode."""
    return f"${text}$".replace(" ", r"\ ") if text else ""


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


def display_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """Return the costs of methods as formatted text."""
    known = costs.columns.intersection([*COST_FORMS])
    return costs.assign(**{n: _formatted(costs[n].astype(float), COST_FORMS[n]) for n in known})


def text_of(frame: pd.DataFrame, form: str, width: int | None = None) -> str:
    """Format a table as ``table``, ``markdown``, ``latex``, ``csv`` or ``json``.

    A ``table`` that is wider than `width` is printed row by row, with one line for each column.
    """
    flat = frame if frame.index.name is None else frame.reset_index()
    if form == "json":
        return f"{flat.to_json(orient='records', indent=1, force_ascii=False)}\n"
    if form == "csv":
        return str(flat.to_csv(index=False))
    if form == "latex":
        return f"{_tabular(flat.map(_escaped))}\n"
    style = "github" if form == "markdown" else "simple"
    text = flat.to_markdown(index=False, tablefmt=style, disable_numparse=True)
    if form == "table" and width is not None and max(map(len, text.splitlines())) > width:
        text = "\n\n".join(_row_by_row(flat, width))
    return f"{text}\n" if len(flat) else "No cell has finished yet; see mixbench status.\n"


def _row_by_row(frame: pd.DataFrame, width: int) -> Iterator[str]:
    """Yield each row as a heading and one line for each column that says something."""
    first, *others = frame.columns
    longest = max(len(str(name)) for name in others)
    for row in frame.to_dict("records"):
        lines = [f"  {name:{longest}}  {row[name]}" for name in others
                 if str(row[name]) not in {"", "-"}]  # fmt: skip
        yield "\n".join([_wrapped(str(row[first]), width), *lines])


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f} k" if value >= 1000 else f"{value:.0f}"
