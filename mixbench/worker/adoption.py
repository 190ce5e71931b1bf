"""Adoption of the result of an earlier training whose code differs, after a proof.

The proof runs the first steps again, and from a checkpoint the last ones. If the weights are
bit-identical to those of the earlier training after both, its files count for the new key.
"""

import io
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from safetensors.torch import load_file

from mixbench.errors import NotAdopted
from mixbench.storage.curves import read_curve, rounded
from mixbench.storage.files import link_or_copy, read_json
from mixbench.storage.manifest import Manifest
from mixbench.train.checkpoints import FIRST, LAST, weights_digest
from mixbench.train.loop import train
from mixbench.train.setup import State
from mixbench.worker.job import Job, training_result


def adopt(job: Job) -> Manifest:
    """Link the files of the earlier training into the stage's folder; return its manifest.

    Raises
    ------
    NotAdopted
        If the inputs differ, or the steps do not give the same weights again.
    """
    store, key = job.store, job.stage.paths.earlier
    if job.distributed.world_size > 1:
        raise NotAdopted("the proof runs in one process (--gpus-per-cell 1)")
    earlier = store.manifest(key)
    for role, new in job.stage.inputs.items():
        old = earlier.spec.stage.inputs[role]
        if old != new and store.manifest(old).files != store.manifest(new).files:
            raise NotAdopted(f"its input {role} has another result with the current code")
    first = read_json(store.checked(key, FIRST))
    _same_first_steps(job, int(first["step"]), str(first["weights"]))
    _same_last_steps(job, key)
    for name in earlier.files:
        path = job.built / name
        path.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(store.checked(key, name), path)
    return earlier


def _same_first_steps(job: Job, number: int, digest: str) -> None:
    journal = _Replay(until=number)
    with suppress(_Reached):
        train(job.setup(), journal)
    if journal.state is None or weights_digest(journal.state["weights"]) != digest:
        raise NotAdopted(f"the first {number} steps give other weights with the current code")


def _same_last_steps(job: Job, key: str) -> None:
    store = job.store
    content = store.checked(key, LAST).read_bytes()
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    journal = _Replay(start=state)
    train(job.setup(), journal)
    name = f"epoch-{training_result(key, store).tail[-1]}"
    expected = load_file(store.checked(key, f"weights/{name}.safetensors"))
    (*_, last) = read_curve(store.checked(key, "curve.json"))
    same = journal.kept.keys() == expected.keys() and all(
        torch.equal(journal.kept[n].cpu(), tensor) for n, tensor in expected.items()
    )
    if not same or rounded(journal.row) != rounded(last):
        raise NotAdopted("the last steps give other weights or metrics with the current code")


class _Reached(Exception):
    """The step up to which a training is replayed."""


class _Replay:
    """A journal that writes nothing, for the first steps or from a checkpoint to the end."""

    def __init__(self, start: State | None = None, until: int = -1) -> None:
        self._start, self._until = start, until
        self.state: State | None = None
        self.kept: State = {}
        self.row: Mapping[str, float] = {}

    def restore(self) -> State | None:
        """Return the checkpoint to start from."""
        return self._start

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:  # noqa: ARG002  # the protocol
        """Stop after the wanted step."""
        if step == self._until:
            self.state = state()
            raise _Reached

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        """Keep the metrics and the weights of the last epoch."""
        self.row = row
        if any(name.startswith("epoch-") for name in names):
            self.kept = weights()
