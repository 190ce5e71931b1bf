"""Values and texts as the pages write them."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from mixbench.records.schema import MetricRecord

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
GITHUB = re.compile(r"\b([A-Za-z0-9][\w-]*/[\w.-]+)@([0-9a-f]{7,40})\b")
WHEN = {
    "last": "last epoch", "best_validation": "best in validation",
    "median_tail": "median of last",
}  # fmt: skip
MANY = 100_000  # from here on, thousands are separated


def plain(value: object) -> str:
    """Return a value of a record or a default as people write it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return {True: "yes", False: "no", "": "empty"}.get(value) or str(value)
    if abs(value) >= MANY:
        return f"{value:,.0f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def by_metric(metrics: Sequence[MetricRecord]) -> list[dict[str, str | float | None]]:
    """Return a row for each metric of a record, with its values after the epochs it is told for."""
    asked = [at for at in WHEN if any(metric.at == at for metric in metrics)]
    rows: dict[str, dict[str, str | float | None]] = {}
    for metric in metrics:
        name = f"{metric.name} (trivial baseline)" if metric.trivial_baseline else metric.name
        better = "higher" if metric.higher_is_better else "lower"
        about = {"metric": name, "unit": metric.unit, "better": better}
        row = rows.setdefault(name, {**about, **{WHEN[at]: None for at in asked}})
        row[WHEN[metric.at]] = metric.value
        row["test items"] = metric.n
    return list(rows.values())


def breakable(name: str) -> Markup:
    """Return a name as HTML that may break into lines after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def linked(text: str) -> Markup:
    """Return a text as HTML in which papers of arXiv and commits of GitHub are links."""
    found = str(escape(text))
    found = ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', found)
    found = GITHUB.sub(r'<a href="https://github.com/\1/tree/\2">\1@\2</a>', found)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", found))  # trusted: escaped above
