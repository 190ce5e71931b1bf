import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixbench.declare import Recipe
from mixbench.declare.facts import ADDED
from mixbench.errors import UnknownName, UsageError
from mixbench.plan.graph import Plan, plan
from mixbench.plan.request import Request, cells_of
from mixbench.plan.why import differences
from mixbench.records.declared import Declared, origin_of_cell
from mixbench.registry.parameters import read_settings
from tests.support import Run

GUIDED = '''
"""Guided: starts from another method's model.

Paper    -
Source   -
Differs  nothing known
"""
from mixbench.contract import Method
from mixbench.declare import Count, Need


class Guided(Method):
    version = 1
    needs = {"scorer": Need(method="random_patchmix", share=("grid",))}

    def __init__(self, grid: Count = 4) -> None:
        super().__init__()

    def prepare(self, preparation):
        pass
'''


def planned(methods: str, *settings: str, **more: Any) -> Plan:
    asked: dict[str, Any] = {
        "tasks": ["digits"],
        "seeds": [0],
        "settings": read_settings(settings),
    } | more
    return plan(cells_of(Request(methods=methods.split(","), **asked)))


def keys(kind: str, methods: str, *settings: str, **more: Any) -> list[str]:
    stages = planned(methods, *settings, **more).stages
    return [key for key, stage in stages.items() if stage.kind == kind]


@pytest.fixture
def guided(tmp_path: Path) -> str:
    path = tmp_path / "guided.py"
    path.write_text(GUIDED.lstrip())
    return str(path)


def test_seeds_vary_slowest() -> None:
    cells = planned("none,mixup", seeds=[1, 0]).cells

    assert [(c.seed, c.method.card.name) for c in cells] == [
        (1, "none"), (1, "mixup"), (0, "none"), (0, "mixup"),
    ]  # fmt: skip


def test_a_key_is_its_content() -> None:
    assert keys("train", "mixup") == keys("train", "mixup")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": read_settings(["mixup.alpha=0.5"])},
        {"settings": read_settings(["digits.epochs=7"])},
        {"settings": read_settings(["digits.holdout=0.2"])},
        {"seeds": [1]},
        {"model": "resnet14"},
        {"protocol": "paper"},
        {"data": "synthetic"},
    ],
    ids=str,
)
def test_what_decides_a_result_is_in_the_key(change: dict[str, Any]) -> None:
    assert keys("train", "mixup", **change) != keys("train", "mixup")


def test_the_place_of_the_data_is_not_in_the_key(tmp_path: Path) -> None:
    import sklearn

    original = Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz"
    (tmp_path / "digits.csv.gz").write_bytes(original.read_bytes())

    assert keys("train", "mixup", data=str(tmp_path)) == keys("train", "mixup")


def test_other_content_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "digits.csv.gz").write_bytes(b"something else")

    made = planned("mixup", data=str(tmp_path))

    assert made.cells[0].data.origin == "modified"
    assert [s.key for s in made.stages.values() if s.kind == "train"] != keys("train", "mixup")


def test_generated_data_is_one_stage_for_all() -> None:
    stages = planned("none,mixup", seeds=[0, 1], data="synthetic").stages

    assert [stage.kind for stage in stages.values()].count("data") == 1
    assert [stage.kind for stage in stages.values()].count("train") == 4


def test_a_needed_cell_is_shared_with_the_one_asked_for(guided: str) -> None:
    together = planned(f"random_patchmix,{guided}")
    alone = keys("train", "random_patchmix")

    trains = [s for s in together.stages.values() if s.kind == "train"]
    prepare = next(s for s in together.stages.values() if s.kind == "prepare")

    assert len(trains) == 2
    assert prepare.inputs["scorer"] == alone[0]


def test_a_needed_cell_takes_over_shared_parameters(guided: str) -> None:
    made = planned(guided, "guided.grid=2")

    prepare = next(s for s in made.stages.values() if s.kind == "prepare")

    assert prepare.inputs["scorer"] == keys("train", "random_patchmix", "random_patchmix.grid=2")[0]


def test_stages_stand_after_their_inputs(guided: str) -> None:
    seen: set[str] = set()
    for key, stage in planned(f"{guided},none", data="synthetic").stages.items():
        assert set(stage.inputs.values()) <= seen
        seen.add(key)


