"""A stage at work: its spec, and what the spec means: units, data, a model with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file

from mixbench.contract import Backbone, Method, Task, Trained
from mixbench.contract.loading import load_method
from mixbench.contract.loading import make_task as registered_task
from mixbench.declare.facts import ParameterValue
from mixbench.errors import Damaged
from mixbench.registry.cards import Card, MethodCard, TaskCard
from mixbench.registry.units import find
from mixbench.storage.manifest import TrainingResult
from mixbench.storage.spec import ExecutionOptions, Role, Stage
from mixbench.storage.store import Store
from mixbench.train.checkpoints import DiskJournal
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.setup import MEMORY, Parts, Setup, load_weights


@dataclass(frozen=True)
class Job:
    """A stage at work.

    Attributes
    ----------
    built
        An empty folder for the files that will be published.
    parts
        Parts of the data that this process's other runs have loaded.
    """

    stage: Stage
    options: ExecutionOptions
    store: Store
    journal: DiskJournal
    built: Path
    device: torch.device
    distributed: Distributed = SINGLE_PROCESS
    parts: Parts = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """The task, with its parameters."""
        return make_task(self.stage)

    @property
    def data(self) -> Path:
        """The folder with the data's files."""
        return data_folder(self.stage, self.store)

    def setup(self) -> Setup:
        """Return a run of the stage's method, with what its preparation found."""
        method, inputs, run = make_method(self.stage), self.stage.inputs, self.stage.run
        if "prepare" in inputs:
            found = self.store.checked(inputs["prepare"], "method.safetensors")
            method.load_state_dict(load_file(found))
        return Setup(
            method=method,
            task=self.task,
            model=run.model,
            recipe=run.recipe,
            seed=run.seed,
            folder=self.data,
            device=self.device,
            workers=-(-self.options.workers // self.distributed.world_size),
            distributed=self.distributed,
            trained={r: self.trained(r).model for r in inputs if r in self.task.needs},
            parts=self.parts,
            cuda_graphs=self.options.cuda_graphs,
            log=self.journal.log,
        )

    def trained(self, role: str) -> Trained:
        """Return the model and method that a finished training stage ended with."""
        key = self.stage.inputs[role]
        model, method = revive(self.store.manifest(key).spec.stage, self.device)
        take_weights(key, self.store, (model, method))
        return Trained(model.eval(), method.eval())


def data_folder(stage: Stage, store: Store) -> Path:
    """Return the folder with the data of a stage; generated files are checked first."""
    if "data" not in stage.inputs:
        assert stage.paths.data is not None
        return Path(stage.paths.data)
    key = stage.inputs["data"]
    store.check(key)
    return store.folder(key) / "files"


def card_of(stage: Stage, role: Role) -> Card:
    """Return the card of a unit that takes part in a stage."""
    name = stage.paths.unit_files.get(role, stage.identity.units[role].name)
    return find("method" if role == "method" else "task", name)


def parameters_of(stage: Stage, role: Role) -> Mapping[str, ParameterValue]:
    """Return a unit's parameters; files by their paths, which the identity leaves out."""
    unit = stage.identity.units[role]
    return {**unit.parameters, **stage.paths.parameter_files.get(role, {})}


def make_task(stage: Stage) -> Task:
    """Return the task of a stage."""
    base = parameters_of(stage, "base_task") if stage.identity.base_task else None
    card = card_of(stage, "task")
    assert isinstance(card, TaskCard)
    return registered_task(card, parameters_of(stage, "task"), base)


def make_method(stage: Stage) -> Method:
    """Return the method of a stage, unbound."""
    card = card_of(stage, "method")
    assert isinstance(card, MethodCard)
    return load_method(card)(**parameters_of(stage, "method"))


def revive(stage: Stage, device: torch.device) -> tuple[Backbone, Method]:
    """Return a stage's model and method, bound, on the device, with weights to be loaded."""
    task, method = make_task(stage), make_method(stage)
    model = task.build(stage.run.model)
    method.bind(model, task)
    memory = MEMORY[stage.run.recipe.memory_format]
    return model.to(device).to(memory_format=memory), method.to(device)


def give_weights(
    stage: Stage, store: Store, trained: tuple[Backbone, Method], name: str = ""
) -> None:
    """Give an evaluated model and its method the weights that training kept, or given ones.

    Parameters
    ----------
    name
        The kept weights; by default, those of the last epoch.
    """
    if "train" in stage.inputs:
        take_weights(stage.inputs["train"], store, trained, name)
    else:
        make_task(stage).start(trained[0], {})


def take_weights(key: str, store: Store, trained: tuple[Backbone, Method], name: str = "") -> None:
    """Give a model and its method the weights that a training stage kept: of its last epoch."""
    model, method = trained
    name = name or f"epoch-{training_result(key, store).tail[-1]}"
    path = store.checked(key, f"weights/{name}.safetensors")
    load_weights(model, method, load_file(path, str(next(model.parameters()).device)))


def training_result(key: str, store: Store) -> TrainingResult:
    """Return which epochs of a finished training are reported.

    Raises
    ------
    Damaged
        If the stage's manifest has none.
    """
    result = store.manifest(key).training
    if result is None:
        raise Damaged(f"{store.folder(key) / 'manifest.json'} is damaged: it has no training.")
    return result
