import json
from collections.abc import Callable

import pytest
from scipy import stats

from mixbench.errors import UsageError
from mixbench.leaderboard.formats import display, to_csv, to_json, to_latex, to_markdown
from mixbench.leaderboard.pairs import compare_methods
from mixbench.leaderboard.ranks import Rule
from mixbench.leaderboard.table import Leaderboard, leaderboards
from mixbench.records.schema import Record, StageRecord

MakeRecord = Callable[..., Record]
VALUES = {"none": [90.0, 91.0, 92.0], "mixup": [91.0, 92.5, 92.6], "cutmix": [89.0, 91.0, 90.0]}


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    return [make_record(m, s, v) for m, values in VALUES.items() for s, v in enumerate(values)]


def only(records: list[Record]) -> Leaderboard:
    (board,) = leaderboards(records)
    return board


def test_rows_are_ordered_by_the_mean_at_the_last_epoch(records: list[Record]) -> None:
    rows = only(records).rows

    assert list(rows["method"]) == ["mixup", "none", "cutmix"]
    assert list(rows["first_rank"]) == [1, 1, 1]  # three seeds tell none of them apart
    assert list(rows["last_rank"]) == [3, 3, 3]
    assert list(rows["mean"]) == pytest.approx([92.0333, 91.0, 90.0], abs=1e-4)
    assert rows["std"][1] == pytest.approx(1.0)
    assert list(rows["n"]) == [3, 3, 3]


def test_the_difference_is_paired_by_seed(records: list[Record]) -> None:
    row = only(records).rows.set_index("method").loc["mixup"]

    test = stats.ttest_rel(VALUES["mixup"], VALUES["none"])
    interval = test.confidence_interval(0.95)
    assert row["difference"] == pytest.approx(sum([1.0, 1.5, 0.6]) / 3)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-4)


def test_only_common_seeds_are_paired(make_record: MakeRecord) -> None:
    records = [make_record("none", 0, 90.0), make_record("mixup", 0, 91.0)]
    records += [make_record("mixup", 1, 99.0)]

    row = only(records).rows.set_index("method").loc["mixup"]

    assert row["mean"] == 95.0
    assert row["difference"] == 1.0


def test_the_order_of_records_does_not_matter(records: list[Record]) -> None:
    shuffled = records[::-2] + records[::-1][1::2]

    assert to_json(leaderboards(shuffled)) == to_json(leaderboards(records))
    assert to_markdown(leaderboards(shuffled)) == to_markdown(leaderboards(records))


def test_lower_may_be_better(make_record: MakeRecord) -> None:
    def flipped(method: str, value: float) -> Record:
        record = make_record(method, 0, value)
        metrics = [m.model_copy(update={"higher_is_better": False}) for m in record.metrics]
        return record.model_copy(update={"metrics": metrics})

    rows = only([flipped("none", 3.0), flipped("mixup", 1.0)]).rows

    assert list(rows["method"]) == ["mixup", "none"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"protocol": "paper"},
        {"pretraining": {"imagenet.epochs": "1"}},
        {"recipe": {"epochs": 4, "batch_size": 100, "lr": 0.1}},
        {"data": {"name": "toy", "version": "1", "origin": "synthetic", "digest": "1" * 64}},
        {"data": {"name": "toy", "version": "1", "origin": "re-encoded", "digest": "0" * 64}},
    ],
    ids=str,
)
def test_what_is_not_comparable_is_not_compared(
    make_record: MakeRecord, change: dict[str, object]
) -> None:
    boards = leaderboards([make_record(), make_record("mixup", **change)])

    assert sorted(len(board.rows) for board in boards) == [1, 1]


def test_tables_are_in_the_order_of_the_training_images(make_record: MakeRecord) -> None:
    unit = make_record().task.model_dump()
    changed = {100: [], 200: ["per_class"], 50: ["per_class"]}  # from the protocol's
    records = [
        make_record(task=unit | {"parameters": {"per_class": number}, "changed": names})
        for number, names in changed.items()
    ]

    assert [board.title for board in leaderboards(records)] == [
        f"toy v1, net, protocol quick, per_class={number}" for number in (50, 100, 200)
    ]


