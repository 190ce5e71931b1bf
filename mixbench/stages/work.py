"""What each kind of stage does, from its spec to its files.

A stage reads its spec and its inputs' files, leaves its own files in a folder, and returns what
its manifest says of the result and the cost.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixbench.contract import Evaluation, Method, Preparation, Task, Trained
from mixbench.declare import Recipe
from mixbench.errors import MixbenchError
from mixbench.plan.graph import code_of
from mixbench.ranks import ALONE, Ranks
from mixbench.registry.cards import Card, Kind
from mixbench.registry.units import find, load_method
from mixbench.registry.units import make_task as registered_task
from mixbench.stages.evaluation import at_points, predict
from mixbench.stages.journal import DiskJournal, DiskTrail
from mixbench.stages.runs import MEMORY, Setup, adopt_buffers, load_weights
from mixbench.stages.training import train
from mixbench.stages.tuning import tune
from mixbench.store import Store, write_json

Facts = dict[str, Any]
# The units of a spec by their roles, in the order in which the plan names them.
KINDS: Mapping[str, Kind] = {"task": "task", "method": "method", "subject": "task"}


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
        model, method = revive(self.store.manifest(key)["spec"], self.device)
        take_weights(key, self.store, (model, method))
        return Trained(model.eval(), method.eval())


def check_code(spec: Mapping[str, Any]) -> None:
    """Refuse to publish under a key the work of other code than the key was made of.

    Raises
    ------
    MixbenchError
        If a file was changed since the stage was planned.
    """
    there = [role for role in KINDS if role in spec["identity"]]
    now = code_of(spec["kind"], tuple(_unit(spec, role)[0] for role in there))
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
    store.check(key)
    return store.folder(key) / "files"


def make_task(spec: Mapping[str, Any]) -> Task:
    """Return the task of a spec."""
    subject = _unit(spec, "subject")[1] if "subject" in spec["identity"] else None
    return registered_task(*_unit(spec, "task"), subject)


def make_method(spec: Mapping[str, Any]) -> Method:
    """Return the method of a spec, unbound."""
    card, parameters = _unit(spec, "method")
    return load_method(card)(**parameters)


def _unit(spec: Mapping[str, Any], role: str) -> tuple[Card, dict[str, Any]]:
    """Return a unit's card and parameters; files by their place, which the identity leaves out."""
    unit, places = spec["identity"][role], spec["places"]
    files = {
        name.removeprefix(f"{role}."): path
        for name, path in places.items()
        if name.startswith(f"{role}.")
    }
    return find(KINDS[role], places.get(role, unit["name"])), {**unit["parameters"], **files}


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
        },
    }


def evaluate(job: Job) -> Facts:
    """Score the test part at the reported points, and keep the final predictions."""
    test = job.task.load("test", job.data, job.identity["seed"]).to(job.device)
    model, method = revive(job.spec, job.device)
    sizes = {"parameters": _size(model), "extra_parameters": _size(method)}
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    best, tail = _scored(job)
    spec, store = job.spec, job.store
    scores = {}
    predictions: dict[str, Tensor] = {}
    epochs = sorted({*tail, *([best] if best else [])})
    for number, epoch in enumerate(epochs):
        give_weights(spec, store, (model, method), f"epoch-{epoch}" if epoch in tail else "best")
        if number == 0:
            test = job.task.once(model, test)
        folder = job.journal.work / "predictions" / str(epoch)
        trail = DiskTrail(folder, job.journal.report, number, len(epochs))
        predictions = predict(job.task, model, method, test, spec["workers"], trail=trail)
        scores[epoch] = job.task.score(predictions, test.targets)
    save_file({**predictions, "targets": test.targets}, job.built / "predictions.safetensors")
    content = {
        "n": len(test),
        "classes": job.task.class_names(job.data),
        "declared": [asdict(metric) for metric in job.task.metrics],
        "metrics": {
            at: {name: score._asdict() for name, score in by_name.items()}
            for at, by_name in at_points(scores, best, tail).items()
        },
    }
    write_json(job.built / "metrics.json", content)
    return {"result": {}, "cost": {"wall_s": earlier_s + perf_counter() - start, **sizes}}


def _scored(job: Job) -> tuple[int | None, list[int]]:
    """Return the best epoch and the last ones, as far as they are scored; 0 for given weights."""
    if "train" not in job.spec["inputs"]:
        return None, [0]
    trained = job.store.manifest(job.spec["inputs"]["train"])["result"]
    if isinstance(job.task, Evaluation):
        return None, trained["tail"][-1:]
    return trained["best"], trained["tail"]


def give_weights(
    spec: Mapping[str, Any], store: Store, trained: tuple[nn.Module, Method], name: str = ""
) -> None:
    """Give an evaluated model and its method the weights that training kept, or given ones.

    Parameters
    ----------
    name
        Of the kept ones; by default, those of the last epoch.
    """
    if "train" in spec["inputs"]:
        take_weights(spec["inputs"]["train"], store, trained, name)
    else:
        make_task(spec).start(trained[0], {})


def take_weights(key: str, store: Store, trained: tuple[nn.Module, Method], name: str = "") -> None:
    """Give a model and its method the weights that a training stage kept: of its last epoch."""
    model, method = trained
    name = name or f"epoch-{store.manifest(key)['result']['tail'][-1]}"
    path = store.path(key, f"weights/{name}.safetensors")
    load_weights(model, method, load_file(path, str(next(model.parameters()).device)))


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
