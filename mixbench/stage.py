"""One stage in one process: ``python -m mixbench.stage STORE KEY``, on every engine.

The process takes the stage's lease, does its work, publishes the result, and says by its exit code
what the launcher cannot read from the store.
"""

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
from typing import TYPE_CHECKING, Any

from mixbench.errors import Damaged, Diverged, MixbenchError, StoreFull, naming_full_disk
from mixbench.store import Store, now, read_json, write_json

if TYPE_CHECKING:
    import torch

    from mixbench.ranks import Ranks
    from mixbench.stages.runs import Parts

DONE, FAILED, FULL, INPUT_DAMAGED, STOPPED = 0, 1, 74, 75, 143
LIFELINE = "MIXBENCH_LIFELINE"


def main() -> int:
    """Run the stage that the command line names, or several trainings in turns."""
    root, *keys = sys.argv[1:]
    _die_with_launcher()
    store = Store(Path(root))
    if len(keys) > 1:
        return _pack(store, keys)
    if not _leads():  # the first process holds the lease for all
        return DONE if store.finished(keys[0]) else _guarded(store, keys[0], Shared())
    return _leased(store, keys[0], Shared())


@dataclass
class Shared:
    """What runs of one process have in common, and how one hands over to the next."""

    number: int = 1
    hand_over: Callable[[], None] = lambda: None
    parts: "Parts" = field(default_factory=dict)
    stop: list[Callable[[], None]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Have a run told when the process is told to stop; tell it now if that was before."""
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
    """Run several trainings in turns; each leaves a word of its own for the launcher."""
    from mixbench.stages.turns import in_turns

    shared = Shared(len(keys))
    signal.signal(signal.SIGTERM, shared.end)

    def work(key: str, hand_over: Callable[[], None]) -> None:
        _leased(store, key, replace(shared, hand_over=hand_over))

    in_turns([partial(work, key) for key in keys])
    return DONE if all(store.finished(key) for key in keys) else FAILED


def _leased(store: Store, key: str, shared: Shared) -> int:
    """Run a stage that no other process runs; leave its exit code where it is not done."""
    try:
        with naming_full_disk(store.root), store.lease(key).held(_end):
            code = DONE if store.finished(key) else _guarded(store, key, shared)
    except StoreFull as error:
        code = _say(error, FULL)
    if code != DONE:
        with suppress(OSError):  # where the disk is full, the exit code must do
            write_json(store.work(key) / "ended.json", {"code": code})
    return code


def _guarded(store: Store, key: str, shared: Shared) -> int:
    """Run the stage and turn what goes wrong into a word for the launcher."""
    work = store.work(key)
    try:
        with naming_full_disk(store.root):
            code = _run(store, key, shared)
    except StoreFull as error:
        code = _say(error, FULL)
    except Damaged as error:
        code = _say(error, INPUT_DAMAGED)
    except Diverged as error:
        code = _fail(work, "diverged", str(error))
    except MixbenchError as error:
        code = _fail(work, "failed", str(error))
    except Exception as error:  # noqa: BLE001  # a unit may raise anything: it becomes a failed record
        traceback.print_exc()
        # What breaks when another process of the stage has failed is not the reason.
        known = (work / "failure.json").exists()
        code = FAILED if known else _fail(work, "failed", _reason(error))
    return code


def _run(store: Store, key: str, shared: Shared) -> int:
    """Do the work and publish it."""
    from mixbench.ranks import ALONE, joined
    from mixbench.stages.journal import Stopped
    from mixbench.stages.work import check_code

    spec: dict[str, Any] = read_json(store.work(key) / "spec.json")
    _log(f"{now()} {spec['kind']} {spec['label']} {key}")
    check_code(spec)
    if _leads():
        (store.work(key) / "failure.json").unlink(missing_ok=True)
    try:
        if spec["kind"] != "train":
            if _leads():
                _work(store, key, spec, ALONE, shared)
            return DONE
        with joined(spec["processes"], sys.argv[1:], {DONE, STOPPED}) as ranks:
            _work(store, key, spec, ranks, shared)
    except Stopped:
        return STOPPED
    return DONE


def _leads() -> bool:
    """Return whether this is the stage's first process."""
    return os.environ.get("RANK", "0") == "0"


def _work(store: Store, key: str, spec: dict[str, Any], ranks: "Ranks", shared: Shared) -> None:
    """Do the work with the other processes of the stage; the first one publishes it."""
    from mixbench.stages import environment
    from mixbench.stages.job import Job
    from mixbench.stages.journal import DiskJournal
    from mixbench.stages.work import WORK

    work = store.work(key)
    built = work / "built"
    device = _device(spec)
    journal = DiskJournal(work, spec["checkpoint_every"], _log, ranks, shared.hand_over)
    shared.on_stop(lambda: setattr(journal, "stop", True))
    if ranks.leads:
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
    started = now()
    uuids = environment.gpu_uuids(device) if ranks.leads else []
    before_mj = environment.gpu_energy_mj(uuids)
    facts = WORK[spec["kind"]](Job(spec, store, journal, built, device, ranks, shared.parts))
    if not ranks.leads:
        return
    host, gpu = environment.peak_memory_gib(device)
    gpus = ranks.number if device.type == "cuda" else 0
    facts["cost"] |= {"peak_host_gib": host, "peak_gpu_gib": gpu}
    # What earlier attempts used was not noted, nor what GPUs of other machines do.
    known = not journal.resumed_at and ranks.number <= max(len(uuids), 1)
    after_mj = environment.gpu_energy_mj(uuids) if known else None
    facts["cost"]["energy_kwh"] = environment.energy_kwh(before_mj, after_mj)
    facts["cost"]["gpu_s"] = facts["cost"]["wall_s"] * gpus / shared.number
    manifest = {
        "key": key,
        "spec": spec,
        "started": started,
        "ended": now(),
        "resumed_at_steps": journal.resumed_at,
        "hardware": environment.hardware(device, gpus),
        "software": environment.software(),
        **facts,
    }
    store.publish(key, built, manifest)
    shutil.rmtree(work, ignore_errors=True)


def _device(spec: dict[str, Any]) -> "torch.device":
    """Return where to compute, with torch set to give the same result every time."""
    import torch

    from mixbench.stages.environment import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(spec["identity"].get("recipe", {}).get("threads", 1))
    exact = spec["identity"].get("recipe", {}).get("precision") == "float32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _end() -> None:
    """End this process and its children at once."""
    os.killpg(0, signal.SIGKILL)


def _die_with_launcher() -> None:
    """End this process and its children as soon as the launcher's end of the pipe is closed."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return
    os.set_inheritable(int(descriptor), False)  # noqa: FBT003  # the library's signature

    def watch() -> None:
        while os.read(int(descriptor), 1):
            pass
        _end()

    threading.Thread(target=watch, daemon=True).start()


def _reason(error: Exception) -> str:
    """Return the exception in one line, with the place where it was raised."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which a launcher does not import
        return (
            "The GPU's memory does not hold it: let fewer stages share it (--jobs-per-gpu), or "
            "make the batch smaller."
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


def _fail(work: Path, status: str, reason: str) -> int:
    """Leave the reason where the launcher looks for it."""
    _log(f"{status}: {reason}")
    try:
        write_json(work / "failure.json", {"status": status, "reason": reason})
    except OSError as error:
        return _say(error, FULL)
    return FAILED


def _say(error: Exception, code: int) -> int:
    _log(str(error))
    return code


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the stage's log


if __name__ == "__main__":
    sys.exit(main())
