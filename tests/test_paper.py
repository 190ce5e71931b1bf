"""The paper's tables and figures: laid out as there, and drawn from what was really run."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixbench.cli.figure import NAMES
from mixbench.errors import UsageError
from mixbench.figures.patchmix import boundaries as plane
from mixbench.figures.patchmix.cycle import SETTINGS, cycle
from mixbench.figures.patchmix.named import FIGURES
from mixbench.leaderboard.build import Answered, read_answers
from mixbench.leaderboard.costs import costs
from mixbench.leaderboard.formats import display_costs, text_of
from mixbench.leaderboard.grouping import at_equal_images, comparison_groups, method_label
from mixbench.leaderboard.layout import laid_out
from mixbench.leaderboard.suite import read_suite, suite_cells
from mixbench.records.schema import Record, parse
from mixbench.registry.units import find
from mixbench.search.genetic import Genetic
from mixbench.search.space import Ids, Masks, Space
from tests.support import Run

MakeRecord = Callable[..., Record]
FOLDER = Path(__file__).parent.parent / "leaderboards"
TABLES = [f"paper_table{number}" for number in range(1, 10)]
SIZES = [(10, 6), (1, 10), (4, 3), (5, 8), (3, 5), (3, 3), (2, 2), (6, 3), (4, 2)]


@pytest.mark.parametrize(("name", "size"), [*zip(TABLES, SIZES, strict=True)], ids=TABLES)
def test_every_published_number_has_its_own_place(name: str, size: tuple[int, int]) -> None:
    suite = read_suite(FOLDER / name)

    table = laid_out(suite, [])

    assert table.shape == size
    told = [text.removeprefix("- (").removesuffix(")") for text in table.to_numpy().ravel()]
    assert sorted(told) == sorted(number.text for number in suite.numbers())
    assert name != "paper_table1" or "94.93 ± 0.03" in told


def test_measured_numbers_stand_beside_the_published_ones(make_record: MakeRecord) -> None:
    parameters = find("method", "random_patchmix").defaults | {"grid": 2, "patch_loss": False}
    records = []
    for seed, value in enumerate((93.0, 94.0)):
        record = make_record("random_patchmix", seed, value)
        method = {"parameters": parameters, "changed": ["grid", "patch_loss"]}
        records.append(record.model_copy(update={
            "model": "resnet32",
            "method": record.method.model_copy(update=method),
            "task": record.task.model_copy(update={"name": "cifar10"}),
        }))  # fmt: skip

    table = laid_out(read_suite(FOLDER / "paper_table6"), records)

    assert table.loc["2x2", "L_O"] == "93.50 ± 0.71 (93.3)"
    assert table.loc["4x4", "L_O L_P"] == "- (94.1)"
    assert table.loc["8x8", "L_P"] == "- (92.02)"


def test_generated_data_never_stands_beside_published_numbers(make_record: MakeRecord) -> None:
    record = make_record("none", 0, 50.0)
    task = record.task.model_copy(update={"name": "cifar10"})
    shown = record.model_copy(update={"model": "resnet8", "task": task})

    other = shown.model_copy(update={"method": record.method.model_copy(update={"name": "mixup"})})

    table = laid_out(read_suite(FOLDER / "paper_table1"), [other, shown], beside=False)

    assert table.to_dict() == {
        "Base": {"CIFAR-10 resnet8": "50.00"}, "Mixup": {"CIFAR-10 resnet8": "50.00"},
    }  # fmt: skip
    assert list(table.columns) == ["Base", "Mixup"]  # in the order of the paper


def test_a_run_on_other_classes_answers_another_table() -> None:
    table9, table1 = FOLDER / "paper_table9", FOLDER / "paper_table1"
    few = {cell.label for cell in suite_cells(table9, quick=True)}
    other = {cell.label for cell in suite_cells(table1, quick=True)}

    assert all(label.startswith("cifar100[classes=40]/") for label in few)
    assert any(label.startswith("cifar100/") for label in other)


@pytest.mark.parametrize("name", TABLES)
def test_every_suite_has_a_small_copy_on_generated_data(name: str) -> None:
    whole = read_suite(FOLDER / name)
    suite, cells = whole.quickly(), suite_cells(FOLDER / name, quick=True)

    assert {cell.seed for cell in cells} == {0}
    assert {cell.data.origin for cell in cells} == {"synthetic"}
    assert {cell.method.card.name for cell in cells} == {m for a in whole.ask for m in a.methods}
    assert suite.layout == whole.layout


def test_a_suite_takes_the_protocol_quick_and_no_other(mixbench: Run, tmp_path: Path) -> None:
    (tmp_path / "leaderboards").symlink_to(FOLDER)

    plan = mixbench("plan", "--suite", "paper_table6", "--protocol", "quick")
    other = mixbench("plan", "--suite", "paper_table6", "--protocol", "paper")
    table = mixbench("report", "--suite", "paper_table6", "--format", "csv")

    assert "10 cells, 21 stages" in plan.stdout
    assert (other.returncode, "--suite fixes --protocol" in other.stderr) == (2, True)
    assert table.stdout.splitlines()[1] == "2x2,- (93.78),- (93.3),- (92.8)"


def test_a_run_in_the_store_and_in_the_suite_counts_once(mixbench: Run, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "digits", tmp_path / "leaderboards/digits")
    alone = mixbench("report", "--suite", "digits", "--costs", "--format", "csv")
    shutil.copytree(FOLDER / "digits/records", tmp_path / "store/records")

    both = mixbench("report", "--suite", "digits", "--costs", "--format", "csv")

    assert alone.stdout.count(",5\n") == 7, alone.stderr
    assert both.stdout.splitlines()[0] == alone.stdout.splitlines()[0]
    assert sorted(both.stdout.splitlines()) == sorted(alone.stdout.splitlines())


def test_a_run_of_other_code_in_the_store_replaces_that_of_the_suite(
    mixbench: Run, tmp_path: Path
) -> None:
    """But no failed one does."""
    shutil.copytree(FOLDER / "digits", tmp_path / "leaderboards/digits")
    failed: dict[str, Any] = {"status": "failed", "reason": "by hand", "metrics": [], "cost": None}
    for seed, changes in ((0, {}), (1, failed)):
        (path,) = (FOLDER / "digits/records/digits/none").glob(f"*.s{seed}.*.json")
        record = json.loads(path.read_text())
        for metric in record["metrics"]:
            metric["value"] = 50.0
        record |= {"cell": f"digits/none/resnet8/s{seed}/{'f' * 8}", **changes}
        assert parse(json.dumps(record), "").seed == seed
        new = tmp_path / f"store/records/digits/none/resnet8.paper.s{seed}.ffffffff.json"
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(record))

    table = mixbench("report", "--suite", "digits", "-m", "none", "--format", "csv")
    drawn = mixbench("report", "--suite", "digits", "--figures")

    head, row = csv.reader(table.stdout.splitlines())
    assert head == ["leaderboard", "none"]
    assert float(row[1].split()[0]) == pytest.approx(88.7, abs=0.3)  # four of 98.4, and 50
    assert (drawn.returncode, "leave out --suite" in drawn.stderr) == (2, True)


def test_costs_are_told_from_records() -> None:
    """Of the digits that were really run: the search and the first model are Guided PatchMix's."""
    records = read_answers(FOLDER / "digits").records.values()

    found = costs(records)
    table, shown = found.set_index("method"), display_costs(found)

    guided, random = table.loc["guided_patchmix"], table.loc["random_patchmix"]
    assert (random["extra parameters"], guided["extra parameters"]) == (650, 0)
    assert guided["preparation (s)"] > 0
    assert random[["preparation (s)", "base models (s)"]].isna().all()
    assert guided["images"] == 120_000
    assert guided["time vs none"] > 1.5
    assert (table["seeds"] == 5).all()
    told = shown.set_index("method").loc["random_patchmix"]
    assert [*told[["extra parameters", "preparation (s)", "images"]]] == ["650", "", "60,000"]
    for form in ("table", "markdown", "latex"):
        assert "120,000" in text_of(shown, form)


