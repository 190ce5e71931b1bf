"""From a settled cell to its record. Reads manifests and metrics; trains and decides nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixbench.declare import Metric, Reference
from mixbench.engines.board import BROKEN, Board
from mixbench.errors import Damaged
from mixbench.plan.cells import Cell, Unit
from mixbench.plan.data import data_of
from mixbench.plan.tuning import candidates
from mixbench.records.parts import (
    Artifact,
    Cost,
    DataRecord,
    Hardware,
    MetricRecord,
    ReferenceRecord,
    Software,
    StageRecord,
    Tuning,
    UnitRecord,
)
from mixbench.records.schema import SCHEMA, Record, parse, to_json
from mixbench.registry.fingerprint import digest
from mixbench.store import Store, now, read_json, write_bytes

ROLES = {
    "curve.json": "curve",
    "predictions.safetensors": "predictions",
    "metrics.json": "metrics",
    "method.safetensors": "buffers",
    "search.json": "search",
}


def record_path(store: Store, cell: Cell, key: str) -> Path:
    """Return where a cell's record lies; `key` is its last stage's."""
    name = f"{cell.model}.{cell.protocol}.s{cell.seed}.{key[:8]}.json"
    return store.records / cell.task.card.name / cell.method.card.name / name


def write_record(number: int, board: Board, command: Sequence[str]) -> Record:
    """Write the record of a settled cell, the plan's number so and so, unless it is there."""
    cell, chain = board.plan.cells[number], board.plan.chains[number]
    path = record_path(board.store, cell, chain[-1])
    if board.states[chain[-1]].status == "cached" and path.exists():
        with suppress(Damaged):  # a damaged record is written again
            known = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
            if known.status == "ok":
                return known
    for key in board.plan.rests_on(chain[-1]):
        if board.status(key) == "done":
            board.payers.setdefault(key, number)
    record = _record(number, board, command)
    write_bytes(path, to_json(record).encode())
    return record


def _record(number: int, board: Board, command: Sequence[str]) -> Record:
    cell, chain = board.plan.cells[number], board.plan.chains[number]
    final = board.states[chain[-1]]
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "cell": f"{cell.label}/{chain[-1][:8]}",
        "created": now(),
        "status": "ok",
        "reason": None,
        "log": None,
        "method": _unit(cell.method),
        "task": _unit(cell.task),
        "model": cell.model,
        "protocol": "custom" if cell.custom else cell.protocol,
        "recipe": dict(board.plan.stages[chain[-1]].identity["recipe"]),
        "seed": cell.seed,
        "data": _data(cell, chain),
        "command": list(command),
    }
    if final.status in BROKEN:
        return Record(**facts | _failure(board, chain))
    rests_on = [k for k in board.plan.rests_on(chain[-1]) if board.store.finished(k)]
    manifests = {key: board.store.manifest(key) for key in rests_on}
    ran = {key for key in rests_on if board.payers.get(key) == number}
    # Where weights were given, nothing but the evaluation ran.
    train = manifests[board.plan.stages[chain[-1]].inputs.get("train", chain[-1])]
    # Of the candidates of a tuning, the chosen one's files are those of the choice.
    kept = [k for k in chain if not (cell.grid and board.plan.stages[k].kind == "train")]
    return Record(
        **facts,
        tuning=_tuning(cell, train) if cell.grid else None,
        stages=[_stage(key, manifests[key], key in chain, key in ran) for key in rests_on],
        metrics=list(_metrics(board.store, chain[-1])),
        references=list(_references(cell)),
        cost=_cost(manifests, ran),
        hardware=Hardware(**train["hardware"]),
        software=Software(**train["software"]),
        artifacts=[a for key in kept for a in _artifacts(board.store, key, manifests[key])],
    )


def _failure(board: Board, chain: Sequence[str]) -> dict[str, Any]:
    """Return what a record says of a cell without result: what failed, before what it broke."""
    order = ("failed", "diverged", "skipped")
    broken = {key: status for key in chain if (status := board.status(key)) in BROKEN}
    cause = min(broken, key=lambda key: order.index(broken[key]))
    return {
        "status": broken[cause],
        "reason": board.states[cause].reason,
        "log": _log(board.store, cause),
        **dict.fromkeys(("stages", "metrics", "references", "artifacts"), ()),
        **dict.fromkeys(("cost", "hardware", "software")),
    }


def _tuning(cell: Cell, manifest: dict[str, Any]) -> Tuning:
    """Return what was tuned, and to what."""
    found, every = manifest["result"]["tuning"], candidates(cell.recipe, cell.grid)
    chosen = every[found["chosen"]]
    return Tuning(
        grid={name: list(values) for name, values in cell.grid.items()},
        trainings=len(every),
        diverged=len(found["diverged"]),
        chosen={name: getattr(chosen, name) for name in cell.grid},
        value=found["value"],
    )


