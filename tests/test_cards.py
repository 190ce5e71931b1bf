import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mixbench.contract.loading import load_method, load_task, make_task
from mixbench.engines import preflight as preflights
from mixbench.engines.preflight import preflight
from mixbench.errors import InvalidUnit, UsageError
from mixbench.plan.cells import Cell
from mixbench.plan.graph import plan
from mixbench.plan.request import Request, cells_of
from mixbench.registry.cards import read_card
from mixbench.registry.parameters import Setting
from mixbench.registry.units import find
from mixbench.storage.store import Store

SOUND = '''
"""Noise: add a little.

Paper    Somebody, arXiv:0000.00000,
         page two
Source   none
Differs  nothing known
"""
from mixbench.contract import Method
from mixbench.declare import Need, Positive


class Noise(Method):
    version = 2
    needs = {"scorer": Need(method="mixup", share=("alpha",))}

    def __init__(self, alpha: Positive = 0.5, *, loud: bool = False) -> None:
        super().__init__()
'''


def write(folder: Path, text: str, name: str = "noise.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def test_card_says_what_the_file_says(tmp_path: Path) -> None:
    card = read_card(write(tmp_path, SOUND), "method", "file")

    assert (card.name, card.class_name, card.version) == ("noise", "Noise", 2)
    assert card.summary == "Noise: add a little."
    assert card.header["Paper"] == "Somebody, arXiv:0000.00000, page two"
    assert card.defaults == {"alpha": 0.5, "loud": False}
    assert card.declared.needs["scorer"].method == "mixup"


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("version = 2", "version = ", "line 13: invalid syntax"),
        ("    version = 2\n", "", "must declare version itself"),
        ("version = 2", "version = 0", "version must be greater than or equal to 1 (got 0)"),
        ("version = 2", "version = compute()", "line 13: a declaration must be made of literals"),
        ("class Noise(Method):", "class _Noise(Method):", "must define one public class"),
        ("alpha: Positive = 0.5", "alpha=0.5", "parameter 'alpha' must have a type"),
        ("alpha: Positive = 0.5", "alpha: Positive", "parameter 'alpha' must have a type"),
        ("alpha: Positive", "alpha: Unheard", "Unheard is not a type of mixbench.declare"),
    ],
)
def test_what_breaks_a_card_is_named(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    path = write(tmp_path, SOUND.replace(before, after))

    with pytest.raises(InvalidUnit) as caught:
        read_card(path, "method", "file")

    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_several_classes_need_one_named_like_the_file(tmp_path: Path) -> None:
    second = "\n\nclass Helper:\n    pass\n"

    assert read_card(write(tmp_path, SOUND + second), "method").class_name == "Noise"
    with pytest.raises(InvalidUnit, match="found Noise, Helper"):
        read_card(write(tmp_path, SOUND + second, "other.py"), "method")


def test_a_declaration_cannot_reach_builtins(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND.replace("version = 2", "version = open('/etc/passwd')"))

    with pytest.raises(InvalidUnit, match=r"open\('/etc/passwd'\) is not allowed"):
        read_card(path, "method")


@pytest.mark.parametrize(
    "value",
    [
        "1 / 0",
        "(1, 2)[7]",
        "9**9**9",
        "[c for c in ().__class__.__base__.__subclasses__()]",
        "().__class__",
        "f'{1}'",
        "lambda: 1",
        "{**Need.__dict__}",
        "{[]: 1}",
        "(*1,)",
        "{**['abc']}",
        "table_row('c', 'w', 'm', 5)",
        "-" * 5000 + "1",
    ],
)
def test_a_declaration_is_never_run(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, SOUND.replace("version = 2", f"version = 2\n    mark = {value}"))

    with pytest.raises(InvalidUnit, match=r"declaration must be made of|cannot be parsed"):
        read_card(path, "method", "file")


@pytest.mark.parametrize(("value", "read"), [("-1", -1), ("(1, *(2, 3))", (1, 2, 3))])
def test_a_declaration_is_made_of_literals(tmp_path: Path, value: str, read: object) -> None:
    path = write(tmp_path, SOUND.replace("version = 2", f"version = 2\n    mark = {value}"))

    assert read_card(path, "method", "file").attributes["mark"] == read


def inherited(folder: Path, base: str, body: str = "version = 1") -> Path:
    module, _, name = base.rpartition(".")
    text = f"""
        \"\"\"Heir: inherits.

        Paper    none
        Source   none
        Differs  none
        Data     none
        Licence  none
        \"\"\"
        from {module} import {name}

        class Heir({name}):
            \"\"\"Inherit.\"\"\"

            {body}
        """
    return write(folder, text, "heir.py")


@pytest.mark.parametrize("name", ["mixup", "guided_patchmix", "cutmix_patch", "patchup"])
def test_a_method_inherits_all_that_it_does_not_declare(tmp_path: Path, name: str) -> None:
    theirs = find("method", name)
    path = inherited(tmp_path, f"mixbench.methods.{name}.{theirs.class_name}")

    card = find("method", str(path))

    assert [(p.name, p.type, p.default, p.description) for p in card.parameters] == [
        (p.name, p.type, p.default, p.description) for p in theirs.parameters
    ]
    assert card.declared.needs == theirs.declared.needs
    assert card.declared.sites == theirs.declared.sites
    assert card.defines == theirs.defines
    assert load_method(card).__mro__[1] is load_method(theirs)


@pytest.mark.parametrize("name", ["cifar10", "food101", "imagenet_c", "nus_wide"])
def test_a_task_inherits_all_that_it_does_not_declare(tmp_path: Path, name: str) -> None:
    theirs = find("task", name)
    path = inherited(tmp_path, f"mixbench.tasks.{name}.{theirs.class_name}")

    card = find("task", str(path))

    assert card.declared == replace(theirs.declared, version=1)
    assert card.defaults == theirs.defaults
    assert load_task(card).__mro__[1] is load_task(theirs)


def test_an_inherited_search_is_a_stage(tmp_path: Path) -> None:
    path = inherited(tmp_path, "mixbench.methods.guided_patchmix.GuidedPatchMix")

    stages = plan(cells_of(Request([str(path)], ["digits"], [0]))).stages.values()

    assert sorted(stage.kind for stage in stages) == ["evaluate", "prepare", "train", "train"]


def test_what_reading_cannot_see_is_refused_when_the_class_is_loaded(tmp_path: Path) -> None:
    """A base class that is made when the file runs."""
    text = """
        \"\"\"Heir: inherits from what only running the file makes.

        Paper    none
        Source   none
        Differs  none
        \"\"\"
        from mixbench.methods import mixup
        from mixbench.declare import Positive

        Made = type("Made", (mixup.Mixup,), {})


        class Heir(Made):
            \"\"\"Inherit.\"\"\"

            version = 1
        """
    card = find("method", str(write(tmp_path, text, "heir.py")))

    with pytest.raises(InvalidUnit, match=r"the file has the parameters none; the class takes"):
        load_method(card)


@pytest.mark.full
@pytest.mark.parametrize("name", ["cutmix_patch", "random_patchmix"])
def test_an_inherited_check_refuses_before_anything_runs(name: str, tmp_path: Path) -> None:
    cells = cells_of(Request([name], ["digits"], [0], settings=[Setting(name, "grid", "9")]))

    with pytest.raises(UsageError, match="grid must be at most the image's shorter side"):
        checked(cells, tmp_path)


def checked(cells: Sequence[Cell], tmp_path: Path) -> list[str]:
    """Check the cells before a run, and return what the user is told meanwhile."""
    store, told = Store(tmp_path / "store"), list[str]()
    store.open()
    preflight(plan(cells), store, told.append, fresh=False)
    return told


CHECKED = """
from mixbench.contract import Method


class Mine(Method):
    \"\"\"Does something else when it is checked.\"\"\"

    version = 1

    def check(self, task, held_out):
        {}
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("__import__('time').sleep(99)", "did not end within 0.05 minutes: .*logs/check.txt"),
        ("__import__('os')._exit(0)", "its process ended. Its output is in .*logs/check.txt"),
        ("bytearray(2**45)", "failed to run: MemoryError"),
        ("raise KeyError('x')", "failed to run: KeyError: 'x'"),
    ],
)
def test_a_check_that_goes_wrong_is_one_sentence(
    tmp_path: Path, body: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, CHECKED.format(body), "mine.py")
    monkeypatch.setattr(preflights, "LONG_S", 1.5)
    monkeypatch.setattr(preflights, "MOST_DATA_S", 3.0)
    monkeypatch.setattr(preflights, "MOST_S", 3.0)
    cells = cells_of(Request([str(path)], ["digits"], [0]))

    with pytest.raises(UsageError, match=said):
        checked(cells, tmp_path)


@pytest.mark.full
def test_what_a_check_prints_goes_to_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print('this takes long', flush=True); __import__('time').sleep(3)"
    path = write(tmp_path, CHECKED.format(body), "mine.py")
    monkeypatch.setattr(preflights, "LONG_S", 0.5)

    told = checked(cells_of(Request([str(path)], ["digits"], [0])), tmp_path)

    log = tmp_path / "store/logs/check.txt"
    assert told == [f"The data, methods and models are checked before the run; see {log}"]
    assert "this takes long" in log.read_text()


@pytest.mark.parametrize("default", ["None", "1e999", "[1]", "(1, (2,))"])
def test_a_default_that_json_cannot_hold_is_refused(tmp_path: Path, default: str) -> None:
    path = write(tmp_path, SOUND.replace("= 0.5", f"= {default}"))

    with pytest.raises(InvalidUnit, match=r"default of the parameter 'alpha' must be"):
        read_card(path, "method", "file")


def test_an_import_beyond_the_top_level_is_refused(tmp_path: Path) -> None:
    text = SOUND.replace("from mixbench.contract import Method", "from .....far import Method")

    with pytest.raises(InvalidUnit, match="goes beyond the top-level package"):
        read_card(write(tmp_path, text), "method", "file")


EVALUATION = """
    \"\"\"Mine: evaluate models of digits again.

    Data     those of digits
    Split    test
    \"\"\"
    from mixbench.contract import Evaluation
    from mixbench.declare import TOP1, Weights


    class Mine(Evaluation):
        \"\"\"Evaluate.\"\"\"

        version = 1
        evaluates = "digits"
        metrics = TOP1

        def __init__(self, weights: Weights = "pretrained") -> None:
            super().__init__(weights)
    """


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("        metrics = TOP1\n", "", r"line 10: Mine must declare metrics itself"),
        ('"digits"', '"mine"', r"`evaluates` must name another task \(got 'mine'\)"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    assert before in EVALUATION
    path = write(tmp_path, EVALUATION.replace(before, after), "mine.py")

    with pytest.raises(InvalidUnit, match=said):
        find("task", str(path))


def test_an_evaluation_that_does_not_load_given_weights_says_so(tmp_path: Path) -> None:
    card = find("task", str(write(tmp_path, EVALUATION, "mine.py")))
    task = make_task(card, {"weights": "w.pt"})

    with pytest.raises(UsageError, match=r"Mine cannot load the weights 'w.pt'"):
        task.start(task.build("resnet8"), {})
