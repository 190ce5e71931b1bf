"""Files of a running stage: checkpoints, kept weights and progress."""

import hashlib
import io
import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mixbench.storage.files import write_bytes, write_json
from mixbench.train.distributed import SINGLE_PROCESS, Distributed

State = dict[str, Any]
REPORT_EVERY_S = 0.5
KEPT_CHECKPOINTS = 2
# Long and short steps lose the same time if a machine dies. At this pace, three days of training a
# ResNet-50 write 180 GB; signals to stop, which most schedulers send first, lose nothing.
CHECKPOINT_EVERY_S = 300.0
# Files by which a later version proves that it trains alike: the digest of the weights after the
# first steps, and the checkpoint before the last ones.
FIRST, LAST = "proof/first.json", "proof/last.pt"
PROOF_STEPS = 2
FLUSH_EVERY_S = 5.0  # what a killed evaluation loses at most


class Stopped(Exception):
    """The run received a stop request and has written its checkpoint."""


class DiskJournal:
    """Write the checkpoints, weights and progress of a stage to its work folder.

    Parameters
    ----------
    work
        The stage's work folder.
    checkpoint_every : steps
        Number of training steps between two checkpoints; None for every `CHECKPOINT_EVERY_S`.
    notify
        Function that writes a line to the stage's log.
    distributed
        The processes of a distributed run. Only the first one writes; all stop when it stops.
    yield_turn
        Function that lets the other runs of this process do one step each.
    """

    def __init__(
        self,
        work: Path,
        checkpoint_every: int | None,
        notify: Callable[[str], None],
        distributed: Distributed = SINGLE_PROCESS,
        yield_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._ranks = distributed
        self.each_step: list[Callable[[], None]] = [yield_turn]
        self.on_progress: Callable[[], None] = lambda: None
        self.work = work
        self.kept = work / "kept"
        self.stop = False
        self.resumed_at: list[int] = []
        self._every = checkpoint_every
        self._checkpointed = monotonic()
        self.log = notify
        self._reported = 0.0
        self._start = (0, perf_counter())
        self._shown: Mapping[str, float] = {}
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._bests: deque[int] = deque(maxlen=KEPT_CHECKPOINTS)  # epochs, in the kept checkpoints

    def restore(self) -> State | None:
        """Return the newest intact checkpoint, or None; log and delete damaged ones.

        Files that an earlier attempt was writing when it was killed are deleted as well.
        """
        if not self._ranks.is_main:
            self._ranks.broadcast_flag(True)  # noqa: FBT003  # wait until damaged files are deleted
        if self._ranks.is_main:
            for leftover in (*self.work.glob(".*"), *self.kept.glob(".*")):
                leftover.unlink()
        state = self._newest()
        if self._ranks.is_main:
            self._ranks.broadcast_flag(True)  # noqa: FBT003
        return state

    def _newest(self) -> State | None:
        for path in sorted(self.work.glob("checkpoint-*.pt"), reverse=True):
            content = path.read_bytes()
            if _name(_step(path), content) != path.name:
                self.log(f"{path} is damaged and ignored; an earlier state is used.")
                path.unlink()
                continue
            state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            self.resumed_at = [*state["resumed_at"], int(state["step"])]
            self._bests.append(int(state["best"]))
            self._start = (int(state["step"]), perf_counter())
            self.log(f"resumed from the checkpoint of step {state['step']}")
            return state
        if self._ranks.is_main:
            shutil.rmtree(self.kept, ignore_errors=True)
        return None

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Report progress, write a checkpoint if one is due, and stop if requested.

        Raises
        ------
        Stopped
            If a stop was requested; the checkpoint is written first.
        """
        stop = self._ranks.broadcast_flag(self.stop) and step < num_steps
        if self._ranks.is_main:
            self._note(step, num_steps, self._shown)
            self._keep_proof(step, num_steps, state)
            if stop or (step < num_steps and self._is_due(step)):
                self._checkpoint(step, state())
            if stop or step == num_steps:
                self._finish_writing()
        if stop:
            self._ranks.broadcast_flag(True)  # noqa: FBT003  # wait until the checkpoint is written
            raise Stopped
        for call in self.each_step:
            call()

    def _is_due(self, step: int) -> bool:
        """Return whether it is time for a checkpoint."""
        if self._every is None:
            return monotonic() - self._checkpointed >= CHECKPOINT_EVERY_S
        return step % self._every == 0

    def _keep_proof(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Write the files of the proof that a later version trains alike."""
        if step == PROOF_STEPS < num_steps - PROOF_STEPS:
            found = {"step": step, "weights": weights_digest(state()["weights"])}
            write_json(self.work / FIRST, found)
        if step == num_steps - PROOF_STEPS > PROOF_STEPS:
            buffer = io.BytesIO()
            torch.save({**state(), "counters": {}}, buffer)  # times would differ in every run
            write_bytes(self.work / LAST, buffer.getvalue())

    def report(self, done: int, of: int, shown: Mapping[str, float]) -> None:
        """Report the progress of a preparation or evaluation, and stop if requested.

        Raises
        ------
        Stopped
            If a stop was requested.
        """
        stop = self._ranks.broadcast_flag(self.stop)
        if self._ranks.is_main:
            self._note(done, of, shown)
        if stop:
            raise Stopped

    def earlier_s(self) -> float:
        """Return the total seconds of earlier attempts, as noted in the progress file."""
        path, total, last = self.work / "progress.jsonl", 0.0, 0.0
        for line in path.read_text().splitlines() if path.exists() else ():
            with suppress(ValueError):  # a killed attempt may leave an incomplete line
                elapsed = float(json.loads(line)["elapsed_s"])
                total, last = total + (last if elapsed < last else 0.0), elapsed
        return total + last

    def _note(self, done: int, of: int, shown: Mapping[str, float]) -> None:
        """Append step, speed and metrics to the progress file, at most every `REPORT_EVERY_S`."""
        if monotonic() - self._reported < REPORT_EVERY_S:
            return
        self._reported = monotonic()
        first, since = self._start
        elapsed = perf_counter() - since
        numbers = {k: v for k, v in shown.items() if math.isfinite(v)}
        content = {
            "step": done,
            "of": of,
            "first": first,
            "steps_per_s": (done - first) / max(elapsed, 1e-9),
            "elapsed_s": elapsed,
            "shown": numbers,
        }
        with (self.work / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
        self.on_progress()

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Show an epoch's validation metric or loss, and save its weights under every name."""
        first = next((name for name in row if name.startswith("validation_")), "loss")
        self._shown = {first.removeprefix("validation_"): row[first]}
        if names and self._ranks.is_main:
            content = save({k: v.detach().cpu().contiguous() for k, v in weights().items()})
            for name in names:
                write_bytes(self.kept / f"{name}.safetensors", content)

    def _checkpoint(self, step: int, state: State) -> None:
        """Copy the state, and write it beside the training."""
        self._checkpointed = monotonic()
        buffer = io.BytesIO()
        torch.save({**state, "resumed_at": self.resumed_at}, buffer)
        self._finish_writing()
        self._bests.append(int(state["best"]))
        content, oldest = buffer.getvalue(), min(self._bests)
        self._writing = self._writer.submit(self._write_checkpoint, step, content, oldest)

    def _finish_writing(self) -> None:
        """Wait until the last checkpoint is written, and raise what went wrong."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write_checkpoint(self, step: int, content: bytes, oldest_best: int) -> None:
        """Write a checkpoint, and remove what no kept one needs."""
        write_bytes(self.work / _name(step, content), content)
        for old in sorted(self.work.glob("checkpoint-*.pt"))[:-KEPT_CHECKPOINTS]:
            old.unlink()
        for path in self.kept.glob("best-*.safetensors"):
            if int(path.stem.partition("-")[2]) < oldest_best:
                path.unlink()


class DiskPredictionCache:
    """Predictions of an evaluation in progress, stored every few seconds.

    Parameters
    ----------
    folder
        Folder of the predictions of finished batches.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[int, Mapping[str, Tensor]] = {}
        self._flushed = monotonic()

    def kept(self, device: torch.device) -> dict[int, dict[str, Tensor]]:
        """Return the intact predictions of earlier attempts, by batch."""
        found: dict[int, dict[str, Tensor]] = {}
        for path in self._folder.glob("*.safetensors"):
            content = path.read_bytes()
            if path.name == _predictions_name(content):
                for name, tensor in load(content).items():
                    batch, _, which = name.partition(".")
                    found.setdefault(int(batch), {})[which] = tensor.to(device)
        return found

    def note(self, batch: int, predictions: Mapping[str, Tensor]) -> None:
        """Take the predictions of a batch, and store them with others if it is time."""
        self._taken[batch] = predictions
        if monotonic() - self._flushed > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Store what was taken since the last time in one file."""
        if self._taken:
            content = save({
                f"{batch}.{name}": tensor.cpu().contiguous()
                for batch, predictions in self._taken.items()
                for name, tensor in predictions.items()
            })
            write_bytes(self._folder / _predictions_name(content), content)
        self._taken, self._flushed = {}, monotonic()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return a digest of named tensors."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _predictions_name(content: bytes) -> str:
    """Return the file name of some batches' predictions: a digest of the content."""
    return f"{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def _name(step: int, content: bytes) -> str:
    """Return the file name of a checkpoint: its step and a digest of the content."""
    return f"checkpoint-{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
