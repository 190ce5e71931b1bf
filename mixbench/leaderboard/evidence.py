"""Read the files of a suite's folder, which anyone may have sent in a pull request.

Nothing outside the folder is read, no file is larger than its kind can be, and whatever is in the
folder gives findings, never an exception. `verify`, `leaderboard build` and `site build` all read
suites through `read_evidence`.
"""

import hashlib
import io
import json
import math
import re
import stat
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import TypeAdapter

from mixbench.errors import Damaged, one_line
from mixbench.leaderboard.admission import Asked, Wrong, file_name, objections
from mixbench.leaderboard.grouping import group_name, method_label
from mixbench.leaderboard.suite import FILE, Suite, cells_asked, read_suite
from mixbench.leaderboard.table import SELF_REPORTED, TIERS
from mixbench.records.migration import TIER_NAMES
from mixbench.records.schema import Artifact, Record, parse
from mixbench.storage.curves import parse_curve
from mixbench.storage.spec import PUBLISHED
from mixbench.storage.strict_model import Whole

RECORDS, TIERS_FILE, ARTIFACTS, FIGURES = "records", "verified.json", "artifacts", "figures"
FIGURE = ".webp"  # suffix of the figures: a fraction of the bytes of a PNG of photographs
GENERATED = ("README.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex")
MIB = 1 << 20
LARGEST = {".safetensors": 512 * MIB, FIGURE: 16 * MIB, ".csv": MIB, ".json": 4 * MIB}
LARGEST_CURVE = MIB
LARGEST_OTHER = 16 * MIB
MOST_FILES = 100_000
DEEPEST = 5  # folders below the suite's
MOST_PIXELS = 50_000_000
PICTURE, AROUND = (b"VP8 ", b"VP8L"), (b"VP8X", b"ALPH")  # parts of a still WebP file
MOST_OUTPUTS = 10_000  # numbers per test item
TENSORS = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "U16", "U8", "BOOL"})
SUITE_FIGURE = re.compile(r"[\w.=,-]+\.gains\.(webp|csv)|[\w.=,-]*confusion_of_pairs\.csv")
FORMULA = re.compile(r"[=@]|[+-](?![\d.])")


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
    paths = [path for path in files if path.relative_to(folder).parts[0] == RECORDS]
    asked = Asked(tuple(cells_asked(folder, suite)) if paths else ())
    seen = _Seen(folder, asked)
    records: dict[Path, Record] = {}
    for path in paths:
        if (record := _record(path, findings)) is None:
            continue
        wrong = [*objections(asked, record)] or [*seen.objections(path, record)]
        findings += [Finding(path, name, what) for name, what in wrong]
        if not wrong:
            records[path] = record
    _check_artifacts(folder, files, records, findings)
    rows = [record for record in records.values() if asked.cell_of(record)]
    findings += _strange_figures(folder, files, rows)
    tiers = _tiers(folder / TIERS_FILE, files, findings)
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
        What the rows of each table have in common, and the file of its first record.
    digests
        Digest of the published data of each question, and the file of its first record.
    """

    folder: Path
    asked: Asked
    cells: dict[Hashable, Path] = field(default_factory=dict)
    tables: dict[Hashable, tuple[dict[str, object], Path]] = field(default_factory=dict)
    digests: dict[Hashable, tuple[str, Path]] = field(default_factory=dict)

    def objections(self, path: Path, record: Record) -> Iterator[Wrong]:
        """Yield what is wrong with the place of a record beside the others."""
        if path != (expected := self.folder / RECORDS / file_name(self.asked, record)):
            yield Wrong("path", f"must be {expected}")
        elif (first := self.cells.setdefault(self.asked.identity(record), path)) != path:
            yield Wrong("file", f"is a record of the same cell as {first}")
        elif record.status == "ok":
            yield from self._unlike_others(path, record)

    def _unlike_others(self, path: Path, record: Record) -> Iterator[Wrong]:
        """Yield what differs from the other records of the same table."""
        if record.data.origin in PUBLISHED:
            question, _ = self.asked.table(record)
            digest, other = self.digests.setdefault(question, (record.data.digest, path))
            if digest != record.data.digest:
                yield Wrong("data.digest", f"must be {digest}, as in {other}")
        facts: dict[str, object] = {
            metric.name: round(metric.value, 4)
            for metric in record.metrics
            if metric.trivial_baseline and metric.at == "last"
        }
        facts |= {"n": record.primary.n, "normalization": record.normalization}
        known, other = self.tables.setdefault(self.asked.table(record), (facts, path))
        for name in facts:
            if facts[name] != known.get(name):
                said = f"{name} must be {known.get(name)}, as in {other} (got {facts[name]})"
                yield Wrong("metrics", said)


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


def _entries(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield everything in a folder but its real subfolders, without following links; sorted."""
    for path in sorted(folder.iterdir()):
        if depth < DEEPEST and path.is_dir() and not path.is_symlink():
            yield from _entries(path, depth + 1)
        else:
            yield path


