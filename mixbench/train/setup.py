"""Set up a training run: its configuration, state and weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from mixbench.contract import Backbone, Encode, Loss, Method, Part, Split, Task, Trained, attach
from mixbench.declare import Recipe
from mixbench.errors import BadParameter
from mixbench.streams import stream_seed
from mixbench.train.criterion import criterion
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
from mixbench.vision.images.splits import limited, read_packed, with_augmentation

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
    teachers
        Trained models that the method declares in its needs, by role.
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
    teachers: Mapping[str, Backbone] = field(default_factory=dict)


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
    shared
        The model in training, and the method.
    gradients
        Computes the gradients of a step.
    optimizer
        Optimizer of the model's and the method's parameters.
    loss
        Loss that the recipe sets; None for that of the task or the model.
    averages
        Moving averages of the weights that the recipe or the method asks for.
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
    shared: SharedStep
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    loss: Loss | None
    averages: "Averages"
    train: Split
    validation: Split | None
    losses: Tensor
    order: tuple[int, Tensor] = (-1, torch.empty(0))
    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    counters: Counters = field(default_factory=Counters)
    clock: float = field(default_factory=perf_counter)

    @property
    def model(self) -> Backbone:
        """The model in training."""
        return self.shared.model

    @property
    def ranked(self) -> Trained:
        """The model and the method with the weights that are validated, kept and ranked."""
        shared = self.averages.of_recipe
        if shared is None:
            return Trained(self.model, self.setup.method)
        return Trained(shared.module.model, shared.module.method)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch."""
        return len(self.losses)

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole run."""
        every = self.setup.recipe.epochs * self.steps_per_epoch
        return min(every, self.setup.recipe.max_steps or every)

    @property
    def num_epochs(self) -> int:
        """Number of epochs, of which a trial may end the last one early."""
        return -(-self.num_steps // self.steps_per_epoch)


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
        attach(setup.method, model, setup.task)
        if recipe.drop_path:
            model.set_drop_path(recipe.drop_path)
    setup.task.start(model, setup.trained)
    model.to(device).to(memory_format=MEMORY[recipe.memory_format])
    setup.method.to(device)
    shared = SharedStep(model.train(), setup.method, setup.distributed)
    averages = Averages.of(shared, recipe)
    gradients = _gradients(setup, shared)
    if recipe.compile:
        model.compile()
    clock = perf_counter()
    part = with_augmentation(_part(setup, "train"), recipe.auto_augment, recipe.random_erasing)
    train = setup.task.precompute_frozen(model, part, setup.encode)
    validation = None
    if setup.task.has_validation:
        validation = setup.task.precompute_frozen(model, _part(setup, "validation"), setup.encode)
    check_fills_a_batch(train, recipe)
    optimizer = make_optimizer(parameter_groups(model, setup.method, recipe), recipe)
    losses = torch.zeros(len(train) // recipe.batch_size, device=device)
    return Run(
        setup, shared, gradients, optimizer, criterion(setup.task, recipe), averages, train,
        validation, losses, clock=clock,
    )  # fmt: skip


def check_fills_a_batch(train: Split, recipe: Recipe) -> None:
    """Check that the training images fill at least one batch.

    Raises
    ------
    BadParameter
        If they do not.
    """
    if len(train) < recipe.batch_size:
        raise BadParameter(
            f"batch_size must be at most the number of training images, {len(train)} (got "
            f"{recipe.batch_size}): give --set TASK.batch_size=N."
        )


@dataclass(frozen=True)
class Averages:
    """Exponential moving averages of a run's weights.

    Attributes
    ----------
    of_recipe
        Average of model and method that is ranked; None unless the recipe asks for it.
    of_method
        Average of the model that the method reads; None unless the method asks for it.
    """

    of_recipe: ModelEmaV3 | None
    of_method: ModelEmaV3 | None

    @classmethod
    def of(cls, shared: SharedStep, recipe: Recipe) -> "Averages":
        """Return the averages at the start of a run, which equal the initial weights."""
        ranked, read = recipe.ema_decay, shared.method.ema_decay
        return cls(
            ModelEmaV3(shared, ranked) if ranked else None,
            ModelEmaV3(shared.model, read) if read else None,
        )

    def update(self, shared: SharedStep) -> None:
        """Take in the weights after a step."""
        if self.of_recipe is not None:
            # A method may begin to keep something in training, which is taken over as it is.
            average: SharedStep = self.of_recipe.module
            kept = dict(average.method.named_buffers(recurse=False))
            for name, buffer in shared.method.named_buffers(recurse=False):
                if name not in kept or kept[name].shape != buffer.shape:
                    average.method.register_buffer(name, buffer.clone())
            self.of_recipe.update(shared)
        if self.of_method is not None:
            self.of_method.update(shared.model)

    def state(self) -> State:
        """Return the tensors of all averages, by name."""
        return {name: average.module.state_dict() for name, average in self._kept()}

    def load(self, state: Mapping[str, State], device: torch.device) -> None:
        """Load the tensors that `state` returned."""
        for name, average in self._kept():
            average.module.load_state_dict(state[name])
            average.module.to(device)  # loading may replace a buffer

    def _kept(self) -> Iterator[tuple[str, ModelEmaV3]]:
        named = {"recipe": self.of_recipe, "method": self.of_method}
        yield from ((name, average) for name, average in named.items() if average is not None)


def _part(setup: Setup, name: Part) -> Split:
    """Return a split of the data; the runs of one process share it."""
    if (name, setup.seed) not in setup.parts:
        part = setup.task.load(name, setup.folder, setup.seed)
        part = limited(part, setup.recipe.limit, setup.seed)
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
