"""Write the record of a finished cell from the manifests and metrics of its stages."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixbench.errors import Damaged, one_line
from mixbench.plan.cells import Cell
from mixbench.plan.graph import Plan
from mixbench.plan.status import BROKEN, Outcome
from mixbench.plan.tuning import candidates
from mixbench.records.declared import (
    Declared,
    data_named,
    declaration,
    origin_of_cell,
    references,
)
from mixbench.records.schema import (
    SCHEMA,
    Artifact,
    ArtifactRole,
    ContentsRecord,
    Cost,
    DataRecord,
    MetricRecord,
    Record,
    StageRecord,
    Tuning,
    parse,
    to_json,
)
from mixbench.records.stage_metrics import METRICS, ScoreFacts, StageMetrics
from mixbench.storage.files import now, write_bytes
from mixbench.storage.manifest import Manifest, StageCost
from mixbench.storage.spec import Stage
from mixbench.storage.store import Store

ROLES: Mapping[str, ArtifactRole] = {
    "curve.json": "curve",
    "predictions.safetensors": "predictions",
    "compact.safetensors": "compact_predictions",
    "metrics.json": "metrics",
    "method.safetensors": "buffers",
    "search.json": "search",
}


def record_path(store: Store, plan: Plan, number: int) -> Path:
    """Return the path of the record of a cell of a plan.

    It depends on what the user asks for and not on code, versions or the content of files: when
    these change, the record of the new result replaces the earlier one.
    """
    cell, chain = plan.cells[number], plan.chains[number]
    asked = [_asked(plan.stages[key]) for key in plan.rests_on(chain[-1])]
    digits = hashlib.blake2b(json.dumps(asked, default=dict).encode(), digest_size=4).hexdigest()
    name = f"{cell.model}.{cell.protocol}.s{cell.seed}.{digits}.json"
    return store.records / cell.task.card.name / cell.method.card.name / name


def current_record(store: Store, plan: Plan, number: int) -> Record | None:
    """Return the record of a cell of a plan; None if the current code has not written one.

    Raises
    ------
    Damaged
        If the file is not a valid record.
    """
    path = record_path(store, plan, number)
    if not path.exists():
        return None
    record = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    return record if record.cell.endswith(f"/{plan.chains[number][-1][:8]}") else None


def _asked(stage: Stage) -> list[object]:
    """Return what the user asks of a stage: units, parameters, recipe, seed, and paths of files."""
    identity, paths = stage.identity, stage.paths
    units = {
        role: [unit.name, {**unit.parameters, **paths.replaced_parameters.get(role, {})}]
        for role, unit in identity.units.items()
    }
    run = identity.run and [identity.run.model, identity.run.recipe.values(), identity.run.seed]
    return [stage.kind, units, run, paths.data, paths.unit_files]


@dataclass(frozen=True)
class SettledCell:
    """A cell of a plan whose stages have all ended.

    Attributes
    ----------
    plan
        Plan that contains the cell.
    store
        Store that holds the results of the stages.
    number
        Index of the cell in the plan.
    outcomes
        Outcome of each of the cell's own stages, by key; stages that were not needed are absent.
    ran
        Keys of the stages that were computed for this cell, not reused.
    """

    plan: Plan
    store: Store
    number: int
    outcomes: Mapping[str, Outcome]
    ran: frozenset[str]

    @property
    def cell(self) -> Cell:
        """The cell itself."""
        return self.plan.cells[self.number]

    @property
    def chain(self) -> tuple[str, ...]:
        """Keys of the cell's own stages, ending with the evaluation."""
        return self.plan.chains[self.number]


def write_record(settled: SettledCell, command: Sequence[str]) -> Record:
    """Write the record of a cell, unless it exists with status ``ok``; return the record."""
    key = settled.chain[-1]
    path = record_path(settled.store, settled.plan, settled.number)
    if settled.outcomes[key].status == "cached" and path.exists():
        with suppress(Damaged):  # a damaged record is written again
            known = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
            if known.status == "ok" and known.cell == _name(settled):
                return known
    record = _record(settled, command)
    write_bytes(path, to_json(record).encode())
    return record


