"""What each kind of stage does, from its spec to its files.

A stage reads its spec and its inputs' files, leaves its own files in a folder, and returns what
its manifest says of the result and the cost.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from mixbench.contract import Evaluation, Preparation, Score
from mixbench.errors import MixbenchError
from mixbench.plan.graph import code_of
from mixbench.records.items import pack
from mixbench.stages.evaluation import at_points, predict
from mixbench.stages.job import KINDS, Job, give_weights, revive, unit_of
from mixbench.stages.journal import DiskTrail
from mixbench.stages.training import train
from mixbench.stages.tuning import tune
from mixbench.store import write_json

Facts = dict[str, Any]


def check_code(spec: Mapping[str, Any]) -> None:
    """Refuse to publish under a key the work of other code than the key was made of.

    Raises
    ------
    MixbenchError
        If a file was changed since the stage was planned.
    """
    there = [role for role in KINDS if role in spec["identity"]]
    now = code_of(spec["kind"], tuple(unit_of(spec, role)[0] for role in there))
    changed = [name for name, digest in spec["code"].items() if now.get(name) != digest]
    if changed or len(now) != len(spec["code"]):
        raise MixbenchError(
            f"The code was changed while the run was going on ({', '.join(changed) or 'imports'}): "
            "give the command again, so that it is planned anew."
        )


def synthesize(job: Job) -> Facts:
    """Write the task's generated data in the official layout."""
    files = job.built / "files"
    files.mkdir()
    start = perf_counter()
    job.task.synthesize(files, job.task.synthetic)
    return {"result": {}, "cost": {"wall_s": perf_counter() - start}}


def prepare(job: Job) -> Facts:
    """Let the method do what comes before training, and keep the buffers that it filled."""
    setup = job.setup()
    roles = [role for role in job.spec["inputs"] if role in setup.method.needs]
    scratch = job.journal.work / "scratch"
    scratch.mkdir(exist_ok=True)
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    setup.method.prepare(
        Preparation(
            task=setup.task,
            model=setup.model,
            recipe=setup.recipe,
            seed=setup.seed,
            folder=setup.folder,
            device=setup.device,
            trained={role: job.trained(role) for role in roles},
            scratch=scratch,
            results=job.built,
            report=job.journal.report,
        )
    )
    buffers = {name: buffer.cpu().contiguous() for name, buffer in setup.method.named_buffers()}
    save_file(buffers, job.built / "method.safetensors")
    return {"result": {}, "cost": {"wall_s": earlier_s + perf_counter() - start}}


def train_stage(job: Job) -> Facts:
    """Train, and keep the weights of the best and of the last epochs and the learning curve."""
    setup = job.setup()
    run = train(setup, job.journal)
    if not job.ranks.leads:
        return {}
    # Links: an attempt that fails from here on must still find the weights of the last epochs.
    shutil.copytree(job.journal.kept, job.built / "weights", copy_function=os.link)
    write_json(job.built / "curve.json", run.curve)
    epochs, tail = setup.recipe.epochs, min(setup.recipe.tail, setup.recipe.epochs)
    counters = run.counters
    return {
        "result": {"best": run.best, "tail": list(range(epochs - tail + 1, epochs + 1))},
        "steps": run.num_steps,
        "cost": {
            "wall_s": counters.train_s + counters.eval_s,
            "train_s": counters.train_s,
            "eval_s": counters.eval_s,
            "images": counters.images,
        },
    }


def evaluate(job: Job) -> Facts:
    """Score the test part at the reported points, and keep the final predictions."""
    test = job.task.load("test", job.data, job.identity["seed"]).to(job.device)
    model, method = revive(job.spec, job.device)
    sizes = {"parameters": _size(model), "extra_parameters": _size(method)}
    earlier_s, start = job.journal.earlier_s(), perf_counter()
    best, tail = _scored(job)
    spec, store = job.spec, job.store
    scores = {}
    predictions: dict[str, Tensor] = {}
    epochs = sorted({*tail, *([best] if best else [])})
    for number, epoch in enumerate(epochs):
        give_weights(spec, store, (model, method), f"epoch-{epoch}" if epoch in tail else "best")
        if number == 0:
            test = job.task.once(model, test)
        folder = job.journal.work / "predictions" / str(epoch)
        trail = DiskTrail(folder, job.journal.report, number, len(epochs))
        predictions = predict(job.task, model, method, test, spec["workers"], trail=trail)
        scores[epoch] = job.task.score(predictions, test.targets)
    save_file({**predictions, "targets": test.targets}, job.built / "predictions.safetensors")
    content = {
        "n": len(test),
        "classes": job.task.class_names(job.data),
        "declared": [asdict(metric) for metric in job.task.metrics],
        "items": _items(job, scores[tail[-1]]),
        "metrics": {
            at: {name: _told(score) for name, score in by_name.items()}
            for at, by_name in at_points(scores, best, tail).items()
        },
    }
    write_json(job.built / "metrics.json", content)
    return {"result": {}, "cost": {"wall_s": earlier_s + perf_counter() - start, **sizes}}


def _told(score: Score) -> dict[str, Any]:
    """Return a score without its items."""
    return {"value": score.value, "stderr": score.stderr, "by_class": score.by_class}


def _items(job: Job, scores: Mapping[str, Score]) -> dict[str, Any] | None:
    """Return the primary metric of every item, where it is a mean over them."""
    items = scores[next(metric.name for metric in job.task.metrics if metric.primary)].items
    packed = None if items is None else pack(items.numpy())
    return packed.model_dump() if packed else None


def _scored(job: Job) -> tuple[int | None, list[int]]:
    """Return the best epoch and the last ones, as far as they are scored; 0 for given weights."""
    if "train" not in job.spec["inputs"]:
        return None, [0]
    trained = job.store.manifest(job.spec["inputs"]["train"])["result"]
    if isinstance(job.task, Evaluation):
        return None, trained["tail"][-1:]
    return trained["best"], trained["tail"]


def _size(module: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


WORK: Mapping[str, Callable[[Job], Facts]] = {
    "data": synthesize,
    "prepare": prepare,
    "train": train_stage,
    "tune": tune,
    "evaluate": evaluate,
}
