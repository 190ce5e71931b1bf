"""Checks that methods, models and weights fit their tasks, before any training starts."""

import importlib
import os
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from mixbench.engines.fork_server import become_new, started
from mixbench.errors import UsageError
from mixbench.plan.graph import Plan
from mixbench.registry.units import find
from mixbench.storage.spec import STAGES, Stage
from mixbench.storage.store import Store


def preflight(plan: Plan, store: Store, *, fresh: bool) -> None:
    """Check in another process that methods, models and weights fit their tasks.

    Only cells that can fail the check are checked: those whose method defines `check`, whose
    model the task does not declare, or whose task reads parameters from files. A cell is checked
    by its training stage, or by its evaluation if no stage trains its weights.

    Parameters
    ----------
    store
        Store whose finished stages are skipped.
    fresh
        Whether finished training stages will be run again, and so are checked too.

    Raises
    ------
    UsageError
        If a check fails; the message is that of the first failure.
    """
    stages = {}
    for key, stage in plan.stages.items():
        if _begins(stage) and _may_not_fit(stage) and (fresh or not store.finished(key)):
            unseeded = stage.label.rpartition("/")[0]  # same check for all seeds and candidates
            stages[unseeded] = STAGES.text(stage)
    if not stages:
        return
    receive, send = Pipe(duplex=False)
    with receive:
        with send:
            started(_check, send, [*stages.values()], daemon=True)
        try:
            complaints = receive.recv()
        except EOFError:
            complaints = ["The check of the methods failed to run: its process ended."]
    if complaints:
        raise UsageError(complaints[0])


def _check(answer: Connection, stages: list[str]) -> None:
    """Send the error messages of stages; what a method prints does not reach the terminal."""
    become_new(Path(os.devnull))
    checks = importlib.import_module("mixbench.worker.preflight")
    try:
        found = checks.complaints(stages)
    except Exception as error:  # noqa: BLE001  # a method may raise anything
        found = [f"The check of the methods failed to run: {type(error).__name__}: {error}"]
    answer.send(found)


def _begins(stage: Stage) -> bool:
    """Return whether a stage trains a model, or evaluates one that no stage trains."""
    given = stage.kind == "evaluate" and "train" not in stage.inputs
    return stage.kind == "train" or given


def _may_not_fit(stage: Stage) -> bool:
    """Return whether a stage has a checking method, an undeclared model or parameter files."""
    files, run = stage.paths.unit_files, stage.run
    method = find("method", files.get("method", run.method.name))
    task = find("task", files.get("task", stage.identity.task.name))
    foreign = run.model not in task.declared.models
    return "check" in method.defines or foreign or bool(stage.paths.parameter_files.get("task"))
