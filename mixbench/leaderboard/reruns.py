"""Judge records by independent runs of their cells, and draw the cell of a submission to rerun."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path

from mixbench.errors import MixbenchError, UsageError
from mixbench.leaderboard.admission import BUILTIN, Asked
from mixbench.leaderboard.evidence import Evidence
from mixbench.leaderboard.ranks import compared, compared_by_seed
from mixbench.leaderboard.rescoring import predictions_of
from mixbench.plan.cells import Cell, weights_of
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.plan.workload import workloads
from mixbench.records.schema import Record
from mixbench.registry.parameters import Setting
from mixbench.storage.spec import PUBLISHED

LEAST_RERUNS = 3
MORE = 1.5  # a run on another machine has other bits, and then differs as another seed does
CHEAP = 500_000  # images that a rerun may pass through models: some minutes on a CPU
Runs = dict[int, Record]  # by seed


def judged(asked: Asked, records: Iterable[Record], reruns: Iterable[Record]) -> dict[str, str]:
    """Return how records differ from their reruns by digest; empty if they agree.

    A record is confirmed by a rerun that gives the same bits. Where the machines differ, it needs
    reruns of at least three seeds of its row: each difference to a rerun, and their mean, must be
    within the interval that the comparison of these reruns with each other has, and the items must
    differ little more than those of two reruns. Fewer reruns that differ decide nothing. No number
    of the submission enters the limits.
    """
    again: dict[Hashable, Runs] = defaultdict(dict)
    for rerun in reruns:
        again[asked.row(rerun)].setdefault(rerun.seed, rerun)
    rows: dict[Hashable, Runs] = defaultdict(dict)
    for record in records:
        other = again[asked.row(record)].get(record.seed)
        if other is not None and not _same_run(record, other):
            rows[asked.row(record)][record.seed] = record
    found: dict[str, str] = {}
    for row, own in rows.items():
        unequal = {seed: one for seed, one in own.items() if not same_bits(one, again[row][seed])}
        found |= {one.digest: "" for seed, one in own.items() if seed not in unequal}
        if unequal and len(again[row]) >= LEAST_RERUNS:
            found |= dict.fromkeys(
                (one.digest for one in unequal.values()), _disagreement(own, again[row])
            )
    return found


def _same_run(record: Record, rerun: Record) -> bool:
    """Return whether a rerun is the very run that was submitted, which confirms nothing."""
    return [s.started for s in record.stages] == [s.started for s in rerun.stages]


def same_bits(record: Record, rerun: Record) -> bool:
    """Return whether two runs have equal metrics at all points of training, items included."""
    one, other = predictions_of(record), predictions_of(rerun)
    equal = one is not None and other is not None and one.sha256 == other.sha256
    return equal and record.metrics == rerun.metrics


def _disagreement(own: Runs, again: Runs) -> str:
    """Return how the records of a row differ from reruns with other bits; empty if they agree."""
    seeds = sorted(again)
    shifted = {seed: again[seeds[place - 1]] for place, seed in enumerate(seeds)}
    first = next(iter(again.values()))
    names = [m.name for m in first.metrics if m.at == "last" and not m.trivial_baseline]
    wrong = filter(None, (_too_far(own, again, shifted, name) for name in names))
    if said := next(wrong, ""):
        return said
    usual = max(_of_items(again[seed], shifted[seed]) for seed in seeds)
    other = max(_of_items(own[seed], again[seed]) for seed in own)
    if other <= MORE * usual:
        return ""
    return (
        f"has items that differ from those of its reruns by {other:.4g} in the mean; two reruns "
        f"differ by {usual:.4g}"
    )


def _too_far(own: Runs, again: Runs, shifted: Runs, name: str) -> str:
    """Return how a metric differs from its reruns by more than these differ from each other."""
    primary = next(iter(again.values())).primary.name == name
    # What two seeds differ by, which is no difference at all.
    between = compared(again, shifted) if primary else compared_by_seed(again, shifted, name)
    of_mean = 0.0  # if nothing varies between reruns, nothing may differ from them
    if between is not None and between.low is not None and between.high is not None:
        of_mean = (between.high - between.low) / 2
    of_one = of_mean * len(again) ** 0.5
    differences = [_value(own[seed], name) - _value(again[seed], name) for seed in own]
    mean, largest = sum(differences) / len(own), max(differences, key=abs)
    if abs(mean) <= of_mean * (len(again) / len(own)) ** 0.5 and abs(largest) <= of_one:
        return ""
    return (
        f"{name} differs from its reruns by {mean:+.4g} in the mean and {largest:+.4g} at most; "
        f"these differ from each other by {of_mean:.4g} in the mean and {of_one:.4g} at most"
    )


def _value(record: Record, name: str) -> float:
    return next(m.value for m in record.metrics if (m.name, m.at) == (name, "last"))


def _of_items(one: Record, other: Record) -> float:
    """Return by how much the items of two runs differ in the mean, without regard to the sign."""
    first, second = one.primary.items, other.primary.items
    if first is None or second is None:
        return 0.0 if first is second else math.inf
    return float(abs(first.scores - second.scores).mean())


def drawn(evidence: Evidence, added: Iterable[Path], commit: str) -> Record | None:
    """Return the added record whose cell is to be run again; None if none is cheap to run.

    The draw depends on the commit, which the submitter does not choose freely. Only cells of
    built-in methods whose data is on this machine can be drawn.
    """

    def lot(path: Path) -> str:
        place = path.relative_to(evidence.folder)
        return hashlib.sha256(f"{commit} {evidence.name} {place}".encode()).hexdigest()

    # One after the other, because looking at a cell lists its data.
    cheap = (path for path in sorted(added, key=lot) if _is_cheap(evidence, path))
    return next((evidence.records[path] for path in cheap), None)


def _is_cheap(evidence: Evidence, path: Path) -> bool:
    """Return whether a record's cell can be run here, and passes few images through its models.

    Parameters of a row that the suite does not ask for could make any run expensive.
    """
    record = evidence.records[path]
    free = path in evidence.unasked and record.method.changed
    if record.status != "ok" or record.method.source != BUILTIN or record.tuning or free:
        return False
    try:
        (cell,) = cells_of(request_of(evidence, record, record.seed))
        found = workloads(plan([cell])).values()
    except MixbenchError:  # data that is not here
        return False
    images = sum(one.trained + one.searched + one.predicted for one in found)
    return cell.data.origin in PUBLISHED and images <= CHEAP and all(one.known for one in found)


def request_of(evidence: Evidence, record: Record, seed: int) -> Request:
    """Return the request for the cell of a record's row with a seed."""
    cell = evidence.asked.cell_of(record) or evidence.asked.beside(record)
    if cell is None:
        raise UsageError(f"The suite does not ask for {record.cell}.")
    method = record.method
    settings = [one for one in cell.settings if one.unit != cell.method.card.name]
    settings += [Setting(method.name, n, _text(method.parameters[n])) for n in method.changed]
    return Request(
        methods=[method.name],
        tasks=[cell.task.card.name],
        seeds=[seed],
        model=cell.model,
        protocol=cell.protocol,
        settings=settings,
        init=_init(cell),
    )


def _text(value: object) -> str:
    """Return the value of a parameter as ``--set`` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _init(cell: Cell) -> str | None:
    """Return the value of ``--init`` of a cell; None if its weights are the usual ones."""
    names = [name for name in weights_of(cell.task.card) if name in cell.task.changed]
    return str(cell.task.parameters[names[0]]) if names else None


def words(request: Request) -> list[str]:
    """Return a request as the words of ``mixbench run``."""
    found = ["run", "-m", *request.methods, "-t", *request.tasks]
    found += ["--model", str(request.model), "--protocol", str(request.protocol)]
    found += ["--seed", *map(str, request.seeds)]
    found += ["--init", request.init] if request.init else []
    texts = [f"{one.unit}.{one.parameter}={one.text}" for one in request.settings]
    return found + [word for text in texts for word in ("--set", text)]
