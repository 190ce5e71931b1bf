"""Results of a search, and the readable JSON file that `search=fixed` loads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from mixbench.errors import UsageError
from mixbench.search.space import Ids, Masks, Space

SCHEMA = "mixbench/search@1"


@dataclass(frozen=True)
class SearchResult:
    """Pairs of classes with their masks.

    Attributes
    ----------
    ids
        Pairs, as integers (see `mixbench.search.space`).
    masks
        One mask for every pair, as an integer.
    scores
        One score for every pair; None if the pairs were not scored.
    history
        One row per generation: its number, best score so far, best score in it, mean score, and how
        many pairs of the first generation's best solution the best solution has.
    snapshots
        Pairs of the best solution so far, every 50 generations and at the end, by generation.
    first_pairs_left
        Largest number of the pairs that one individual of the first generation had; None if there
        were no generations.
    """

    ids: Ids
    masks: Masks
    scores: NDArray[np.float64] | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, list[int]] = field(default_factory=dict)
    first_pairs_left: int | None = None


def to_json(
    found: SearchResult, space: Space, names: Sequence[str], facts: dict[str, JsonValue]
) -> str:
    """Return the text of a result file.

    Parameters
    ----------
    found
        The pairs and masks to write.
    space
        The space that was searched.
    names
        Names of the classes, in the order of their indices.
    facts
        Settings and counts of the search, added to the file.
    """
    scores = [None] * len(found.ids) if found.scores is None else found.scores.tolist()
    content = {
        "schema": SCHEMA,
        "classes": list(names),
        "grid": space.grid,
        **facts,
        "first_pairs_left": found.first_pairs_left,
        "fitness": None if found.scores is None else float(found.scores.mean()),
        "pairs": [
            {**_pair(int(i), names), "mask": _rows(cells, space.grid), "score": score}
            for i, cells, score in zip(found.ids, space.bits(found.masks), scores, strict=True)
        ],
        "snapshots": {
            str(generation): [list(_pair(i, names).values()) for i in ids]
            for generation, ids in found.snapshots.items()
        },
        "history": found.history,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def result_of(content: Mapping[str, Any]) -> SearchResult:
    """Return the pairs and masks in the content of a result file."""
    names, pairs, grid = list(content["classes"]), content["pairs"], content["grid"]
    position = {name: i for i, name in enumerate(names)}
    ids = [position[p["first"]] * len(names) + position[p["second"]] for p in pairs]
    cells = np.array([[list(map(int, row)) for row in p["mask"]] for p in pairs], dtype=bool)
    space = Space(len(names), grid, len(ids))
    return SearchResult(np.array(ids, np.int32), space.pack(cells.reshape(len(ids), grid * grid)))


def from_file(
    path: Path, grid: int, num_classes: int, names: Sequence[str] | None = None
) -> SearchResult:
    """Read the pairs and masks of a result file.

    Parameters
    ----------
    path
        The result file.
    grid
        Expected number of cells along each axis.
    num_classes
        Expected number of classes.
    names
        Expected names of the classes; None to accept any.

    Raises
    ------
    UsageError
        If the file is not a search result, or is for other classes or another grid.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, known = result_of(content), list(content["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} must be the result of a search ({error!r}).") from error
    if content["grid"] != grid:
        raise UsageError(
            f"{path} holds masks of {content['grid']} x {content['grid']} cells; grid must be the "
            f"same (got {grid})."
        )
    if len(known) != num_classes or (names is not None and known != list(names)):
        raise UsageError(
            f"{path} is for the {len(known)} classes {', '.join(known[:4])}, ...; the task has "
            f"{num_classes}{' others' if len(known) == num_classes else ''}. "
            "Choose the result of a search on the same classes."
        )
    return found


def _pair(pair: int, names: Sequence[str]) -> dict[str, str]:
    first, second = divmod(pair, len(names))
    return {"first": names[first], "second": names[second]}


def _rows(cells: NDArray[np.bool_], grid: int) -> list[str]:
    """Return a mask as rows of 1 (the first class) and 0 (the second)."""
    return ["".join("01"[int(cell)] for cell in row) for row in cells.reshape(grid, grid)]
