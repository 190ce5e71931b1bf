"""The functions that compute each kind of stage.

Each reads the stage's spec and the files of its inputs, writes the stage's files into a folder, and
returns the training result and the cost for the manifest.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mixbench.contract import Evaluation, Predictions, Preparation, Score, Trained
from mixbench.errors import Diverged, MixbenchError, printable
from mixbench.plan.graph import card_of, code_of
from mixbench.records.items import Items, pack
from mixbench.records.stage_metrics import METRICS, ScoreFacts, StageMetrics
from mixbench.storage.curves import write_curve
from mixbench.storage.files import link_or_copy, write_bytes
from mixbench.storage.manifest import Manifest, StageCost, TrainingResult
from mixbench.storage.spec import TUNED, Stage, StageKind
from mixbench.train.checkpoints import FIRST, LAST, DiskPredictionCache
from mixbench.train.evaluation import at_points, predict_each
from mixbench.train.loop import train
from mixbench.vision.images.splits import limited
from mixbench.vision.models.weights import MARK
from mixbench.worker.adoption import adopt
from mixbench.worker.data_checks import images_checked
from mixbench.worker.environment import configure_torch
from mixbench.worker.job import Job, give_weights, revive, training_result
from mixbench.worker.tuning import tune

MODELS_BYTES = 2 << 30  # of the models that are evaluated together


class Work(NamedTuple):
    """The cost and the training result of a stage, or the manifest of one that it adopts."""

    cost: StageCost
    training: TrainingResult | None = None
    adopted: Manifest | None = None


def check_code(stage: Stage) -> None:
    """Check that the code is still that from which the stage's key was computed.

    Raises
    ------
    MixbenchError
        If a module has changed since the stage was planned.
    """
    now, _ = code_of(stage.kind, tuple(card_of(stage, role) for role in stage.identity.units))
    changed = [name for name, digest in stage.code.items() if now.get(name) != digest]
    if changed or len(now) != len(stage.code):
        raise MixbenchError(
            f"The code has changed since the run was planned ({', '.join(changed) or 'imports'}): "
            "run the same command again to plan it with the new code."
        )


def synthesize(job: Job) -> Work:
    """Generate the task's synthetic data in the layout of the official data."""
    files = job.built / "files"
    files.mkdir()
    start = perf_counter()
    job.task.synthesize(files, job.task.synthetic)
    return Work(StageCost(perf_counter() - start))


def prepare(job: Job) -> Work | None:
    """Run the method's `prepare` in all processes, and save the buffers that it filled."""
    setup = job.setup()
    if setup.recipe.precision == "bfloat16":  # what runs outside autocast here is to be exact
        configure_torch(replace(setup.recipe, precision="float32"))
    roles = [role for role in job.stage.inputs if role in setup.method.needs]
    scratch = job.journal.work / "scratch"
    scratch.mkdir(exist_ok=True)
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    with TemporaryDirectory() as elsewhere:  # only the results of the first process are kept
        setup.method.prepare(
            Preparation(
                task=setup.task,
                model=setup.model,
                recipe=setup.recipe,
                seed=setup.seed,
                folder=setup.folder,
                device=setup.device,
                trained={role: job.trained(job.stage.inputs[role]) for role in roles},
                scratch=scratch,
                results=job.built if job.distributed.is_main else Path(elsewhere),
                report=job.journal.report,
                processes=job.distributed,
            )
        )
    job.distributed.sum(torch.zeros(1))  # no process is still at work when the first publishes
    if not job.distributed.is_main:
        return None
    buffers = {name: buffer.cpu().contiguous() for name, buffer in setup.method.named_buffers()}
    write_bytes(job.built / "method.safetensors", save(buffers))
    return Work(StageCost(earlier_s + perf_counter() - start))


def train_stage(job: Job) -> Work | None:
    """Train, and save the learning curve and the weights of the best and the last epochs."""
    if job.stage.paths.earlier:
        earlier = adopt(job)
        return Work(earlier.cost, earlier.training, earlier)
    setup = job.setup()
    with images_checked(job):
        run = train(setup, job.journal)
    if not job.distributed.is_main:
        return None
    epochs = run.num_epochs
    kept = tuple(range(max(epochs - setup.recipe.tail, 0) + 1, epochs + 1))
    (job.built / "weights").mkdir()
    names = {f"epoch-{epoch}": f"epoch-{epoch}" for epoch in kept}
    names |= {f"best-{run.best}": "best"} if run.best else {}
    for own, name in names.items():
        # Hard links: if this attempt fails later, the next one must still find these weights.
        link_or_copy(
            job.journal.kept / f"{own}.safetensors", job.built / f"weights/{name}.safetensors"
        )
    for name in (FIRST, LAST):
        if (proof := job.journal.work / name).exists():
            (job.built / name).parent.mkdir(exist_ok=True)
            link_or_copy(proof, job.built / name)
    write_curve(job.built / "curve.json", run.curve)
    counters = run.counters
    cost = StageCost(
        wall_s=counters.train_s + counters.eval_s,
        train_s=counters.train_s,
        eval_s=counters.eval_s,
        images=counters.images,
    )
    tuned = job.stage.inputs.get(TUNED)
    tuning = training_result(tuned, job.store).tuning if tuned else None
    fit = run.curve[-1].get("train_accuracy")
    return Work(cost, TrainingResult(run.best, kept, run.num_steps, tuning, fit))


