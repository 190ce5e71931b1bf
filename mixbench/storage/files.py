"""Files that are written whole or not at all, and read with errors that name them."""

import hashlib
import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from mixbench.errors import Damaged

Content = TypeVar("Content")


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Have the operating system write a file or folder out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that it is there whole or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of the store.

    Raises
    ------
    Damaged
        If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {error}.") from error


class Typed(Generic[Content]):
    """Reads and writes the JSON files of one dataclass: its only reader and writer.

    Parameters
    ----------
    content
        A frozen dataclass, or one made of such.
    """

    def __init__(self, content: type[Content]) -> None:
        self._adapter: TypeAdapter[Content] = TypeAdapter(content)
        self._name = content.__name__

    def parse(self, text: str | bytes, name: str) -> Content:
        """Return what a JSON text holds.

        Parameters
        ----------
        name
            What to call the text in an error: its file.

        Raises
        ------
        Damaged
            If it holds something else; the message names the first wrong field.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise Damaged(f"{name} is damaged: {where}: {first['msg']}.") from error

    def text(self, content: Content) -> str:
        """Return the JSON text of a value, in one line."""
        return self._adapter.dump_json(content).decode()

    def read(self, path: Path) -> Content:
        """Read a file.

        Raises
        ------
        Damaged
            If it holds something else.
        """
        return self.parse(path.read_bytes(), str(path))

    def write(self, path: Path, content: Content) -> None:
        """Write a file so that it is there whole or not at all."""
        write_bytes(path, self._adapter.dump_json(content, indent=1) + b"\n")
