"""Jobs: running stages, and the method, task, data, model and weights that their specs name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file

from mixbench.contract import Backbone, Method, Task, Trained, attach
from mixbench.contract.loading import load_method
from mixbench.contract.loading import make_task as registered_task
from mixbench.declare.facts import ParameterValue
from mixbench.errors import Damaged, UsageError
from mixbench.plan.graph import card_of
from mixbench.plan.models import code_digest
from mixbench.registry.cards import MethodCard, TaskCard
from mixbench.storage.manifest import TrainingResult
from mixbench.storage.spec import TUNED, ExecutionOptions, Role, Stage
from mixbench.storage.store import Store
from mixbench.train.checkpoints import DiskJournal, DiskPredictionCache
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.features import Encoding
from mixbench.train.setup import MEMORY, Parts, Setup, load_weights


@dataclass(frozen=True)
class Job:
    """A running stage.

    Attributes
    ----------
    stage
        Stage that is run.
    options
        Execution options of the run.
    store
        Store that holds the inputs and receives the result.
    journal
        Journal that writes checkpoints and progress.
    built
        Empty folder for the files that will be published.
    device
        Device to compute on.
    distributed
        This process among those that train the model.
    parts
        Splits of the data that other runs of this process have loaded.
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

    @cached_property
    def data(self) -> Path:
        """The folder with the files of the data set; the first access checks generated files."""
        return data_folder(self.stage, self.store)

    def setup(self) -> Setup:
        """Return the training setup, with the buffers from the method's `prepare` stage loaded."""
        method, run = make_method(self.stage), self.stage.run
        inputs, recipe = self.stage.inputs, run.recipe
        if TUNED in inputs:
            candidate = self._chosen(inputs[TUNED])
            recipe, inputs = candidate.run.recipe, {**candidate.inputs, **inputs}
        if "prepare" in inputs:
            found = self.store.checked(inputs["prepare"], "method.safetensors")
            method.load_state_dict(load_file(found))
        return Setup(
            method=method,
            task=self.task,
            model=model_of(self.stage),
            recipe=recipe,
            seed=run.seed,
            folder=self.data,
            device=self.device,
            workers=-(-self.options.workers // self.distributed.world_size),
            distributed=self.distributed,
            trained={r: self.trained(k).model for r, k in inputs.items() if r in self.task.needs},
            parts=self.parts,
            cuda_graphs=self.options.cuda_graphs,
            log=self.journal.log,
            encode=self.encoding(),
            teachers=Teachers(self, {r: k for r, k in inputs.items() if r in method.needs}),
        )

    def _chosen(self, key: str) -> Stage:
        """Return the training that a tuning has chosen."""
        manifest = self.store.manifest(key)
        result = training_result(key, self.store).tuning
        assert result is not None
        chosen = manifest.spec.stage.inputs[result.chosen]
        return self.store.manifest(chosen).spec.stage

    def encoding(self) -> Encoding:
        """Return the function that applies frozen encoders to the images of a split."""
        folder = self.journal.work / "features"
        return Encoding(
            lambda name: DiskPredictionCache(folder / name),
            -(-self.options.workers // self.distributed.world_size),
            self.distributed,
            lambda done, of: self.journal.report(done, of, {}),
        )

    def trained(self, key: str) -> Trained:
        """Return the model and method of a finished training stage, in evaluation mode."""
        model, method = revive(self.store.manifest(key).spec.stage, self.device)
        take_weights(key, self.store, (model, method))
        return Trained(model.eval(), method.eval())


class Teachers(Mapping[str, Backbone]):
    """The trained models that a method declares in its needs, by role, loaded when they are read.

    Parameters
    ----------
    job
        Job of the training.
    keys
        Keys of the finished trainings by role.
    """

    def __init__(self, job: Job, keys: Mapping[str, str]) -> None:
        self._job, self._keys = job, keys
        self._loaded: dict[str, Backbone] = {}

    def __getitem__(self, role: str) -> Backbone:
        if role not in self._loaded:
            key = self._keys[role]
            with torch.random.fork_rng([]):  # it may be read in the middle of a step
                self._loaded[role] = self._job.trained(key).model
        return self._loaded[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def data_folder(stage: Stage, store: Store) -> Path:
    """Return the folder with the data of a stage, after checking the digests of generated files."""
    if "data" not in stage.inputs:
        assert stage.paths.data is not None
        return Path(stage.paths.data)
    key = stage.inputs["data"]
    store.check(key)
    return store.folder(key) / "files"


def parameters_of(stage: Stage, role: Role) -> Mapping[str, ParameterValue]:
    """Return a unit's parameters, with paths for files instead of the digests in the identity."""
    unit = stage.identity.units[role]
    return {**unit.parameters, **stage.paths.replaced_parameters.get(role, {})}


def make_task(stage: Stage) -> Task:
    """Return the task of a stage."""
    base = parameters_of(stage, "base_task") if stage.identity.base_task else None
    card = card_of(stage, "task")
    assert isinstance(card, TaskCard)
    return registered_task(card, parameters_of(stage, "task"), base)


def model_of(stage: Stage) -> str:
    """Return the name of a stage's model for `Task.build`: that of its file if it has one.

    Raises
    ------
    UsageError
        If the file is no longer the one with which the stage was planned.
    """
    file, name = stage.paths.model_file, stage.run.model
    if file and not (Path(file).is_file() and name.endswith(code_digest(Path(file)))):
        raise UsageError(
            f"{file} has changed since the run was planned: run the same command again to plan it "
            "with the new code."
        )
    return file or name


def build(stage: Stage, task: Task) -> Backbone:
    """Return a stage's freshly initialised model."""
    return task.build(model_of(stage))


def make_method(stage: Stage) -> Method:
    """Return the method of a stage, not yet bound to a model."""
    card = card_of(stage, "method")
    assert isinstance(card, MethodCard)
    return load_method(card)(**parameters_of(stage, "method"))


def revive(stage: Stage, device: torch.device) -> Trained:
    """Return a stage's model and bound method on a device; the weights must still be loaded."""
    task, method = make_task(stage), make_method(stage)
    model = build(stage, task)
    attach(method, model, task)
    memory = MEMORY[stage.run.recipe.memory_format]
    return Trained(model.to(device).to(memory_format=memory), method.to(device))


def give_weights(
    stage: Stage, store: Store, trained: tuple[Backbone, Method], name: str = ""
) -> None:
    """Load the weights to evaluate into a model and its method.

    They are those of the training stage, if the stage has one as an input, and otherwise the
    initial weights that the task's parameters name.

    Parameters
    ----------
    stage
        Evaluation stage.
    store
        Store with the finished training stage.
    trained
        Model and method that receive the weights.
    name
        Name of the training's weights file, as in ``best`` or ``epoch-60``; by default, that of
        the last epoch.
    """
    if "train" in stage.inputs:
        take_weights(stage.inputs["train"], store, trained, name)
    else:
        make_task(stage).start(trained[0], {})


def take_weights(key: str, store: Store, trained: tuple[Backbone, Method], name: str = "") -> None:
    """Load a training stage's weights, by default those of the last epoch, into a model."""
    model, method = trained
    name = name or f"epoch-{training_result(key, store).tail[-1]}"
    path = store.checked(key, f"weights/{name}.safetensors")
    load_weights(model, method, load_file(path, str(next(model.parameters()).device)))


def training_result(key: str, store: Store) -> TrainingResult:
    """Return the training result in the manifest of a finished training stage.

    Raises
    ------
    Damaged
        If the manifest has no training result.
    """
    result = store.manifest(key).training
    if result is None:
        raise Damaged(f"{store.folder(key) / 'manifest.json'} is damaged: it has no training.")
    return result
