"""Suites: questions in files, the evidence beside them, and what is built from it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixbench.errors import DataError, UsageError
from mixbench.leaderboard.admission import Asked
from mixbench.leaderboard.build import build, files_of, read_answers, stale
from mixbench.leaderboard.formats import to_latex, to_markdown
from mixbench.leaderboard.grouping import method_label
from mixbench.leaderboard.layout import laid_out
from mixbench.leaderboard.overall import overall
from mixbench.leaderboard.ranks import Pairing, Rule
from mixbench.leaderboard.suite import Ask, Layout, Suite, cells_asked, read_suite
from mixbench.leaderboard.table import leaderboards
from mixbench.plan.request import cells_of
from mixbench.records.schema import Record, to_json
from mixbench.registry.units import paths
from mixbench.site import charts
from tests.support import Run

MakeRecord = Callable[..., Record]
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "leaderboards"
EVERY = sorted(path.parent for path in FOLDER.glob("*/suite.toml"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the suite that was really run, in a checkout of its own."""
    shutil.copytree(FOLDER / "digits", tmp_path / "leaderboards/digits")
    return tmp_path / "leaderboards/digits"


def one(folder: Path, pattern: str = "*/mixup/*s0*") -> Path:
    (path,) = (folder / "records").glob(f"{pattern}.json")
    return path


