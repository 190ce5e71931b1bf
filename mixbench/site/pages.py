"""Build the pages of the site: one for each suite, method, task and record."""

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from pydantic import JsonValue

import mixbench
from mixbench.declare import BASELINE
from mixbench.figures.style import method_of
from mixbench.leaderboard.build import (
    APART,
    UNASKED,
    Answered,
    answers,
    published_table,
    read_answers,
    rule_text,
)
from mixbench.leaderboard.evidence import FIGURE, FIGURES, artifact_path, tier_of
from mixbench.leaderboard.formats import (
    display,
    display_more,
    display_probabilities,
    probabilities_note,
)
from mixbench.leaderboard.grouping import (
    comparison_groups,
    group_name,
    method_label,
    representative,
)
from mixbench.leaderboard.overall import overall
from mixbench.leaderboard.suite import Suite
from mixbench.leaderboard.table import Leaderboard
from mixbench.records.schema import Record
from mixbench.registry.cards import Card
from mixbench.registry.modules import Kind
from mixbench.registry.units import find, paths
from mixbench.site import charts
from mixbench.site.boards import Board, comparisons, images_a_class, overview, subtitle
from mixbench.site.text import breakable, by_metric, linked, plain
from mixbench.storage.curves import read_curve
from mixbench.storage.files import write_bytes

PREVIEW = "mixes"  # the name of the most informative picture of a method
DOCS = "docs/index.html"  # the documentation, if it is built beside the leaderboards
STATIC = ("site.css", "site.js")
LEADS: Mapping[Kind, str] = {
    "method": "What each method does with images and labels. Each is one file, with its paper, the "
    "source that was read, and how it differs.",
    "task": "What methods are measured on: data, split, metrics and recipes.",
}
PREVIEW_DPI = 130


