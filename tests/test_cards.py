import textwrap
from pathlib import Path

import pytest

from mixbench.errors import InvalidUnit
from mixbench.registry.cards import read_card

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
        ("version = 2", "version = 0", "version must be 1 or more (got 0)"),
        ("version = 2", "version = compute()", "line 13: a declaration must be made of literals"),
        ("class Noise(Method):", "class _Noise(Method):", "must define one public class"),
        ("alpha: Positive = 0.5", "alpha=0.5", "parameter 'alpha' must have a type"),
        ("alpha: Positive = 0.5", "alpha: Positive", "parameter 'alpha' must have a type"),
        ("alpha: Positive", "alpha: Unheard", "name 'Unheard' is not defined"),
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

    with pytest.raises(InvalidUnit, match="name 'open' is not defined"):
        read_card(path, "method")
