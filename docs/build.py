"""Fill in what the pages of this folder take from the program itself: `make docs`.

A page says where by ``<!-- begin NAME -->`` and ``<!-- end -->``; what stands between them is the
answer of the function of that name.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mixbench.cli import main
from mixbench.contract.loading import load_task
from mixbench.declare import Recipe
from mixbench.engines.settings import Settings
from mixbench.leaderboard.build import read_answers
from mixbench.leaderboard.suite import Suite
from mixbench.plan.request import base_values
from mixbench.records.schema import Record
from mixbench.registry.cards import TaskCard
from mixbench.registry.modules import Kind
from mixbench.registry.parameters import setting_text
from mixbench.registry.units import find, paths
from mixbench.site.charts import side_by_side
from mixbench.testing import METHOD_CHECKS, TASK_CHECKS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
EFFECTS = FOLDER / "effects.svg"
BLOCK = re.compile(r"<!-- begin ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages, the README first."""
    return [ROOT / "README.md", *sorted(FOLDER.glob("*.md"))]


def built(page: str) -> str:
    """Return a page with its blocks filled in."""

    def block(match: re.Match[str]) -> str:
        text = "\n".join(BLOCKS[match[1]]()).rstrip()
        return f"<!-- begin {match[1]} -->\n\n{text}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def clothing_table() -> Iterator[str]:
    """Yield the table of the suite `clothing_finetune`, without its notes."""
    page = (ROOT / "leaderboards/clothing_finetune/README.md").read_text(encoding="utf-8")
    board = re.search(r"^\| +# \|.*?(?=^$)", page, re.DOTALL | re.MULTILINE)
    assert board is not None
    yield from board[0].rstrip().splitlines()


def commands() -> Iterator[str]:
    """Yield a section for every command, with its arguments and options."""
    yield from _command(main, "mixbench")


def _command(command: click.Command, name: str) -> Iterator[str]:
    """Yield a command's section, and those of the commands below it."""
    context = click.Context(command, info_name=name)
    if not isinstance(command, click.Group):
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## {name}\n\n```\n{name} {usage}\n```\n"
        yield f"{_prose(command.help or '')}\n"
        options = [
            p.get_help_record(context) for p in command.params if isinstance(p, click.Option)
        ]
        told = [record for record in options if record]
        if told:
            yield _table(("option", ""), [(f"`{left}`", right) for left, right in told])
        return
    for inner in command.list_commands(context):
        child = command.get_command(context, inner)
        assert child is not None
        yield from _command(child, f"{name} {inner}")


def _prose(text: str) -> str:
    """Return a command's help, a line for each paragraph."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```\n{paragraph[2:]}\n```" if paragraph[0] == "\b" else " ".join(paragraph.split())
        for paragraph in filter(None, paragraphs)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def record() -> Iterator[str]:
    """Yield a section for every part of a record, the whole first."""
    yield from _fields(Record, "##", ("field", "type", "meaning"))


def settings() -> Iterator[str]:
    """Yield what the settings' file may hold."""
    yield from _fields(Settings, "###", ("field", "type", "default", "meaning"))


def suite() -> Iterator[str]:
    """Yield what a suite's file may hold."""
    yield from _fields(Suite, "###", ("field", "type", "default", "meaning"))


def _fields(root: type[BaseModel], level: str, columns: Sequence[str]) -> Iterator[str]:
    """Yield a section for a file's content, and for every part of it."""
    seen: list[type[BaseModel]] = [root]
    for part in seen:
        about, meanings = _attributes(inspect.getdoc(part) or "")
        yield f"{level} {part.__name__}\n\n{about}\n"
        rows = []
        for name, field in part.model_fields.items():
            seen += [other for other in _parts(field.annotation) if other not in seen]
            told = {
                "field": f"`{field.alias or name}`",
                "type": f"`{_type(field.annotation)}`",
                "default": _default(field),
                "meaning": meanings.get(name, ""),
            }
            rows.append([told[column] for column in columns])
        yield _table(columns, rows)