def _unit(unit: Unit) -> UnitRecord:
    return UnitRecord(
        name=unit.card.name,
        version=unit.card.version,
        parameters=dict(unit.parameters),
        changed=unit.changed,
        source=unit.card.source,
        code=digest(unit.card.path),
        distribution=unit.card.distribution,
    )


def _data(cell: Cell, chain: Sequence[str]) -> DataRecord:
    data = data_of(cell.task.card, cell.task.parameters)
    # Generated data is what its stage made: the stage's key stands for the content.
    content = cell.data.digest or chain[0]
    return DataRecord(name=data.name, version=data.version, origin=cell.data.origin, digest=content)


def _stage(key: str, manifest: dict[str, Any], own: bool, ran: bool) -> StageRecord:  # noqa: FBT001  # two facts of one stage
    return StageRecord(
        kind=manifest["spec"]["kind"],
        key=key,
        own=own,
        state="ran" if ran else "reused",
        started=manifest["started"],
        ended=manifest["ended"],
        wall_s=manifest["cost"]["wall_s"],
        steps=manifest.get("steps"),
        resumed_at_steps=manifest["resumed_at_steps"],
    )


def _metrics(store: Store, key: str) -> Iterator[MetricRecord]:
    content = read_json(store.path(key, "metrics.json"))
    declared = {facts["name"]: Metric(**facts) for facts in content["declared"]}
    for at, scores in content["metrics"].items():
        for name, score in scores.items():
            metric = declared[name]
            yield MetricRecord(
                **declaration(metric),
                value=score["value"],
                at=at,
                n=content["n"],
                stderr=score["stderr"],
                by_class=_by_class(score, content) if at == "last" else None,
                items=content["items"] if metric.primary and at == "last" else None,
            )


def declaration(metric: Metric | MetricRecord) -> dict[str, Any]:
    """Return what a task declares of a metric, as records hold it."""
    names = ("name", "unit", "higher_is_better", "primary", "floor", "detail")
    return {name: getattr(metric, name) for name in names}


def _by_class(score: dict[str, Any], content: dict[str, Any]) -> dict[str, float | None] | None:
    values = score["by_class"]
    return None if values is None else dict(zip(content["classes"], values, strict=True))


def _references(cell: Cell) -> Iterator[ReferenceRecord]:
    """Yield the published numbers for the cell, if it follows the publication on its data."""
    references: Sequence[Reference] = cell.task.card.declared.get("references", ())
    wanted = (cell.method.card.name, cell.model, cell.protocol)
    for ref in references:
        published = (ref.method, ref.model, ref.protocol) == wanted
        if published and not (cell.custom or cell.grid) and cell.data.origin == "official":
            yield ReferenceRecord(
                metric=ref.metric,
                value=ref.value,
                deviation=ref.deviation,
                num_seeds=ref.num_seeds,
                citation=ref.citation,
                where=ref.where,
                remark=ref.remark,
            )


def _cost(manifests: dict[str, dict[str, Any]], ran: set[str]) -> Cost:
    costs = {key: manifest["cost"] for key, manifest in manifests.items()}
    last = [cost for cost in costs.values() if "parameters" in cost][-1]

    def total(name: str, keys: set[str]) -> float:
        return float(sum(costs[key].get(name, 0) for key in keys))

    everything = set(costs)
    gpu = [cost["peak_gpu_gib"] for cost in costs.values() if cost["peak_gpu_gib"] is not None]
    return Cost(
        wall_s_marginal=total("wall_s", ran),
        wall_s_total=total("wall_s", everything),
        train_s=total("train_s", everything),
        eval_s=total("eval_s", everything),
        gpu_hours_marginal=total("gpu_s", ran) / 3600,
        gpu_hours_total=total("gpu_s", everything) / 3600,
        images=int(total("images", everything)),
        parameters=last["parameters"],
        extra_parameters=last["extra_parameters"],
        peak_host_gib=max(cost["peak_host_gib"] for cost in costs.values()),
        peak_gpu_gib=max(gpu) if gpu else None,
        energy_kwh=_energy(costs.values()),
    )


def _energy(costs: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the energy of all stages that used a GPU; None where one of them was not measured."""
    used = [cost.get("energy_kwh") for cost in costs if cost.get("gpu_s")]
    return None if not used or None in used else float(sum(filter(None, used)))


def _artifacts(store: Store, key: str, manifest: dict[str, Any]) -> Iterator[Artifact]:
    folder = store.folder(key).relative_to(store.root)
    for name, written in manifest["files"].items():
        role = ROLES.get(name) or ("weights" if name.startswith("weights/") else None)
        if role:
            yield Artifact(role=role, path=f"{folder}/{name}", **written)  # type: ignore[arg-type]  # pydantic checks the role


def _log(store: Store, key: str) -> str | None:
    return str(store.log(key).relative_to(store.root)) if store.log(key).exists() else None