def test_a_changed_recipe_is_a_protocol_of_its_own() -> None:
    assert not planned("none").cells[0].custom
    assert planned("none", "digits.epochs=7").cells[0].custom


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methods": ["mixupp"]}, r"No method 'mixupp'. Did you mean 'mixup'\? Known: adautomix"),
        ({"tasks": ["digit"]}, r"No task 'digit'. Did you mean 'digits'\?"),
        ({"model": "resnet9"}, r"No model of digits 'resnet9'. Did you mean 'resnet\d+'\?"),
        ({"protocol": "fast"}, r"No protocol of digits 'fast'. Known: paper, quick."),
    ],
    ids=str,
)
def test_unknown_names_are_errors(change: dict[str, Any], complaint: str) -> None:
    asked: dict[str, Any] = {"methods": ["none"], "tasks": ["digits"], "seeds": [0]} | change

    with pytest.raises(UnknownName, match=complaint):
        cells_of(Request(**asked))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["optimizer=adagrad"], "cifar100.optimizer must be 'sgd', 'adam', 'adamw' or 'lamb'"),
        (["optimizer=adamw", "nesterov=true"], "nesterov must be left out: the optimizer adamw"),
        (["warmup_epochs=400"], "warmup_epochs must be less than epochs, 400 (got 400)"),
        (["warmup_lr=0.1"], "warmup_lr must be 0 without warmup_epochs (got 0.1)"),
        (["min_lr=0.2"], "min_lr must be at most lr, 0.1 (got 0.2)"),
        (["min_lr=0.01", "milestones=3"], "min_lr must be 0 with milestones"),
        (["bce_target_thresh=0.2"], "bce_target_thresh must be 0 without bce_loss (got 0.2)"),
        (["mix_off_epoch=401"], "mix_off_epoch must be at most epochs, 400 (got 401)"),
        (["mix_mode=elem"], "mix_mode must be batch or half for fmix"),
        (["optimizer=lamb", "momentum=1"], "momentum must be below 1 for the optimizer lamb"),
        (["limit=99"], "limit must be at least batch_size, 100 (got 99)"),
        (["aug_repeats=101"], "aug_repeats must be at most batch_size, 100 (got 101)"),
        (["ema_decay=1"], "cifar100.ema_decay must be less than 1 (got '1')"),
        (["drop_path=1"], "cifar100.drop_path must be less than 1 (got '1')"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    settings: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        planned("fmix", *(f"cifar100.{s}" for s in settings), tasks=["cifar100"], data="synthetic")

    assert complaint in str(refused.value)


def test_an_average_of_the_recipe_and_one_of_the_method_exclude_each_other() -> None:
    method = str(Path(__file__).parent / "sketches" / "two_teachers.py")
    with pytest.raises(UsageError, match=r"ema_decay must be 0 for two_teachers.*\(got 0.9\)"):
        planned(method, "digits.ema_decay=0.9")


def test_a_protocol_for_one_kind_of_network_refuses_others() -> None:
    with pytest.raises(UsageError, match=r"deit is the recipe of a transformer.*--protocol paper"):
        planned("none", tasks=["cifar100"], model="resnet32", protocol="deit", data="synthetic")
    with pytest.raises(UsageError, match=r"quick_convnext is the.*--protocol quick_deit"):
        planned(
            "none", tasks=["cifar100"], model="small_test_vit", protocol="quick_convnext",
            data="synthetic",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "protocol", "better"),
    [("vit_tiny", "paper", "deit"), ("convnext_atto", "quick", "quick_convnext")],
)
def test_other_networks_under_a_recipe_for_convolutions_get_a_warning(
    mixbench: Run, model: str, protocol: str, better: str
) -> None:
    asked = ("plan", "-m", "none", "-t", "cifar100", "--data", "synthetic", "--model", model)

    done = mixbench(*asked, "--protocol", protocol)
    right = mixbench(*asked, "--protocol", better)

    assert done.returncode == right.returncode == 0
    assert done.stderr.startswith(f"warning: {model} is a")
    assert done.stderr.strip().endswith(f"use --protocol {better}.")
    assert "warning" not in right.stderr


@pytest.mark.parametrize("protocol", ["rsb_a3", "deit", "convnext"])
@pytest.mark.parametrize("task", ["cifar100", "tiny_imagenet", "imagenet"])
def test_the_recipes_of_the_field_are_planned_with_their_small_copies(
    task: str, protocol: str
) -> None:
    for name in (protocol, f"quick_{protocol}"):
        found = planned("none,one_of", tasks=[task], protocol=name, data="synthetic")
        assert [cell.protocol for cell in found.cells] == [name, name]
        alpha = found.cells[1].method.parameters["mixup_alpha"]
        assert alpha == (0.1 if protocol == "rsb_a3" else 0.8)


def test_a_small_copy_takes_a_methods_values_for_quick_protocols() -> None:
    found = planned("guided_patchmix", tasks=["cifar100"], protocol="quick_deit", data="synthetic")

    assert found.cells[0].method.parameters["population"] == 60


def test_a_setting_for_an_absent_unit_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'mixup' is not part of this run\. .*: digits, none"):
        planned("none", "mixup.alpha=1")


