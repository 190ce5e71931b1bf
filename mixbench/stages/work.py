"""What each kind of stage does, from its spec to its files.

A stage reads its spec and its inputs' files, leaves its own files in a folder, and returns what
its manifest says of the result and the cost.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixbench.contract import Method, Preparation, Task, Trained
from mixbench.declare import Recipe
from mixbench.errors import MixbenchError
from mixbench.plan.graph import code_of
from mixbench.ranks import ALONE, Ranks
from mixbench.registry.cards import Card, Kind
from mixbench.registry.units import find, load_method, load_task
from mixbench.stages.evaluation import at_points, predict
from mixbench.stages.journal import DiskJournal
from mixbench.stages.runs import MEMORY, Setup, adopt_buffers, load_weights
from mixbench.stages.training import train
from mixbench.stages.tuning import tune
from mixbench.store import Store, write_json

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A stage at work.

    Attributes
    ----------
    spec
        The stage as the plan described it.
    built
        An empty folder for the files that will be published.
    """

    spec: Mapping[str, Any]
    store: Store
    journal: DiskJournal
    built: Path
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the result."""
        identity: Mapping[str, Any] = self.spec["identity"]
        return identity

    @cached_property
    def task(self) -> Task:
        """The task, with its parameters."""
        return make_task(self.spec)

    @property
    def data(self) -> Path:
        """The folder with the data's files."""
        return data_folder(self.spec, self.store)

    def setup(self) -> Setup:
        """Return a run of the stage's method, with what its preparation found."""
        method = make_method(self.spec)
        if "prepare" in self.spec["inputs"]:
            found = self.store.path(self.spec["inputs"]["prepare"], "method.safetensors")
            adopt_buffers(method, load_file(found))
        recipe = Recipe(**self.identity["recipe"])
        model, seed = self.identity["model"], self.identity["seed"]
        return Setup(
            method=method,
            task=self.task,
            model=model,
            recipe=recipe,
            seed=seed,
            folder=self.data,
            device=self.device,
            workers=-(-self.spec["workers"] // self.ranks.number),
            ranks=self.ranks,
            trained={r: self.trained(r).model for r in self.spec["inputs"] if r in self.task.needs},
        )

    def trained(self, role: str) -> Trained:
        """Return the model and method that a finished training stage ended with."""
        key = self.spec["inputs"][role]
        manifest = self.store.manifest(key)
        model, method = revive(manifest["spec"], self.device)
        name = f"weights/epoch-{manifest['result']['tail'][-1]}.safetensors"
        load_weights(model, method, load_file(self.store.path(key, name), str(self.device)))
        return Trained(model.eval(), method.eval())


def check_code(spec: Mapping[str, Any]) -> None:
    """Refuse to publish under a key the work of other code than the key was made of.

    Raises
    ------
    MixbenchError
        If a file was changed since the stage was planned.
    """
    kinds: tuple[Kind, ...] = ("task",) if spec["kind"] == "data" else ("task", "method")
    now = code_of(spec["kind"], tuple(_unit(spec, kind)[0] for kind in kinds))
    changed = [name for name, digest in spec["code"].items() if now.get(name) != digest]
    if changed or len(now) != len(spec["code"]):
        raise MixbenchError(
            f"The code was changed while the run was going on ({', '.join(changed) or 'imports'}): "
            "give the command again, so that it is planned anew."
        )


def data_folder(spec: Mapping[str, Any], store: Store) -> Path:
    """Return the folder with the data of a spec; generated files are checked first."""
    if "data" not in spec["inputs"]:
        return Path(spec["places"]["data"])
    key = spec["inputs"]["data"]
    for name in store.manifest(key)["files"]:
        store.path(key, name)
    return store.folder(key) / "files"


def make_task(spec: Mapping[str, Any]) -> Task:
    """Return the task of a spec."""
    card, parameters = _unit(spec, "task")
    return load_task(card)(**parameters)


def make_method(spec: Mapping[str, Any]) -> Method:
    """Return the method of a spec, unbound."""
    card, parameters = _unit(spec, "method")
    return load_method(card)(**parameters)


def _unit(spec: Mapping[str, Any], kind: Kind) -> tuple[Card, dict[str, Any]]:
    """Return a unit's card and parameters; files by their place, which the identity leaves out."""
    unit, places = spec["identity"][kind], spec["places"]
    files = {
        name.removeprefix(f"{kind}."): path
        for name, path in places.items()
        if name.startswith(f"{kind}.")
    }
    return find(kind, places.get(kind, unit["name"])), {**unit["parameters"], **files}


def revive(spec: Mapping[str, Any], device: torch.device) -> tuple[nn.Module, Method]:
    """Return a spec's model and method, bound, on the device, with weights to be loaded."""
    task, method = make_task(spec), make_method(spec)
    model = task.build(spec["identity"]["model"])
    method.bind(model, task)
    memory = MEMORY[spec["identity"]["recipe"]["memory_format"]]
    return model.to(device).to(memory_format=memory), method.to(device)


def synthesize(job: Job) -> Facts:
    """Write the task's generated data in the official layout."""
    files = job.built / "files"
    files.mkdir()
    start = perf_counter()
    job.task.synthesize(files, job.task.synthetic)
    return {"result": {}, "cost": {"wall_s": perf_counter() - start}}


def prepare(job: Job) -> Facts:
    """Let the method do what comes before training, and keep the buffers that it filled."""
    setup = job.setup()
    roles = [role for role in job.spec["inputs"] if role in setup.method.needs]
    scratch = job.journal.work / "scratch"
    scratch.mkdir(exist_ok=True)
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    setup.method.prepare(
        Preparation(
            task=setup.task,
            model=setup.model,
            recipe=setup.recipe,
            seed=setup.seed,
            folder=setup.folder,
            device=setup.device,
            trained={role: job.trained(role) for role in roles},
            scratch=scratch,
            results=job.built,
            report=job.journal.report,
        )
    )
    buffers = {name: buffer.cpu().contiguous() for name, buffer in setup.method.named_buffers()}
    save_file(buffers, job.built / "method.safetensors")
    return {"result": {}, "cost": {"wall_s": earlier_s + perf_counter() - start}}


def train_stage(job: Job) -> Facts:
    """Train, and keep the weights of the best and of the last epochs and the learning curve."""
    setup = job.setup()
    run = train(setup, job.journal)
    if not job.ranks.leads:
        return {}
    # Links: an attempt that fails from here on must still find the weights of the last epochs.
    shutil.copytree(job.journal.kept, job.built / "weights", copy_function=os.link)
    write_json(job.built / "curve.json", run.curve)
    epochs, tail = setup.recipe.epochs, min(setup.recipe.tail, setup.recipe.epochs)
    counters = run.counters
    return {
        "result": {"best": run.best, "tail": list(range(epochs - tail + 1, epochs + 1))},
        "steps": run.num_steps,
        "cost": {
            "wall_s": counters.train_s + counters.eval_s,
            "train_s": counters.train_s,
            "eval_s": counters.eval_s,
            "images": counters.images,
            "parameters": _size(run.model),
            "extra_parameters": _size(setup.method),
        },
    }


def evaluate(job: Job) -> Facts:
    """Score the test part at the reported points, and keep the final predictions."""
    key = job.spec["inputs"]["train"]
    trained = job.store.manifest(key)["result"]
    test = job.task.load("test", job.data, job.identity["seed"]).to(job.device)
    model, method = revive(job.spec, job.device)
    start = perf_counter()
    names = {epoch: f"epoch-{epoch}" for epoch in trained["tail"]}
    names.setdefault(trained["best"], "best")
    scores = {}
    predictions: dict[str, Tensor] = {}
    for number, epoch in enumerate(sorted(names)):
        path = job.store.path(key, f"weights/{names[epoch]}.safetensors")
        load_weights(model, method, load_file(path, str(job.device)))
        if number == 0:
            test = job.task.once(model, test)
        predictions = predict(job.task, model, method, test, job.spec["workers"])
        scores[epoch] = job.task.score(predictions, test.targets)
    save_file({**predictions, "targets": test.targets}, job.built / "predictions.safetensors")
    points = at_points(scores, trained["best"], trained["tail"])
    metrics = {
        at: {name: score._asdict() for name, score in by_name.items()}
        for at, by_name in points.items()
    }
    classes = job.task.class_names(job.data)
    write_json(job.built / "metrics.json", {"n": len(test), "classes": classes, "metrics": metrics})
    return {"result": {}, "cost": {"wall_s": perf_counter() - start}}


def _size(module: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


WORK: Mapping[str, Callable[[Job], Facts]] = {
    "data": synthesize,
    "prepare": prepare,
    "train": train_stage,
    "tune": tune,
    "evaluate": evaluate,
}
