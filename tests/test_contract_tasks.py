"""What every task owes. A new file in tasks/ is tested by being there, on its generated data."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from mixbench.contract import Evaluation, Method, Part, Step, Task
from mixbench.declare import Synthetic
from mixbench.declare.facts import OF_THE_SUBJECT
from mixbench.plan.request import base_values
from mixbench.plan.verify import compare
from mixbench.registry.cards import Card
from mixbench.registry.units import find, load_method, load_task, make_task, paths
from mixbench.stages.evaluation import predict
from mixbench.streams import generator

AS_THEY_ARE = {"coco_captions", "voc_detection"}  # tasks whose images are not augmented


@pytest.fixture(scope="module", params=list(paths("task")))
def card(request: pytest.FixtureRequest) -> Card:
    return find("task", request.param)


@pytest.fixture(scope="module")
def task(card: Card) -> Task:
    """The task as it runs on generated data."""
    protocol = next(iter(card.declared["synthetic"].protocols), "")
    of = card.declared.get("evaluates")
    subject = base_values(find("task", of), protocol) if of else None
    return make_task(card, base_values(card, protocol), subject)


@pytest.fixture(scope="module")
def folder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    task.synthesize(path, few(task, 20, 1 if isinstance(task, Evaluation) else 10))
    return path


def parts_of(task: Task) -> tuple[Part, ...]:
    """Return the parts that a task reads: of an evaluation, the one that it is about."""
    return ("test",) if isinstance(task, Evaluation) else ("train", "validation", "test")


def few(task: Task, train: int, test: int) -> Synthetic:
    """Return a small amount of data, unless the layout knows only one."""
    synthetic = task.synthetic
    return replace(synthetic, train=train, test=test) if synthetic.protocols else synthetic


def baseline() -> Method:
    return load_method(find("method", "none"))()


def test_the_card_tells_the_truth(card: Card) -> None:
    cls: Any = load_task(card)
    hints = get_type_hints(cls.__init__, include_extras=True)
    hints.pop("return", None)

    assert {p.name: p.type for p in card.parameters} == hints
    taken = OF_THE_SUBJECT if "evaluates" in card.declared else ()
    for name, value in card.declared.items():
        assert getattr(cls, name) == value if name in vars(cls) else name in taken
    assert card.header["Data"]
    assert card.header["Licence"]


def test_declarations_are_complete(task: Task) -> None:
    assert sum(metric.primary for metric in task.metrics) == 1
    assert task.models
    assert all(recipe.model in task.models for recipe in task.protocols.values())
    published = [*task.data.files.values(), *(archive.digest for archive in task.data.archives)]
    assert all(len(digest) in {0, 32, 64} for digest in published)
    assert set(task.synthetic.protocols) <= set(task.protocols)


def test_rates_by_model_are_of_what_is_there(task: Task) -> None:
    for protocol, models in task.by_model.items():
        assert protocol in task.protocols
        assert set(models) <= set(task.models)
        assert all(replace(task.protocols[protocol], **values) for values in models.values())
    assert set(task.published) <= set(task.models)


def test_references_are_of_what_is_there(task: Task) -> None:
    names = {metric.name for metric in task.metrics}

    for reference in task.references:
        assert reference.metric in names
        assert reference.model in task.models
        assert reference.method in set(paths("method"))


def test_generated_data_has_the_official_layout(task: Task, folder: Path) -> None:
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    trees = tuple(f"{tree}/" for tree in task.data.trees)

    assert set(task.data.files) <= written
    assert all(path in task.data.files or path.startswith(trees) for path in written)
    assert not any(finding.text == "missing" for finding in compare(task.data, folder))


def test_parts_share_no_image(task: Task, folder: Path) -> None:
    if isinstance(task, Evaluation):
        pytest.skip("has a test part alone")
    parts = [task.load(part, folder, 0) for part in parts_of(task)]
    images = [split.read(torch.arange(len(split)), None).flatten(1) for split in parts]

    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = torch.cat([images[one].unique(dim=0), images[other].unique(dim=0)])
        assert len(both.unique(dim=0)) == len(both)


def test_classes_are_named_and_all_there(task: Task, folder: Path) -> None:
    names = task.class_names(folder)

    if task.load("test", folder, 0).by_class is None:
        assert len(set(names)) == len(names)
        if hasattr(task, "labels"):
            assert all(len(names) == len(row) for row in task.load("test", folder, 0).targets)
        return
    assert len(set(names)) == task.num_classes
    for part in parts_of(task):
        split = task.load(part, folder, 0)
        assert split.by_class is not None
        assert set(split.by_class.classes.tolist()) == set(range(task.num_classes))


def test_augmentation_draws_only_from_its_stream(card: Card, task: Task, folder: Path) -> None:
    if isinstance(task, Evaluation):
        pytest.skip("trains nothing")
    split, index = task.load("train", folder, 0), torch.arange(16)
    before = torch.get_rng_state()

    one, same = (split.read(index, generator(0, "augment")) for _ in range(2))
    other = split.read(index, generator(1, "augment"))

    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (card.name in AS_THEY_ARE)


def test_every_model_predicts_and_is_scored(task: Task, folder: Path) -> None:
    split = task.load("test", folder, 0)
    for name in task.models[: 1 if isinstance(task, Evaluation) else 2]:
        model = task.build(name)

        predictions = predict(task, model, baseline(), split)
        scores = task.score(predictions, split.targets)
        assert set(scores) == {metric.name for metric in task.metrics}
        if isinstance(task, Evaluation):
            continue
        train, index = task.load("train", folder, 0), torch.arange(7)
        step = Step(
            train.read(index, None), train.targets[index], rng=generator(0, "mix"), task=task,
            model=model,
        )  # fmt: skip

        assert step.loss(model(step.images).out, step.targets).shape == (7,)
        if not hasattr(model, "loss"):
            assert task.loss(predictions["outputs"], split.targets).shape == (len(split),)
        assert all(model.get_submodule(block) for block in model.blocks)  # type: ignore[union-attr]


def test_features_have_the_declared_size(task: Task, folder: Path) -> None:
    split = task.load("test", folder, 0)
    model = task.build(task.models[0])

    features = model(split.read(torch.arange(3), None)).features

    assert tuple(features.shape) == (3, model.feature_dim, *model.feature_size)  # type: ignore[misc]


def test_generating_twice_gives_the_same_files(task: Task, tmp_path: Path) -> None:
    amount = few(task, 4, 3)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        task.synthesize(tmp_path / name, amount)
    files = sorted(
        p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()
    )

    assert files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
