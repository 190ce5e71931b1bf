"""Results of a search, and the readable JSON file that `search=fixed` loads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mixbench.errors import UsageError
from mixbench.search.space import Ids, Masks, Space
from mixbench.storage.strict_model import first_error

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


class FoundPair(BaseModel):
    """A pair of classes in a result file, with the rows of its mask: 1 is the first class."""

    first: str
    second: str
    mask: list[Annotated[str, StringConstraints(pattern=r"^[01]+$")]]


class ResultFile(BaseModel):
    """The part of a result file that is read again."""

    schema_: Literal["mixbench/search@1"] = Field(alias="schema")
    classes: Annotated[list[str], Field(min_length=2)]
    grid: Annotated[int, Field(ge=2, le=5)]
    pairs: Annotated[list[FoundPair], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {*self.classes}
        if len(known) < len(self.classes):
            raise ValueError("classes must have different names")
        for number, pair in enumerate(self.pairs):
            if absent := {pair.first, pair.second} - known:
                raise ValueError(f"pairs.{number}: {absent.pop()!r} is none of the classes")
            if [len(row) for row in pair.mask] != [self.grid] * self.grid:
                raise ValueError(f"pairs.{number}: mask must have {self.grid} rows of {self.grid}")
        return self

    @property
    def result(self) -> SearchResult:
        """The pairs and masks."""
        position = {name: i for i, name in enumerate(self.classes)}
        number = len(self.classes)
        ids = [position[p.first] * number + position[p.second] for p in self.pairs]
        cells = np.array([[*map(int, "".join(p.mask))] for p in self.pairs], dtype=bool)
        space = Space(number, self.grid, len(ids))
        return SearchResult(np.array(ids, np.int32), space.pack(cells))


def result_of(content: Mapping[str, Any]) -> SearchResult:
    """Return the pairs and masks in the content of a result file.

    Raises
    ------
    pydantic.ValidationError
        If the content is not that of a result file.
    """
    return ResultFile.model_validate(content).result


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
        found = ResultFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise UsageError(
            f"{path} must be the result of a search (search.json): {first_error(error)}."
        ) from error
    if found.grid != grid:
        raise UsageError(
            f"{path} holds masks of {found.grid} x {found.grid} cells; grid must be the same "
            f"(got {grid})."
        )
    known = found.classes
    if len(known) != num_classes or (names is not None and known != list(names)):
        raise UsageError(
            f"{path} is for the {len(known)} classes {', '.join(known[:4])}, ...; the task has "
            f"{num_classes}{' others' if len(known) == num_classes else ''}. "
            "Choose the result of a search on the same classes."
        )
    return found.result


def _pair(pair: int, names: Sequence[str]) -> dict[str, str]:
    first, second = divmod(pair, len(names))
    return {"first": names[first], "second": names[second]}


def _rows(cells: NDArray[np.bool_], grid: int) -> list[str]:
    """Return a mask as rows of 1 (the first class) and 0 (the second)."""
    return ["".join("01"[int(cell)] for cell in row) for row in cells.reshape(grid, grid)]
