"""Group comparable records into comparison groups, and name methods and groups."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mixbench.records.schema import Record
from mixbench.storage.spec import PUBLISHED


def method_label(record: Record) -> str:
    """Return the method's name, its changed parameters, and its source if not built in."""
    method = record.method
    changed = ",".join(f"{name}={method.parameters[name]}" for name in method.changed)
    mark = "" if method.source == "builtin" else f" ({method.distribution or method.source})"
    return f"{method.name}[{changed}]{mark}" if changed else f"{method.name}{mark}"


def comparison_groups(records: Iterable[Record]) -> list[list[Record]]:
    """Return the comparison groups that have a result, sorted by name, without old records."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[group_key(record)].append(record)
    current = [_current(group) for group in groups.values()]
    answered = [group for group in current if any(r.status == "ok" for r in group)]
    return sorted(answered, key=lambda group: group_name(representative(group)))


def representative(group: Iterable[Record]) -> Record:
    """Return the first record of a comparison group whose status is ``ok``."""
    return next(record for record in group if record.status == "ok")


def group_key(record: Record) -> str:
    """Return the key of a record's comparison group; records with equal keys are compared."""
    task = record.task
    parts = [task.name, task.version, task.parameters, record.model, record.protocol]
    parts += [record.recipe, record.data.origin, record.data.digest]
    parts += [record.tuning.grid] if record.tuning else []
    return json.dumps(parts, sort_keys=True)


def at_equal_images(records: Sequence[Record]) -> list[Record]:
    """Return records with different numbers of epochs as members of one comparison group.

    The number of epochs becomes a parameter of the method. It is marked as changed if it is not the
    largest number of epochs.
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
    """Return the newest record of each method and seed.

    Records of a method with older code, version or parameters are omitted, because results of
    different code cannot be averaged.
    """
    ordered = sorted(group, key=lambda record: record.age)
    newest = {method_label(record): record.method for record in ordered}
    same = [record for record in ordered if record.method == newest[method_label(record)]]
    return list({(method_label(record), record.seed): record for record in same}.values())


def origin(record: Record) -> list[str]:
    """Return the data origin for the name of a comparison group; empty for published data."""
    return [] if record.data.origin in PUBLISHED else [record.data.origin]


def changes(record: Record) -> list[str]:
    """Return the changed parameters and recipe values of a record's comparison group."""
    changed = [f"{name}={record.task.parameters[name]}" for name in record.task.changed]
    if record.protocol == "custom":
        changed += [f"{name}={record.recipe[name]}" for name in ("epochs", "batch_size", "lr")]
    return [*changed, *(["tuned"] if record.tuning else [])]


def group_name(record: Record) -> str:
    """Return the name of a record's comparison group, usable as a file name."""
    task = record.task.name
    parts = [task, record.model, record.protocol, *origin(record), *changes(record)]
    return ".".join(parts).replace("/", "_")  # parameters may be paths
