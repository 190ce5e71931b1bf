"""The checks that every task must pass, on a small amount of its generated data.

Each check returns what it measured, or raises an AssertionError that states the failure. The second
paragraph of its docstring is the remedy.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import isclose
from pathlib import Path

import torch

from mixbench.contract import PARTS, Evaluation, Method, Part, Split, Step, Task
from mixbench.contract.loading import load_method, load_task, make_task
from mixbench.datasets.verify import compare
from mixbench.declare import BASELINE, Synthetic
from mixbench.plan.request import base_values
from mixbench.registry.cards import TaskCard
from mixbench.registry.units import find, paths
from mixbench.streams import generator
from mixbench.testing.measuring import unchanged_global_randomness
from mixbench.train.evaluation import predict


@dataclass(frozen=True)
class TaskSubject:
    """A task under test, with a small amount of generated data.

    Attributes
    ----------
    card
        Card of the task.
    """

    card: TaskCard

    @cached_property
    def task(self) -> Task:
        """Task with the parameters of its first protocol for generated data."""
        protocol = next(iter(self.card.declared.synthetic.protocols), "")
        of = self.card.declared.evaluates
        subject = base_values(find("task", of), protocol) if of else None
        return make_task(self.card, base_values(self.card, protocol), subject)

    @cached_property
    def trains(self) -> bool:
        """Whether the task trains models; an evaluation does not, and has only a test split."""
        return not isinstance(self.task, Evaluation)

    @cached_property
    def folder(self) -> Path:
        """Folder of the task's generated data, which is removed together with this object."""
        made = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        self.task.synthesize(made, self.few(12, 5 if self.trains else 1))
        return made

    def few(self, train: int, test: int) -> Synthetic:
        """Return a small amount of data, or the only amount that the layout supports."""
        synthetic = self.task.synthetic
        return replace(synthetic, train=train, test=test) if synthetic.protocols else synthetic

    def parts(self) -> dict[Part, Split]:
        """Return the splits that the task reads, by name."""
        return {part: self.task.load(part, self.folder, 0)
                for part in (PARTS if self.trains else ("test",))}  # fmt: skip


def card_matches_class(subject: TaskSubject) -> str:
    """The declarations read from the file equal those of the loaded class.

    Else: declare as literals in the class, and begin the file with Data and Licence.
    """
    card = subject.card
    load_task(card)  # raises if a declaration differs
    for field in ("Data", "Licence"):
        assert card.header.get(field), f"the file's docstring has no field {field}"
    return f"{len(card.parameters)} parameters, {len(card.attributes)} declarations"


def declarations_are_consistent(subject: TaskSubject) -> str:
    """One metric is primary; protocols and references use only models and metrics of the task.

    Else: add the missing name to `models`, `metrics` or `protocols`.
    """
    task = subject.task
    primary = [metric.name for metric in task.metrics if metric.primary]
    assert len(primary) == 1, f"{len(primary)} metrics are primary: {', '.join(primary) or 'none'}"
    assert task.models, "models is empty"
    known = set(task.models)
    for name, recipe in task.protocols.items():
        assert recipe.model in known, f"protocol {name}: {recipe.model} is not in models"
    missing = {*task.synthetic.protocols, *task.by_model} - set(task.protocols)
    assert not missing, f"not in protocols: {', '.join(sorted(missing))}"
    for protocol, models in task.by_model.items():
        assert set(models) <= known, f"by_model[{protocol!r}] names a model that is not in models"
        assert all(replace(task.protocols[protocol], **values) for values in models.values())
    assert set(task.published) <= known, "published names a model that is not in models"
    digests = [*task.data.files.values(), *(archive.digest for archive in task.data.archives)]
    wrong = [digest for digest in digests if len(digest) not in {0, 32, 64}]
    assert not wrong, f"{wrong[0]!r} is neither MD5 nor SHA-256" if wrong else ""
    names, methods = {metric.name for metric in task.metrics}, set(paths("method"))
    for one in task.references:
        assert one.metric in names, f"a reference has the metric {one.metric}, not in metrics"
        assert one.model in known, f"a reference has the model {one.model}, not in models"
        assert one.method in methods, f"a reference has the method {one.method}, which is unknown"
    return f"{len(known)} models, {len(names)} metrics, {len(task.references)} published numbers"


def generated_data_has_official_layout(subject: TaskSubject) -> str:
    """The files that `synthesize` writes are exactly those that `data` declares.

    Else: declare each file in `Data.files`, or its folder in `Data.file_counts`.
    """
    task, folder = subject.task, subject.folder
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    lost = set(task.data.files) - written
    assert not lost, f"{', '.join(sorted(lost))} was not written"
    file_counts = tuple(f"{tree}/" for tree in task.data.file_counts)
    loose = [p for p in written if p not in task.data.files and not p.startswith(file_counts)]
    assert not loose, f"{loose[0]} was written and is not declared" if loose else ""
    gone = [finding.path for finding in compare(task.data, folder) if finding.text == "missing"]
    assert not gone, f"{gone[0]} is missing" if gone else ""
    return f"{len(written)} files"


