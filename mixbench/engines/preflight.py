"""Checks of data, and that methods, models and weights fit their tasks, before any training."""

import importlib
import os
import resource
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from mixbench.declare.facts import ADDED, USUAL
from mixbench.engines.fork_server import become_new, started
from mixbench.errors import DataError, UsageError
from mixbench.plan.graph import Plan, card_of
from mixbench.plan.workload import may_be_few
from mixbench.registry.cards import MethodCard, TaskCard
from mixbench.storage.spec import STAGES, Stage
from mixbench.storage.store import Store
from mixbench.worker.processes import end_with_parent

LONG_S = 10.0  # after which the user is told what is being done
# Longest time of the checks; that of the data lists a million files of a network disk.
MOST_S, MOST_DATA_S = 600.0, 3600.0


def preflight(plan: Plan, store: Store, notice: Callable[[str], None], *, fresh: bool) -> None:
    """Check in another process the data, and that methods, models and weights fit their tasks.

    The files of all splits are listed for data that this store has not seen. Only cells whose
    method, model or weights can fail are checked: those whose method defines `check`, whose
    model the task does not declare, whose task reads parameters from files, or whose training
    images may be too few. A cell is checked by its preparation or training, or by its evaluation
    if no stage trains its weights.

    Parameters
    ----------
    store
        Store whose finished stages are skipped; its logs/check.txt receives what the checks print.
    notice
        Function that shows a message to the user.
    fresh
        Whether finished stages will be run again, and so are checked too.

    Raises
    ------
    DataError
        If the data of a task fails its check.
    UsageError
        If another check fails; the message is that of the first failure.
    """
    waiting = [s for key, s in plan.stages.items() if fresh or not store.finished(key)]
    # One check for all seeds and candidates; of a preparation, rather than of its training.
    stages: dict[tuple[str, str], str] = {}
    for stage in waiting:
        if _begins(stage) and _may_not_fit(stage):
            which = stage.label.rpartition("/")[0], str(stage.paths.data)
            stages.setdefault(which, STAGES.text(stage))
    notes = {
        store.data_note(stage.data_key, "listed"): stage
        for stage in waiting
        if stage.paths.data is not None
    }
    data = {note: STAGES.text(stage) for note, stage in notes.items() if not note.exists()}
    if not (stages or data):
        return
    of_data, complaints = _answer([*data.values()], [*stages.values()], store.log("check"), notice)
    if of_data:
        raise DataError(of_data[0])
    if complaints:
        raise UsageError(complaints[0])
    for note in data:
        note.touch()


def _answer(
    data: list[str], stages: list[str], log: Path, notice: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Return the error messages about data and about stages, from another process."""
    most_s = MOST_DATA_S if data else MOST_S
    log.unlink(missing_ok=True)  # of an earlier run
    receive, send = Pipe(duplex=False)
    with receive:
        with send:
            process = started(_check, send, data, stages, log, daemon=True)
        if not receive.poll(LONG_S):
            notice(f"The data, methods and models are checked before the run; see {log}")
        if not receive.poll(most_s - LONG_S):
            process.kill()
            return [], [
                f"The check before the run did not end within {most_s / 60:g} minutes: a method's "
                f"`check` or `__init__`, a model or the data may hang. Its output is in {log}."
            ]
        try:
            answer: tuple[list[str], list[str]] = receive.recv()
        except EOFError:
            said = f"its process ended. Its output is in {log}."
            return [], [f"The check before the run failed to run: {said}"]
    return answer


def _check(answer: Connection, data: list[str], stages: list[str], log: Path) -> None:
    """Send error messages about data and stages; what a method prints goes to the log.

    The process ends with its parent and takes at most the memory that is available now.
    """
    end_with_parent(os.getppid())
    become_new(log)
    if (available := _available_bytes()) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (available, available))
    checks = importlib.import_module("mixbench.worker.preflight")
    try:
        of_data = checks.data_complaints(data)
        found = of_data, [] if of_data else checks.complaints(stages)
    except Exception as error:  # noqa: BLE001  # a method may raise anything
        text = f"The check before the run failed to run: {type(error).__name__}: {error}"
        found = [], [text]
    answer.send(found)


def _available_bytes() -> int | None:
    """Return the memory that this machine can give without swapping; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kib = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * number for number in kib), None)


def _begins(stage: Stage) -> bool:
    """Return whether a stage prepares or trains, or evaluates a model that no stage trains."""
    given = stage.kind == "evaluate" and "train" not in stage.inputs
    return stage.kind in {"prepare", "train"} or given


def _may_not_fit(stage: Stage) -> bool:
    """Return whether a stage has a checking method, an undeclared model, or the like."""
    run, method, task = stage.run, card_of(stage, "method"), card_of(stage, "task")
    assert isinstance(task, TaskCard)
    assert isinstance(method, MethodCard)
    foreign = run.model not in task.declared.models
    unusual = any(getattr(run.recipe, name) != USUAL[name] for name in ADDED)
    unusual |= bool(method.declared.needs_attention)
    from_files = bool(stage.paths.replaced_parameters.get("task"))
    return unusual or "check" in method.defines or foreign or from_files or may_be_few(stage)
