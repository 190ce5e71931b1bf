"""Learning curves: the metrics of every epoch, stored by columns, which is a fifth of the size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mixbench.errors import Damaged
from mixbench.storage.files import read_json, write_bytes
from mixbench.storage.strict_model import Line, Number

Row = Mapping[str, float]
DIGITS = 7  # as many as float32 has
EPOCH = "epoch"
MOST_EPOCHS = 10_000
Column = Annotated[list[Number | None], Field(max_length=MOST_EPOCHS)]
COLUMNS: TypeAdapter[dict[str, list[float | None]]] = TypeAdapter(
    dict[Line, Column], config=ConfigDict(strict=True)
)


def rounded(row: Row) -> dict[str, float]:
    """Return an epoch's metrics as they are stored."""
    return {name: float(f"{value:.{DIGITS}g}") for name, value in row.items()}


def write_curve(path: Path, rows: Sequence[Row]) -> None:
    """Write a list of values for each metric, with null where an epoch has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    stored = [rounded(row) for row in rows]
    columns = {name: [row.get(name) for row in stored] for name in names}
    write_bytes(path, json.dumps(columns, separators=(",", ":")).encode())


def parse_curve(text: str) -> list[dict[str, float]]:
    """Return the metrics of every epoch from the text of a file.

    Raises
    ------
    Damaged
        If it holds no columns of numbers of one length, or an epoch without number.
    """
    try:
        columns = COLUMNS.validate_json(text)
    except ValidationError as error:
        raise Damaged(f"it is no learning curve: {error.errors()[0]['msg']}") from error
    epochs = columns.get(EPOCH, [])
    if None in epochs or any(len(column) != len(epochs) for column in columns.values()):
        raise Damaged("it is no learning curve: each column must have a value for each epoch")
    rows = zip(*columns.values(), strict=True)
    return [{n: v for n, v in zip(columns, row, strict=True) if v is not None} for row in rows]


def read_curve(path: Path) -> list[dict[str, float]]:
    """Return the metrics of every epoch from a file of a store or a suite.

    Raises
    ------
    Damaged
        If the file holds no learning curve.
    """
    content = read_json(path)
    if isinstance(content, list):  # by rows, as in stores from before December 2026
        return content
    try:
        return parse_curve(path.read_text(encoding="utf-8"))
    except Damaged as error:
        raise Damaged(f"{path} is damaged: {error}.") from error
