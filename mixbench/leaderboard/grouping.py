"""Group comparable records into comparison groups, and name methods and groups."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set

from mixbench.declare.facts import EXECUTION, TRIAL, USUAL, ParameterValue
from mixbench.records.schema import Record
from mixbench.registry.parameters import setting_text
from mixbench.storage.spec import PUBLISHED


def method_label(record: Record) -> str:
    """Return the method's name, its changed parameters, and its source if not built in."""
    method = record.method
    changed = ",".join(f"{name}={setting_text(method.parameters[name])}" for name in method.changed)
    mark = "" if method.source == "builtin" else f" ({method.distribution or method.source})"
    return f"{method.name}[{changed}]{mark}" if changed else f"{method.name}{mark}"


def comparison_groups(records: Iterable[Record]) -> list[list[Record]]:
    """Return the comparison groups that have a result, sorted by name."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in without_rescored(records):
        groups[group_key(record)].append(record)
    apart = [_told_apart(group) for group in groups.values()]
    answered = [group for group in apart if any(r.status == "ok" for r in group)]
    return sorted(answered, key=lambda group: _order(representative(group)))


def _order(record: Record) -> tuple[str | int, ...]:
    """Return by what groups are sorted: names, and the number of training images of each class."""
    number = record.task.parameters.get(PER_CLASS)
    number = number if isinstance(number, int) else 0
    return record.task.name, record.model, record.protocol, number, group_name(record)


def trial(record: Record) -> list[str]:
    """Return what makes a record that of a trial, as in limit=500; empty if nothing does."""
    before = [name for name in record.pretraining if name.rpartition(".")[2] in TRIAL]
    return [
        *(f"{name}={record.recipe[name]}" for name in TRIAL if record.recipe.get(name)),
        *(f"{name}={record.pretraining[name]}" for name in before),
    ]


def representative(group: Iterable[Record]) -> Record:
    """Return the first record of a comparison group whose status is ``ok``."""
    return next(record for record in group if record.status == "ok")


def group_key(record: Record) -> str:
    """Return the key of a record's comparison group; records with equal keys are compared."""
    task = record.task
    parts = [task.name, task.version, task.parameters, record.model, record.protocol]
    parts += [record.recipe, *origin(record), record.data.digest]
    parts += [record.tuning.grid] if record.tuning else []
    parts += [record.pretraining] if record.pretraining else []
    if base := record.base_task:
        parts += [base.name, base.version, base.parameters]
    return json.dumps(parts, sort_keys=True)


def at_equal_images(records: Sequence[Record]) -> list[Record]:
    """Return records with different numbers of epochs as members of one comparison group.

    The number of epochs becomes a parameter of the method. It is marked as changed if it is not the
    largest number of epochs.
    """
    most = max((record.recipe["epochs"] for record in records), default=0)
    found = []
    for record in records:
        epochs, recipe = record.recipe["epochs"], {**record.recipe, "epochs": most}
        equal = record if epochs == most else _with_parameter(record, "epochs", epochs)
        found.append(equal.model_copy(update={"recipe": recipe, "protocol": "custom"}))
    return found


def without_rescored(records: Iterable[Record]) -> list[Record]:
    """Return the records without the originals of those that were scored again."""
    records = list(records)
    replaced = {record.rescored for record in records if record.rescored}
    return [r for r in records if r.digest not in replaced] if replaced else records


def _told_apart(group: Sequence[Record]) -> list[Record]:
    """Return records whose labels are different for different code, and of which each cell has one.

    Results of different code cannot be averaged, and no clock says which code is meant: methods of
    one label with different code get the digest of their code as a parameter, and runs of one code
    that differ in anything else the key of their last stage.
    """
    once = {
        (record.cell, method_label(record)): record
        for record in sorted(group, key=lambda r: (r.status == "ok", r.written))
    }
    records = [once[cell] for cell in sorted(once)]
    for name, value_of in (("code", _code), ("key", _key)):
        values: dict[str, set[str]] = defaultdict(set)
        seeds = Counter((method_label(record), record.seed) for record in records)
        for record in records:
            values[method_label(record)].add(value_of(record))
        doubtful = {label for (label, _), count in seeds.items() if name == "code" or count > 1}
        records = [
            _with_parameter(record, name, value_of(record))
            if method_label(record) in doubtful and len(values[method_label(record)]) > 1
            else record
            for record in records
        ]
    return records


def _code(record: Record) -> str:
    return record.method.code[:8]


def _key(record: Record) -> str:
    return record.cell.rpartition("/")[2]


def _with_parameter(record: Record, name: str, value: ParameterValue) -> Record:
    """Return a record with another changed parameter of its method, which is part of its label."""
    method = record.method.model_copy(
        update={
            "changed": [*record.method.changed, name],
            "parameters": {**record.method.parameters, name: value},
        }
    )
    return record.model_copy(update={"method": method})


def origin(record: Record) -> list[str]:
    """Return the data origin for the name of a comparison group; empty for published data."""
    return [] if record.data.origin in PUBLISHED else [record.data.origin]


def own_data(record: Record) -> list[str]:
    """Return the name of the user's own data, with digits of its contents; empty for other data."""
    if record.data.origin != "own":
        return []
    return [f"{record.data.name}-{record.data.digest[:8]}"]


PER_CLASS = "per_class"  # how many training images, which is said in each heading
STATED = ("epochs", "batch_size", "lr")  # of every changed recipe
UNSTATED = frozenset({"model", "threads", "tail"})  # the model is part of every name


def _plain(value: object) -> str:
    """Return a value of a recipe as it is stated in names."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def changes(record: Record) -> list[str]:
    """Return the changed parameters and recipe values of a record's comparison group."""
    given = record.task.parameters
    changed = [f"{name}={setting_text(given[name])}" for name in record.task.changed]
    if base := record.base_task:
        own = base.parameters
        changed += [f"{base.name}.{name}={setting_text(own[name])}" for name in base.changed]
    changed += [f"{name}={text}" for name, text in sorted(record.pretraining.items())]
    stated: Set[str] = EXECUTION
    if record.protocol == "custom":
        changed += [f"{name}={record.recipe[name]}" for name in STATED]
        stated = USUAL.keys() - UNSTATED - set(STATED)
    changed += [
        f"{name}={_plain(record.recipe[name])}"
        for name in sorted(stated)
        if _plain(record.recipe.get(name, USUAL[name])) != _plain(USUAL[name])
    ]
    return [*changed, *(["tuned"] if record.tuning else [])]


def group_name(record: Record) -> str:
    """Return the name of a record's comparison group, usable as a file name."""
    parts = [record.task.name, record.model, record.protocol]
    parts += [*origin(record), *own_data(record), *changes(record)]
    return ".".join(parts).replace("/", "_")  # parameters may be paths
