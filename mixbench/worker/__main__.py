"""The command ``python -m mixbench.worker STORE KEY``, which runs one stage on every engine.

The process takes the stage's lock, runs the stage and publishes its result. Its exit code tells the
launcher what it cannot read from the store.
"""

import faulthandler
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.errors import (
    DamagedImage,
    DamagedStage,
    Diverged,
    MixbenchError,
    StoreFull,
    naming_full_disk,
)
from mixbench.storage.files import now
from mixbench.storage.lease import Held
from mixbench.storage.manifest import Manifest
from mixbench.storage.notes import STALLED_S, Failure
from mixbench.storage.spec import DISTRIBUTED_KINDS, StageSpec
from mixbench.storage.store import Store
from mixbench.worker.processes import kill_descendants, supervised
from mixbench.worker.protocol import (
    BAD_DATA,
    DONE,
    ELSEWHERE,
    FAILED,
    FULL,
    INPUT_DAMAGED,
    LIFELINE,
    STOPPED,
)

if TYPE_CHECKING:
    import torch

    from mixbench.train.distributed import Distributed
    from mixbench.train.setup import Parts
    from mixbench.worker.stages import Work


def main() -> int:
    """Run the stage that the command line names, or several trainings interleaved."""
    root, *keys = sys.argv[1:]
    code = supervised(_lifeline())
    if code is not None:
        return code
    store = Store(Path(root))
    if len(keys) > 1:
        return _pack(store, keys)
    if not _is_main():  # the first process holds the lock for all
        return DONE if store.finished(keys[0]) else _guarded(store, keys[0], Shared())
    return _leased(store, keys[0], Shared())