def _record(settled: SettledCell, command: Sequence[str]) -> Record:
    cell, chain, plan, store = settled.cell, settled.chain, settled.plan, settled.store
    declared = Declared.of(cell)
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "cell": _name(settled),
        "created": now(),
        "status": "ok",
        "reason": None,
        "log": None,
        "method": declared.method,
        "task": declared.task,
        "base_task": declared.base_task,
        "model": declared.model,
        "protocol": declared.protocol,
        "recipe": declared.recipe,
        **({"pretraining": declared.pretraining} if declared.pretraining else {}),
        "seed": declared.seed,
        "data": _data(cell, chain, store),
        "command": [one_line(word) for word in command],
    }
    if settled.outcomes[chain[-1]].status in BROKEN:
        return Record(**facts | _failure(settled))
    rests_on = [k for k in plan.rests_on(chain[-1]) if store.finished(k)]
    manifests = {key: store.manifest(key) for key in rests_on}
    ran = settled.ran.intersection(rests_on)
    # With given weights there is no training stage, only the evaluation.
    train = manifests[plan.stages[chain[-1]].inputs.get("train", chain[-1])]
    # Files of trainings that did not give the evaluated model are not the cell's.
    last = plan.stages[chain[-1]].inputs.get("train")
    kept = [k for k in chain if k == last or plan.stages[k].kind not in {"train", "tune"}]
    content = METRICS.read(store.checked(chain[-1], "metrics.json"))
    return Record(
        **facts,
        tuning=_tuning(cell, train) if cell.grid else None,
        stages=[_stage(key, manifests[key], key in chain, key in ran) for key in rests_on],
        metrics=list(_metrics(content)),
        normalization=content.normalization,
        held_out=content.held_out,
        train_accuracy=train.training.train_accuracy if train.training else None,
        references=references(cell, cell.data.origin),
        cost=_cost(manifests, ran),
        hardware=train.hardware,
        software=train.software,
        artifacts=[a for key in kept for a in _artifacts(store, key, manifests[key])],
    )


def _name(settled: SettledCell) -> str:
    """Return the name of a cell with the first digits of the key of its last stage."""
    return f"{one_line(settled.cell.label)}/{settled.chain[-1][:8]}"


def _failure(settled: SettledCell) -> dict[str, Any]:
    """Return the fields of a record without a result: the failure, not the stages it skipped."""
    order = ("failed", "diverged", "skipped")
    broken = {k: outcome for k, outcome in settled.outcomes.items() if outcome.status in BROKEN}
    cause = min(broken, key=lambda key: order.index(broken[key].status))
    return {
        "status": broken[cause].status,
        "reason": one_line(broken[cause].reason),
        "log": one_line(log) if (log := _log(settled.store, cause)) else None,
        **dict.fromkeys(("stages", "metrics", "references", "artifacts"), ()),
        **dict.fromkeys(("cost", "hardware", "software")),
    }


def _tuning(cell: Cell, manifest: Manifest) -> Tuning:
    """Return the result of the cell's grid search."""
    result = manifest.training.tuning if manifest.training else None
    if result is None:
        raise Damaged(f"The manifest of {manifest.key} is damaged: it has no training.tuning.")
    every = candidates(cell.recipe, cell.grid)
    chosen = every[result.chosen]
    return Tuning(
        grid={name: list(values) for name, values in cell.grid.items()},
        trainings=len(every),
        diverged=len(result.diverged),
        chosen={name: getattr(chosen, name) for name in cell.grid},
        value=result.value,
    )


