"""The spec of a stage: its identity, which determines the result, its paths and its options.

The launcher writes it as ``spec.json``, the stage's process reads it, and the manifest of the
finished stage includes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from mixbench.declare import Recipe
from mixbench.declare.facts import ParameterValue
from mixbench.storage.files import Typed

TUNED = "tuned"  # role of the tuning whose chosen recipe a training takes
StageKind = Literal["data", "prepare", "train", "tune", "evaluate"]
DISTRIBUTED_KINDS = ("prepare", "train")  # stages that all processes of a cell compute together
Role = Literal["task", "method", "base_task"]
Origin = Literal["official", "counted", "re-encoded", "modified", "own", "synthetic"]
PUBLISHED: frozenset[Origin] = frozenset({"official", "counted"})  # as the publisher describes it


@dataclass(frozen=True)
class UnitIdentity:
    """The part of a method or task, besides its code, that determines results.

    Attributes
    ----------
    name
        Name of the method or task.
    version
        Version that the method or task declares.
    parameters
        Values of all parameters, by name; for a file, the digest of its content.
    """

    name: str
    version: int
    parameters: Mapping[str, ParameterValue]


@dataclass(frozen=True)
class RunIdentity:
    """The part of the identity that stages with a model have: all kinds except ``data``.

    Attributes
    ----------
    method
        Method with its parameters.
    model
        Name of the model.
    recipe
        Recipe that trains the model.
    seed
        Random seed.
    data_digest
        Digest of the part of the data that the stage reads; empty for generated data, which the key
        of its stage identifies.
    """

    method: UnitIdentity
    model: str
    recipe: Recipe
    seed: int
    data_digest: str


@dataclass(frozen=True)
class Identity:
    """Everything that determines a stage's result, and nothing else.

    Attributes
    ----------
    key_version
        Version of the way in which keys are computed.
    kind
        Kind of the stage.
    task
        Task with its parameters.
    inputs
        Keys of the stages whose results this stage reads, by role.
    code
        Digest of the code of mixbench, the method and the task that determines the result.
    base_task
        Base task, whose models are evaluated; None for a task that trains models.
    run
        Method, model, recipe, seed and data; None for a stage that generates data.
    """

    key_version: int
    kind: StageKind
    task: UnitIdentity
    inputs: Mapping[str, str]
    code: str
    base_task: UnitIdentity | None = None
    run: RunIdentity | None = None

    @property
    def units(self) -> dict[Role, UnitIdentity]:
        """The task, method and base task of the stage, by role, in the order of code lookup."""
        method = self.run.method if self.run else None
        every: dict[Role, UnitIdentity | None] = {
            "task": self.task, "method": method, "base_task": self.base_task
        }  # fmt: skip
        return {role: unit for role, unit in every.items() if unit is not None}


@dataclass(frozen=True)
class Paths:
    """Paths that a stage's process needs and that do not affect the result.

    Attributes
    ----------
    data
        Folder of the data; None if a stage generates the data.
    data_states
        State of the data's files when the stage was planned, by part; empty for generated data.
    earlier
        Key of a finished training of earlier code whose result the stage adopts after a proof; else
        empty.
    unit_files
        Files of the methods and tasks that the user gave by path, by role.
    model_file
        File of the user's own that builds the model; else empty.
    replaced_parameters
        Values of the parameters that the identity replaces by digests of files or by versions, by
        role and parameter name.
    file_states
        State of each file or folder that a parameter names when the stage was planned, by path.
    """

    data: str | None = None
    earlier: str = ""
    model_file: str = ""
    data_states: Mapping[Literal["train", "test"], str] = field(default_factory=dict)
    unit_files: Mapping[Role, str] = field(default_factory=dict)
    replaced_parameters: Annotated[
        Mapping[Role, Mapping[str, str]],
        Field(
            validation_alias=AliasChoices("replaced_parameters", "parameter_files")
        ),  # until 2026
    ] = field(default_factory=dict)
    file_states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One computation with named inputs, which runs in a process.

    Attributes
    ----------
    label
        Name in messages of the cell that the stage is planned for.
    identity
        Everything that determines the result.
    code
        Digest of each module in the identity's `code`, to report which module changed.
    paths
        Paths that do not affect the result.
    num_epochs
        Number of training epochs, for time estimates; 0 for stages that do not train.
    """

    label: str
    identity: Identity
    code: Mapping[str, str]
    paths: Paths
    num_epochs: int = 0

    @property
    def kind(self) -> StageKind:
        """Kind of the stage."""
        return self.identity.kind

    @property
    def inputs(self) -> Mapping[str, str]:
        """Keys of the stages whose results this stage reads, by role."""
        return self.identity.inputs

    @property
    def run(self) -> RunIdentity:
        """The identity's `run`, which every stage has that does not generate data."""
        assert self.identity.run is not None
        return self.identity.run

    @cached_property
    def key(self) -> str:
        """Digest of the identity, which names the stage in the store."""
        parts = asdict(self.identity)
        if self.identity.run is not None:
            parts["run"]["recipe"] = self.identity.run.recipe.values()
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def data_key(self) -> str:
        """Digest of the data files and of the task that reads them, for checks of the data."""
        task, base = self.identity.task, self.identity.base_task
        parts = [asdict(task), base and asdict(base), self.paths.data, self.paths.data_states]
        text = json.dumps(parts, sort_keys=True, default=dict)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def packable_with(self) -> str:
        """A text that is equal for trainings that can share a process; else the stage's key."""
        if self.kind != "train":
            return self.key
        run, identity = self.run, self.identity
        parts = [asdict(identity.task), identity.base_task and asdict(identity.base_task)]
        data = self.inputs.get("data", self.paths.data)
        return json.dumps([*parts, run.model, run.recipe.values(), data], sort_keys=True)


@dataclass(frozen=True)
class ExecutionOptions:
    """Options of how stages are run, none of which affects a result.

    Attributes
    ----------
    checkpoint_every : steps
        Number of steps between two checkpoints; None to write one every few minutes.
    workers
        Number of DataLoader workers per stage.
    processes
        Number of distributed processes that prepare and train one model together.
    cuda_graphs
        Whether training steps are captured as CUDA graphs.
    pack
        Maximum number of trainings that are interleaved in one process; they have the same task,
        model and recipe.
    """

    checkpoint_every: int | None = None
    workers: int = 0
    processes: int = 1
    cuda_graphs: bool = False
    pack: int = 1


@dataclass(frozen=True)
class StageSpec:
    """A stage with the execution options of the run that starts it."""

    stage: Stage
    options: ExecutionOptions


STAGES = Typed(Stage)
SPECS = Typed(StageSpec)