def test_why_names_what_changed() -> None:
    before = next(s for s in planned("mixup").stages.values() if s.kind == "train")
    after = next(
        s for s in planned("mixup", "mixup.alpha=0.5").stages.values() if s.kind == "train"
    )
    stored = replace(before, code={**before.code, "mixbench.kernels": "old"})

    reasons = list(differences(stored, after, set()))

    assert reasons == [
        "code: mixbench.kernels changed", "run.method.parameters.alpha: 1.0 -> 0.5",
    ]  # fmt: skip


def trainings(planned: Plan) -> dict[tuple[str, object], str]:
    """The keys of trainings by method and held-out fraction."""
    return {
        (stage.run.method.name, stage.identity.task.parameters["holdout"]): key
        for key, stage in planned.stages.items()
        if stage.kind == "train"
    }


def test_the_final_training_uses_all_images_and_the_search_does_not(guided: str) -> None:
    on_all = planned(f"none,random_patchmix,{guided}", "digits.final_on=all")
    usual = planned(f"none,random_patchmix,{guided}")

    found = trainings(on_all)

    assert set(found) == {
        ("none", 0.0), ("random_patchmix", 0.0), ("guided", 0.0), ("random_patchmix", 0.1),
    }  # fmt: skip
    first = trainings(usual)["random_patchmix", 0.1]
    assert found["random_patchmix", 0.1] == first
    (search,) = (stage for stage in on_all.stages.values() if stage.kind == "prepare")
    assert search.inputs["scorer"] == first
    assert search.identity.task.parameters["holdout"] == 0.1
    assert {cell.custom for cell in on_all.cells} == {False}
    held_in = trainings(planned("none", "digits.holdout=0"))
    assert held_in["none", 0.0] == found["none", 0.0]  # the same images


def test_a_setting_of_all_recipes_reaches_every_task() -> None:
    cells = planned(
        "none", "recipe.precision=bfloat16", "cifar10.precision=tf32", tasks=["digits", "cifar10"],
        data="synthetic",
    ).cells  # fmt: skip

    assert [cell.recipe.precision for cell in cells] == ["bfloat16", "tf32"]
    assert not any(cell.custom for cell in cells)


@pytest.mark.parametrize(
    ("settings", "more", "complaint"),
    [
        (["digits.holdout=0"], {}, "holdout must be above 0: guided searches on held-out images"),
        (["digits.holdout=0"], {"tune": {}}, "holdout must be above 0: --tune searches on"),
    ],
)
def test_what_needs_held_out_images_gets_them(
    guided: str, settings: list[str], more: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        planned(guided, *settings, **more)


def test_a_needed_task_holds_out_images_for_the_search() -> None:
    with pytest.raises(UsageError, match="holdout must be above 0: guided_patchmix searches"):
        planned("guided_patchmix", "imagenet.holdout=0", tasks=["cub"], protocol="quick")


def test_fields_that_were_added_later_are_stated_only_if_they_differ() -> None:
    plain = Recipe(model="a", epochs=1)

    assert not ADDED & plain.values().keys()
    assert replace(plain, packed=256).values()["packed"] == 256


def test_a_suite_is_planned_without_its_data(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path))

    suite = str(Path(__file__).parents[1] / "leaderboards" / "paper_table1")
    done = mixbench("plan", "--suite", suite)
    refused = mixbench("run", "--suite", suite)

    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert f"missing {tmp_path / 'cifar10'}: get it with `mixbench data get cifar10`" in said
    assert "180 cells, 420 stages: 0 cached, 420 to run" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    row = next(line for line in lines if line[:2] == ["cifar10", "preact_resnet56"])
    # Three seeds of six methods on 50,000 images; three first phases on 45,000; 400 epochs.
    assert row[:3] == ["cifar10", "preact_resnet56", "21"]
    assert row[3] == f"{400 * (18 * 50_000 + 3 * 45_000):,}"
    assert row[4] == f"{3 * 80_000_000:,}"
    assert refused.returncode == 1
    assert "needs cifar10" in refused.stderr


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of the table of work by task, without the model."""
    lines = [line.split() for line in text.splitlines()]
    return {line[0]: line[2:] for line in lines if len(line) == 6 and line[-1][0] in "?0123456789"}


def test_what_a_task_makes_of_its_data_is_counted(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detection trains on every image twice; the name of the data is not that of its folder."""
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path))
    few = ("--set", "recipe.epochs=1", "--set", "recipe.batch_size=1", "--set", "recipe.tail=1")

    done = mixbench("plan", "-m", "none", "-t", "voc_detection,coco,imagenet", *few)

    rows = rows_of(done.stdout)
    assert rows["voc_detection"][1] == f"{2 * (16_551 - 1_655):,}"
    assert rows["coco"][1] == f"{82_081 - 8_208:,}"  # images without objects are left out
    assert rows["imagenet"][1] == f"{1_281_167 - 25_623:,}"
    assert rows["imagenet"][3] == f"{25_623 + 2 * 50_000:,}"  # the best and the last epoch
    assert "`mixbench data get voc0712`" in done.stdout


