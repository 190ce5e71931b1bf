"""Pictures say what the search's result says."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pydantic import JsonValue

from mixbench.figures.cells import drawn_of
from mixbench.figures.gains import drawn, gains
from mixbench.figures.patchmix.confusion import confusion
from mixbench.figures.patchmix.search import combinations, evolution, mutations
from mixbench.records.schema import Record
from mixbench.search.result import SearchResult, to_json
from mixbench.search.space import Space

MakeRecord = Callable[..., Record]
TASK = {"name": "toy", "version": 1, "changed": [], "source": "builtin", "code": "0" * 32}

NAMES = ("cat", "dog", "ship")
SPACE = Space(3, 2, 2)


@pytest.fixture
def result() -> Any:
    history: list[dict[str, float]] = [
        {"generation": g, "best": 0.5 - g / 1000, "best_of_generation": 0.5 - g / 1000, "mean": 0.6}
        for g in range(101)
    ]
    found = SearchResult(
        np.array([1, 5], np.int32), np.array([0b0001, 0b1010], np.uint8), np.array([0.4, 0.3]),
        history, {0: [1, 2], 50: [1, 5], 100: [1, 5]},
    )  # fmt: skip
    facts: dict[str, JsonValue] = {"score": "patch accuracy", "distinct": 12, "requests": 34}
    facts["goal"] = "min"
    return json.loads(to_json(found, SPACE, NAMES, facts))


def texts(figure: Figure) -> Sequence[str]:
    return [text.get_text().strip() for axes in figure.axes for text in axes.texts]


def test_evolution_draws_the_history_and_names_what_changed(result: Any) -> None:
    figure = evolution(result)

    assert figure is not None
    mean, _, best = figure.axes[0].lines[:3]
    assert list(np.asarray(best.get_ydata()))[::50] == [0.5, 0.45, 0.4]
    assert set(np.asarray(mean.get_ydata())) == {0.6}
    assert texts(figure) == ["+ (dog, ship)", "- (cat, ship)"]
    assert "lower is better" in figure.axes[0].get_ylabel()


def test_a_search_without_generations_has_no_evolution(result: Any) -> None:
    assert evolution({**result, "history": []}) is None


def test_combinations_show_every_mask_at_its_pair(result: Any) -> None:
    picture = np.asarray(combinations(result).axes[0].images[0].get_array())

    # Rows and columns of 2 cells with a gap of one: (cat, dog) stands at row 0, column 1.
    assert picture[1:3, 4:6].tolist() == [[1, 0], [0, 0]]
    assert picture[4:6, 7:9].tolist() == [[0, 1], [0, 1]]
    assert np.isfinite(picture).sum() == 8


def test_confusion_is_the_probability_of_the_other_class() -> None:
    outputs = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))

    found = confusion(outputs, torch.tensor([0, 0, 2]))

    assert found[0, 1] == found[1, 0] == pytest.approx(12.5)  # no image of class 1
    assert found[0, 2] == pytest.approx((15 + 10) / 2)


def test_gains_are_drawn_over_the_number_of_images(make_record: MakeRecord) -> None:
    records = [
        make_record(
            method, seed, value + seed / 10, task={**TASK, "parameters": {"per_class": number}}
        )
        for number, gain in ((50, 4.0), (100, 1.0))
        for method, value in (("none", 50.0), ("mixup", 50.0 + gain))
        for seed in range(3)
    ]

    ((name, table, own),) = gains(records)
    figure = drawn(table)

    assert name == "toy.net.quick"
    assert sorted(own, key=records.index) == records
    assert table[["method", "per_class", "difference"]].values.tolist() == [
        ["mixup", 50, 4.0],
        ["mixup", 100, 1.0],
    ]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["50", "100"]
    assert (
        list(gains(record for record in records if record.task.parameters["per_class"] == 50)) == []
    )


def test_mutations_are_the_searchs_own(result: Any) -> None:
    axes = mutations(result, seed=0).axes
    titles = [a.get_title() for a in axes[:5]]
    drawn = {t: np.asarray(a.images[0].get_array()) for t, a in zip(titles, axes, strict=False)}

    assert titles == ["found", "flip tails", "transpose", "flip heads", "random tails"]
    assert drawn["found"].tolist() == [[True, False], [False, False]]
    assert (drawn["flip tails"] == ~drawn["found"]).all()
    assert (drawn["transpose"] == drawn["found"].T).all()
    assert axes[3].get_xlabel() != "(cat, dog)"


def test_figures_say_what_they_are_drawn_of(make_record: MakeRecord) -> None:
    record = make_record("mixup", 3, 50.0)
    generated = record.model_copy(
        update={
            "data": record.data.model_copy(update={"name": "shapes", "origin": "synthetic"}),
            "recipe": record.recipe | {"max_steps": 4},
        }
    )
    seeds = [record.model_copy(update={"seed": seed}) for seed in range(8)]

    assert drawn_of([generated]) == "data: shapes (generated) · trial with max_steps=4 · seed 3"
    assert drawn_of(seeds).endswith("seeds 0 to 7")
    assert drawn_of([*seeds[:4], seeds[7]]).endswith("seeds 0, 1, 2, 3, 7")
    assert drawn_of([*seeds[:2], seeds[5]]).endswith("seeds 0, 1, 5")