def changed(path: Path, **changes: Any) -> None:
    """Rewrite a record with other fields, as its author would: `metrics__0__value=1`."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        place, *rest = name.split("__")
        target = content
        for part in [place, *rest][:-1]:
            target = target[int(part) if part.isdecimal() else part]
        target[[place, *rest][-1]] = value
    path.write_text(to_json(Record.model_validate(content)))


def test_every_method_and_task_is_in_the_quick_suite() -> None:
    suite = read_suite(FOLDER / "quick")

    assert {m for ask in suite.ask for m in ask.methods} == {*paths("method")}
    assert {t for ask in suite.ask for t in ask.tasks} == {*paths("task")}


@pytest.mark.parametrize("folder", EVERY, ids=lambda path: path.name)
def test_every_suite_asks_for_what_there_is(folder: Path) -> None:
    suite = read_suite(folder)

    for request in suite.requests():
        try:
            assert cells_of(request)
        except DataError:  # real data that is not here: every name was known before
            assert folder.name.startswith(("paper_", "cifar10_", "clothing_", "tiny_", "field_"))


@pytest.mark.parametrize("folder", EVERY, ids=lambda path: path.name)
def test_published_numbers_are_of_rows_that_the_suite_asks_for(folder: Path) -> None:
    asked = set()
    for ask in read_suite(folder).ask:
        for method in ask.methods:
            parameters = {
                name.partition(".")[2]: value
                for name, value in ask.settings.items()
                if name.startswith(f"{method}.")
            }
            listed = ",".join(f"{name}={value}" for name, value in parameters.items())
            asked |= {(f"{method}[{listed}]" if listed else method, t) for t in ask.tasks}

    for number in read_suite(folder).published:
        assert (number.method, number.task) in asked


def test_the_paper_has_nine_tables() -> None:
    assert {f"paper_table{n}" for n in range(1, 10)} <= {folder.name for folder in EVERY}
    assert all(read_suite(FOLDER / f"paper_table{n}").numbers() for n in range(1, 10))


@pytest.mark.parametrize("folder", EVERY, ids=lambda path: path.name)
def test_committed_pages_are_what_the_records_say(folder: Path) -> None:
    assert stale(folder) == {}


def test_a_page_out_of_date_is_named_and_then_written(digits: Path) -> None:
    (digits / "README.md").write_text("old")

    assert [*stale(digits)] == [digits / "README.md"]
    assert build(digits) == [digits / "README.md"]
    assert stale(digits) == {}


def test_the_command_builds_and_checks(mixbench: Run, digits: Path) -> None:
    assert mixbench("leaderboard", "build", "--check").returncode == 0
    (digits / "leaderboard.tex").unlink()

    done = mixbench("leaderboard", "build", "digits", "--check")

    assert done.returncode == 4
    assert "leaderboard.tex is out of date" in done.stderr
    assert mixbench("leaderboard", "build").returncode == 0
    assert mixbench("leaderboard", "build", "--check").returncode == 0


def test_the_page_says_what_came_of_the_question(digits: Path) -> None:
    text = files_of(read_answers(digits))["README.md"]

    assert "undecided against none: manifold_mixup" in text
    assert "Compared: each method with none." in text
    assert "95% confidence interval over seeds and test images" in text
    assert "Minimum detectable effect at 80 % power: with 5 seeds" in text


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"final_on": "all"}], ids=str)
def test_a_protocol_that_is_computed_otherwise_stands_apart(
    digits: Path, change: dict[str, Any]
) -> None:
    record, *_ = read_answers(digits).records.values()
    other = record.model_copy(update={"recipe": {**record.recipe, **change}})

    boards = leaderboards([record, other])

    ((field, value),) = change.items()
    assert {board.name for board in boards} == {
        "digits.resnet8.quick", f"digits.resnet8.quick.{field}={value}"
    }  # fmt: skip
    suite = read_suite(digits)
    asked = Asked(tuple(cells_asked(digits, suite)))
    assert asked.cell_of(record)
    assert asked.beside(other) is None
    assert [wrong.field for wrong in asked.objections(other)] == ["recipe"]
    asking = suite.model_copy(update={"settings": {f"recipe.{field}": value}})
    asked = Asked(tuple(cells_asked(digits, asking)))
    assert asked.cell_of(other)
    assert asked.beside(record) is None


@pytest.mark.full
def test_a_submission_is_run_submitted_verified_built(mixbench: Run, tmp_path: Path) -> None:
    folder = tmp_path / "leaderboards/mine"
    folder.mkdir(parents=True)
    (folder / "suite.toml").write_text(
        'question = "Does it run?"\nseeds = 2\n[[ask]]\nmethods = ["none", "mixup"]\n'
        'tasks = ["digits"]\nprotocol = "quick"\nsettings = { "digits.epochs" = 1 }\n'
    )
    refused = mixbench("submit", "mine", "--store", "store")
    assert refused.returncode == 2

    ran = mixbench("run", "--suite", "mine", "--seed", "0")
    done = mixbench("submit", "mine", "--predictions")

    assert ran.returncode == 0, ran.stderr
    assert done.returncode == 0, done.stderr
    assert "2 cells have no record yet" in done.stdout
    assert (folder / "figures/digits.resnet8.custom.epochs=1.batch_size=100.lr=0.1").is_dir()
    assert "2 consistent with submitted predictions" in mixbench("verify", "mine").stdout
    assert mixbench("leaderboard", "build", "mine").returncode == 0
    assert "One seed cannot show a difference" in (folder / "README.md").read_text()
    assert "mixup minus none" in mixbench("compare", "mixup", "none").stdout
    assert json.loads(mixbench("compare", "mixup", "none", "--json").stdout)["first"] == "mixup"
    unknown = mixbench("compare", "mixap", "none")
    assert (unknown.returncode, "Did you mean 'mixup'" in unknown.stderr) == (2, True)
    assert "2 records scored again, 0 differ" in mixbench("score").stdout


@pytest.mark.full
def test_a_metric_that_changed_is_scored_again_without_training(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    assert mixbench("run", "-m", "none", "-t", "digits", *fast).returncode == 0
    (path,) = (tmp_path / "store/records").glob("*/*/*.json")
    true = json.loads(path.read_text())["metrics"][1]["value"]
    changed(path, metrics__1__value=7.0)  # as an earlier version of the metric would have it

    done, again = mixbench("score", "-t", "digits"), mixbench("score")

    assert "1 records scored again, 1 differ" in done.stdout
    assert "1 records scored again, 0 differ" in again.stdout
    (new,) = {*(tmp_path / "store/records").glob("*/*/*.json")} - {path}
    record = json.loads(new.read_text())
    assert record["metrics"][1]["value"] == pytest.approx(true)
    assert record["rescored"] is not None
    assert f"{true:.3g}" in mixbench("report", "--format", "markdown").stdout
    changed(new, task__version=1)
    older = mixbench("score")
    assert "1 records scored again, 1 differ" in older.stdout
    assert "version 1 of digits count as version 2 now" in older.stderr
    shutil.rmtree(tmp_path / "store/stages")
    (tmp_path / "store/stages").mkdir()
    assert "are no longer in" in mixbench("score").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question = 'a'\n", "ask: Field required"),
        ("question = 'a'\nseed = 3\n[[ask]]\nmethods=['none']\ntasks=['digits']", "seed: Extra"),
        ("question", "cannot be read"),
    ],
)
def test_a_suite_that_is_none_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "suite.toml").write_text(text)

    with pytest.raises(UsageError, match=said):
        read_suite(tmp_path)


def test_a_suite_that_names_what_is_not_there(mixbench: Run, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(
        "question = 'a'\n[[ask]]\nmethods=['mixap']\ntasks=['digits']"
    )

    done = mixbench("run", "--suite", ".")

    assert done.returncode == 2
    assert "The suite suite.toml: No method 'mixap'. Did you mean 'mixup'?" in done.stderr
    assert "No suite" in mixbench("run", "--suite", "nowhere").stderr or "no folder" in (
        mixbench("run", "--suite", "nowhere").stderr
    )


def boards_of(
    make_record: MakeRecord, tasks: int, gains: dict[str, float], sets: int = 9
) -> list[Any]:
    """Return leaderboards of made-up tasks on data sets, whose methods differ by gains."""
    records = []
    for number in range(tasks):
        for place, (method, gain) in enumerate(gains.items()):
            record = make_record(method, 0, 50 + number + gain + 0.01 * ((number * place) % 3))
            task = record.task.model_copy(update={"name": f"task_{number}"})
            data = record.data.model_copy(update={"name": f"set_{number % sets}"})
            records.append(record.model_copy(update={"task": task, "data": data}))
    return leaderboards(records)


def test_over_tasks_methods_have_ranks_and_a_test_of_their_order(make_record: MakeRecord) -> None:
    found = overall(boards_of(make_record, 6, {"none": 0.0, "mixup": 1.0, "cutmix": 2.0}))

    assert found is not None
    assert list(found.rows["method"]) == ["cutmix", "mixup", "none"]
    assert list(found.rows["mean_rank"]) == [1, 2, 3]
    assert found.p == pytest.approx(0.00248, abs=1e-5)
    assert found.pairs["none"].to_dict()["cutmix"] < 0.05
    few = overall(boards_of(make_record, 2, {"none": 0.0, "mixup": 1.0}))
    assert few is not None
    assert "too few" in few.notes[0]
    assert overall(boards_of(make_record, 1, {"none": 0.0, "mixup": 1.0})) is None


def test_a_table_averages_no_different_rows(make_record: MakeRecord) -> None:
    unit = make_record("mixup").method
    changed = unit.model_copy(update={"parameters": {"alpha": 0.2}, "changed": ["alpha"]})
    records = [make_record("mixup", 0, 50.0), make_record("mixup", 0, 60.0, method=changed)]
    ask = Ask(methods=("mixup",), tasks=("digits",))
    plain, table = (
        Suite(question="?", ask=(ask,), layout=layout) for layout in (None, Layout(rows=("task",)))
    )

    found = laid_out(plain, records)

    assert found.to_dict("records") == [{"mixup": "50.00", "mixup[alpha=0.2]": "60.00"}]
    with pytest.raises(UsageError, match=r"would average different rows as \(toy, mixup\)"):
        laid_out(table, records)


def test_evaluations_of_other_base_tasks_are_other_tables(make_record: MakeRecord) -> None:
    unit = make_record().task
    bases = [
        unit.model_copy(update={"name": "base", "parameters": {"classes": n}, "changed": changed})
        for n, changed in ((10, []), (3, ["classes"]))
    ]

    boards = leaderboards([
        make_record("none", 0, 50.0 + n, base_task=b) for n, b in enumerate(bases)
    ])

    assert [board.name for board in boards] == ["toy.net.quick", "toy.net.quick.base.classes=3"]


def test_a_declared_row_that_is_absent_is_named(make_record: MakeRecord) -> None:
    rule = Rule((Pairing(("mixup[alpha=0.7]",), ("none",)),))

    (board,) = leaderboards([make_record("none"), make_record("mixup")], rule=rule)

    assert "Declared comparisons without a row: mixup[alpha=0.7]." in board.notes


def test_each_data_set_counts_once(make_record: MakeRecord) -> None:
    gains = {"none": 0.0, "mixup": 1.0, "cutmix": 2.0}

    two, three = (overall(boards_of(make_record, 6, gains, sets)) for sets in (2, 3))

    assert two is not None
    assert three is not None
    assert two.p is None
    assert "3 methods over 2 data sets (6 leaderboards): too few" in two.notes[0]
    assert three.p == pytest.approx(0.0498, abs=1e-4)  # Friedman's test of three equal orders
    assert not three.pairs.isna().to_numpy().any()


def test_data_sets_that_agree_wholly_have_p_values(make_record: MakeRecord) -> None:
    found = overall(boards_of(make_record, 4, {f"m{n}": float(n) for n in range(6)}))

    assert found is not None
    assert found.p is not None
    assert found.p < 0.01
    assert not found.pairs.isna().to_numpy().any()
    assert charts.critical_difference(found).startswith("<svg")


def test_names_cannot_break_a_table(make_record: MakeRecord) -> None:
    unit = make_record("mixup").method.model_copy(
        update={"parameters": {"a": "<b>|\\x_%*`"}, "changed": ["a"]}
    )
    record = make_record("mixup", method=unit)
    assert method_label(record) == "mixup[a=<b>|\\x_%*`]"

    latex, markdown = to_latex(leaderboards([record])), to_markdown(leaderboards([record]))

    assert r"mixup\allowbreak [a=\allowbreak $<$b$>$|\textbackslash{}x\_\allowbreak \%*`]" in latex
    assert r"mixup[a=\<b\>\|\\x\_%\*\`]" in markdown


def test_latex_has_as_many_cells_in_every_row(digits: Path) -> None:
    text = to_latex(read_answers(digits).boards)

    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") for row in rows} == {3}  # all rows have as many seeds
    assert text.count(r"\begin") == text.count(r"\end")
    assert len(rows) == 8


TEX = shutil.which("pdflatex")
ARTICLE = r"""\documentclass[twocolumn]{article}
\usepackage{array,booktabs,siunitx}
\begin{document}
%s
\end{document}
"""


@pytest.mark.full
@pytest.mark.skipif(TEX is None, reason="TeX is not installed: apt-get install texlive-science")
def test_latex_compiles_into_a_column(tmp_path: Path) -> None:
    tables = [p.read_text(encoding="utf-8") for p in FOLDER.glob("*/leaderboard.tex")]
    every = read_answers(FOLDER / "clothing_finetune").records.values()
    last = max(record.seed for record in every)
    rows = [r for r in every if r.method.name == "none" or r.seed < last]  # a column of seeds
    article = ARTICLE % "\n".join([*tables, to_latex(leaderboards(rows))])
    (tmp_path / "all.tex").write_text(article)

    done = subprocess.run(
        [str(TEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert len(tables) > 5


def test_suites_are_found_by_name_and_listed(mixbench: Run, digits: Path) -> None:
    lines = mixbench("list", "suites").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    named = dict(line.split(maxsplit=1) for line in lines if not line.startswith(" "))
    assert named["digits"].startswith("Does mixing improve a small model")
    assert "paper_table1" in named  # installed with mixbench
    assert digits.name == "digits"
