"""Finished trainings of earlier code that may count for a plan, after a proof.

A key changes with every module that a stage uses, also if the change does not affect the result. A
training whose identity differs from a planned one only in its code is a candidate: its process runs
the first and the last steps again, and adopts the earlier result if they are bit-identical.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace

from mixbench.errors import MixbenchError
from mixbench.plan.graph import Plan, card_of
from mixbench.storage.manifest import Manifest
from mixbench.storage.spec import Stage
from mixbench.storage.store import Store


def adoption_plan(plan: Plan, store: Store) -> Plan:
    """Return the part of a plan that adopts earlier results: candidates and their inputs.

    Parameters
    ----------
    plan
        Plan of the cells, with the current code.
    store
        Store with the finished stages.

    Returns
    -------
    adoption
        Plan with one chain for each candidate, which ends with its training. Trainings that are no
        candidates are not part of it, nor are those that start from them.
    """
    found = candidates(plan.stages.values(), store)
    stages = dict(plan.stages)
    for key, earlier in found.items():
        paths = replace(stages[key].paths, earlier=earlier)
        stages[key] = replace(stages[key], paths=paths)
    chains = [tuple(plan.rests_on(key)) for key in found]
    kept = [
        chain
        for chain in chains
        if all(
            stages[key].kind in {"data", "prepare"} or key in found or store.finished(key)
            for key in chain
        )
    ]
    return Plan(plan.cells[:1] * len(kept), tuple(kept), stages)


def candidates(stages: Iterable[Stage], store: Store) -> dict[str, str]:
    """Return the key of an earlier result for each unfinished training that has one."""
    waiting = [s for s in stages if s.kind == "train" and not store.finished(s.key)]
    if not waiting:
        return {}
    earlier: dict[str, Manifest] = {}
    for manifest in store.manifests():
        stage = manifest.spec.stage
        if stage.kind == "train" and any(name.startswith("proof/") for name in manifest.files):
            earlier[_without_code(stage)] = manifest
    return {s.key: earlier[text].key for s in waiting if (text := _without_code(s)) in earlier}


def _without_code(stage: Stage) -> str:
    """Return everything that identifies a stage except its code and the keys of its inputs.

    Parameters that have their defaults are left out: a method or task may have got a parameter
    since, whose default means what was before.
    """
    content = asdict(stage.identity) | {"code": "", "inputs": sorted(stage.inputs)}
    with suppress(MixbenchError):  # a unit of a plugin that is not installed any more
        own = {role: card_of(stage, role).defaults for role in stage.identity.units}
        for role, defaults in own.items():
            unit = content["run"]["method"] if role == "method" else content[role]
            unit["parameters"] = {
                name: value
                for name, value in unit["parameters"].items()
                if name not in defaults or value != defaults[name]
            }
    return json.dumps(content, sort_keys=True)