def test_a_record_scored_again_in_the_same_second_counts(make_record: MakeRecord) -> None:
    old, new = make_record("none", 0, 50.0), make_record("none", 0, 60.0, rescored="0" * 64)

    assert [only(found).rows["mean"][0] for found in ([old, new], [new, old])] == [60.0, 60.0]


def test_no_clock_decides_between_code(make_record: MakeRecord) -> None:
    """A record of the year 2099 does not hide what other code gave."""
    unit = make_record("mine").method
    other = unit.model_copy(update={"code": "f" * 32})
    late = make_record("mine", 0, 50.0, created="2099-01-01T00:00:00Z")
    failed = make_record("mine", 1, status="failed", reason="?", created="2099-01-01T00:00:00Z")
    early = [make_record("mine", s, 60.0, method=other, cell=f"c/{s}0000000") for s in range(2)]

    rows = only([late, failed, *early]).rows.set_index("method")["mean"].to_dict()

    assert rows == {"mine[code=00000000]": 50.0, "mine[code=ffffffff]": 60.0}


def test_runs_of_one_code_with_other_keys_are_told_apart(make_record: MakeRecord) -> None:
    records = [make_record("mine", 0, 50.0 + n, cell=f"c/mine/net/s0/{n}0000000") for n in range(2)]

    rows = only(records).rows

    assert set(rows["method"]) == {"mine[key=00000000]", "mine[key=10000000]"}


def test_other_seeds_are_marked_and_sorted_by_the_paired_difference(
    make_record: MakeRecord,
) -> None:
    records = [make_record("none", s, v) for s, v in enumerate((90, 90.2, 90.1, 89.9, 80))]
    records += [make_record("mixup", 4, 85.0)]  # by its mean below none, on the same seed above
    records += [make_record("cutmix", s, v) for s, v in enumerate((89, 89.2, 89.1, 88.9, 79.5))]

    board = only(records)

    assert list(board.rows["method"]) == ["mixup", "none", "cutmix"]
    assert list(board.rows["other_seeds"]) == [True, False, False]
    assert r"1\*" in to_markdown([board])
    assert r"& 1* \\" in to_latex([board])
    assert any(note.startswith("Rows with * have other seeds than none") for note in board.notes)


def test_one_or_two_seeds_have_neither_ranks_nor_intervals(make_record: MakeRecord) -> None:
    for seeds in (1, 2):
        records = [make_record(m, s, 90.0) for m in ("none", "mixup") for s in range(seeds)]
        board = only(records)

        assert board.rows[["first_rank", "low", "high", "p"]].isna().to_numpy().all()
        assert set(board.rows["verdict"]) == {""}
        assert any("cannot show a difference between methods" in note for note in board.notes)


def test_a_trial_is_neither_ranked_nor_compared(make_record: MakeRecord) -> None:
    recipe = {**make_record().recipe, "limit": 500, "max_steps": 20}
    records = [make_record(m, s, 90.0 + s, recipe=recipe, protocol="custom")
               for m in ("none", "mixup") for s in range(3)]  # fmt: skip

    board = only(records)

    assert board.rows[["first_rank", "low", "high", "p"]].isna().to_numpy().all()
    assert "A trial, limit=500, max_steps=20: nothing is ranked." in board.notes
    assert "limit=500" in board.title
    assert "a trial, trained on at most 500 images" in board.facts
    with pytest.raises(UsageError, match="are not compared"):
        compare_methods(records, "mixup", "none")


def test_a_trial_of_the_pretraining_is_a_trial(make_record: MakeRecord) -> None:
    (board,) = leaderboards([make_record(pretraining={"imagenet.limit": "200"})])

    assert "A trial, imagenet.limit=200: nothing is ranked." in board.notes
    assert board.title == "toy v1, net, protocol quick, imagenet.limit=200"