def _default(field: FieldInfo) -> str:
    """Return what a field is if it is left out; nothing if that is empty or nothing."""
    if field.is_required():
        return "(needed)"
    value = field.default
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`" if isinstance(value, (str, int, float)) and value != "" else ""


def _parts(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the parts of a file that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts(inner)


def _type(annotation: object) -> str:
    """Return a type as JSON knows it, without limits."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        text = _type(inner[0])
    elif kind is Literal:
        text = " | ".join(f'"{value}"' for value in inner)
    elif kind in {Union, UnionType}:
        text = " | ".join(map(_type, inner))
    elif kind is tuple:
        text = f"list[{_type(inner[0])}]"
    elif kind is not None:
        text = f"{kind.__name__}[{', '.join(map(_type, inner))}]"
    else:
        text = "null" if annotation is NoneType else getattr(annotation, "__name__", "Any")
    return text


def _attributes(docstring: str) -> tuple[str, dict[str, str]]:
    """Return what a class's docstring says of the class, and of its attributes by name."""
    about, _, listed = docstring.partition("\n\nAttributes\n----------\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if line.startswith(" "):
            for name in names:
                meanings[name] = f"{meanings.get(name, '')} {line.strip()}".strip()
        elif line:
            stems, _, unit = line.partition(" : ")
            names = stems.split(", ")
            meanings |= dict.fromkeys(names, f"{unit}:" if unit else "")
    return " ".join(about.split()), meanings


def methods() -> Iterator[str]:
    """Yield a section for every method: where it is from, what differs, its parameters."""
    for name in paths("method"):
        yield from _unit("method", name, ("Paper", "Source", "Differs"))


def tasks() -> Iterator[str]:
    """Yield a section for every task: data, split, recipes, metrics, published numbers."""
    for name in paths("task"):
        card = find("task", name)
        yield from _unit("task", name, ("Data", "Licence", "Split", "Recipe", "Expect"))
        task = load_task(card)
        metrics = [
            f"**{metric.name}**" if metric.primary else metric.name
            for metric in task(**base_values(card, "")).metrics
            if not metric.detail
        ]
        yield f"Metrics, the one that ranks in bold: {', '.join(metrics)}.\n"
        if card.declared.evaluates:
            yield f"It evaluates the models of `{card.declared.evaluates}`.\n"
        else:
            yield _recipes(card)
        sources = sorted({f"{one.citation}, {one.where}" for one in task.references})
        if sources:
            yield f"Published numbers beside the measured ones: {'; '.join(sources)}.\n"


def _unit(kind: Kind, name: str, heads: Sequence[str]) -> Iterator[str]:
    """Yield what the head of a unit's file says, and its parameters."""
    card = find(kind, name)
    yield f"## {name}\n\n{card.summary.rstrip('.')}.\n"
    yield "\n".join(f"- **{head}**: {card.header[head]}" for head in heads if head in card.header)
    yield ""
    values = ", ".join(f"`{name}={setting_text(value)}`" for name, value in card.defaults.items())
    if values:
        yield f"Parameters and their defaults: {values}.\n"


def recipe() -> Iterator[str]:
    """Yield the fields of a recipe, with their defaults."""
    meanings = _attributes(inspect.getdoc(Recipe) or "")[1]
    rows = [
        [
            f"`{field.name}`",
            "" if field.default is MISSING else f"`{field.default}`".replace("``", ""),
            meanings[field.name],
        ]
        for field in fields(Recipe)
    ]
    yield _table(("field", "default", "meaning"), rows)


def _recipes(card: TaskCard) -> str:
    """Return what the protocols of a task differ in, from each other or from the usual."""
    usual = {field.name: field.default for field in fields(Recipe)}
    rows = []
    for name, recipe in card.declared.protocols.items():
        told = {key: value for key, value in asdict(recipe).items() if value != usual[key]}
        rows.append((f"`{name}`", ", ".join(f"{key} {value}" for key, value in told.items())))
    return _table(("protocol", "recipe, if different from the default"), rows)


def method_checks() -> Iterator[str]:
    """Yield a table of the checks of a method."""
    yield _checks(METHOD_CHECKS)


def task_checks() -> Iterator[str]:
    """Yield a table of the checks of a task."""
    yield _checks(TASK_CHECKS)


def _checks(checks: Sequence[Callable[..., str]]) -> str:
    rows = []
    for check in checks:
        claim, _, remedy = (inspect.getdoc(check) or "").partition("\n\nElse: ")
        rows.append((f"`{check.__name__}`", claim, remedy))
    return _table(("check", "claim", "what to do if it fails"), rows)


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "clothing-table": clothing_table,
    "commands": commands,
    "record": record,
    "recipe": recipe,
    "settings": settings,
    "suite": suite,
    "methods": methods,
    "tasks": tasks,
    "method-checks": method_checks,
    "task-checks": task_checks,
}


def effects() -> str:
    """Return the chart of the README: differences on two sets of photographs, as SVG."""
    clothes, cifar = (
        read_answers(ROOT / "leaderboards" / name).boards
        for name in ("clothing_finetune", "cifar10_few")
    )
    shown = {
        "Photographs of clothes, fine-tuned": clothes[0],
        "CIFAR-10, 100 photographs a class": next(b for b in cifar if "per_class=100," in b.title),
    }
    return side_by_side(shown).replace(
        "<svg ", '<svg style="background:#fff" font-family="sans-serif" ', 1
    )


if __name__ == "__main__":
    for path in pages():
        text = path.read_text(encoding="utf-8")
        path.write_text(built(text), encoding="utf-8")
    EFFECTS.write_text(effects(), encoding="utf-8")
    sys.stdout.write(f"{len(pages())} pages and {EFFECTS.name}\n")
