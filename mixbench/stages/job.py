"""A stage at work: its spec, and what the spec means: units, data, a model with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from mixbench.contract import Method, Task, Trained
from mixbench.declare import Recipe
from mixbench.ranks import ALONE, Ranks
from mixbench.registry.cards import Card, Kind
from mixbench.registry.units import find, load_method
from mixbench.registry.units import make_task as registered_task
from mixbench.stages.journal import DiskJournal
from mixbench.stages.runs import MEMORY, Parts, Setup, adopt_buffers, load_weights
from mixbench.store import Store

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
    parts
        Parts of the data that are there already, of this process's other runs.
    """

    spec: Mapping[str, Any]
    store: Store
    journal: DiskJournal
    built: Path
    device: torch.device
    ranks: Ranks = ALONE
    parts: Parts = field(default_factory=dict)

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
            parts=self.parts,
            record=self.spec["record"],
            say=self.journal.say,
        )

    def trained(self, role: str) -> Trained:
        """Return the model and method that a finished training stage ended with."""
        key = self.spec["inputs"][role]
        model, method = revive(self.store.manifest(key)["spec"], self.device)
        take_weights(key, self.store, (model, method))
        return Trained(model.eval(), method.eval())


def data_folder(spec: Mapping[str, Any], store: Store) -> Path:
    """Return the folder with the data of a spec; generated files are checked first."""
    if "data" not in spec["inputs"]:
        return Path(spec["places"]["data"])
    key = spec["inputs"]["data"]
    store.check(key)
    return store.folder(key) / "files"


def make_task(spec: Mapping[str, Any]) -> Task:
    """Return the task of a spec."""
    subject = unit_of(spec, "subject")[1] if "subject" in spec["identity"] else None
    return registered_task(*unit_of(spec, "task"), subject)


def make_method(spec: Mapping[str, Any]) -> Method:
    """Return the method of a spec, unbound."""
    card, parameters = unit_of(spec, "method")
    return load_method(card)(**parameters)


def unit_of(spec: Mapping[str, Any], role: str) -> tuple[Card, dict[str, Any]]:
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