def test_two_methods_are_compared_where_they_have_common_seeds(make_record: MakeRecord) -> None:
    near = [make_record(m, s, 90.0 + s / 9 + (m == "mixup") * (1 + s / 99), model="near")
            for m in ("none", "mixup") for s in range(4)]  # fmt: skip
    far = [make_record("none", 0, model="far"), make_record("mixup", 1, model="far")]

    plain = compare_methods([*near, *far], "mixup", "none")
    strict = compare_methods(near, "mixup", "none", Rule(margin=2.0))

    assert [pair.word for pair in plain.pairs] == ["better"]
    assert plain.apart == ["toy.far.quick"]
    assert [pair.word for pair in strict.pairs] == ["undecided"]
    with pytest.raises(UsageError, match=r"no seed in common on toy\.far\.quick"):
        compare_methods(far, "mixup", "none")


def test_parameters_and_plugins_are_rows_of_their_own(make_record: MakeRecord) -> None:
    unit = make_record("mixup").method
    changed = unit.model_copy(update={"parameters": {"alpha": 0.2}, "changed": ["alpha"]})
    plugin = unit.model_copy(update={"source": "file"})

    rows = only([make_record("mixup", method=u) for u in (unit, changed, plugin)]).rows

    assert set(rows["method"]) == {"mixup", "mixup[alpha=0.2]", "mixup (file)"}


def test_a_failed_cell_is_named_and_not_a_zero(make_record: MakeRecord) -> None:
    board = only([make_record(), make_record("mixup", status="diverged", reason="nan")])

    assert list(board.rows["method"]) == ["none"]
    assert board.notes[0] == "Runs without a result: mixup s0 (diverged)."


def test_a_failure_that_was_mended_is_not_held_against_the_method(make_record: MakeRecord) -> None:
    mended = [make_record("mixup", status="failed", reason="a bug"), make_record("mixup")]

    board = only([make_record(), *mended])

    assert not any("Runs without a result" in note for note in board.notes)


def test_nothing_but_failures_makes_no_leaderboard(make_record: MakeRecord) -> None:
    assert leaderboards([make_record(status="failed", reason="it broke")]) == []
    assert to_csv([]) == ""


def test_without_a_baseline_no_difference_is_claimed(make_record: MakeRecord) -> None:
    board = only([make_record("mixup")])

    assert board.rows["difference"].isna().all()
    assert "No run of none" in board.notes[0]


def test_generated_data_is_labelled(make_record: MakeRecord) -> None:
    data = {"name": "toy", "version": "1", "origin": "synthetic", "digest": "1" * 32}

    board = only([make_record(data=data)])

    assert board.facts[0].startswith("synthetic data")
    assert "say nothing about the real task" in board.notes[0]
    assert "synthetic" in board.name


def test_markdown_is_a_table_people_read(records: list[Record]) -> None:
    lines = to_markdown(leaderboards(records)).splitlines()

    assert lines[0] == "### toy v1, net, protocol quick"
    assert any("| mixup  " in line and "92.03 ± 0.90" in line for line in lines)
    assert any("+1.0 [-0.1, +2.2]" in line for line in lines)


def test_probabilities_have_a_table_of_their_own(make_record: MakeRecord) -> None:
    def with_loss(record: Record, value: float) -> Record:
        metric = record.primary.model_copy(update={
            "name": "cross_entropy", "value": value, "primary": False, "higher_is_better": False,
        })  # fmt: skip
        return record.model_copy(update={"metrics": [*record.metrics, metric]})

    losses = {"none": (0.5, 0.6, 0.55), "mixup": (0.8, 0.95, 0.84)}
    every = [
        with_loss(make_record(method, seed, 90.0 + seed), value)
        for method, values in losses.items()
        for seed, value in enumerate(values)
    ]

    (board,) = leaderboards(every)
    text = to_markdown([board])
    (few,) = leaderboards([record for record in every if record.seed < 2])

    (row,) = board.probabilities
    assert row[:3] == ("cross_entropy", "mixup", "none")
    assert row.comparison.difference == pytest.approx(0.8633 - 0.55, abs=1e-3)
    assert row.corrected == pytest.approx(
        stats.ttest_rel(losses["mixup"], losses["none"]).pvalue, rel=0.01
    )
    assert "#### cross_entropy of toy v1" in text
    assert "| cross_entropy | mixup    | none |" in text
    assert few.probabilities == ()


