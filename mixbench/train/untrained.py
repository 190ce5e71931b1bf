"""Build methods with untrained models of fixed initial weights, for checks and figures."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mixbench.contract import Backbone, Method, Preparation, Task, Trained, attach
from mixbench.declare import Recipe

Make = Callable[[], Method]


def bound(method: Method, task: Task, model: str, *, to_mix: bool = False) -> Backbone:
    """Return a model of the task with fixed initial weights, with the method bound to it.

    Only `to_mix`, the model need not return what the method's loss reads.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = task.build(model)
        if to_mix:
            method.bind(built, task)
        else:
            attach(method, built, task)
    return built


def prepare(
    method: Method, scorers: Mapping[str, Make], task: Task, model: str, folder: Path, seed: int = 0
) -> None:
    """Run a method's preparation with untrained scorers.

    Parameters
    ----------
    method
        The method to prepare.
    scorers
        Functions that make the methods of the trained models that `method` needs, by role. Here
        their models are untrained.
    task
        The task that provides the data and the models.
    model
        Name of the model to build.
    folder
        Data folder, in the official layout.
    seed
        Seed of the preparation.
    """
    trained = {}
    for role, make in scorers.items():
        scorer = make()
        trained[role] = Trained(bound(scorer, task, model).eval(), scorer.eval())
    prepare_from(method, trained, task, model, folder, seed)


def prepare_from(
    method: Method,
    trained: Mapping[str, Trained],
    task: Task,
    model: str,
    folder: Path,
    seed: int = 0,
) -> None:
    """Run a method's preparation outside a run, with the given models by role."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as results:
        method.prepare(
            Preparation(
                task=task,
                model=model,
                recipe=Recipe(model=model, epochs=1),
                seed=seed,
                folder=folder,
                device=torch.device("cpu"),
                trained=trained,
                scratch=Path(scratch),
                results=Path(results),
                report=lambda _done, _of, _numbers: None,
            )
        )
