"""Evidence: what `mixbench verify` refuses, what each tier takes, and what nothing can break."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import zlib
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from mixbench.contract.loading import make_task
from mixbench.errors import Damaged, MixbenchError, UsageError
from mixbench.leaderboard.build import build, files_of, read_answers
from mixbench.leaderboard.evidence import Finding
from mixbench.leaderboard.history import NOTHING_BEFORE
from mixbench.leaderboard.rescoring import scored
from mixbench.leaderboard.verification import note_tiers, verify
from mixbench.records.items import Items, pack
from mixbench.records.schema import Record, to_json
from mixbench.registry.units import find
from mixbench.site.pages import Site
from tests.support import Run

FOLDER = Path(__file__).parent.parent / "leaderboards"
PRIMARY = 0  # place of the primary metric after the last epoch
Content = dict[str, Any]
Change = Callable[[Content], object]
NOT_ASKED = "no [[ask]] of the suite includes this"
OLD = '{"schema": "mixbench/record@1", "a":'
CONSISTENT = "consistent with submitted predictions"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of two rows and three seeds of the suite that was really run."""
    folder = tmp_path / "leaderboards/digits"
    folder.mkdir(parents=True)
    shutil.copyfile(FOLDER / "digits/suite.toml", folder / "suite.toml")
    (folder / "artifacts").mkdir()
    known = {path.name[:16]: path for path in (FOLDER / "digits/artifacts").iterdir()}
    records = (FOLDER / "digits/records/digits").glob("*/*.s[012].*")
    for path in (path for path in records if path.parent.name in {"none", "mixup"}):
        copy = folder / path.relative_to(FOLDER / "digits")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        digests = (a["sha256"][:16] for a in json.loads(path.read_text())["artifacts"])
        for source in filter(None, map(known.get, digests)):
            shutil.copyfile(source, folder / "artifacts" / source.name)
    return folder


def one(folder: Path, pattern: str = "*/mixup/*s0*") -> Path:
    (path,) = (folder / "records").glob(f"{pattern}.json")
    return path


def changed(path: Path, change: Change, to: Path | None = None) -> Record:
    """Write a record with other content, as mixbench would write it."""
    content = json.loads(path.read_text())
    change(content)
    record = Record.model_validate_json(json.dumps(content))
    (to or path).write_text(record.written)
    return record


class Fields(dict[str, Any]):
    """A change of fields of a record, by their path: `Fields(metrics__0__value=1)`."""

    def __call__(self, content: Content) -> None:
        for name, value in self.items():
            *places, last = name.split("__")
            target: Any = content
            for place in places:
                target = target[int(place) if place.isdecimal() else place]
            target[last] = value


def metric_twice(content: Content) -> None:
    content["metrics"].append(content["metrics"][0])


def artifact_twice(content: Content) -> None:
    content["artifacts"].append(content["artifacts"][0])


def named(change: object) -> str | None:
    """Return the id of a parameter; unlike that of a function, it tells one from the others."""
    return str(change)[:60] if isinstance(change, dict | str) else None


def findings(folder: Path, **options: Any) -> list[str]:
    return [f"{finding.field}: {finding.what}" for finding in verify(folder, **options).findings]


def git(folder: Path, *words: str) -> None:
    told = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *told, *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")