def _data(cell: Cell, chain: Sequence[str], store: Store) -> DataRecord:
    name, version = data_named(cell)
    # Generated data has no published digest: the key of its stage identifies the content.
    content = cell.data.digest or chain[0]
    contents, note = None, store.data_note(cell.data.state, "duplicates")
    if str(cell.data.contents):
        duplicates = int(note.read_text()) if note.exists() else None
        contents = ContentsRecord(**asdict(cell.data.contents), duplicates=duplicates)
    return DataRecord(
        name=name,
        version=version,
        origin=origin_of_cell(cell),
        digest=content,
        contents=contents,
    )


def _stage(key: str, manifest: Manifest, own: bool, ran: bool) -> StageRecord:  # noqa: FBT001  # two facts of one stage
    return StageRecord(
        kind=manifest.spec.stage.kind,
        key=key,
        own=own,
        state="ran" if ran else "reused",
        started=manifest.started,
        ended=manifest.ended,
        wall_s=manifest.cost.wall_s,
        steps=manifest.training.steps if manifest.training else None,
        resumed_at_steps=list(manifest.resumed_at_steps),
        adopted_from=manifest.adopted_from,
    )


def _metrics(content: StageMetrics) -> Iterator[MetricRecord]:
    declared = {metric.name: metric for metric in content.declared}
    for at, scores in content.metrics.items():
        for name, score in scores.items():
            metric = declared[name]
            yield MetricRecord(
                **declaration(metric),
                value=score.value,
                at=at,
                n=content.n,
                stderr=score.stderr,
                by_class=_by_class(score, content) if at == "last" else None,
                items=content.items if metric.primary and at == "last" else None,
            )


def _by_class(score: ScoreFacts, content: StageMetrics) -> dict[str, float | None] | None:
    if score.by_class is None:
        return None
    return dict(zip(map(one_line, content.classes), score.by_class, strict=True))


def _cost(manifests: Mapping[str, Manifest], ran: frozenset[str]) -> Cost:
    """Return the cost of a cell: totals over all stages, marginal costs over those in `ran`."""
    every = [manifest.cost for manifest in manifests.values()]
    own = [manifest.cost for key, manifest in manifests.items() if key in ran]
    sizes = [(c.parameters, c.extra_parameters) for c in every if c.parameters is not None]
    parameters, extra_parameters = sizes[-1]
    gpu = [cost.peak_gpu_gib for cost in every if cost.peak_gpu_gib is not None]
    return Cost(
        wall_s_marginal=sum(cost.wall_s for cost in own),
        wall_s_total=sum(cost.wall_s for cost in every),
        train_s=sum(cost.train_s for cost in every),
        eval_s=sum(cost.eval_s for cost in every),
        gpu_hours_marginal=sum(cost.gpu_s for cost in own) / 3600,
        gpu_hours_total=sum(cost.gpu_s for cost in every) / 3600,
        images=sum(cost.images for cost in every),
        parameters=parameters,
        extra_parameters=extra_parameters or 0,
        peak_host_gib=max(cost.peak_host_gib for cost in every),
        peak_gpu_gib=max(gpu) if gpu else None,
        energy_kwh=_energy(every),
    )


def _energy(costs: Iterable[StageCost]) -> float | None:
    """Return the energy of all stages that used a GPU; None if one of them was not measured."""
    used = [cost.energy_kwh for cost in costs if cost.gpu_s]
    return None if not used or None in used else sum(filter(None, used))


def _artifacts(store: Store, key: str, manifest: Manifest) -> Iterator[Artifact]:
    folder = store.folder(key).relative_to(store.root)
    for name, written in manifest.files.items():
        role = "weights" if name.startswith("weights/") else ROLES.get(name)
        if role:
            path = f"{folder}/{name}"
            yield Artifact(role=role, path=path, sha256=written.sha256, bytes=written.bytes)


def _log(store: Store, key: str) -> str | None:
    return str(store.log(key).relative_to(store.root)) if store.log(key).exists() else None
