"""The benchmarks' page is made of the figures beside it, and its tables know their scripts."""

from importlib.util import find_spec

import pytest

from benchmarks.engines import measured
from benchmarks.measuring import FOLDER, in_turns, ratio
from benchmarks.page import BLOCK, TABLES, built


def test_the_page_says_what_the_figures_say() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")

    assert built(page) == page, "python -m benchmarks.page"


def test_every_table_is_on_the_page_and_has_its_script() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")

    assert {match[1] for match in BLOCK.finditer(page)} == TABLES.keys()
    assert all(find_spec(f"benchmarks.{name}") for name in TABLES)
    assert {p.stem for p in FOLDER.glob("*.json")} <= TABLES.keys()


def test_ways_take_turns_and_ratios_are_of_turns() -> None:
    order: list[str] = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, repeat=2)

    assert "".join(order) == "aabbaabbaabb"
    assert [len(found) for found in times.values()] == [2, 2]
    assert ratio({"a": [2.0, 4.0, 90.0], "b": [1.0, 1.0, 30.0]}, "a", "b") == 3


@pytest.mark.full
def test_the_engines_round_runs() -> None:
    found = measured("local", sleep_s=0.01)

    assert found["graph_s"] > 5 * 0.01
