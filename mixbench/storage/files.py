"""Atomic writing of files, and reading with error messages that name the file."""

import hashlib
import json
import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from mixbench.errors import Damaged
from mixbench.storage.strict_model import first_error

Content = TypeVar("Content")


def now() -> str:
    """Return the current UTC time in ISO 8601 format, with a precision of seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file atomically; the file is complete or does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        flush_to_disk(target)


def write_json(path: Path, content: Any) -> None:
    """Write a value to a JSON file atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of the store.

    Raises
    ------
    Damaged
        If the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {error}.") from error


class Typed(Generic[Content]):
    """Read and write the JSON files of one dataclass.

    All files of the dataclass are read and written through this class.

    Parameters
    ----------
    content
        Frozen dataclass whose fields have JSON types or are frozen dataclasses.
    """

    def __init__(self, content: type[Content]) -> None:
        self._adapter: TypeAdapter[Content] = TypeAdapter(content)
        self._name = content.__name__

    def parse(self, text: str | bytes, name: str) -> Content:
        """Parse a JSON text and return its value.

        Parameters
        ----------
        text
            JSON text to parse.
        name
            Name of the text in error messages, such as the path of its file.

        Raises
        ------
        Damaged
            If the text is not valid for the dataclass; the message names the first wrong field.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            said = first_error(error, "the whole")
            raise Damaged(f"{name} is damaged or of another version: {said}.") from error

    def text(self, content: Content) -> str:
        """Return a value as JSON text on one line."""
        return self._adapter.dump_json(content).decode()

    def read(self, path: Path) -> Content:
        """Read a file and return its value.

        Raises
        ------
        Damaged
            If the file's content is not valid for the dataclass.
        """
        return self.parse(path.read_bytes(), str(path))

    def write(self, path: Path, content: Content) -> None:
        """Write a value to a file atomically.

        Raises
        ------
        ValueError
            If it contains a number that is infinite or NaN, which JSON cannot represent.
        """
        write_json(path, self._adapter.dump_python(content, mode="json"))
