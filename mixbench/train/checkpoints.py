"""A run's traces on the disk: checkpoints, kept weights, progress."""

import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mixbench.storage.files import write_bytes
from mixbench.train.distributed import SINGLE_PROCESS, Distributed

State = dict[str, Any]
REPORT_EVERY_S = 0.5
KEPT_CHECKPOINTS = 2
KEPT_FROM_S = 0.2  # predictions that took less are computed again as fast as they are read


class Stopped(Exception):
    """The run was told to stop; its checkpoint is written."""


class DiskJournal:
    """The journal of a stage in its work folder.

    Parameters
    ----------
    work
        The stage's work folder.
    checkpoint_every : steps
    notify
        Told of anything that a reader of the log should know.
    distributed
        Of several processes only the first writes; all stop when it does.
    yield_turn
        Lets other runs of this process do a step.
    """

    def __init__(
        self,
        work: Path,
        checkpoint_every: int,
        notify: Callable[[str], None],
        distributed: Distributed = SINGLE_PROCESS,
        yield_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._ranks = distributed
        self._hand_over = yield_turn
        self.work = work
        self.kept = work / "kept"
        self.stop = False
        self.resumed_at: list[int] = []
        self._every = checkpoint_every
        self.log = notify
        self._reported = 0.0
        self._start = (0, perf_counter())
        self._shown: Mapping[str, float] = {}

    def restore(self) -> State | None:
        """Return the newest sound checkpoint; name and remove the damaged ones."""
        if not self._ranks.is_main:
            self._ranks.broadcast_flag(True)  # noqa: FBT003  # the first has removed what is damaged
        state = self._newest()
        if self._ranks.is_main:
            self._ranks.broadcast_flag(True)  # noqa: FBT003
        return state

    def _newest(self) -> State | None:
        for path in sorted(self.work.glob("checkpoint-*.pt"), reverse=True):
            content = path.read_bytes()
            if _name(_step(path), content) != path.name:
                self.log(f"{path} is damaged and not used; the run goes on from before it.")
                path.unlink()
                continue
            state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            self.resumed_at = [*state["resumed_at"], int(state["step"])]
            self._start = (int(state["step"]), perf_counter())
            self.log(f"goes on at step {state['step']}")
            return state
        if self._ranks.is_main:
            shutil.rmtree(self.kept, ignore_errors=True)
        return None

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        """Report, keep a checkpoint if one is due, and stop if told to.

        Raises
        ------
        Stopped
            If the run was told to stop.
        """
        stop = self._ranks.broadcast_flag(self.stop) and step < num_steps
        if self._ranks.is_main:
            self._note(step, num_steps, self._shown)
            if stop or (step < num_steps and step % self._every == 0):
                self._checkpoint(step, state())
        if stop:
            self._ranks.broadcast_flag(True)  # noqa: FBT003  # the checkpoint is written before anyone ends
            raise Stopped
        self._hand_over()

    def report(self, done: int, of: int, shown: Mapping[str, float]) -> None:
        """Note how far a preparation is, and stop if told to.

        Raises
        ------
        Stopped
            If the stage was told to stop.
        """
        self._note(done, of, shown)
        if self.stop:
            raise Stopped

    def earlier_s(self) -> float:
        """Return the seconds that earlier attempts of a preparation worked, by their notes."""
        path, total, last = self.work / "progress.jsonl", 0.0, 0.0
        for line in path.read_text().splitlines() if path.exists() else ():
            with suppress(ValueError):  # an attempt that was killed may leave half a line
                elapsed = float(json.loads(line)["elapsed_s"])
                total, last = total + (last if elapsed < last else 0.0), elapsed
        return total + last

    def _note(self, done: int, of: int, shown: Mapping[str, float]) -> None:
        """Append a line to the progress file, now and then: how far, how fast, numbers to show."""
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

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Note an epoch's numbers and keep its weights under every given name."""
        first = next(name for name in row if name.startswith("validation_"))
        self._shown = {first.removeprefix("validation_"): row[first]}
        if names and self._ranks.is_main:
            content = save({k: v.detach().cpu().contiguous() for k, v in weights().items()})
            for name in names:
                write_bytes(self.kept / f"{name}.safetensors", content)

    def _checkpoint(self, step: int, state: State) -> None:
        buffer = io.BytesIO()
        torch.save({**state, "resumed_at": self.resumed_at}, buffer)
        content = buffer.getvalue()
        write_bytes(self.work / _name(step, content), content)
        for old in sorted(self.work.glob("checkpoint-*.pt"))[:-KEPT_CHECKPOINTS]:
            old.unlink()


@dataclass(frozen=True)
class DiskPredictionCache:
    """The predictions of an evaluation that is under way.

    Attributes
    ----------
    folder
        For the predictions of finished batches.
    report
        Shows how many batches are done, of how many.
    turn, turns
        Which of how many predictions of the same part it is, for the report.
    """

    folder: Path
    report: Callable[[int, int, Mapping[str, float]], None]
    turn: int = 0
    turns: int = 1

    def kept(self, device: torch.device) -> dict[int, dict[str, Tensor]]:
        """Return the predictions that an earlier attempt left whole, by their batches."""
        found = {}
        for path in self.folder.glob("*.safetensors"):
            batch, content = int(path.name.split("-")[0]), path.read_bytes()
            if path.name == _batch_name(batch, content):
                found[batch] = {name: t.to(device) for name, t in load(content).items()}
        return found

    def note(self, batch: int, predictions: Mapping[str, Tensor], since: float) -> None:
        """Keep a batch's predictions if they took long to make."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in predictions.items()}
        if perf_counter() - since > KEPT_FROM_S:  # a GPU has finished only now
            content = save(tensors)
            write_bytes(self.folder / _batch_name(batch, content), content)

    def tell(self, done: int, of: int) -> None:
        """Show how many of so many batches are done."""
        self.report(self.turn * of + done, self.turns * of, {})


def _batch_name(batch: int, content: bytes) -> str:
    """Return a file's name: its batch, and a digest by which it can vouch for itself."""
    return f"{batch:07}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def _name(step: int, content: bytes) -> str:
    """Return a checkpoint's name: its step, and a digest by which it can vouch for itself."""
    return f"checkpoint-{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