class Site:
    """A static site with the leaderboards of suites.

    Parameters
    ----------
    folders
        Folders of the suites.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = {folder.resolve().name: folder for folder in folders}
        self.answered = {name: read_answers(folder) for name, folder in self.folders.items()}
        answers_ = self.answered.items()
        self._titles = {name: answered.suite.title or name for name, answered in answers_}
        self.boards = {name: self._boards(name, a.boards, a.compared) for name, a in answers_}
        self.boards_beside = {
            name: self._boards(name, a.boards_beside, a.beside) for name, a in answers_
        }
        self._pages = Environment(
            loader=PackageLoader("mixbench.site"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.globals |= {
            "label": method_label,
            "version": mixbench.__version__,
            "documented": False,
        }
        self._pages.filters |= {
            "plain": plain, "linked": linked, "breakable": breakable, "method_of": method_of,
        }  # fmt: skip

    def build(self, out: Path) -> Iterator[Path]:
        """Write all pages to a folder; yield the path of each file.

        Existing files are overwritten.
        """
        for name in STATIC:
            yield _written(out / name, (Path(__file__).parent / "static" / name).read_text())
        for name, folder in self.folders.items():
            for figure in self.answered[name].evidence.figures:
                path = out / FIGURES / name / figure.relative_to(folder / FIGURES)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(figure, path, follow_symlinks=False)
        self._pages.globals["documented"] = (out / DOCS).is_file()
        yield from self._entrances(out)
        for name, answered in self.answered.items():
            yield self._suite(out, name, answered)
            for path, record in answered.records.items():
                yield from self._record(out, name, path, record)
        for kind in LEADS:
            for name in paths(kind):
                yield from self._unit(out, kind, find(kind, name))

    def _entrances(self, out: Path) -> Iterator[Path]:
        """Write the pages of the navigation, and what the search and the comparison read."""
        suites = [self._summary(name) for name in self.folders]
        shown = [(name, self.answered[name].suite, one) for name, one in overview(self.boards)]
        yield self._page(out, "index.html", suites=suites, overview=shown)
        yield self._page(out, "compare.html")
        for kind, lead in LEADS.items():
            cards = [find(kind, name) for name in paths(kind)]
            yield self._page(
                out, f"{kind}s.html", template="list.html", cards=cards, lead=lead,
                heading=f"{kind.capitalize()}s",
            )  # fmt: skip
        places: list[JsonValue] = [
            [self._titles[name], f"suites/{name}.html", one.suite.question]
            for name, one in self.answered.items()
        ]
        cards = [find(kind, name) for kind in LEADS for name in paths(kind)]
        places += [[card.name, f"{card.kind}s/{card.name}.html", card.summary] for card in cards]
        yield _written(out / "pages.js", _constant("PAGES", places))
        compared = comparisons(self._titles, self.boards)
        yield _written(out / "comparisons.js", _constant("BOARDS", compared))

    def _boards(
        self, name: str, boards: Sequence[Leaderboard], records: Sequence[Record]
    ) -> list[Board]:
        """Return leaderboards of a suite with the records that they are made of."""
        both = zip(boards, comparison_groups(records), strict=True)
        return [self._board(name, board, group) for board, group in both]

    def _board(self, name: str, board: Leaderboard, records: list[Record]) -> Board:
        effects = Markup(charts.differences(board))  # trusted
        drawn = {
            f"Difference to {BASELINE}": effects,
            "Score and cost": charts.cost(board),
            "Learning curves": charts.learning(
                self._curves(name, records), board.metric, board.unit
            ),
        }
        return Board(
            board=board,
            texts=display(board),
            more=display_more(board),
            effects=effects,
            subtitle=subtitle(board, records[0]),
            probabilities=display_probabilities(board).to_dict("records"),
            probabilities_note=probabilities_note(board),
            charts=[(title, Markup(svg)) for title, svg in drawn.items() if svg],  # trusted
            pictures=self._pictures(name, group_name(representative(records))),
            records=[self.answered[name].as_submitted.get(record.digest, record)
                     for record in sorted(records, key=lambda r: (method_label(r), r.seed))],
        )  # fmt: skip

    def _curves(self, name: str, records: Iterable[Record]) -> dict[str, list[charts.Curve]]:
        """Return the learning curves in a suite's folder, by method."""
        found: dict[str, list[charts.Curve]] = {}
        for record in records:
            for artifact in record.artifacts:
                path = artifact_path(self.folders[name], artifact)
                if artifact.role == "curve" and path.exists():
                    found.setdefault(method_label(record), []).append(read_curve(path))
        return found

    def _pictures(self, name: str, question: str) -> list[tuple[str, list[str]]]:
        folder = self.folders[name] / FIGURES
        found: dict[str, list[str]] = {}
        drawn = (folder / question).rglob(f"*{FIGURE}")
        for path in sorted(drawn, key=lambda path: (path.stem != PREVIEW, path)):
            method = "" if path.parent.name == question else path.parent.name
            found.setdefault(method, []).append(f"{FIGURES}/{name}/{path.relative_to(folder)}")
        return sorted(found.items())

    def _summary(self, name: str) -> dict[str, str | int | Suite | list[tuple[str, str]]]:
        answered = self.answered[name]
        return {
            "name": name,
            "suite": answered.suite,
            "answers": [*answers(answered.boards)],
            "records": len(answered.records),
        }

    def _suite(self, out: Path, name: str, answered: Answered) -> Path:
        found = overall(answered.boards)
        diagram = Markup(charts.critical_difference(found)) if found else ""  # trusted
        return self._page(
            out, f"suites/{name}.html", template="suite.html", boards=self.boards[name],
            overall=found, diagram=diagram, **self._summary(name),
            rule=rule_text(answered).replace("*", ""),
            published=published_table(answered.suite, answered.boards),
            boards_beside=self.boards_beside[name], unasked=UNASKED, apart=APART,
        )  # fmt: skip

    def _unit(self, out: Path, kind: Kind, card: Card) -> Iterator[Path]:
        shown = [
            (suite, board)
            for suite, boards in self.boards.items()
            for board in boards
            if any(getattr(record, kind).name == card.name for record in board.records)
        ]
        preview, told, helps = "", "", ""
        if kind == "method":
            named = (
                (", ".join([self._titles[suite], *images_a_class(one.records[0])]), one.board)
                for suite, one in shown
            )
            helps = charts.where_it_helps(card.name, named)
            preview = f"previews/{card.name}.webp"
            content, told = preview_of(card.name)
            write_bytes(out / preview, content)
            yield out / preview
        yield self._page(
            out, f"{kind}s/{card.name}.html", template="unit.html", card=card, shown=shown,
            preview=preview, told=told, helps=Markup(helps),  # trusted
            suites=self._titles,
        )  # fmt: skip

    def _record(self, out: Path, suite: str, path: Path, record: Record) -> Iterator[Path]:
        tier = tier_of(self.answered[suite].evidence.tiers, record)
        place = f"records/{record.digest[:16]}"
        yield _written(out / f"{place}.json", record.written)
        content: JsonValue = json.loads(record.written)
        yield self._page(
            out, f"{place}.html", template="record.html", record=record, content=content,
            metrics=by_metric(record.metrics), suite=suite, tier=tier,
            raw=f"{record.digest[:16]}.json", file=path.relative_to(self.folders[suite].parent),
        )  # fmt: skip

    def _page(self, out: Path, place: str, /, *, template: str = "", **context: object) -> Path:
        """Write a page; its links start with `top`, the relative path to the top of the site."""
        top = "../" * place.count("/")
        text = self._pages.get_template(template or place).render(top=top, here=place, **context)
        return _written(out / place, text)


def _written(path: Path, text: str) -> Path:
    write_bytes(path, text.encode())
    return path


@cache
def preview_of(name: str) -> tuple[bytes, str]:
    """Return what a method makes of three photographs, as WebP, and a remark if that is nothing."""
    from mixbench.figures.pictures import bundled
    from mixbench.figures.preview import drawn, preview

    rows = preview([find("method", name)], bundled(), Path(), "")
    stream = io.BytesIO()
    drawn(rows).savefig(stream, format="webp", dpi=PREVIEW_DPI)
    same = bool((rows[0].images == rows[-1].images).all())
    return stream.getvalue(), "It leaves them as they are." if same else ""


def _constant(name: str, content: JsonValue) -> str:
    """Return a script that defines a constant, in which no HTML element begins."""
    escaped = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    return f"const {name} = {escaped};\n"
