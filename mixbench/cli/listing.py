"""``mixbench list`` and ``mixbench info``: what there is."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mixbench.cli.options import as_json
from mixbench.errors import InvalidUnit, UnknownName

if TYPE_CHECKING:
    from mixbench.declare import Reference
    from mixbench.registry.cards import Card, Kind

KINDS: dict[str, "Kind"] = {"methods": "method", "tasks": "task"}


@click.command("list")
@click.argument("what", type=click.Choice((*KINDS, "suites")))
@as_json
def list_units(what: str, *, as_json: bool) -> None:
    """List the methods, the tasks, or the suites of the checkout."""
    lines = _suites() if what == "suites" else _units(KINDS[what])
    if as_json:
        click.echo(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        click.echo(f"{name:{width}}  {text}")


def _units(kind: "Kind") -> dict[str, str]:
    """Return what every unit says of itself in a line."""
    from mixbench.registry.units import available, find

    lines = {}
    for name in available(kind):
        try:
            card = find(kind, name)
            lines[name] = card.summary + (f" ({card.distribution})" if card.distribution else "")
        except InvalidUnit as error:  # one broken file must not hide the others
            lines[name] = f"broken: {error}"
    return lines


def _suites() -> dict[str, str]:
    """Return the question of every suite here."""
    from mixbench.leaderboard.suites import read_suite, suites

    return {name: read_suite(folder).question for name, folder in suites().items()}


@click.command()
@click.argument("name")
@as_json
def info(name: str, *, as_json: bool) -> None:
    """Show what a method or task says of itself."""
    card = _find_any(name)
    if as_json:
        click.echo(json.dumps(_facts(card), indent=1, ensure_ascii=False, default=_plain))
        return
    for line in (*_head(card), *_parameters(card), *_task_lines(card)):
        click.echo(line)
    click.echo(f"\n{card.path}")


def _head(card: "Card") -> Iterator[str]:
    yield f"{card.kind} {card.name}, version {card.version}, {card.source}\n{card.summary}\n"
    for field, text in card.header.items():
        yield click.wrap_text(f"{field:8} {text}", 98, subsequent_indent=" " * 9)


def _parameters(card: "Card") -> Iterator[str]:
    """Yield every parameter with its default and type, and what protocols make of them."""
    if card.parameters:
        yield "\nparameters (--set NAME.PARAM=VALUE)"
    texts = {f"{card.name}.{p.name}={_text(p.default)}": p.annotation for p in card.parameters}
    width = max(map(len, texts), default=0)
    for text, annotation in texts.items():
        yield f"  {text:{width}}  {annotation}"
    for protocol, values in card.declared.get("by_protocol", {}).items():
        yield f"  under protocol {protocol}: {_named(values)}"


def _task_lines(card: "Card") -> Iterator[str]:
    """Yield what only tasks have: protocols, models, metrics."""
    declared = card.declared
    whose = f"of {declared['evaluates']}" if "evaluates" in declared else "too"
    if "evaluates" in declared:
        yield f"\nevaluates the models of {declared['evaluates']}, and trains none"
    for protocol, recipe in declared.get("protocols", {}).items():
        generated = ", on generated images" if protocol in declared["synthetic"].protocols else ""
        yield f"\nprotocol {protocol}{generated} (each field is a parameter {whose})"
        yield f"  {_named(vars(recipe))}"
        for model, values in declared.get("by_model", {}).get(protocol, {}).items():
            yield f"  with {model}: {_named(values)}"
    if models := declared.get("models"):
        timm = ", and every model of timm" if declared.get("takes_timm") else ""
        yield f"\nmodels: {', '.join(models)}{timm}"
    for metric in declared.get("metrics", ()):
        better = "higher" if metric.higher_is_better else "lower"
        ranked = ", ranked" if metric.primary else ", of no method" if metric.floor else ""
        yield f"metric {metric.name} in {metric.unit}, {better} is better{ranked}"
    yield from _published(declared.get("references", ()))


def _text(default: Any) -> str:
    """Return a default as it is given: of several numbers, with commas."""
    if not isinstance(default, tuple):
        return str(default)
    from mixbench.declare.attacks import eps_text

    return ",".join(eps_text(n) if isinstance(n, float) else str(n) for n in default)


def _published(references: Sequence["Reference"]) -> Iterator[str]:
    """Yield the rows of published tables."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for ref in references:
        row = (ref.citation, ref.where, ref.metric, ref.model, ref.remark)
        deviation = f" ± {ref.deviation:g}" if ref.deviation is not None else ""
        rows.setdefault(row, []).append(f"{ref.method} {ref.value:g}{deviation}")
    for (citation, where, metric, model, remark), numbers in rows.items():
        yield f"\npublished {metric} of {model}: {citation}, {where}"
        yield f"  {', '.join(numbers)}" + (f"  ({remark})" if remark else "")


def _find_any(name: str) -> "Card":
    from mixbench.registry.units import available, find, kind_of

    known = [*available("method"), *available("task")]
    if not name.endswith(".py") and name not in known:
        raise UnknownName("method or task", name, known)
    return find(kind_of(name), name)


def _facts(card: "Card") -> dict[str, Any]:
    return {
        "kind": card.kind,
        "name": card.name,
        "version": card.version,
        "source": card.source,
        "path": str(card.path),
        "summary": card.summary,
        "header": card.header,
        "parameters": {
            p.name: {"type": p.annotation, "default": p.default} for p in card.parameters
        },
        "declared": card.declared,
    }


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _plain(value: object) -> Any:
    """Return a declaration as JSON can hold it."""
    return dict(vars(value))
