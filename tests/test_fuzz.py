"""Whatever a stranger changes in a suite's folder: findings and sentences, never an exception."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mixbench.errors import MixbenchError
from mixbench.leaderboard.build import build
from mixbench.leaderboard.verification import note_tiers, verify
from mixbench.records.schema import Record
from mixbench.site.pages import Site

DIGITS = Path(__file__).parent.parent / "leaderboards/digits"
Tree = dict[str, Any] | list[Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

NASTY: st.SearchStrategy[Any] = st.sampled_from([
    *(None, True, False, 0, -1, 1, 10**30, 2**53, 1e308, -1e-320, 0.1, 100.0, 101.0),
    *("", "0", "x", "none", "=1+1", "$\\frac$", "<b>", "a\nb", "\0", "\u202e", "é", "../../x"),
    *("digits", "mixup", "builtin", "package", "file", "last", "2026-01-01T00:00:00Z", "%"),
    *([], {}, [[]], {"": 0}, [0], ["x"], "0" * 32, "0" * 64, "x" * 3000, "AAAA", "eJwDAAAAAAE="),
])
JSON = NASTY | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


def places(tree: Tree, *, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the paths of all values of a JSON tree."""
    found: list[tuple[str | int, ...]] = []
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found.append((*above, name))
        if isinstance(value, dict | list):
            found += places(value, above=(*above, name))
    return found


def mutate(draw: Draw, tree: Tree) -> None:
    """Replace, remove, copy or add a value of a JSON tree."""
    *above, name = draw(st.sampled_from(places(tree)))
    inside: Any = tree
    for one in above:
        inside = inside[one]
    kind = draw(st.sampled_from(["replace", "replace", "remove", "copy", "add"]))
    if kind == "replace":
        inside[name] = draw(JSON)
    elif kind == "remove":
        del inside[name]
    elif isinstance(inside, list):
        inside.append(inside[name] if kind == "copy" else draw(JSON))
    else:
        inside[draw(st.text(max_size=8))] = inside[name] if kind == "copy" else draw(JSON)


def mutate_record(draw: Draw, path: Path) -> None:
    """Change a record; write it as mixbench does if its schema allows it."""
    try:
        content = json.loads(path.read_text())
    except ValueError:  # its bytes were changed before
        mutate_bytes(draw, path)
        return
    for _ in range(draw(st.integers(1, 3))):
        mutate(draw, content)
    text = json.dumps(content, indent=1)
    with suppress(ValidationError):
        text = Record.model_validate_json(text).written
    path.write_text(text)


def mutate_bytes(draw: Draw, path: Path) -> None:
    """Overwrite, cut or repeat some bytes of a file."""
    raw = bytearray(path.read_bytes())
    start = draw(st.integers(0, max(len(raw) - 1, 0)))
    new = draw(
        st.binary(max_size=8) | st.sampled_from([b"[", b'"', b"=", b"\n[[ask]]\n", b"9" * 20])
    )
    length = draw(st.sampled_from([0, len(new), 40, len(raw)]))
    raw[start : start + length] = new
    path.write_bytes(bytes(raw))


def folder_of_one_seed(root: Path) -> Path:
    """Copy two rows of one seed, with their predictions, curves and a picture."""
    folder = root / "leaderboards/digits"
    kept = [next((DIGITS / f"records/digits/{m}").glob("*.s0.*")) for m in ("none", "mixup")]
    digests = {a["sha256"][:16] for p in kept for a in json.loads(p.read_text())["artifacts"]}
    kept += [path for path in (DIGITS / "artifacts").iterdir() if path.name[:16] in digests]
    kept += [DIGITS / "suite.toml", next((DIGITS / "figures").rglob("mixup/*.webp"))]
    for path in kept:
        copy = folder / path.relative_to(DIGITS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    note_tiers(folder, verify(folder).tiers)
    return folder


def attacked(draw: Draw) -> None:
    with TemporaryDirectory() as root:
        folder = folder_of_one_seed(Path(root))
        for _ in range(draw(st.integers(1, 2))):
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            records = [path for path in files if "records" in path.parts]
            path = draw(st.sampled_from([*records, *records, *records, *records, *files]))
            record = path in records and draw(st.booleans() | st.just(value=True))
            (mutate_record if record else mutate_bytes)(draw, path)
        refused = said(lambda: verify(folder).findings)
        for made in (
            lambda: build(folder),
            lambda: [*Site([folder]).build(folder.parent / "site")],
        ):
            outcome = said(made)
            assert refused or not isinstance(outcome, MixbenchError), outcome
            assert "\n" not in str(outcome) or not isinstance(outcome, MixbenchError)


def said(make: Callable[[], Any]) -> Any:
    """Return what a function gives, or the sentence with which it refuses."""
    try:
        return make()
    except MixbenchError as error:
        return error


QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)


@pytest.mark.full
@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=QUIET)
def test_a_changed_folder_gives_findings(data: st.DataObject) -> None:
    attacked(data.draw)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=1000, deadline=None, suppress_health_check=QUIET)
def test_many_changed_folders_give_findings(data: st.DataObject) -> None:
    attacked(data.draw)