def test_a_pipe_in_a_name_cannot_break_the_table(make_record: MakeRecord) -> None:
    unit = make_record("mixup").method.model_copy(
        update={"parameters": {"a": "x|y"}, "changed": ["a"]}
    )

    assert "mixup[a=x\\|y]" in to_markdown(leaderboards([make_record("mixup", method=unit)]))


def test_absent_is_empty_and_null_never_zero(make_record: MakeRecord) -> None:
    boards = leaderboards([make_record("mixup")])

    row = json.loads(to_json(boards))[0]["rows"][0]
    assert row["difference"] is None
    assert row["std"] is None
    assert ",0.0," not in to_csv(boards).splitlines()[1].split("5000")[0]
    assert display(boards[0])["vs none (95% CI)"][0] == ""


def with_metric(record: Record, name: str, value: float) -> Record:
    """Return a record with one more metric that looks at nothing."""
    content = record.model_dump(by_alias=True)
    trivial_baseline = {
        **content["metrics"][0],
        "primary": False,
        "trivial_baseline": True,
        "stderr": None,
    }
    content["metrics"].append({**trivial_baseline, "name": name, "value": value})
    return Record.model_validate(content)


def test_what_looks_at_nothing_stands_beside_and_names_who_is_below(
    records: list[Record],
) -> None:
    board = only([with_metric(record, "chance", 90.5) for record in records])

    assert "chance 90.50 (trivial baseline that does not use the images)" in board.facts
    assert "chance" not in board.rows
    assert "Worse than the trivial baseline chance: cutmix." in board.notes


def test_published_numbers_stand_beside_with_their_sources(records: list[Record]) -> None:
    def reference(value: float, where: str, remark: str = "") -> dict[str, object]:
        fixed = {"metric": "top1", "std": None, "num_seeds": None, "citation": "arXiv:1"}
        return {**fixed, "value": value, "where": where, "remark": remark}

    content = [record.model_dump(by_alias=True) for record in records]
    for record in content:
        if record["method"]["name"] == "mixup":
            record["references"] = [reference(93.5, "Table 2"), reference(91.0, "Table 1", "old")]

    board = only([Record.model_validate(record) for record in content])

    assert list(display(board)["published"]) == ["91 [1], 93.5 [2]", "", ""]
    assert board.notes[-2:] == ("[1] arXiv:1, Table 1. Old.", "[2] arXiv:1, Table 2.")
    assert "published" not in only(records).rows


TRAINED = StageRecord(
    kind="train", key="0" * 64, own=True, state="ran", started="2026-01-01T00:00:00Z",
    ended="2026-01-01T00:01:00Z", wall_s=1.0, steps=1, resumed_at_steps=[],
)  # fmt: skip


@pytest.mark.parametrize(
    ("task", "parameters", "stages", "share"),
    [
        ("cifar10", {"holdout": 0.1}, [TRAINED], "90 %"),
        ("cifar10", {"holdout": 0.1}, [], None),  # given weights were trained on anything
        ("coco_captions", {"split": "karpathy", "holdout": 0.1}, [TRAINED], "all"),
        ("cub_wsol", {"cubv2": "photos", "holdout": 0.1}, [TRAINED], None),
        ("of_a_plugin", {"holdout": 0.1}, [TRAINED], None),
    ],
)
def test_old_records_tell_what_share_of_the_images_trained(
    make_record: MakeRecord,
    task: str,
    parameters: dict[str, object],
    stages: list[StageRecord],
    share: str | None,
) -> None:
    record = make_record("none", 0, 50.0)
    unit = record.task.model_copy(update={"name": task, "parameters": parameters})

    (board,) = leaderboards([record.model_copy(update={"task": unit, "stages": stages})])

    said = [fact.split()[2] for fact in board.facts if fact.startswith("trained on")]
    assert said == ([share.split()[0]] if share else [])
