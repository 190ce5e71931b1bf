"""Read the files of a suite's folder, which anyone may have sent in a pull request.

Nothing outside the folder is read, no file is larger than its kind can be, and whatever is in the
folder gives findings, never an exception. `verify`, `leaderboard build` and `site build` all read
suites through `read_evidence`.
"""

import hashlib
import json
import stat
import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from mixbench.errors import Damaged, one_line
from mixbench.leaderboard.admission import Asked, Wrong, file_name, objections
from mixbench.leaderboard.suite import FILE, Suite, cells_asked, read_suite
from mixbench.leaderboard.table import SELF_REPORTED, TIERS
from mixbench.records.migration import TIER_NAMES
from mixbench.records.schema import Artifact, Record, parse
from mixbench.storage.strict_model import Line, Number

RECORDS, TIERS_FILE, ARTIFACTS, FIGURES = "records", "verified.json", "artifacts", "figures"
GENERATED = ("README.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex")
MIB = 1 << 20
LARGEST = {".json": 16 * MIB, ".safetensors": 512 * MIB, ".png": 16 * MIB, ".csv": 4 * MIB}
LARGEST_OTHER = 16 * MIB
MOST_FILES = 100_000
MOST_PIXELS = 50_000_000
MOST_EPOCHS = 100_000
Curve = Annotated[list[dict[Line, Number | None]], Field(max_length=MOST_EPOCHS)]
CURVES: TypeAdapter[list[dict[str, float | None]]] = TypeAdapter(Curve)
PNG = b"\x89PNG\r\n\x1a\n"


class Finding(NamedTuple):
    """An error in a suite's folder: the file, the field, and the error message."""

    path: Path
    field: str
    what: str

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.field}: {self.what}")


@dataclass(frozen=True)
class Evidence:
    """A suite with the records in its folder.

    Attributes
    ----------
    folder
        Folder of the suite.
    suite
        Content of suite.toml.
    asked
        Cells of the suite.
    records
        Valid records by the path of their file, sorted.
    figures
        Paths of the figures.
    tiers
        Verification tiers that verified.json states, by digest of the record.
    findings
        Errors in the folder.
    """

    folder: Path
    suite: Suite
    asked: Asked
    records: Mapping[Path, Record]
    figures: tuple[Path, ...]
    tiers: Mapping[str, str]
    findings: tuple[Finding, ...]

    @cached_property
    def unasked(self) -> frozenset[Path]:
        """Files of records whose method the suite does not ask for."""
        return frozenset(p for p, r in self.records.items() if self.asked.cell_of(r) is None)

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.folder.resolve().name


def read_evidence(folder: Path) -> Evidence:
    """Read the suite of a folder and check its files against what is declared.

    Raises
    ------
    UsageError
        If suite.toml is not valid.
    """
    suite = read_suite(folder)
    findings: list[Finding] = []
    files = [*_files(folder, findings)]
    texts = {path: _text(path, findings) for path in files if path.suffix in {".json", ".csv"}}
    paths = [path for path in files if path.relative_to(folder).parts[0] == RECORDS]
    asked = Asked(tuple(cells_asked(folder, suite)) if paths else ())
    seen = _Seen(folder, asked)
    records: dict[Path, Record] = {}
    for path in paths:
        if (record := _record(path, texts[path], findings)) is None:
            continue
        wrong = [*objections(asked, record)] or [*seen.objections(path, record)]
        findings += [Finding(path, name, what) for name, what in wrong]
        if not wrong:
            records[path] = record
    _check_artifacts(folder, files, texts, records, findings)
    tiers = _tiers(folder / TIERS_FILE, texts, findings)
    figures = tuple(path for path in files if path.relative_to(folder).parts[0] == FIGURES)
    return Evidence(folder, suite, asked, records, figures, tiers, tuple(findings))


@dataclass
class _Seen:
    """The records that were read before, with which others must agree.

    Attributes
    ----------
    folder
        Folder of the suite.
    asked
        Cells of the suite.
    cells
        File of the record of each cell.
    tables
        Number of test items of each table, and the file of its first record.
    """

    folder: Path
    asked: Asked
    cells: dict[Hashable, Path] = field(default_factory=dict)
    tables: dict[Hashable, tuple[int, Path]] = field(default_factory=dict)

    def objections(self, path: Path, record: Record) -> Iterator[Wrong]:
        """Yield what is wrong with the place of a record beside the others."""
        if path != (expected := self.folder / RECORDS / file_name(self.asked, record)):
            yield Wrong("path", f"must be {expected}")
        elif (first := self.cells.setdefault(self.asked.identity(record), path)) != path:
            yield Wrong("file", f"is a record of the same cell as {first}")
        elif record.status == "ok":
            n = record.primary.n
            known, other = self.tables.setdefault(self.asked.table(record), (n, path))
            if n != known:
                yield Wrong("metrics", f"n must be {known}, as in {other} (got {n})")


def artifact_path(folder: Path, artifact: Artifact) -> Path:
    """Return the path in a suite's folder for an artifact of a record; it need not exist."""
    return folder / ARTIFACTS / f"{artifact.sha256[:16]}{PurePosixPath(artifact.path).suffix}"


def _files(folder: Path, findings: list[Finding]) -> Iterator[Path]:
    """Yield the regular files of a suite's folder; note everything else."""
    found = islice(_entries(folder), MOST_FILES + 1)
    for number, path in enumerate(found):
        if number == MOST_FILES:
            findings.append(Finding(folder, "files", f"must be at most {MOST_FILES:,}"))
        elif why := _strange(path, path.relative_to(folder)):
            findings.append(Finding(path, "file", why))
        else:
            yield path


