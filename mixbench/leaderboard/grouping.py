"""Which records answer the same question, and what the question is called."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mixbench.records.schema import Record


def method_label(record: Record) -> str:
    """Return the method's name with its changed parameters; a plugin file is marked."""
    method = record.method
    changed = ",".join(f"{name}={method.parameters[name]}" for name in method.changed)
    mark = "" if method.source == "builtin" else f" ({method.distribution or method.source})"
    return f"{method.name}[{changed}]{mark}" if changed else f"{method.name}{mark}"


def comparison_groups(records: Iterable[Record]) -> list[list[Record]]:
    """Return the current records of every question that is answered, in the leaderboards' order."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[group_key(record)].append(record)
    current = [_current(group) for group in groups.values()]
    answered = [group for group in current if any(r.status == "ok" for r in group)]
    return sorted(answered, key=lambda group: group_name(representative(group)))


def representative(group: Iterable[Record]) -> Record:
    """Return the first record with a result, which stands for its question."""
    return next(record for record in group if record.status == "ok")


def group_key(record: Record) -> str:
    """Return what must agree for two records to be compared."""
    task = record.task
    parts = [task.name, task.version, task.parameters, record.model, record.protocol]
    parts += [record.recipe, record.data.origin, record.data.digest]
    parts += [record.tuning.grid] if record.tuning else []
    return json.dumps(parts, sort_keys=True)


def at_equal_images(records: Sequence[Record]) -> list[Record]:
    """Return records of any number of epochs as answers to one question.

    Epochs become a parameter of the method, told where they are not the most that a record has.
    """
    most = max((record.recipe["epochs"] for record in records), default=0)
    found = []
    for record in records:
        method, epochs = record.method, record.recipe["epochs"]
        if epochs != most:
            method = method.model_copy(
                update={
                    "changed": [*method.changed, "epochs"],
                    "parameters": {**method.parameters, "epochs": epochs},
                }
            )
        recipe = {**record.recipe, "epochs": most}
        parts = {"method": method, "recipe": recipe, "protocol": "custom"}
        found.append(record.model_copy(update=parts))
    return found


def _current(group: Iterable[Record]) -> list[Record]:
    """Return the newest record of every method and seed, none of an older code or version.

    Numbers of different code, versions or parameters have no common mean.
    """
    ordered = sorted(group, key=lambda record: record.created)
    newest = {method_label(record): record.method for record in ordered}
    same = [record for record in ordered if record.method == newest[method_label(record)]]
    return list({(method_label(record), record.seed): record for record in same}.values())


def origin(record: Record) -> list[str]:
    """Return what a question's name says of its data: nothing, if they are the official ones."""
    return [] if record.data.origin == "official" else [record.data.origin]


def changes(record: Record) -> list[str]:
    """Return what tells a question from the task's plain one."""
    changed = [f"{name}={record.task.parameters[name]}" for name in record.task.changed]
    if record.protocol == "custom":
        changed += [f"{name}={record.recipe[name]}" for name in ("epochs", "batch_size", "lr")]
    return [*changed, *(["tuned"] if record.tuning else [])]


def group_name(record: Record) -> str:
    """Return what a record's question is called, fit for a file."""
    task = record.task.name
    parts = [task, record.model, record.protocol, *origin(record), *changes(record)]
    return ".".join(parts).replace("/", "_")  # of paths among the parameters
