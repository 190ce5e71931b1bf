"""Migrate records of older schemas to the current one: rename fields, change nothing else.

``python -m mixbench.records leaderboards/*`` rewrites the records of suites and the
digests in their ``verified.json``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mixbench.errors import Damaged

Content = dict[str, Any]  # a record's JSON

HEAD: Final = 100  # characters: the schema is a record's first field
FIRST: Final = "mixbench/record@1"
SECOND: Final = "mixbench/record@2"
METHODS: Final[Mapping[str, str]] = {"gridmix": "patchmix_local_loss"}
RECIPE: Final[Mapping[str, str]] = {"fast_lr": "head_lr_mult"}
METRIC: Final[Mapping[str, str]] = {"floor": "trivial_baseline"}
REFERENCE: Final[Mapping[str, str]] = {"deviation": "std"}
# Names of verification tiers until November 2026.
TIER_NAMES: Final[Mapping[str, str]] = {
    "metrics recomputed": "consistent with submitted predictions"
}


def migrated(text: str, name: str) -> str:
    """Return a record's text in the current schema; return any other text unchanged.

    Parameters
    ----------
    text
        JSON text of the record.
    name
        Name of the text in error messages: the path of its file.

    Raises
    ------
    Damaged
        If the text names an older schema, but is not JSON or does not match that schema.
    """
    if f'"{FIRST}"' not in text[:HEAD]:  # do not parse current records twice
        return text
    try:
        content = json.loads(text)
        return json.dumps(_second(content), ensure_ascii=False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{name} is not a valid record: {error!r}.") from error


def migrated_path(path: Path) -> Path:
    """Return the path of a migrated record: in a folder with the current name of its method."""
    method = METHODS.get(path.parent.name, path.parent.name)
    return path.parent.parent / method / path.name


def _second(first: Content) -> Content:
    """Convert a record from the first schema to the second."""
    method = METHODS.get(first["method"]["name"], first["method"]["name"])
    task, _, *rest = first["cell"].split("/", 2)
    second = {
        **first,
        "schema": SECOND,
        "recipe": _renamed(first["recipe"], RECIPE),
        "metrics": [_renamed(metric, METRIC) for metric in first["metrics"]],
        "references": [_renamed(reference, REFERENCE) for reference in first["references"]],
        "command": [_command(word) for word in first["command"]],
    }
    if method != first["method"]["name"]:
        label = first["cell"].split("/", 2)[1].replace(first["method"]["name"], method, 1)
        second["cell"] = "/".join((task, label, *rest))
        second["method"] = {**first["method"], "name": method}
    if tuning := first.get("tuning"):
        renamed = {name: _renamed(tuning[name], RECIPE) for name in ("grid", "chosen")}
        second["tuning"] = {**tuning, **renamed}
    return second


def _renamed(content: Content, names: Mapping[str, str]) -> Content:
    return {names.get(name, name): value for name, value in content.items()}


def _command(word: str) -> str:
    """Return a word of a command with the current names of methods and recipe fields."""
    for old, new in {**METHODS, **RECIPE}.items():
        word = re.sub(rf"(?<![\w/]){old}(?![\w/])", new, word)
    return word


def digest_of(text: str) -> str:
    """Return the SHA-256 digest of a record's text."""
    return hashlib.sha256(text.encode()).hexdigest()