def evaluate(job: Job) -> Work:
    """Score the test split at the reported epochs, and save the predictions of the last one.

    Raises
    ------
    Diverged
        If a metric is infinite or NaN.
    """
    stage, store = job.stage, job.store
    test = limited(job.task.load("test", job.data, stage.run.seed), stage.run.recipe.limit)
    test = test.to(job.device)
    model, method = revive(stage, job.device)
    parameters, extra = _size(model), _size(method)
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    best, tail = _scored(job)
    scores = {}
    predictions: dict[str, Tensor] = {}
    epochs = sorted({*tail, *([best] if best else [])})
    size = sum(t.nbytes for one in (model, method) for t in one.state_dict().values())
    together = max(1, MODELS_BYTES // max(size, 1))
    trained = [Trained(model, method)]
    trained += [revive(stage, job.device) for _ in epochs[1:together]]
    for first in range(0, len(epochs), together):
        group = epochs[first : first + together]
        for epoch, one in zip(group, trained, strict=False):
            give_weights(stage, store, one, f"epoch-{epoch}" if epoch in tail else "best")
        if first == 0:
            test = job.task.precompute_frozen(model, test, job.encoding())
        folder = job.journal.work / "predictions"
        found = predict_each(
            job.task, trained[: len(group)], test, job.options.workers,
            caches=[DiskPredictionCache(folder / str(epoch)) for epoch in group],
            report=partial(_report, job, (first, len(group), len(epochs))),
        )  # fmt: skip
        for epoch, predictions in zip(group, found, strict=True):  # the last are saved
            scores[epoch] = job.task.score(predictions, test.targets)
    _save_predictions(job, predictions, test.targets)
    metrics = StageMetrics(
        n=len(test),
        classes=tuple(map(printable, job.task.class_names(job.data))),
        declared=job.task.metrics,
        items=_items(job, scores[tail[-1]]),
        metrics={
            at: {
                name: ScoreFacts(score.value, score.stderr, score.by_class and [*score.by_class])
                for name, score in by_name.items()
            }
            for at, by_name in at_points(scores, best, tail).items()
        },
        normalization=_normalization(model),
        held_out=_held_out(job),
    )
    for by_name in metrics.metrics.values():
        for name, score in by_name.items():
            if not isfinite(score.value):
                raise Diverged(f"{name} is {score.value} on the test split.")
    METRICS.write(job.built / "metrics.json", metrics)
    wall_s = earlier_s + perf_counter() - start
    return Work(StageCost(wall_s, parameters=parameters, extra_parameters=extra))


def _report(job: Job, epochs: tuple[int, int, int], done: int, of: int) -> None:
    """Report the progress of an evaluation: of epochs before, in this group, and in total."""
    before, group, every = epochs
    job.journal.report(before * of + group * done, every * of, {})


def _normalization(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the normalisation of the initial weights, if it is not that of the task."""
    buffers = (b for name, b in model.named_buffers() if name.rpartition(".")[2] == MARK)
    for values in buffers:
        mean, std = (tuple(round(v, 6) for v in row) for row in values[2:].tolist())
        return mean, std
    return None


def _held_out(job: Job) -> float | None:
    """Return the fraction of the training images that the model was not trained on, if known."""
    if "train" not in job.stage.inputs:
        return None
    trained = job.task.base_task if isinstance(job.task, Evaluation) else job.task
    return 0.0 if job.stage.run.recipe.final_on == "all" else trained.held_out


def _items(job: Job, scores: Mapping[str, Score]) -> Items | None:
    """Return the primary metric of every item; None if the metric is not a mean over items."""
    items = scores[next(metric.name for metric in job.task.metrics if metric.primary)].items
    return None if items is None else pack(items.numpy())


def _save_predictions(job: Job, predictions: Predictions, targets: Tensor) -> None:
    """Save the predictions with their targets, and in compact form if the task has one."""
    tensors = {**predictions, "targets": targets}
    write_bytes(job.built / "predictions.safetensors", save(tensors))
    if compact := job.task.compact(predictions, targets):
        write_bytes(job.built / "compact.safetensors", save({**compact}))


def _scored(job: Job) -> tuple[int | None, tuple[int, ...]]:
    """Return the best epoch, if any, and the last epochs to score; (0,) for given weights."""
    if "train" not in job.stage.inputs:
        return None, (0,)
    trained = training_result(job.stage.inputs["train"], job.store)
    if isinstance(job.task, Evaluation):
        return None, trained.tail[-1:]
    return trained.best or None, trained.tail


def _size(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def tune_stage(job: Job) -> Work:
    """Keep the weights of the candidate with the best final result on the validation split."""
    return Work(StageCost(0.0), tune(job))


WORK: Mapping[StageKind, Callable[[Job], Work | None]] = {
    "data": synthesize,
    "prepare": prepare,
    "train": train_stage,
    "tune": tune_stage,
    "evaluate": evaluate,
}
