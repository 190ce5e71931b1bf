"""Set up a training run: its configuration, state and weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mixbench.contract import Backbone, Encode, Method, Part, Split, Task
from mixbench.declare import Recipe
from mixbench.errors import BadParameter
from mixbench.streams import stream_seed
from mixbench.train.cuda_graphs import CudaGraphs
from mixbench.train.distributed import SINGLE_PROCESS, Distributed
from mixbench.train.features import Encoding
from mixbench.train.gradients import (
    AccumulatedGradients,
    EagerGradients,
    Gradients,
    GraphGradients,
    check_accumulation,
)
from mixbench.train.mixing import SharedStep
from mixbench.train.optimizer import make_optimizer, parameter_groups
from mixbench.vision.images.splits import read_packed

State: TypeAlias = dict[str, Any]
Parts: TypeAlias = dict[tuple[Part, int], Split]  # by split name and seed, on the device
PARTS: tuple[Part, Part] = ("train", "validation")
MEMORY = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Setup:
    """Configuration of a training run.

    Attributes
    ----------
    method
        The mixing method.
    task
        The task to train on.
    model
        Name of the model that the task builds.
    recipe
        Hyperparameters of the training.
    seed
        Seed of all random streams of the run.
    folder
        Data folder, in the official layout.
    device
        The device to train on.
    workers
        Number of DataLoader workers that read images ahead.
    distributed
        The processes that train the model together.
    trained
        Trained models that the task starts from, by role.
    parts
        Cache of loaded splits, shared by the runs of one process.
    cuda_graphs
        Whether to capture training steps as CUDA graphs.
    log
        Function that writes a line to the stage's log.
    encode
        Function that applies frozen encoders to the images of a split.
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
    encode: Encode = field(default_factory=Encoding)


@dataclass
class Counters:
    """The cost of a run so far, summed over all its attempts.

    Attributes
    ----------
    images
        Number of images passed forward and backward.
    train_s : seconds
        Time of the training loop without validation.
    eval_s : seconds
        Time of validation.
    """

    images: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0


@dataclass
class Run:
    """The state of a run in progress.

    Attributes
    ----------
    setup
        Configuration of the run.
    model
        The model in training.
    gradients
        Computes the gradients of a step.
    optimizer
        Optimizer of the model's and the method's parameters.
    train
        The training split.
    validation
        The validation split; None if no images are held out.
    losses : (steps_per_epoch,)
        Losses of the steps of the current epoch.
    order
        The current epoch, and the order of the training items in it.
    curve
        One row of metrics for every finished epoch.
    best
        The epoch with the best validation score; 0 before the first validation.
    counters
        Time and number of images so far.
    clock
        `perf_counter` time of the last update of the counters.
    """

    setup: Setup
    model: Backbone
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    train: Split
    validation: Split | None
    losses: Tensor
    order: tuple[int, Tensor] = (-1, torch.empty(0))
    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    counters: Counters = field(default_factory=Counters)
    clock: float = field(default_factory=perf_counter)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch."""
        return len(self.losses)

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.setup.recipe.epochs * self.steps_per_epoch


def begin(setup: Setup) -> Run:
    """Return a run at its first step, with a new model, heads and optimizer, and the data loaded.

    Raises
    ------
    BadParameter
        If the training split has fewer images than one batch.
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
    train = setup.task.precompute_frozen(model, _part(setup, "train"), setup.encode)
    validation = None
    if setup.task.has_validation:
        validation = setup.task.precompute_frozen(model, _part(setup, "validation"), setup.encode)
    if len(train) < recipe.batch_size:
        raise BadParameter(
            f"batch_size must be at most the number of training images, {len(train)} "
            f"(got {recipe.batch_size}). Choose a smaller batch_size."
        )
    optimizer = make_optimizer(parameter_groups(model, setup.method, recipe), recipe)
    losses = torch.zeros(len(train) // recipe.batch_size, device=device)
    return Run(setup, model, gradients, optimizer, train, validation, losses, clock=clock)


def _part(setup: Setup, name: Part) -> Split:
    """Return a split of the data; the runs of one process share it."""
    if (name, setup.seed) not in setup.parts:
        part = setup.task.load(name, setup.folder, setup.seed)
        if setup.recipe.packed:
            part = read_packed(part, setup.folder, setup.recipe.packed)
        setup.parts[name, setup.seed] = part.to(setup.device)
    return setup.parts[name, setup.seed]


def _gradients(setup: Setup, shared: SharedStep) -> Gradients:
    """Return CUDA-graph gradients if they are requested and possible, otherwise eager ones."""
    check_accumulation(setup.method, setup.recipe)
    divided = setup.recipe.accumulate > 1
    capturable = setup.distributed.world_size == 1 and not divided
    if setup.cuda_graphs and setup.device.type == "cuda" and capturable:
        return GraphGradients(shared, setup.recipe, CudaGraphs(), setup.log)
    if setup.cuda_graphs:
        needed = "a GPU, and training in one process and in whole batches"
        setup.log(f"--cuda-graphs is ignored: it needs {needed}.")
    wrapped = setup.distributed.wrap_ddp(shared, setup.device)
    if divided:
        return AccumulatedGradients(wrapped, setup.recipe, setup.method, setup.distributed)
    return EagerGradients(wrapped, setup.recipe)


def weights(model: Backbone, method: Method) -> State:
    """Return all tensors that evaluation needs: those of the model and of the method."""
    parts = {"model": model.state_dict(), "method": method.state_dict()}
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def load_weights(model: Backbone, method: Method, state: Mapping[str, Tensor]) -> None:
    """Load the tensors that `weights` returned into the model and the method."""
    parts = {
        part: {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)}
        for part in ("model.", "method.")
    }
    model.load_state_dict(parts["model."])
    method.load_state_dict(parts["method."])
