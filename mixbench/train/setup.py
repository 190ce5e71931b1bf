"""A run of training: what it is made of, and its weights as they are kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mixbench.contract import Backbone, Method, Part, Split, Task
from mixbench.declare import Recipe
from mixbench.errors import BadParameter
from mixbench.streams import stream_seed
from mixbench.train.cuda_graphs import CudaGraphs
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.gradients import EagerGradients, Gradients, GraphGradients
from mixbench.train.mixing import SharedStep
from mixbench.train.optimizer import make_optimizer, parameter_groups

State: TypeAlias = dict[str, Any]
Parts: TypeAlias = dict[tuple[Part, int], Split]  # by name and seed, on the device
PARTS: tuple[Part, Part] = ("train", "validation")
MEMORY = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Setup:
    """What a run is made of.

    Attributes
    ----------
    folder
        Of the data, in the official layout.
    model
        Its name.
    workers
        Processes that read images ahead.
    distributed
        The processes that train the model together.
    trained
        The models that the task starts from, by role.
    parts
        Of the data, which this run finds, or leaves for others.
    cuda_graphs
        Whether training steps are captured as CUDA graphs.
    log
        Tells whoever reads the log.
    """

    method: Method
    task: Task
    model: str
    recipe: Recipe
    seed: int
    folder: Path
    device: torch.device
    workers: int = 0
    distributed: Distributed = SINGLE_PROCESS
    trained: Mapping[str, Backbone] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)
    cuda_graphs: bool = False
    log: Callable[[str], None] = lambda _: None


@dataclass
class Counters:
    """The cost of a run so far, over all its attempts.

    Attributes
    ----------
    images
        Passed forward and backward.
    train_s, eval_s : seconds
        Of the loop without validation, and of validation.
    """

    images: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0


@dataclass
class Run:
    """A run in progress."""

    setup: Setup
    model: Backbone
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    train: Split
    validation: Split
    losses: Tensor  # of the epoch's steps so far, (steps_per_epoch,)
    order: tuple[int, Tensor] = (-1, torch.empty(0))  # the epoch, and the items' order in it
    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    counters: Counters = field(default_factory=Counters)
    clock: float = field(default_factory=perf_counter)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch."""
        return len(self.losses)

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.setup.recipe.epochs * self.steps_per_epoch


def begin(setup: Setup) -> Run:
    """Return a run at its first step: fresh model, heads and optimiser, and the data.

    Raises
    ------
    BadParameter
        If the training part does not fill one batch.
    """
    recipe, seed, device = setup.recipe, setup.seed, setup.device
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, "init"))
        model = setup.task.build(setup.model)
        torch.manual_seed(stream_seed(seed, "head"))
        setup.method.bind(model, setup.task)
    setup.task.start(model, setup.trained)
    model.to(device).to(memory_format=MEMORY[recipe.memory_format])
    setup.method.to(device)
    shared = SharedStep(model.train(), setup.method, setup.distributed)
    gradients = _gradients(setup, shared)
    if recipe.compile:
        model.compile()
    clock = perf_counter()
    train, validation = (setup.task.precompute_frozen(model, _part(setup, name)) for name in PARTS)
    if len(train) < recipe.batch_size:
        raise BadParameter(
            f"batch_size must be at most the number of training images, {len(train)} "
            f"(got {recipe.batch_size})."
        )
    optimizer = make_optimizer(parameter_groups(model, setup.method, recipe), recipe)
    losses = torch.zeros(len(train) // recipe.batch_size, device=device)
    return Run(setup, model, gradients, optimizer, train, validation, losses, clock=clock)


def _part(setup: Setup, name: Part) -> Split:
    """Return a part of the data; runs of one process share it."""
    if (name, setup.seed) not in setup.parts:
        part = setup.task.load(name, setup.folder, setup.seed).to(setup.device)
        setup.parts[name, setup.seed] = part
    return setup.parts[name, setup.seed]


def _gradients(setup: Setup, shared: SharedStep) -> Gradients:
    """Return how a step's gradients come about."""
    if setup.cuda_graphs and setup.device.type == "cuda" and setup.distributed.world_size == 1:
        return GraphGradients(shared, setup.recipe, CudaGraphs(), setup.log)
    if setup.cuda_graphs:
        setup.log("steps are not recorded: that needs one process, on a GPU.")
    return EagerGradients(setup.distributed.wrap_ddp(shared, setup.device), setup.recipe)


def weights(model: Backbone, method: Method) -> State:
    """Return everything that evaluation needs: the model's and the method's tensors."""
    parts = {"model": model.state_dict(), "method": method.state_dict()}
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def load_weights(model: Backbone, method: Method, state: Mapping[str, Tensor]) -> None:
    """Put back what `weights` returned."""
    parts = {
        part: {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)}
        for part in ("model.", "method.")
    }
    model.load_state_dict(parts["model."])
    method.load_state_dict(parts["method."])
