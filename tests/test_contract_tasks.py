"""What every task owes. A new file in tasks/ is tested by being there, on its generated data."""

from pathlib import Path
from typing import get_type_hints

import pytest
import torch

from mixbench.contract import Method, Task
from mixbench.registry.cards import Card
from mixbench.registry.units import find, load_method, load_task, paths
from mixbench.stages.evaluation import predict
from mixbench.streams import generator


@pytest.fixture(params=list(paths("task")))
def card(request: pytest.FixtureRequest) -> Card:
    return find("task", request.param)


@pytest.fixture
def task(card: Card) -> Task:
    return load_task(card)()


@pytest.fixture
def folder(task: Task, tmp_path: Path) -> Path:
    task.synthesize(tmp_path)
    return tmp_path


def baseline() -> Method:
    return load_method(find("method", "none"))()


def test_the_card_tells_the_truth(card: Card, task: Task) -> None:
    hints = get_type_hints(type(task).__init__, include_extras=True)
    hints.pop("return", None)

    assert {p.name: p.type for p in card.parameters} == hints
    assert {name: getattr(task, name) for name in card.declared} == card.declared
    assert card.header["Data"]
    assert card.header["Licence"]


def test_declarations_are_complete(task: Task) -> None:
    assert sum(metric.primary for metric in task.metrics) == 1
    assert task.models
    assert all(recipe.model in task.models for recipe in task.protocols.values())
    assert all(len(digest) == 64 for digest in task.data.files.values())


def test_generated_data_has_the_official_layout(task: Task, folder: Path) -> None:
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    assert written == set(task.data.files)


def test_parts_share_no_image(task: Task, folder: Path) -> None:
    parts = [task.load(part, folder, 0) for part in ("train", "validation", "test")]
    images = [split.read(torch.arange(len(split)), None).flatten(1) for split in parts]

    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = torch.cat([images[one].unique(dim=0), images[other].unique(dim=0)])
        assert len(both.unique(dim=0)) == len(both)


def test_augmentation_draws_only_from_its_stream(task: Task, folder: Path) -> None:
    split, index = task.load("train", folder, 0), torch.arange(16)
    before = torch.get_rng_state()

    one, same = (split.read(index, generator(0, "augment")) for _ in range(2))
    other = split.read(index, generator(1, "augment"))

    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_model_predicts_and_is_scored(task: Task, folder: Path) -> None:
    split = task.load("test", folder, 0)
    for name in task.models[:2]:
        model = task.build(name)

        outputs = predict(model, baseline(), split, torch.device("cpu"))
        losses = task.loss(outputs, split.targets)
        scores = task.score(outputs, split.targets)

        assert losses.shape == (len(split),)
        assert set(scores) == {metric.name for metric in task.metrics}
        assert all(model.get_submodule(block) for block in model.blocks)  # type: ignore[union-attr]


def test_features_have_the_declared_depth(task: Task, folder: Path) -> None:
    split = task.load("test", folder, 0)
    model = task.build(task.models[0])

    features = model(split.read(torch.arange(3), None)).features

    assert features.dim() == 4
    assert features.shape[:2] == (3, model.feature_dim)
