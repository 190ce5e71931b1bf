"""``mixbench info``: show what a method or task declares."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mixbench.cli.completion import completed, units
from mixbench.cli.options import as_json
from mixbench.cli.widths import wrapped
from mixbench.declare.facts import ParameterValue
from mixbench.errors import UnknownName

if TYPE_CHECKING:
    from mixbench.declare import Reference
    from mixbench.registry.cards import Attributes, Card, TaskCard


@click.command()
@click.argument("name", shell_complete=completed(units))
@as_json
def info(name: str, *, as_json: bool) -> None:
    """Show the description, parameters and protocols of a method or task."""
    card = _find_any(name)
    if as_json:
        click.echo(json.dumps(_facts(card), indent=1, ensure_ascii=False, default=vars))
        return
    from mixbench.registry.cards import TaskCard

    of_task = _task_lines(card) if isinstance(card, TaskCard) else ()
    for line in (*_head(card), *_parameters(card), *of_task):
        click.echo(line)
    click.echo(f"\n{card.path}")


def _head(card: "Card") -> Iterator[str]:
    yield f"{card.kind} {card.name}, version {card.version}, {card.source}"
    yield f"{wrapped(card.summary)}\n"
    for field, text in card.header.items():
        yield wrapped(text, 9, f"{field:8} ")


def _parameters(card: "Card") -> Iterator[str]:
    """Yield each parameter's default, type and description, and the values that protocols set."""
    from mixbench.registry.parameters import setting_text

    if card.parameters:
        yield "\nparameters (--set NAME.PARAM=VALUE)"
    for parameter in card.parameters:
        named = f"  {card.name}.{parameter.name}={setting_text(parameter.default)}  "
        yield wrapped(parameter.plain_type, 6, named)
        if parameter.description:
            yield wrapped(parameter.description, 6, " " * 6)
    for protocol, values in card.declared.by_protocol.items():
        yield wrapped(_named(values), 6, f"  under protocol {protocol}: ")


def _task_lines(card: "TaskCard") -> Iterator[str]:
    """Yield the lines that only tasks have: protocols, models, metrics, published results."""
    declared = card.declared
    whose = f"of {declared.evaluates}" if declared.evaluates else "of the task"
    if declared.evaluates:
        yield f"\nevaluates the models of {declared.evaluates}; trains no model"
    for protocol, recipe in declared.protocols.items():
        generated = ", on generated images" if protocol in declared.synthetic.protocols else ""
        yield f"\nprotocol {protocol}{generated} (each field is a parameter {whose})"
        yield wrapped(_named(vars(recipe)), 2, "  ")
        for model, values in declared.by_model.get(protocol, {}).items():
            yield wrapped(_named(values), 6, f"  with {model}: ")
    more = ["every model of timm and torchvision", "hf-hub:ORG/NAME", "./FILE.py"]
    models = [*declared.models, *(more if declared.takes_timm else [])]
    yield wrapped(", ".join(models), 2, "\nmodels: ")
    for metric in declared.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        ranked = (
            ", used for ranking"
            if metric.primary
            else ", trivial baseline"
            if metric.trivial_baseline
            else ""
        )
        yield f"metric {metric.name} in {metric.unit}, {better} is better{ranked}"
    yield from _published(declared.references)


def _published(references: Sequence["Reference"]) -> Iterator[str]:
    """Yield the published results, one group per citation, metric and model."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for ref in references:
        row = (ref.citation, ref.where, ref.metric, ref.model, ref.remark)
        std = f" ± {ref.std:g}" if ref.std is not None else ""
        rows.setdefault(row, []).append(f"{ref.method} {ref.value:g}{std}")
    for (citation, where, metric, model, remark), numbers in rows.items():
        yield wrapped(f"{citation}, {where}", 2, f"\npublished {metric} of {model}: ")
        yield wrapped(", ".join(numbers) + (f"  ({remark})" if remark else ""), 2, "  ")


def _find_any(name: str) -> "Card":
    from mixbench.registry.units import available, find, kind_of

    known = [*available("method"), *available("task")]
    if not name.endswith(".py") and name not in known:
        raise UnknownName("method or task", name, known)
    return find(kind_of(name), name)


def _facts(card: "Card") -> "Attributes":
    return {
        "kind": card.kind,
        "name": card.name,
        "version": card.version,
        "source": card.source,
        "path": str(card.path),
        "summary": card.summary,
        "header": card.header,
        "parameters": {
            p.name: {"type": p.plain_type, "default": p.default, "description": p.description}
            for p in card.parameters
        },
        "declared": card.attributes,
    }


def _named(values: Mapping[str, ParameterValue]) -> str:
    from mixbench.registry.parameters import setting_text

    return ", ".join(f"{name}={setting_text(value)}" for name, value in values.items())