def _strange(path: Path, inside: Path) -> str:
    """Return why a file cannot be one of a suite's folder, or empty; `inside` is relative to it."""
    found = path.lstat()
    most = LARGEST.get(path.suffix, LARGEST_OTHER) if inside.parts[1:] else LARGEST_OTHER
    most = LARGEST_CURVE if (inside.parts[0], path.suffix) == (ARTIFACTS, ".json") else most
    if not stat.S_ISREG(found.st_mode):
        return "must be a regular file, and no link"
    if not str(inside).isprintable():
        return "must have a printable name"
    if not _belongs(inside):
        return "is no file of a suite: remove it"
    return f"must be at most {most // MIB} MiB" if found.st_size > most else ""


def _belongs(path: Path) -> bool:
    """Return whether a suite may have a file of this path and suffix."""
    kinds = {RECORDS: {".json"}, ARTIFACTS: {".json", ".safetensors"}, FIGURES: {FIGURE, ".csv"}}
    if len(path.parts) == 1:
        return path.name in {FILE, TIERS_FILE, *GENERATED}
    return path.suffix in kinds.get(path.parts[0], ())


def _text(path: Path, findings: list[Finding]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        findings.append(Finding(path, "file", f"cannot be read as UTF-8 ({error})"))
        return ""


def _record(path: Path, findings: list[Finding]) -> Record | None:
    text = _text(path, findings)
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
    records: Mapping[Path, Record],
    findings: list[Finding],
) -> None:
    """Note artifacts and figures that are not what they must be."""
    named = {artifact_path(folder, a): a for r in records.values() for a in r.artifacts}
    checks: dict[str, Callable[[Path], str]] = {
        ".json": lambda path: _no_curve(_text(path, findings)),
        ".csv": lambda path: _no_table(_text(path, findings)),
        FIGURE: _no_picture,
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
        parse_curve(text)
    except Damaged as error:
        return str(error).removeprefix("it ")
    return ""


def _no_table(text: str) -> str:
    """Return why a text is no CSV file that a spreadsheet shows as it is."""
    lines = text.splitlines()
    if not all(line.isprintable() for line in lines):
        return "must be lines of printable characters"
    cells = (cell.strip(' "') for line in lines for cell in re.split("[,;]", line))
    return "has a formula" if any(FORMULA.match(cell) for cell in cells) else ""


def _no_picture(path: Path) -> str:
    """Return why a file is no still WebP image of a usual size; empty if it is one.

    It is not decoded: a few bytes can make a large image.
    """
    content = path.read_bytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return "is not a WebP image"
    names, at = list[bytes](), 12
    while at < len(content):
        names.append(content[at : at + 4])
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    if at != len(content) or int.from_bytes(content[4:8], "little") != len(content) - 8:
        return "is not a WebP image (its parts do not fill it)"
    if sum(name in PICTURE for name in names) != 1 or not set(names) <= {*PICTURE, *AROUND}:
        return "must be one picture, with nothing else in the file"
    return _too_large(content)


def _too_large(content: bytes) -> str:
    """Return why the head of a WebP file is none, or of too many pixels; empty otherwise."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
                size = image.size
    except Image.DecompressionBombError:
        return "has too many pixels"
    except (OSError, SyntaxError, ValueError) as error:
        return f"is not a WebP image ({error})"
    return f"has {size[0]} x {size[1]} pixels" if math.prod(size) > MOST_PIXELS else ""


def _no_tensors(path: Path) -> str:
    """Return why a file has no predictions of test items; empty if it has.

    Its head tells their number before they are read into memory.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(min(size, MIB))
    try:
        tensors = json.loads(head)
        tensors.pop("__metadata__", None)
        return next(filter(None, map(_no_predictions, tensors.values())), "")
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        return "is no safetensors file"


def _no_predictions(tensor: Mapping[str, object]) -> str:
    """Return why a tensor, described as in a safetensors file, has no values for test items."""
    shape = TypeAdapter(list[Whole]).validate_python(tensor["shape"])
    if str(tensor["dtype"]) not in TENSORS:
        return f"has predictions of type {tensor['dtype']}"
    if not shape or math.prod(shape[1:]) > MOST_OUTPUTS:
        return f"has predictions of shape {shape}"
    return ""


def _strange_figures(
    folder: Path, files: Iterable[Path], records: Iterable[Record]
) -> Iterator[Finding]:
    """Yield the figures that belong to no row of the suite."""
    rows = {(group_name(r), method_label(r).replace("/", "_")) for r in records}
    groups = {group for group, _ in rows}
    for path in files:
        top, *inside = path.relative_to(folder).parts
        if top != FIGURES:
            continue
        whole = len(inside) == 1 and SUITE_FIGURE.fullmatch(inside[0]) is not None
        of_table = len(inside) == 2 and inside[0] in groups
        of_row = len(inside) == 3 and (inside[0], inside[1]) in rows
        if not (whole or of_table or of_row):
            yield Finding(path, "file", "is a figure of no row of the suite")


def _tiers(path: Path, files: Iterable[Path], findings: list[Finding]) -> dict[str, str]:
    """Return the tiers in verified.json above ``self-reported``; note those that do not exist."""
    if path not in files:
        return {}
    found = tiers_in(_text(path, findings))
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