def generation_is_deterministic(subject: TaskSubject) -> str:
    """Generating the same amount with the same seed twice gives bit-identical files.

    Else: draw from `generator(amount.seed, "synthetic")`, and do not write the time.
    """
    amount = subject.few(4, 3)
    contents = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as made:
            subject.task.synthesize(Path(made), amount)
            files = sorted(path for path in Path(made).rglob("*") if path.is_file())
            contents.append({path.relative_to(made): path.read_bytes() for path in files})
    first, second = contents
    assert first, "no file was written"
    assert first.keys() == second.keys(), "the second time, files with different names were written"
    other = [path for path, content in first.items() if second[path] != content]
    assert not other, f"{other[0]} differs the second time" if other else ""
    return f"{len(first)} files, bit-identical"


def splits_are_disjoint(subject: TaskSubject) -> str:
    """No image is in two splits.

    Else: split the official training images into training and validation, as `in_part` does.
    """
    if not subject.trains:
        return "has only a test split"
    found: dict[str, torch.Tensor] = {}
    for name, split in subject.parts().items():
        found[name] = split.read(torch.arange(len(split)), None).flatten(1).unique(dim=0)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = torch.cat([found[one], found[other]])
        shared = len(both) - len(both.unique(dim=0))
        assert shared == 0, f"{one} and {other} share {shared} images"
    return ", ".join(f"{len(images)} images to {name}" for name, images in found.items())


def every_class_is_named_and_present(subject: TaskSubject) -> str:
    """Every class has a unique name, and every split has images of every class.

    Else: return the names in the order of the class indices, and split each class separately.
    """
    task, names = subject.task, subject.task.class_names(subject.folder)
    assert len(set(names)) == len(names), "two classes have the same name"
    test = task.load("test", subject.folder, 0)
    if test.by_class is None:
        if hasattr(task, "labels"):
            assert all(len(names) == len(row) for row in test.targets), "a label has no name"
        return f"{len(names)} names"
    assert len(names) == task.num_classes, f"{len(names)} names for {task.num_classes} classes"
    for part, split in subject.parts().items():
        assert split.by_class is not None, f"{part} has no index by class"
        lacking = task.num_classes - len(split.by_class.classes.unique())
        assert lacking == 0, f"{part} has no images of {lacking} classes"
    return f"{len(names)} classes"


def augmentation_draws_only_from_its_rng(subject: TaskSubject) -> str:
    """Equal random generators give equal images, and the global random state is not used.

    Else: draw random numbers in `Split.read` only from its argument `rng`.
    """
    if not subject.trains:
        return "trains nothing"
    split, index = subject.task.load("train", subject.folder, 0), torch.arange(16)
    with unchanged_global_randomness():
        one, same, other = (split.read(index, generator(n, "augment")) for n in (0, 0, 1))
    assert torch.equal(one, same), "equal random generators give different images"
    return "not augmented" if torch.equal(one, other) else "augmented"


def models_predict_and_are_scored(subject: TaskSubject) -> str:
    """The loss has one value per item, and `score` returns exactly the declared metrics.

    Else: return one loss per item from `loss`, and one value per metric of `metrics` from `score`;
    the same from what `compact` returns.
    """
    task, folder = subject.task, subject.folder
    split, declared = task.load("test", folder, 0), {metric.name for metric in task.metrics}
    baseline: Method = load_method(find("method", BASELINE))()
    for name in task.models[: 2 if subject.trains else 1]:
        model = task.build(name)
        predictions = predict(task, model, baseline, split)
        scores = task.score(predictions, split.targets)
        found = set(scores)
        assert found == declared, f"score returns {sorted(found)}, not {sorted(declared)}"
        if compact := task.compact(predictions, split.targets):
            for metric, score in task.score(compact, split.targets).items():
                text = (
                    f"{score.value} from compact predictions, and {scores[metric].value} from all"
                )
                same = isclose(score.value, scores[metric].value, rel_tol=1e-3, abs_tol=1e-3)
                assert same, f"{metric}: {text}"
        if not subject.trains:
            continue
        train, index = task.load("train", folder, 0), torch.arange(7)
        images, targets = train.read(index, None), train.targets[index]
        step = Step(images, targets, rng=generator(0, "mix"), task=task, model=model)
        shape = tuple(step.loss(model(step.images).out, step.targets).shape)
        assert shape == (7,), f"the loss of 7 items has the shape {shape}"
        if not hasattr(model, "loss"):
            shape = tuple(task.loss(predictions["outputs"], split.targets).shape)
            assert shape == (len(split),), f"the loss of predictions has the shape {shape}"
        for block in model.blocks:
            model.get_submodule(block)  # raises if there is none
    return f"{', '.join(task.models[:2])}: {', '.join(sorted(declared))}"


def feature_size_is_as_declared(subject: TaskSubject) -> str:
    """The last feature map has the model's declared channels, height and width.

    Else: build models with `mixbench.vision.models.build`, or pass them through its `sized`.
    """
    task = subject.task
    model = task.build(task.models[0])
    images = task.load("test", subject.folder, 0).read(torch.arange(3), None)
    found = tuple(model(images).features.shape)
    said = (3, model.feature_dim, *model.feature_size)
    assert found == said, f"features have shape {found}, declared {said}"
    return f"{'x'.join(map(str, found[1:]))}"


TASK_CHECKS: tuple[Callable[[TaskSubject], str], ...] = (
    card_matches_class,
    declarations_are_consistent,
    generated_data_has_official_layout,
    generation_is_deterministic,
    splits_are_disjoint,
    every_class_is_named_and_present,
    augmentation_draws_only_from_its_rng,
    models_predict_and_are_scored,
    feature_size_is_as_declared,
)
