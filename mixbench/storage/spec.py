"""What a stage is: its identity, which decides the result, and what its process needs to know.

Written by the launcher as ``spec.json``, read by the stage's process, and kept in the manifest of
the finished stage.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Literal

from mixbench.declare import Recipe
from mixbench.declare.facts import ParameterValue
from mixbench.storage.files import Typed

StageKind = Literal["data", "prepare", "train", "tune", "evaluate"]
Role = Literal["task", "method", "base_task"]
Origin = Literal["official", "modified", "synthetic"]


@dataclass(frozen=True)
class UnitIdentity:
    """A method or task as it decides results; its code has a digest of its own.

    Attributes
    ----------
    parameters
        All of them; of a file, the digest of its content instead of its path.
    """

    name: str
    version: int
    parameters: Mapping[str, ParameterValue]


@dataclass(frozen=True)
class RunIdentity:
    """What decides the result of a stage that has a model: of every kind but ``data``.

    Attributes
    ----------
    model
        The name of the network.
    data_digest
        Identifies the data; empty for data that a stage generates, whose key identifies it.
    """

    method: UnitIdentity
    model: str
    recipe: Recipe
    seed: int
    data_origin: Origin
    data_digest: str


@dataclass(frozen=True)
class Identity:
    """Everything that decides a stage's result, and nothing else.

    Attributes
    ----------
    key_version
        Raised when keys are formed in another way.
    base_task
        The task whose models are evaluated, if the task only evaluates.
    inputs
        The keys of the stages whose results it reads, by role.
    code
        A digest of the first-party code that decides the result.
    run
        None for a stage that generates data.
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
        """The units that take part, by role, in the order in which their code is looked up."""
        method = self.run.method if self.run else None
        every: dict[Role, UnitIdentity | None] = {
            "task": self.task, "method": method, "base_task": self.base_task
        }  # fmt: skip
        return {role: unit for role, unit in every.items() if unit is not None}


@dataclass(frozen=True)
class Paths:
    """Paths that a stage's process needs and that do not decide the result.

    Attributes
    ----------
    data
        The folder of the data; None where a stage generates it.
    unit_files
        The files of methods and tasks that were named by a path, by role.
    parameter_files
        The values of parameters that are files, by role and parameter.
    """

    data: str | None = None
    unit_files: Mapping[Role, str] = field(default_factory=dict)
    parameter_files: Mapping[Role, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One computation with named inputs, in a process of its own.

    Attributes
    ----------
    label
        The cell that it is planned for, in what people read.
    code
        The digest of each module, to say later which one changed.
    num_epochs
        Epochs of training, for the estimate of the time; 0 where there is none.
    """

    label: str
    identity: Identity
    code: Mapping[str, str]
    paths: Paths
    num_epochs: int = 0

    @property
    def kind(self) -> StageKind:
        """What it does."""
        return self.identity.kind

    @property
    def inputs(self) -> Mapping[str, str]:
        """The keys of the stages whose results it reads, by role."""
        return self.identity.inputs

    @property
    def run(self) -> RunIdentity:
        """What decides the result beside the task; only a stage that generates data has none."""
        assert self.identity.run is not None
        return self.identity.run

    @cached_property
    def key(self) -> str:
        """A digest of the identity: the stage's name in the store."""
        text = json.dumps(asdict(self.identity), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def packable_with(self) -> str:
        """What trainings that may share a process have in common; of another stage, its key."""
        if self.kind != "train":
            return self.key
        run, identity = self.run, self.identity
        parts = [asdict(identity.task), identity.base_task and asdict(identity.base_task)]
        data = self.inputs.get("data", self.paths.data)
        return json.dumps([*parts, run.model, asdict(run.recipe), data], sort_keys=True)


@dataclass(frozen=True)
class ExecutionOptions:
    """How a stage is run. None of it decides a result.

    Attributes
    ----------
    checkpoint_every : steps
        A checkpoint is written every so many steps.
    workers
        DataLoader workers of a stage.
    processes
        Processes that train one model together.
    cuda_graphs
        Whether training steps are captured as CUDA graphs.
    pack
        Trainings of one task, model and recipe that are interleaved in one process.
    """

    checkpoint_every: int
    workers: int = 0
    processes: int = 1
    cuda_graphs: bool = False
    pack: int = 1


@dataclass(frozen=True)
class StageSpec:
    """A stage with the options of the run that starts it."""

    stage: Stage
    options: ExecutionOptions


STAGES = Typed(Stage)
SPECS = Typed(StageSpec)