def test_images_that_the_user_gives_are_not_counted(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the task knows what it does with photographs of another source."""
    monkeypatch.setenv("MIXBENCH_DATA", str(tmp_path / "none"))
    cubv2 = f"cub_wsol.cubv2={tmp_path}"

    plain = mixbench("plan", "-m", "none", "-t", "cub_wsol")
    given = mixbench("plan", "-m", "none", "-t", "cub_wsol", "--set", cubv2)

    rows = [rows_of(done.stdout)["cub_wsol"] for done in (plain, given)]
    assert rows[0][1] == "268,800"
    assert rows[1][1:] == ["?", "?", "?"]


def test_what_models_of_other_tasks_were_trained_with_is_recorded() -> None:
    """And results count as those of generated data if these models have seen nothing else."""
    asked = Request(["none"], ["cub"], [0], protocol="paper", unlocated=True)
    settings = read_settings(["imagenet.epochs=1", "cub.epochs=2"])

    (plain,), (changed,), (generated,) = (
        cells_of(replace(asked, **changes))
        for changes in ({}, {"settings": settings}, {"init": "synthetic"})
    )

    assert Declared.of(plain).pretraining == {}
    assert Declared.of(changed).pretraining == {"imagenet.epochs": "1"}
    assert (origin_of_cell(plain), origin_of_cell(generated)) == ("official", "synthetic")


def test_an_evaluation_takes_the_weights_that_the_model_name_includes() -> None:
    plain = Request(["none"], ["imagenet_fgsm"], [0], "resnet50.a3_in1k", data="synthetic")

    (cell,) = cells_of(plain)

    assert cell.task.parameters["weights"] == "timm:a3_in1k"
    assert (cell.model, cell.trained_by) == ("resnet50", None)
    with pytest.raises(UsageError, match="--init must be left out"):
        cells_of(replace(plain, init="timm"))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            Request(["none"], ["digits"], [0], "resnet14",
                    settings=read_settings(["digits.model=resnet20"])),
            "digits.model=resnet20 contradicts --model resnet14",
        ),
        (
            Request(["none"], ["cifar10_fgsm"], [0], data="synthetic", init="timm",
                    settings=read_settings(["cifar10_fgsm.weights=pretrained"])),
            "cifar10_fgsm.weights=pretrained contradicts timm",
        ),
        (
            Request(["none", "mixup"], ["cifar10_fgsm"], [0], data="synthetic", init=__file__),
            "give one method and one seed with each file (got 2 and 1)",
        ),
        (
            Request(["none"], ["cifar10_fgsm"], [0, 1], data="synthetic", init=__file__),
            "give one method and one seed with each file (got 1 and 2)",
        ),
        (
            Request(["none", "mixup"], ["cub"], [0], protocol="quick", init=__file__),
            "give one method with each file (got 2), or --set cub.mix_in=finetune",
        ),
        (
            Request(["label_smoothing"], ["cifar10"], [0], data="synthetic",
                    settings=read_settings(["cifar10.label_smoothing=0.1"])),
            "label_smoothing of the recipe must be 0",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(request_: Request, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        cells_of(request_)


def test_a_setting_of_all_recipes_is_a_field_of_recipes() -> None:
    with pytest.raises(UnknownName, match="classes"):
        planned("none", "recipe.classes=5", tasks=["cifar10"], data="synthetic")


@pytest.mark.full
def test_hours_are_measured_on_this_machine(mixbench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixbench.worker.calibration.STEPS", 1)

    done = mixbench("plan", "-m", "none", "-t", "digits", "--calibrate")
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("digits "))

    assert done.returncode == 0, done.stderr
    assert float(row[-1]) > 0
    assert "CPU-hours for all stages" in done.stdout or "GPU-hours for all stages" in done.stdout


@pytest.mark.slow
def test_attacks_cost_more_than_predictions_and_boxes_are_not_measured(
    mixbench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixbench.worker.calibration.STEPS", 1)
    small = ("--set", "recipe.epochs=1", "--set", "recipe.tail=1", "--model", "resnet8")

    attacked = mixbench("plan", "-m", "none", "-t", "cifar10_fgsm", *small, "--calibrate")
    boxes = mixbench("plan", "-m", "none", "-t", "voc_detection", "--calibrate")

    hours = {line.split()[0]: line.split()[-1] for line in attacked.stdout.splitlines() if line}
    assert float(hours["cifar10_fgsm"]) > float(hours["cifar10"])  # 10,000 images against 50,000
    assert "of the rows without ?" in boxes.stdout
