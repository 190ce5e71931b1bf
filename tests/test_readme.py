"""The README keeps its word."""

import re
import sys
from pathlib import Path

import pytest

from mixbench.registry.cards import read_card
from mixbench.registry.modules import Kind
from mixbench.registry.units import paths
from mixbench.testing import METHOD_CHECKS, subject_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CATALOG = (ROOT / "docs/catalog.md").read_text()


@pytest.mark.full
def test_its_method_keeps_the_contract(tmp_path: Path) -> None:
    match = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert match is not None
    path = tmp_path / "stripes.py"
    path.write_text(match[1])

    card = read_card(path, "method", "file")
    subject = subject_of(card)

    try:
        for check in METHOD_CHECKS:
            check(subject)
    finally:
        del sys.modules[card.module]


@pytest.mark.parametrize("kind", ["method", "task"])
def test_the_catalog_names_every_unit(kind: Kind) -> None:
    for name in paths(kind):
        assert f"| `{name}`" in CATALOG
    assert f" {len(paths(kind))} {kind}s" in README


def test_it_is_short_enough_for_a_first_visit() -> None:
    assert len(README.splitlines()) <= 150