def predicted(folder: Path, path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the predictions of a record, with the metrics that they give."""
    content = json.loads(path.read_text())
    artifact = next(a for a in content["artifacts"] if a["role"] == "predictions")
    old = folder / f"artifacts/{artifact['sha256'][:16]}.safetensors"
    tensors = change(load(old.read_bytes()))
    raw = save(tensors)
    old.unlink()
    digest = hashlib.sha256(raw).hexdigest()
    (folder / f"artifacts/{digest[:16]}.safetensors").write_bytes(raw)
    artifact |= {"sha256": digest, "bytes": len(raw)}
    record = Record.model_validate_json(json.dumps(content))
    anew = {m.name: json.loads(m.model_dump_json()) for m in scored(record, tensors)}
    for metric in content["metrics"]:
        if metric["at"] == "last":
            metric |= {k: anew[metric["name"]][k] for k in ("value", "stderr", "items")}
    path.write_text(Record.model_validate_json(json.dumps(content)).written)


def test_attacks_are_computed_again_from_a_bit_for_each_prediction() -> None:
    """Their parameters say which attack is the primary metric; bits need no images."""
    folder = FOLDER / "cifar10_robustness"
    path = next((folder / "records/cifar10_fgsm/none").iterdir())
    record = Record.model_validate_json(path.read_text())
    (name,) = (a.sha256[:16] for a in record.artifacts if a.role == "compact_predictions")
    bits = load((folder / f"artifacts/{name}.safetensors").read_bytes())["correct"]
    assert bits.shape == (10_000, 2)

    anew = scored(record, {"correct": bits, "targets": torch.zeros(len(bits))})

    of_record = {metric.name: metric for metric in record.metrics if metric.at == "last"}
    assert [m.name for m in anew if m.primary] == ["fgsm_1_255"] == [record.primary.name]
    assert {metric.name: metric for metric in anew} == of_record


# --- What a record must say -----------------------------------------------------------------------


def test_the_committed_records_are_computed_again_from_their_predictions(digits: Path) -> None:
    found = verify(digits)

    assert (found.findings, found.notes) == ([], [])
    assert [*found.tiers.values()] == [CONSISTENT] * 6
    note_tiers(digits, found.tiers)
    known = json.loads((FOLDER / "digits/verified.json").read_text())
    assert json.loads((digits / "verified.json").read_text()).items() <= known.items()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Fields(metrics__0__value=104.0), "metrics.0.value: top1 must be between 0 and 100"),
        (Fields(metrics__0__value=97.0), "metrics.0.value: its items give 98.49"),
        (Fields(metrics__0__stderr=50.0), "metrics.0.stderr: its items give 0.49"),
        (Fields(metrics__1__value=0.01), "metrics.1.value: the predictions give 0.1"),
        (Fields(metrics__0__n=10), "metrics.0.n: must be 597 test items (got 10)"),
        (Fields(metrics__0__unit="errors"), "metrics.0.unit: must be % for top1"),
        (Fields(metrics__0__higher_is_better=False), "metrics.0.higher_is_better: must be Tr"),
        (Fields(metrics__1__name="sota"), "metrics.1.name: digits has no metric sota"),
        (lambda c: c["metrics"].pop(1), "metrics: has no cross_entropy after the last epoch"),
        (Fields(task__version=1), "task.version: must be 2, the current version of digits"),
        (Fields(method__parameters={"beta": 1}), "method.parameters: mixup has no parameter"),
        (Fields(protocol="paper"), f"protocol: {NOT_ASKED}: paper, un"),
        (Fields(recipe__lr=0.2), f"recipe: {NOT_ASKED}: lr=0.2, unlike 0.1"),
        (Fields(task__parameters__holdout=0.2), f"task: {NOT_ASKED}: digits v2"),
        (Fields(task__source="file"), f"task: {NOT_ASKED}: digits v2 (file)"),
        (Fields(seed=7), f"seed: {NOT_ASKED}: 7, unlike 0"),
        (Fields(model="resnet50"), f"model: {NOT_ASKED}: resnet50, u"),
        (Fields(cell="anything"), "cell: must be digits/mixup/resnet8/s0/ and eight digits"),
        (Fields(created="2999-01-01T00:00:00Z"), "created: is in the future"),
        (Fields(stages__0__ended="2999-01-01T00:00:00Z"), "stages.0.ended: is in the future"),
        (Fields(data__name="digitz"), "data: must be digits UCI optdigits"),
        (Fields(data__origin="own"), "data.origin: must be counted or official or re-encoded"),
        (Fields(data__origin="synthetic"), "data.origin: must be counted or official or re-enc"),
        (Fields(rescored="0" * 64), "rescored: must be null"),
        (Fields(held_out=0.99), "held_out: must be 0.1 (got 0.99)"),
        (Fields(normalization=[[0.5], [0.5]]), "metrics: normalization must be"),
        (Fields(method__name="nosuch"), "method.name: No method 'nosuch'"),
        (Fields(data__digest="0" * 64), "data.digest: must be 8afd"),
    ],
    ids=named,
)  # fmt: skip
def test_what_is_declared_is_not_taken_from_a_record(
    digits: Path, change: Change, said: str
) -> None:
    changed(one(digits), change)

    assert any(line.startswith(said) for line in findings(digits)), findings(digits)


@pytest.mark.parametrize(
    "change",
    [
        Fields(created="0001"),
        Fields(metrics__0__value=1e301),
        Fields(metrics__0__unit="x\ny"),
        Fields(hardware__cpu="EPYC\n\n## mixbench has moved"),
        Fields(hardware__cpu="\u202eCPYE"),
        Fields(command=["x" * 100_000]),
        Fields(model="../../tmp/x"),
        Fields(cost__images=10**30),
        Fields(recipe={"a": 1, "b": {"c": 1}}),
        Fields(recipe={"a": [[[[]]]]}),
        Fields(method__changed=["nope"]),
        Fields(method__source="package", method__distribution="$\\frac$ 1"),
        Fields(method__distribution="mixup 1.0"),  # of a built-in method
        Fields(artifacts__0__path="a.\0x"),
        Fields(artifacts__0__path="/etc/passwd.json"),
        Fields(artifacts__0__path="../../x.pickle"),
        metric_twice,
        artifact_twice,
        Fields(artifacts__0__role="curve", artifacts__0__path="a.safetensors"),
        Fields(tuning={"grid": {}, "trainings": 2, "diverged": 0, "chosen": {}, "value": 1.0}),
        Fields(normalization=[[1, 2, 3, 4, 5], [1]]),
        Fields(status="failed", reason="because"),
    ],
    ids=named,
)
def test_what_no_run_can_write_is_no_record(digits: Path, change: Change) -> None:
    path = one(digits)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))

    (said,) = [line for line in findings(digits) if line.startswith("record: ")]

    assert said.startswith("record: is not a valid record")
    with pytest.raises(Damaged, match=r"mixbench verify digits"):
        files_of(read_answers(digits))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lambda t: t.replace('"seed": 0', '"seeds": 0'), "record: is not a valid record: seed"),
        (lambda t: t.replace('"seed": 0', '"seed": NaN'), "record: is not a valid record"),
        (lambda t: t[:100], "record: is not a valid record"),
        (lambda _: '{"recipe":' + "[" * 100_000, "record: is not a valid record"),
        (lambda _: OLD + "[" * 100_000, "record: is not a valid record"),
        (lambda t: t + " ", "file: differs from the text that mixbench writes"),
    ],
    ids=["unknown", "nan", "cut", "deep", "old and deep", "edited"],
)  # fmt: skip
def test_a_text_that_is_no_record_is_refused(
    digits: Path, text: Callable[[str], str], said: str
) -> None:
    path = one(digits)
    path.write_text(text(path.read_text()))

    assert any(line.startswith(said) for line in findings(digits))


def test_items_that_do_not_end_are_not_unpacked(digits: Path) -> None:
    bomb = base64.b64encode(zlib.compress(b"\0" * 200_000_000, 9)).decode()
    changed(one(digits), Fields(metrics__0__items={"levels": [0.0, 100.0], "which": bomb}))

    assert any("they do not end after" in line for line in findings(digits))


def test_permuted_items_are_not_what_the_predictions_give(digits: Path) -> None:
    """A row whose items are right where those of another are would be compared without noise."""
    path = one(digits)
    metric = json.loads(path.read_text())["metrics"][PRIMARY]
    scores = np.sort(Items(**metric["items"]).scores)[::-1]
    packed = pack(scores)
    assert packed is not None
    changed(path, Fields(metrics__0__items=json.loads(packed.model_dump_json())))

    assert findings(digits) == ["metrics.0.items: are not what the predictions give"]


def test_another_digest_of_built_in_code_is_older_code_and_no_other_row(digits: Path) -> None:
    changed(one(digits), Fields(method__code="1" * 32))
    assert findings(digits) == []

    (board,) = read_answers(digits).boards

    rows = board.rows.set_index("method")
    assert {*rows.index} == {"none", "mixup"}
    assert rows.loc["mixup", "n"] == 3
    assert str(rows.loc["mixup", "verified"]).endswith("older code")


def test_two_records_of_one_cell_are_refused(digits: Path) -> None:
    path = one(digits)
    other = Fields(cell="digits/mixup/resnet8/s0/deadbeef")
    changed(path, other, path.with_name("resnet8.quick.s0.deadbeef.json"))

    assert any("is a record of the same cell as" in line for line in findings(digits))
    with pytest.raises(Damaged, match="is a record of the same cell as"):
        read_answers(digits)


def test_another_order_of_parameters_is_no_other_cell(digits: Path) -> None:
    suite = digits / "suite.toml"
    text = suite.read_text().replace('methods = ["none"', 'methods = ["none", "cutmix"', 1)
    suite.write_text(text)
    change = Fields(
        cell="digits/mixup[alpha=0.3,prob=1.0]/resnet8/s0/deadbeef",
        method__parameters={"alpha": 0.3}, method__changed=["alpha", "alpha"],
    )  # fmt: skip
    unasked(digits, change, "mixup")

    assert any(line.startswith("method.changed: must be alpha") for line in findings(digits))


def test_a_record_lies_where_its_name_says(digits: Path) -> None:
    path = one(digits)
    path.rename(path.with_name("x.json"))

    assert any(line.startswith("path: must be") for line in findings(digits))


# --- Rows that the suite does not ask for ---------------------------------------------------------

PLUGIN = Fields(
    cell="digits/supermix/resnet8/s0/deadbeef",
    method__name="supermix", method__source="package", method__distribution="SuperMix 1.0",
    method__parameters={}, method__code="1" * 32, artifacts=[],
)  # fmt: skip


def unasked(folder: Path, change: Change, method: str, number: str = "deadbeef") -> None:
    place = folder / f"records/digits/{method}/resnet8.quick.s0.{number}.json"
    place.parent.mkdir(exist_ok=True)
    changed(one(folder), change, place)


def test_a_method_that_is_not_installed_stands_apart_and_is_self_reported(digits: Path) -> None:
    before = read_answers(digits).boards[0].rows
    unasked(digits, PLUGIN, "supermix")

    found = verify(digits)
    answered = read_answers(digits)

    assert found.findings == []
    assert [*found.tiers.values()].count("self-reported") == 1
    assert answered.boards[0].rows.equals(before)
    (beside,) = answered.boards_beside
    assert list(beside.rows["method"]) == ["supermix (SuperMix 1.0)"]
    assert beside.rows["first_rank"].isna().all()
    page = files_of(answered)["README.md"]
    assert page.index("## Rows that the suite does not ask for") > page.index("| mixup ")


def test_a_built_in_method_that_is_not_asked_for_enters_after_a_rerun(digits: Path) -> None:
    change = Fields(
        cell="digits/mixup[alpha=0.3]/resnet8/s0/deadbeef",
        method__parameters={"alpha": 0.3}, method__changed=["alpha"],
    )  # fmt: skip
    unasked(digits, change, "mixup")
    assert len(read_answers(digits).boards_beside) == 1

    (path,) = (digits / "records").rglob("*deadbeef.json")
    record = Record.model_validate_json(path.read_text())
    note_tiers(digits, {record.digest: "rerun"})
    answered = read_answers(digits)

    assert answered.boards_beside == []
    assert "mixup[alpha=0.3]" in set(answered.boards[0].rows["method"])
    changed(path, Fields(method__changed=[], cell="digits/mixup/resnet8/s0/deadbeef"))
    assert any(line.startswith("method.changed: must be alpha") for line in findings(digits))


# --- Predictions ----------------------------------------------------------------------------------


def test_predictions_that_are_not_the_records_are_refused(digits: Path) -> None:
    for path in (digits / "artifacts").glob("*.safetensors"):
        path.write_bytes(path.read_bytes() + b" ")

    found = findings(digits)

    assert found.count("file: differs from the digest in its record") == 6


def test_perfect_predictions_prove_nothing(digits: Path) -> None:
    """They are made of the public targets in three lines."""

    def perfect(tensors: dict[str, Any]) -> dict[str, Any]:
        (name,) = tensors.keys() - {"targets"}
        right = tensors["targets"][:, None] == np.arange(tensors[name].shape[1])
        return {**tensors, name: right.float() * 12}

    predicted(digits, one(digits), perfect)

    found = verify(digits)

    assert found.findings == []
    assert "is perfect" in found.notes[0]
    assert [*found.tiers.values()].count("self-reported") == 1


def test_predictions_of_another_record_prove_nothing(digits: Path) -> None:
    path = one(digits, "*/none/*s0*")
    other = json.loads(path.read_text())
    changed(one(digits), Fields(metrics=other["metrics"], artifacts=other["artifacts"]))
    for artifact in {p.name for p in (digits / "artifacts").iterdir()}:
        records = "".join(p.read_text() for p in (digits / "records").rglob("*.json"))
        if artifact[:16] not in records:
            (digits / "artifacts" / artifact).unlink()

    found = verify(digits)

    assert found.findings == []
    assert "has the same predictions as" in found.notes[0]
    assert [*found.tiers.values()].count("self-reported") == 2  # nobody knows which came first


@pytest.mark.parametrize(
    "raw",
    [
        b"this is no safetensors file",
        save({"x": torch.zeros(597, 10)}),
        b"\x02\0\0\0\0\0\0\0{}",
    ],
    ids=["garbage", "without targets", "empty"],
)
def test_a_file_that_holds_no_predictions_is_named(digits: Path, raw: bytes) -> None:
    path = one(digits)
    content = json.loads(path.read_text())
    place = next(i for i, a in enumerate(content["artifacts"]) if a["role"] == "predictions")
    digest = hashlib.sha256(raw).hexdigest()
    (digits / f"artifacts/{content['artifacts'][place]['sha256'][:16]}.safetensors").unlink()
    (digits / f"artifacts/{digest[:16]}.safetensors").write_bytes(raw)
    content["artifacts"][place] |= {"sha256": digest, "bytes": len(raw)}
    path.write_text(Record.model_validate_json(json.dumps(content)).written)

    found = verify(digits).findings

    assert found
    assert all("safetensors" in finding.what for finding in found)


def compacted(folder: Path, path: Path, change: Callable[[Content], object] = bool) -> None:
    """Replace the predictions of a record by their compact form, changed."""
    content = json.loads(path.read_text())
    artifact = next(a for a in content["artifacts"] if a["role"] == "predictions")
    file = folder / f"artifacts/{artifact['sha256'][:16]}.safetensors"
    tensors = load(file.read_bytes())
    file.unlink()
    task = make_task(find("task", "digits"), content["task"]["parameters"])
    compact = {**task.compact(tensors, tensors["targets"])}
    change(compact)
    raw = save(compact)
    digest = hashlib.sha256(raw).hexdigest()
    (folder / f"artifacts/{digest[:16]}.safetensors").write_bytes(raw)
    added = {"sha256": digest, "bytes": len(raw), "role": "compact_predictions"}
    content["artifacts"].append({**artifact, **added, "path": "stages/x/compact.safetensors"})
    path.write_text(Record.model_validate_json(json.dumps(content)).written)


def test_metrics_are_computed_again_from_compact_predictions(digits: Path) -> None:
    compacted(digits, one(digits))

    found = verify(digits)

    assert (found.findings, found.notes) == ([], [])
    assert [*found.tiers.values()] == [CONSISTENT] * 6


def halved(values: Tensor) -> Tensor:
    return (values.double() / 2).to(values.dtype)


@pytest.mark.parametrize("name", ["predicted", "confidence", "log_likelihood"])
def test_changed_compact_predictions_give_other_metrics(digits: Path, name: str) -> None:
    compacted(digits, one(digits), lambda tensors: tensors.update({name: halved(tensors[name])}))

    found = verify(digits)

    assert any("the predictions give" in finding.what for finding in found.findings)
    assert [*found.tiers.values()].count("self-reported") == 1


def test_compact_predictions_that_cannot_be_scored_are_named(digits: Path) -> None:
    compacted(digits, one(digits), lambda tensors: tensors.pop("confidence"))

    (finding,) = verify(digits).findings

    assert "the predictions cannot be scored" in finding.what


# --- Reruns ---------------------------------------------------------------------------------------


def rerun(record: Record, shift: int = 0) -> Record:
    """Return a record of another run, in which other images than in the first are wrong."""
    content = json.loads(record.written)
    for stage in content["stages"]:
        stage["started"] = "2026-11-01T00:00:00Z"
    if shift:
        metric = content["metrics"][PRIMARY]
        scores = Items(**metric["items"]).scores.copy()
        scores[:shift] = 0.0
        metric |= {"value": scores.mean(), "items": json.loads(pack(scores).model_dump_json())}  # type: ignore[union-attr]
    return Record.model_validate_json(json.dumps(content))


def test_a_rerun_with_the_same_bits_confirms_and_the_run_itself_does_not(digits: Path) -> None:
    records = [*read_answers(digits).records.values()]

    found = verify(digits, reruns=[rerun(records[0]), records[1]])

    assert [found.tiers[record.digest] for record in records[:2]] == ["rerun", CONSISTENT]
    assert found.findings == []


def test_three_reruns_with_other_bits_confirm_within_their_own_interval(digits: Path) -> None:
    records = [*read_answers(digits).records.values()][:3]
    near = [rerun(record, 1) for record in records]
    far = [rerun(record, 90) for record in records]

    agreeing, contradicting = verify(digits, reruns=near), verify(digits, reruns=far)

    assert {agreeing.tiers[record.digest] for record in records} == {"rerun"}
    assert len(contradicting.findings) == 3
    assert "differs from its reruns by +15" in contradicting.findings[0].what
    assert verify(digits, reruns=far[:2]).findings == []  # too few to tell


def test_a_rerun_judges_every_metric(digits: Path) -> None:
    records = [*read_answers(digits).records.values()][:3]
    reruns = [rerun(record, 1) for record in records]
    for path in (digits / "records/digits/mixup").iterdir():
        changed(path, lambda c: (c["metrics"][1].update(value=1e-3), c.update(artifacts=[])))

    found = verify(digits, reruns=reruns)

    assert sum("cross_entropy differs from its reruns" in f.what for f in found.findings) == 3


def test_where_reruns_do_not_vary_nothing_may_differ(digits: Path) -> None:
    records = [*read_answers(digits).records.values()][:3]
    reruns = []
    for record in records:
        content = json.loads(rerun(record, 1).written)
        content["metrics"][1]["value"] = 0.5
        reruns.append(Record.model_validate_json(json.dumps(content)))

    found = verify(digits, reruns=reruns)

    assert sum("cross_entropy differs from its reruns" in f.what for f in found.findings) == 3


def test_no_number_of_a_submission_widens_the_interval(digits: Path) -> None:
    records = [*read_answers(digits).records.values()][:3]
    forged = digits / "records/digits/mixup"
    for path in forged.glob("*.s[01].*"):
        changed(path, Fields(metrics__0__stderr=None, artifacts=[]))
    for number, path in enumerate(sorted(forged.iterdir())):
        scores = np.full(597, 100.0)
        scores[: 100 * number] = 0.0  # wildly different seeds, better in the mean
        packed = pack(scores)
        assert packed is not None
        items = json.loads(packed.model_dump_json())
        fields = {"value": scores.mean(), "items": items, "stderr": None}
        changed(path, lambda c, new=fields: (c["metrics"][0].update(new), c.update(artifacts=[])))  # type: ignore[misc]

    found = verify(digits, reruns=[rerun(record) for record in records])

    assert sum("its reruns by" in finding.what for finding in found.findings) == 3


# --- Other people's files -------------------------------------------------------------------------


@pytest.mark.full
def test_known_records_are_neither_changed_nor_removed(mixbench: Run, digits: Path) -> None:
    note_tiers(digits, verify(digits).tiers)
    commit(digits.parent)
    assert mixbench("verify", "digits", "--base", "HEAD", "--check").returncode == 0
    one(digits).unlink()
    changed(one(digits, "*/none/*s1*"), Fields(created="2026-01-01T00:00:00Z"))
    claimed = json.loads((digits / "verified.json").read_text())
    claimed[next(iter(claimed))] = "rerun"
    (digits / "verified.json").write_text(json.dumps(claimed))

    done = mixbench("verify", "digits", "--base", "HEAD", "--check")

    assert done.returncode == 4
    assert "was removed since HEAD" in done.stderr
    assert "was changed since HEAD" in done.stderr
    assert "claims 'rerun', which this did not confirm" in done.stderr
    assert "--base nowhere" in mixbench("verify", "digits", "--base", "nowhere").stderr


@pytest.mark.full
def test_artifacts_and_figures_of_others_stay_as_they_are(digits: Path) -> None:
    drawn = digits / "figures/digits.resnet8.quick/mixup/mixes.webp"
    drawn.parent.mkdir(parents=True)
    source = next((FOLDER / "digits/figures").rglob("mixes.webp"))
    shutil.copyfile(source, drawn)
    commit(digits.parent)
    assert findings(digits, base="HEAD") == []

    shutil.copyfile(next((FOLDER / "digits/figures").rglob("none/*.webp")), drawn)
    curve = next((digits / "artifacts").glob("*.json"))
    columns = json.loads(curve.read_text())
    curve.write_text(json.dumps(columns | {"validation_top1": [100.0] * len(columns["epoch"])}))
    next((digits / "artifacts").glob("*.safetensors")).unlink()
    found = findings(digits, base="HEAD")

    assert "file: differs from the digest in its record" in found
    assert found.count("file: was changed since HEAD: restore what was there") == 2
    assert found.count("file: was removed since HEAD: restore what was there") == 1


@pytest.mark.full
def test_figures_may_be_redrawn_with_a_new_record_of_their_row(digits: Path) -> None:
    path = one(digits, "*/mixup/*s2*")
    record = path.read_text()
    kept = {p: p.read_bytes() for p in (digits / "artifacts").iterdir()}
    path.unlink()
    for artifact in json.loads(record)["artifacts"]:
        for file in (digits / "artifacts").glob(f"{artifact['sha256'][:16]}.*"):
            file.unlink()
    sources = [*(FOLDER / "digits/figures").rglob("*.webp")]
    drawn = {name: digits / f"figures/digits.resnet8.quick/{name}/mixes.webp"
             for name in ("mixup", "none")}  # fmt: skip
    for figure in drawn.values():
        figure.parent.mkdir(parents=True)
        shutil.copyfile(sources[0], figure)
    commit(digits.parent)

    path.write_text(record)
    for file, raw in kept.items():
        file.write_bytes(raw)
    for figure in drawn.values():
        shutil.copyfile(sources[1], figure)

    (finding,) = verify(digits, base="HEAD").findings
    assert finding.path == drawn["none"]


@pytest.mark.full
def test_a_first_push_has_nothing_before_it(digits: Path) -> None:
    note_tiers(digits, verify(digits).tiers)
    commit(digits.parent)

    assert findings(digits, base=NOTHING_BEFORE) == []


@pytest.mark.full
def test_tiers_of_others_are_not_lowered(digits: Path) -> None:
    note_tiers(digits, verify(digits).tiers)
    commit(digits.parent)
    (digits / "verified.json").write_text("{}")

    found = findings(digits, base="HEAD")

    assert len(found) == 6
    assert all("must still be 'consistent with submitted predictions'" in line for line in found)


@pytest.mark.full
def test_a_suite_is_not_removed(mixbench: Run, digits: Path) -> None:
    shutil.copytree(digits, digits.parent / "other")
    commit(digits.parent.parent)
    (digits / "suite.toml").unlink()

    done = mixbench("verify", "--base", "HEAD", "--check")

    assert done.returncode == 4
    assert "leaderboards/digits/suite.toml: suite: was removed since HEAD" in done.stderr


@pytest.mark.full
def test_a_failed_record_may_be_replaced(digits: Path) -> None:
    path = one(digits)
    present = path.read_text()
    failed = Fields(status="failed", reason="x", metrics=[], artifacts=[], cost=None)
    changed(path, failed)
    commit(digits.parent)
    path.unlink()
    good = path.with_name("resnet8.quick.s0.deadbeef.json")
    good.write_text(present)
    changed(good, Fields(cell="digits/mixup/resnet8/s0/deadbeef"))

    assert findings(digits, base="HEAD") == []


@pytest.mark.full
def test_git_runs_nothing_that_a_folder_names(digits: Path, tmp_path: Path) -> None:
    """A folder with these files is a bare repository, whose settings may name programs."""
    commit(tmp_path)
    for name in ("refs/keep", "objects/info/keep"):
        (digits / name).parent.mkdir(parents=True, exist_ok=True)
        (digits / name).touch()
    (digits / "HEAD").write_text("ref: refs/heads/main\n")
    alternates = digits / "objects/info/alternates"
    alternates.write_text(str(tmp_path / ".git/objects"))
    shutil.copyfile(tmp_path / ".git/index", digits / "index")
    (digits / "config").write_text(
        f'[core]\nbare = false\nworktree = .\nfsmonitor = "touch {tmp_path}/ran; false"\n'
    )

    with pytest.raises(MixbenchError):
        verify(digits, base="HEAD")

    assert not (tmp_path / "ran").exists()


@pytest.mark.full
def test_a_changed_suite_is_noted_for_review(digits: Path) -> None:
    commit(digits.parent)
    suite = digits / "suite.toml"
    suite.write_text(f"{suite.read_text()}\n")

    assert verify(digits, base="HEAD").notes == [f"{suite} was changed since HEAD: review it"]


@pytest.mark.full
def test_a_record_of_an_older_version_may_be_replaced(digits: Path) -> None:
    path = one(digits)
    present = path.read_text()
    changed(path, lambda c: c["task"].update(version=1))
    commit(digits.parent)

    path.unlink()
    removed = [f for f in verify(digits, base="HEAD").findings if f.path == path]
    path.write_text(present)
    replaced = verify(digits, base="HEAD").findings

    assert [f.what[:22] for f in removed] == ["was removed since HEAD"]
    assert replaced == []


@pytest.mark.full
def test_a_record_that_was_only_migrated_counts_as_unchanged(digits: Path) -> None:
    present = {path: path.read_text() for path in (digits / "records").rglob("*.json")}
    for path, text in present.items():
        old = text.replace("record@2", "record@1").replace('"head_lr_mult"', '"fast_lr"')
        path.write_text(old.replace('"trivial_baseline"', '"floor"'))
    commit(digits.parent)
    for path, text in present.items():
        path.write_text(text)
    tampered = one(digits)

    assert verify(digits, base="HEAD").findings == []
    changed(tampered, Fields(created="2026-01-01T00:00:00Z"))
    (found,) = [f for f in verify(digits, base="HEAD").findings if f.path == tampered]

    assert found.what.startswith("was changed since HEAD")


# --- Strange files --------------------------------------------------------------------------------


PICTURE = next((FOLDER / "digits/figures").rglob("*.webp")).read_bytes()


def riff(content: bytes) -> bytes:
    """Return the bytes of a WebP file around its chunks."""
    return b"RIFF" + (len(content) + 4).to_bytes(4, "little") + b"WEBP" + content


HTML = b"XMP " + (8).to_bytes(4, "little") + b"<script>"
BOMB = riff(  # a canvas of 16,383 x 16,383 pixels in few bytes
    b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + (16_382).to_bytes(3, "little") * 2
    + b"VP8L" + (6).to_bytes(4, "little") + b"\x2f" + (16_382 | 16_382 << 14).to_bytes(4, "little")
    + b"\x00"
)  # fmt: skip


def pictures(size: tuple[int, int], number: int = 1) -> bytes:
    """Return a WebP file of so many unlike pictures."""
    first, *others = (Image.new("RGB", size, (40 * i, 0, 0)) for i in range(number))
    file = io.BytesIO()
    first.save(file, "WEBP", quality=0, method=0, save_all=number > 1, append_images=others)
    return file.getvalue()


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "figures elsewhere": (lambda d: (d / "figures").symlink_to("/etc"), "no link"),
    "link": (lambda d: (d / "records/loop.json").symlink_to("."), "no link"),
    "link to a folder": (lambda d: (d / "records/digits/loop").symlink_to("."), "no link"),
    "pickle": (lambda d: written(d, "artifacts/x.pickle", b""), "is no file of a suite"),
    "script": (lambda d: written(d, "run.py", b""), "is no file of a suite"),
    "unnamed": (lambda d: written(d, "artifacts/0123456789abcdef.json", b"[]"), "no record names"),
    "newline": (lambda d: written(d, "artifacts/0123\n.json", b"[]"), "must have a printable name"),
    "deep tiers": (lambda d: written(d, "verified.json", b"[" * 100_000), "must be a JSON object"),
    "list as tier": (lambda d: written(d, "verified.json", b'{"a": []}'), "must be a JSON object"),
    "unknown tier": (lambda d: written(d, "verified.json", b'{"a": "gold"}'), "must be self-repor"),
    "latin-1": (lambda d: written(d, "verified.json", b"\xff"), "cannot be read as UTF-8"),
    "gif": (lambda d: written(d, "figures/a.webp", b"GIF89a"), "is not a WebP image"),
    "many pixels": (lambda d: written(d, "figures/a.webp", pictures((8200, 6200))), "pixels"),
    "animated": (lambda d: written(d, "figures/a.webp", pictures((9, 9), 2)), "one picture"),
    "cut": (lambda d: written(d, "figures/a.webp", riff(PICTURE[12:900])), "is not a WebP image"),
    "svg": (lambda d: written(d, "figures/a.svg", b"<svg/>"), "is no file of a suite"),
    "formula": (lambda d: written(d, "figures/a.csv", b'a,"=HYPERLINK(1)"\n'), "has a formula"),
    "plus": (lambda d: written(d, "figures/a.csv", b"x;+HYPERLINK(1)\n"), "has a formula"),
    "html behind": (lambda d: written(d, "figures/a.webp", PICTURE + b"<html>"), "do not fill it"),
    "html inside": (lambda d: written(d, "figures/a.webp", riff(PICTURE[12:] + HTML)), "else in"),
    "two": (lambda d: written(d, "figures/a.webp", riff(PICTURE[12:] * 2)), "one picture"),
    "bomb": (lambda d: written(d, "figures/a.webp", BOMB), "too many pixels"),
    "no row": (lambda d: written(d, "figures/b.webp", PICTURE), "is a figure of no row"),
    "bell": (lambda d: written(d, "figures/a.csv", b"a\x07\n"), "printable"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_lies_in_the_folder_is_a_finding(digits: Path, name: str) -> None:
    make, said = STRANGE[name]
    make(digits)

    assert any(said in line for line in findings(digits)), findings(digits)
    with pytest.raises(Damaged, match="mixbench verify"):
        Site([digits])


def written(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def test_folders_in_folders_end(digits: Path) -> None:
    deep = digits / "records" / "/".join("a" * 300)
    deep.mkdir(parents=True)

    assert any("must be a regular file" in line for line in findings(digits))


def test_a_suite_is_no_link(digits: Path) -> None:
    link = digits.parent / "evil"
    link.symlink_to(digits)
    with pytest.raises(UsageError, match="not a link"):
        verify(link)
    (digits / "suite.toml").rename(digits / "x")
    (digits / "suite.toml").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="not a link"):
        verify(digits)


@pytest.mark.parametrize(
    "change",
    [
        ("seeds = 5", f"seeds = {'1' * 5000}"),
        ("seeds = 5", "seeds = 1000000"),
        ("seeds = 5", "seeds = 5\nsettings = { a = " + "[" * 5000),
        ('question = "', 'question = "\\n'),
        ('protocol = "quick"', 'protocol = "quick"\ndata = "/etc"\ntasks = ["folder"]'),
    ],
    ids=["many digits", "many seeds", "deep", "two lines", "elsewhere"],
)
def test_a_suite_of_a_stranger_is_a_sentence(digits: Path, change: tuple[str, str]) -> None:
    suite = digits / "suite.toml"
    assert change[0] in suite.read_text()
    suite.write_text(suite.read_text().replace(*change))

    with pytest.raises(UsageError):
        verify(digits)


def test_a_curve_of_texts_is_none(digits: Path) -> None:
    path = one(digits)
    content = json.loads(path.read_text())
    place = next(i for i, a in enumerate(content["artifacts"]) if a["role"] == "curve")
    raw = b'{"epoch": [1], "validation_top1": ["97.0"]}'
    digest = hashlib.sha256(raw).hexdigest()
    (digits / f"artifacts/{content['artifacts'][place]['sha256'][:16]}.json").unlink()
    (digits / f"artifacts/{digest[:16]}.json").write_bytes(raw)
    changed(path, lambda c: c["artifacts"][place].update(sha256=digest, bytes=len(raw)))

    assert any("is no learning curve" in line for line in findings(digits))


def test_a_folder_named_like_a_record_holds_none(digits: Path) -> None:
    (digits / "records/digits/mixup/x.json").mkdir()

    assert findings(digits) == []


def test_a_sparse_file_of_many_gigabytes_is_not_read(digits: Path) -> None:
    with (digits / "records/digits/mixup/x.json").open("wb") as file:
        file.truncate(1 << 40)

    assert any("must be at most 4 MiB" in line for line in findings(digits))


# --- Text of strangers ----------------------------------------------------------------------------


def test_free_text_is_shown_as_it_is(digits: Path) -> None:
    evil = "<img src=x> [a](https://evil.example) | **x** `y` $z$ \\input{x} www.evil.example"
    path = one(digits)
    changed(path, Fields(hardware__cpu=evil, command=[evil]))
    assert findings(digits) == []

    files = files_of(read_answers(digits))
    built = Site([digits]).build(digits.parent / "site")
    of_records = takewhile(lambda path: path.parent.name != "previews", built)  # slow, no such text
    pages = [path for path in of_records if path.suffix == ".html"]

    (line,) = [line for line in files["README.md"].splitlines() if "evil" in line]
    assert line.startswith("- trained on ")
    for live in ("<img", "](http", "://", "**x", "`y", "www.e"):
        assert live not in line.replace(f"\\{live[0]}", "")
    assert r"\textbackslash{}input\{x\}" in files["leaderboard.tex"]
    assert not any("<img src=x>" in page.read_text() for page in pages)
    assert any("&lt;img src=x&gt;" in page.read_text() for page in pages)


def test_a_finding_says_where() -> None:
    assert str(Finding(Path("a.json"), "seed", "is odd")) == "a.json: seed: is odd"


def test_every_refusal_is_a_sentence(digits: Path) -> None:
    changed(one(digits), Fields(seed=4))

    with pytest.raises(MixbenchError) as refused:
        build(digits)

    assert "\n" not in str(refused.value)
    assert to_json(next(iter(read_answers(FOLDER / "digits").records.values())))


@pytest.mark.slow
@pytest.mark.full
def test_one_new_record_is_run_again(mixbench: Run, tmp_path: Path) -> None:
    """With the same bits it is confirmed; a forged one is contradicted by three seeds."""
    folder = tmp_path / "leaderboards/mine"
    folder.mkdir(parents=True)
    (folder / "suite.toml").write_text(
        'question = "Does it run?"\nseeds = 3\n[[ask]]\nmethods = ["none"]\n'
        'tasks = ["digits"]\nprotocol = "quick"\nsettings = { "digits.epochs" = 1 }\n'
    )
    commit(tmp_path)
    assert mixbench("verify", "mine", "--rerun").returncode == 2
    assert "no new record" in mixbench("verify", "mine", "--rerun", "--base", "HEAD").stdout
    assert mixbench("run", "--suite", "mine", "--seed", "1").returncode == 0
    assert mixbench("submit", "mine", "--predictions").returncode == 0
    for name in ("mixbench.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working folder')")

    done = mixbench("verify", "mine", "--rerun", "--base", "HEAD", "--check")
    path = one(folder, "*/none/*s1*")
    scores = np.where(np.arange(597) < 590, 100.0, 0.0)
    items = json.loads(pack(scores).model_dump_json())  # type: ignore[union-attr]
    error = float(scores.std(ddof=1) / 597**0.5)
    fields = {"value": scores.mean(), "items": items, "stderr": error}
    changed(path, lambda c: (c["metrics"][PRIMARY].update(fields), c.update(artifacts=[])))
    shutil.rmtree(folder / "artifacts")
    forged = mixbench("verify", "mine", "--rerun", "--base", "HEAD", "--check")

    assert (done.returncode, "(1 rerun)" in done.stdout) == (0, True), done.stderr
    assert "with other bits" in forged.stdout
    assert (forged.returncode, "its reruns by" in forged.stderr) == (4, True)