def test_records_of_other_epochs_are_compared_at_equal_images(make_record: MakeRecord) -> None:
    many = [make_record("none", seed, 90 + seed) for seed in range(3)]
    few = [
        make_record("guided_patchmix", seed, 91 + seed, recipe={**many[0].recipe, "epochs": 1})
        for seed in range(3)
    ]
    assert len(comparison_groups([*many, *few])) == 2

    (group,) = comparison_groups(at_equal_images([*many, *few]))

    assert {method_label(record) for record in group} == {"none", "guided_patchmix[epochs=1]"}
    answered = read_answers(FOLDER / "digits")
    suite = answered.suite.model_copy(update={"equal": "images"})
    equal = Answered(replace(answered.evidence, suite=suite))
    assert list(equal.as_submitted.values()) == [*answered.records.values()]
    assert len(equal.boards) == 1


def test_boundaries_are_those_of_trained_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in the picture itself: far from the points, mixing makes the net less sure."""
    monkeypatch.setattr(plane, "STEPS", 120)
    names = ("none", "mixup", "guided_patchmix")

    figure = plane.boundaries([find("method", name) for name in names])

    shown = [axes for axes in figure.axes if axes.get_images()]
    assert [axes.get_title(loc="left").partition(":")[0] for axes in shown] == [*names]
    assert all(float(axes.get_title(loc="left").split()[1]) > 95 for axes in shown)
    pictures = [np.asarray(axes.get_images()[0].get_array()) for axes in shown]
    vivid = [float((p.max(-1) - p.min(-1)).mean()) for p in pictures]  # grey is unsure
    assert vivid[0] > vivid[1]
    again = plane.boundaries([find("method", "mixup")])
    repeated = np.asarray(again.axes[0].get_images()[0].get_array())
    assert np.array_equal(repeated, pictures[1])


def test_boundaries_refuse_methods_that_mix_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "STEPS", 1)

    with pytest.raises(UsageError, match="manifold_mixup mixes inside the network"):
        plane.boundaries([find("method", "manifold_mixup")])


def test_a_cycle_shows_what_the_search_does() -> None:
    def score(ids: Ids, masks: Masks) -> Any:
        return (ids * 7 + masks.astype(np.int64)) % 97 / 97

    search = Genetic(3, Space(3, 4, 3), SETTINGS, score)

    population, chosen, crossed, mutated, following = cycle(search)

    first = {x.fitness.values[0] for x in population.individuals}
    assert {x.fitness.values[0] for x in chosen.individuals} <= first
    assert max(x.fitness.values[0] for x in chosen.individuals) <= max(first)
    assert not any(x.fitness.valid for x in crossed.individuals)
    for before, after in zip(mutated.individuals, following.individuals, strict=True):
        assert np.array_equal(before.pairs, after.pairs)
        assert np.array_equal(before.masks, after.masks)
        assert after.fitness.valid


def test_the_command_offers_every_figure() -> None:
    assert {*NAMES} == FIGURES.keys()


@pytest.mark.full
def test_figures_are_drawn_from_finished_runs(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    small = {"population": 8, "generations": 3, "image_pairs": 4}
    options = [part for n, v in small.items() for part in ("--set", f"guided_patchmix.{n}={v}")]
    none = mixbench("figure", "evolution")
    ran = mixbench("run", "-m", "guided_patchmix", "-t", "digits", *fast, *options)
    assert ran.returncode == 0, ran.stderr

    for name in ("cycle", "mutations", "evolution", "pairs"):
        done = mixbench("figure", name, "--out", "drawn")
        assert done.returncode == 0, done.stderr
        for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
            assert (tmp_path / f"drawn/{name}.{ending}").read_bytes().startswith(start)
    mixes = mixbench("figure", "mixes", "-m", "none,mixup", "--out", "drawn")
    boxes = mixbench("figure", "boxes")

    assert (none.returncode, "No finished run that searches" in none.stderr) == (2, True)
    assert mixes.returncode == 0, mixes.stderr
    assert (boxes.returncode, "No finished run that localises" in boxes.stderr) == (2, True)
    (record,) = (tmp_path / "store/records/digits/guided_patchmix").glob("*.json")
    assert json.loads(record.read_text())["status"] == "ok"
