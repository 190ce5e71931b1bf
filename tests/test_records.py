import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mixbench.cli.run import _as_recorded
from mixbench.errors import Damaged
from mixbench.plan.request import Request, cells_of
from mixbench.records import writer as evidence
from mixbench.records.declared import unit_record
from mixbench.records.schema import SCHEMA as SCHEMA_NAME
from mixbench.records.schema import Record, parse, schema_text, to_json
from mixbench.storage.manifest import StageCost
from mixbench.worker import environment

SCHEMA = Path(__file__).parent.parent / "leaderboards" / "record.schema.json"
MakeRecord = Callable[..., Record]


def test_a_record_survives_its_file(make_record: MakeRecord) -> None:
    record = make_record()

    assert parse(to_json(record), "file") == record


def test_a_record_fits_the_published_schema(make_record: MakeRecord) -> None:
    schema = json.loads(SCHEMA.read_text())

    for record in (make_record(), make_record(status="failed", reason="it broke")):
        jsonschema.validate(json.loads(to_json(record)), schema)


def test_the_published_schema_is_the_programs() -> None:
    assert SCHEMA.read_text() == schema_text(), "run: make schema"


def broken(make_record: MakeRecord, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(to_json(make_record()))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.update(colour="red"), "colour: Extra inputs are not permitted"),
        (lambda r: r.pop("seed"), "seed: Field required"),
        (lambda r: r.update(seed=-1), "seed: Input should be greater than or equal to 0"),
        (lambda r: r.update(schema="mixbench/other@2"), "schema: Input should be"),
        (lambda r: r["metrics"][0].update(value=float("nan")), "value: Input should be a finite"),
        (lambda r: r["metrics"][0].update(at="first"), "metrics.0.at: Input should be"),
        (lambda r: r.update(metrics=[]), "exactly one primary metric at 'last'"),
        (lambda r: r.update(cost=None), "needs a cost"),
        (lambda r: r.update(status="failed"), "a record whose status is not 'ok' needs a reason"),
    ],
)
def test_a_wrong_record_is_refused_with_file_and_field(
    make_record: MakeRecord, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    with pytest.raises(Damaged) as caught:
        parse(broken(make_record, change), "records/x.json")

    assert "records/x.json is not a valid record" in str(caught.value)
    assert complaint in str(caught.value)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(Damaged, match=r"x\.json is not a valid record: top level: Invalid JSON"):
        parse('{"schema": "mixb', "x.json")


class CountingGpus:
    """NVML with two GPUs, whose counters rise by as much as is asked of them."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        self.counted = {"GPU-a": 1_000, "GPU-b": 500}

    def nvmlInit(self) -> None: ...  # noqa: N802  # NVML's names

    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        if name not in self.counted:
            raise self.NVMLError(name)
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        self.counted[handle] += 3_600_000_000
        return self.counted[handle]


def test_energy_is_what_the_gpus_counters_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", CountingGpus())

    before, after = (environment.gpu_energy_mj(["a", "b"]) for _ in range(2))

    assert environment.energy_kwh(before, after) == pytest.approx(2.0)
    assert environment.gpu_energy_mj([]) is None
    assert environment.gpu_energy_mj(["c"]) is None
    assert environment.energy_kwh(None, after) is None


@pytest.mark.parametrize(
    ("costs", "kwh"),
    [
        ([StageCost(1.0, 5.0, energy_kwh=0.5), StageCost(1.0)], 0.5),
        ([StageCost(1.0, 5.0, energy_kwh=0.5), StageCost(1.0, 1.0)], None),
        ([StageCost(1.0)], None),
    ],
    ids=["all measured", "one was not", "no GPU"],
)
def test_energy_is_told_only_where_all_of_it_is_known(
    costs: list[StageCost], kwh: float | None
) -> None:
    assert evidence._energy(costs) == kwh


def test_where_the_store_lies_is_not_recorded() -> None:
    words = [
        "mixbench",
        "run",
        "--store",
        "/somewhere",
        "-m",
        "none",
        "--store=/else",
        "-t",
        "digits",
    ]

    assert _as_recorded(words) == ["mixbench", "run", "-m", "none", "-t", "digits"]


def first_schema(record: Record) -> str:
    """Return a record as the first schema had it."""
    content = json.loads(to_json(record))
    content["schema"] = "mixbench/record@1"
    content["recipe"] = {"fast_lr": 1.0, "lr": 0.1}
    for metric in content["metrics"]:
        metric["floor"] = metric.pop("trivial_baseline")
    content["references"] = [
        {
            "metric": "top1", "value": 90.0, "deviation": 0.1, "num_seeds": 3, "citation": "c",
            "where": "Table 1", "remark": "",
        }
    ]  # fmt: skip
    return json.dumps(content, indent=1) + "\n"


def test_a_record_of_the_first_schema_is_read_with_the_present_names(
    make_record: MakeRecord,
) -> None:
    cell = "toy/gridmix[grid=2]/net/s0/01234567"
    old = make_record("gridmix", cell=cell, command=["run", "-m", "none,gridmix", "gridmix.grid=2"])

    record = parse(first_schema(old), "old.json")

    assert record.schema_ == SCHEMA_NAME
    assert record.recipe == {"head_lr_mult": 1.0, "lr": 0.1}
    assert (record.references[0].std, record.metrics[0].trivial_baseline) == (0.1, False)
    assert record.method.name == "patchmix_local_loss"
    assert record.cell == "toy/patchmix_local_loss[grid=2]/net/s0/01234567"
    assert record.command[2:] == ["none,patchmix_local_loss", "patchmix_local_loss.grid=2"]
    assert parse(record.written, "new.json") == record


def test_a_record_that_only_claims_the_first_schema_is_damaged(make_record: MakeRecord) -> None:
    text = to_json(make_record()).replace("record@2", "record@1").replace('"metrics": [', '"m": [')

    with pytest.raises(Damaged, match=r"old\.json is not a valid record"):
        parse(text, "old.json")


def test_what_a_user_may_give_can_be_recorded() -> None:
    """A finished run is not lost because a path has a strange character, or a value is huge."""
    (cell,) = cells_of(Request(["mixup"], ["digits"], [0]))
    values = {**cell.method.parameters, "alpha": 1e30, "file": "a\xa0b\n\x07c\udcff"}
    unit = replace(cell.method, parameters=values, base=values)

    recorded = unit_record(unit)

    assert recorded.parameters["alpha"] == 1e30
    assert recorded.parameters["file"] == "a b \\u0007c\\udcff"