def _entries(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder but its real subfolders, without following links; sorted."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _entries(path)
        else:
            yield path


def _strange(path: Path, inside: Path) -> str:
    """Return why a file cannot be one of a suite's folder, or empty; `inside` is relative to it."""
    found = path.lstat()
    most = LARGEST.get(path.suffix, LARGEST_OTHER)
    if not stat.S_ISREG(found.st_mode):
        return "must be a regular file, and no link"
    if not str(inside).isprintable():
        return "must have a printable name"
    if not _belongs(inside):
        return "is no file of a suite: remove it"
    return f"must be at most {most // MIB} MiB" if found.st_size > most else ""


def _belongs(path: Path) -> bool:
    """Return whether a suite may have a file of this path and suffix."""
    kinds = {RECORDS: {".json"}, ARTIFACTS: {".json", ".safetensors"}, FIGURES: {".png", ".csv"}}
    if len(path.parts) == 1:
        return path.name in {FILE, TIERS_FILE, *GENERATED}
    return path.suffix in kinds.get(path.parts[0], ())


def _text(path: Path, findings: list[Finding]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        findings.append(Finding(path, "file", f"cannot be read as UTF-8 ({error})"))
        return ""


def _record(path: Path, text: str, findings: list[Finding]) -> Record | None:
    try:
        record = parse(text, str(path))
    except Damaged as error:
        findings.append(Finding(path, "record", str(error).removeprefix(f"{path} ")))
        return None
    if text == record.written:
        return record
    findings.append(Finding(path, "file", "differs from the text that mixbench writes: edited"))
    return None


def _check_artifacts(
    folder: Path,
    files: Iterable[Path],
    texts: Mapping[Path, str],
    records: Mapping[Path, Record],
    findings: list[Finding],
) -> None:
    """Note artifacts and figures that are not what they must be."""
    named = {artifact_path(folder, a): a for r in records.values() for a in r.artifacts}
    checks: dict[str, Callable[[Path], str]] = {
        ".json": lambda path: _no_curve(texts[path]),
        ".csv": lambda path: _no_table(texts[path]),
        ".png": _no_picture,
        ".safetensors": _no_tensors,
    }
    complete = not findings  # else the record of a file may be one of those refused
    for path in files:
        top = path.relative_to(folder).parts[0]
        if top == ARTIFACTS and path not in named and complete:
            findings.append(Finding(path, "file", "no record names this file"))
        elif top == ARTIFACTS and path in named and not _is(path, named[path]):
            findings.append(Finding(path, "file", "differs from the digest in its record"))
        elif top in {ARTIFACTS, FIGURES} and (why := checks[path.suffix](path)):
            findings.append(Finding(path, "file", why))


def _is(path: Path, artifact: Artifact) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def _no_curve(text: str) -> str:
    """Return why a text is no learning curve; empty if it is one."""
    try:
        rows = CURVES.validate_json(text)
    except ValidationError as error:
        return f"is no learning curve: {error.errors()[0]['msg']}"
    return "" if all(row.get("epoch") is not None for row in rows) else "has a row without epoch"


def _no_table(text: str) -> str:
    """Return why a text is no CSV file that a spreadsheet shows as it is."""
    lines = text.splitlines()
    if not all(line.isprintable() for line in lines):
        return "must be lines of printable characters"
    cells = (cell for line in lines for cell in line.split(","))
    return "has a formula" if any(cell.strip(' "')[:1] in {"=", "@"} for cell in cells) else ""


def _no_picture(path: Path) -> str:
    """Return why a file is no PNG image of a usual size; empty if it is one."""
    with path.open("rb") as file:
        head = file.read(24)
    if not head.startswith(PNG) or len(head) < 24:
        return "is not a PNG image"
    width, height = struct.unpack(">II", head[16:24])
    return "" if 0 < width * height <= MOST_PIXELS else f"has {width} x {height} pixels"


def _no_tensors(path: Path) -> str:
    """Return why a file does not begin as safetensors files do; reading it decides the rest."""
    with path.open("rb") as file:
        head = file.read(8)
    size = int.from_bytes(head, "little")
    return "" if len(head) == 8 and size <= path.stat().st_size else "is no safetensors file"


def _tiers(path: Path, texts: Mapping[Path, str], findings: list[Finding]) -> dict[str, str]:
    """Return the tiers in verified.json above ``self-reported``; note those that do not exist."""
    if path not in texts:
        return {}
    found = tiers_in(texts[path])
    if found is None:
        findings.append(Finding(path, "file", "must be a JSON object of tiers by digest"))
        return {}
    for digest, tier in found.items():
        if tier not in TIERS:
            findings.append(Finding(path, digest, f"must be {' or '.join(TIERS)} (got {tier!r})"))
    return {digest: tier for digest, tier in found.items() if tier in TIERS[1:]}


def tiers_in(text: str) -> dict[str, str] | None:
    """Return the tiers in the text of a verified.json, by digest; None if it is not valid."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(tier, str) for tier in found.values()):
        return None
    return {digest: TIER_NAMES.get(tier, tier) for digest, tier in found.items()}


def tier_of(tiers: Mapping[str, str], record: Record) -> str:
    """Return the tier of a record."""
    return tiers.get(record.digest, SELF_REPORTED)