@dataclass
class Shared:
    """The state that interleaved runs of one process share.

    Attributes
    ----------
    number
        Number of runs in the process.
    yield_turn
        Function that a run calls after a step to let the other runs do a step.
    parts
        Splits of the data that a run has loaded, for the other runs.
    stop
        Functions that ask each run to stop.
    stopped
        Event that is set once the process received SIGTERM.
    """

    number: int = 1
    yield_turn: Callable[[], None] = lambda: None
    parts: "Parts" = field(default_factory=dict)
    stop: list[Callable[[], None]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Call `tell` on SIGTERM, or immediately if the process has already received it."""
        self.stop.append(tell)
        if self.stopped.is_set():
            tell()
        if self.number == 1:
            signal.signal(signal.SIGTERM, self.end)

    def end(self, *_: object) -> None:
        """Let every run write a checkpoint and end."""
        self.stopped.set()
        for tell in self.stop:
            tell()


def _pack(store: Store, keys: Sequence[str]) -> int:
    """Run several trainings interleaved; each writes its exit code to the store."""
    from mixbench.train.interleave import run_interleaved

    shared = Shared(len(keys))
    signal.signal(signal.SIGTERM, shared.end)

    def work(key: str, yield_turn: Callable[[], None]) -> None:
        _leased(store, key, replace(shared, yield_turn=yield_turn))

    run_interleaved([partial(work, key) for key in keys])
    return DONE if all(store.finished(key) for key in keys) else FAILED


def _leased(store: Store, key: str, shared: Shared) -> int:
    """Run a stage while holding its lock; write its exit code to the store if it is not done.

    It does not wait for a process of another launcher, because it would hold a slot meanwhile.
    """
    try:
        with naming_full_disk(store.root), store.lease(key).held(_end, wait=False):
            code = DONE if store.finished(key) else _guarded(store, key, shared)
    except Held:
        said = "Another process is running this stage."
        return DONE if store.finished(key) else _say(said, ELSEWHERE)
    except StoreFull as error:
        code = _say(error, FULL)
    if code != DONE:
        with suppress(OSError):  # if the disk is full, only the exit code reports it
            store.write_exit_code(key, code)
    return code


def _guarded(store: Store, key: str, shared: Shared) -> int:
    """Run the stage, and turn any error into an exit code and a recorded failure."""
    try:
        with naming_full_disk(store.root):
            code = _run(store, key, shared)
    except StoreFull as error:
        code = _say(error, FULL)
    except DamagedStage as error:
        store.quarantine(error.key)
        code = _say(error, INPUT_DAMAGED)
    except Diverged as error:
        code = _fail(store, key, Failure("diverged", str(error)))
    except DamagedImage as error:
        _fail(store, key, Failure("failed", str(error)))
        code = BAD_DATA
    except MixbenchError as error:
        code = _fail(store, key, Failure("failed", str(error)))
    except Exception as error:  # noqa: BLE001  # a unit may raise anything: it becomes a failed record
        traceback.print_exc()
        # After another process of the stage failed, this error is only a consequence.
        known = store.failure(key) is not None
        code = FAILED if known else _fail(store, key, Failure("failed", _reason(error)))
    return code


def _run(store: Store, key: str, shared: Shared) -> int:
    """Run the stage, publish its result, and return the exit code."""
    from mixbench.train.checkpoints import Stopped
    from mixbench.train.distributed import SINGLE_PROCESS, process_group
    from mixbench.worker.data_checks import check_unchanged
    from mixbench.worker.stages import check_code

    spec = store.spec(key)
    _log(f"{now()} {spec.stage.kind} {spec.stage.label} {key}")
    check_code(spec.stage)
    if _is_main():
        check_unchanged(spec.stage)
    if _is_main():
        (store.work(key) / "failure.json").unlink(missing_ok=True)
    try:
        if spec.stage.kind not in DISTRIBUTED_KINDS:
            if _is_main():
                _work(store, key, spec, SINGLE_PROCESS, shared)
            return DONE
        with process_group(spec.options.processes, sys.argv[1:], {DONE, STOPPED}) as distributed:
            _work(store, key, spec, distributed, shared)
    except Stopped:
        return STOPPED
    return DONE


def _dump_stacks_if_stalled() -> None:
    """Write what every thread does to the log, once no progress is made for a minute."""
    faulthandler.dump_traceback_later(STALLED_S)


def _is_main() -> bool:
    """Return whether this is the stage's first process."""
    return os.environ.get("RANK", "0") == "0"


def _work(
    store: Store, key: str, spec: StageSpec, distributed: "Distributed", shared: Shared
) -> None:
    """Compute the stage together with its other processes; the first one publishes the result."""
    from mixbench.train.checkpoints import DiskJournal
    from mixbench.worker import environment
    from mixbench.worker.data_checks import check_unchanged
    from mixbench.worker.job import Job
    from mixbench.worker.stages import WORK

    stage, work = spec.stage, store.work(key)
    built = work / "built"
    device = environment.device()
    environment.configure_torch(stage.identity.run.recipe if stage.identity.run else None)
    every = spec.options.checkpoint_every
    journal = DiskJournal(work, every, _log, distributed, shared.yield_turn)
    shared.on_stop(lambda: setattr(journal, "stop", True))
    journal.on_progress = _dump_stacks_if_stalled
    _dump_stacks_if_stalled()
    if distributed.is_main:
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
    meter = _Meter(device, distributed)
    job = Job(stage, spec.options, store, journal, built, device, distributed, shared.parts)
    done = WORK[stage.kind](job)
    if done is None:
        return
    manifest = done.adopted or meter.manifest(key, spec, done, journal.resumed_at, shared.number)
    if done.adopted is not None:
        manifest = replace(manifest, key=key, spec=spec, adopted_from=manifest.key)
    check_unchanged(stage)
    store.publish(built, manifest)
    shutil.rmtree(work, ignore_errors=True)


class _Meter:
    """Measures a stage from its creation to the manifest."""

    def __init__(self, device: "torch.device", distributed: "Distributed") -> None:
        from mixbench.worker import environment

        self._device, self._world_size = device, distributed.world_size
        self._started = now()
        self._uuids = environment.gpu_uuids(device) if distributed.is_main else []
        self._before_mj = environment.gpu_energy_mj(self._uuids)

    def manifest(
        self, key: str, spec: StageSpec, done: "Work", resumed_at: Sequence[int], sharing: int
    ) -> Manifest:
        """Return the manifest of the finished stage, which shares the process with others."""
        from mixbench.worker import environment

        host, gpu = environment.peak_memory_gib(self._device)
        gpus = self._world_size if self._device.type == "cuda" else 0
        # The energy of earlier attempts and of GPUs on other machines is unknown.
        known = not resumed_at and self._world_size <= max(len(self._uuids), 1)
        after_mj = environment.gpu_energy_mj(self._uuids) if known else None
        return Manifest(
            key=key,
            spec=spec,
            started=self._started,
            ended=now(),
            resumed_at_steps=tuple(resumed_at),
            hardware=environment.hardware(self._device, gpus),
            software=environment.software(),
            cost=replace(
                done.cost,
                gpu_s=done.cost.wall_s * gpus / sharing,
                peak_host_gib=host,
                peak_gpu_gib=gpu,
                energy_kwh=environment.energy_kwh(self._before_mj, after_mj),
            ),
            training=done.training,
        )


def _end() -> None:
    """Kill this process and what it has started."""
    kill_descendants()
    os.killpg(0, signal.SIGKILL)


def _lifeline() -> int | None:
    """Return the descriptor of a pipe that is closed when the launcher ends, if there is one."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)  # noqa: FBT003  # the library's signature
    return int(descriptor)


def _reason(error: Exception) -> str:
    """Return the exception as one line, with the file and line that raised it."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which a launcher does not import
        return (
            "The GPU ran out of memory: run fewer stages per GPU (--jobs-per-gpu), or reduce the "
            "batch size (--set TASK.batch_size=N)."
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


def _fail(store: Store, key: str, failure: Failure) -> int:
    """Write a failure to the store, where the launcher reads it, and return the exit code."""
    _log(f"{failure.status}: {failure.reason}")
    try:
        store.write_failure(key, failure)
    except OSError as error:
        return _say(error, FULL)
    return FAILED


def _say(text: object, code: int) -> int:
    _log(str(text))
    return code


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the stage's log


if __name__ == "__main__":
    sys.exit(main())
