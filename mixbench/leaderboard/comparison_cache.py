"""Comparisons that a store has made before: each takes milliseconds, and there are thousands."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixbench.leaderboard import ranks as comparisons
from mixbench.leaderboard import statistics
from mixbench.leaderboard.ranks import Compare, Runs, compared
from mixbench.leaderboard.statistics import Comparison
from mixbench.registry.fingerprint import digest


@contextmanager
def cached_comparisons(path: Path) -> Iterator[Compare]:
    """Yield what compares as `compared` does, but computes only what is new.

    Parameters
    ----------
    path
        A file of lines, one for each comparison. It may be removed at any time; what it holds of
        other code is not used.
    """
    known = dict(_lines(path))
    number = len(known)
    code = "".join(digest(Path(str(module.__file__))) for module in (comparisons, statistics))

    def compare(first: Runs, second: Runs) -> Comparison | None:
        key = _key(first, second, code)
        if key not in known:
            known[key] = compared(first, second)
        found = known[key]
        return None if found is None else Comparison(*found)

    yield compare
    if len(known) > number:
        new = list(known.items())[number:]
        with suppress(OSError), path.open("a", encoding="utf-8") as file:  # a full disk costs time
            file.writelines(json.dumps(line) + "\n" for line in new)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the comparisons of a file by their keys; half a line, of a full disk, is none."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                yield json.loads(line)


def _key(first: Runs, second: Runs, code: str) -> str:
    """Return a digest of all that a comparison depends on."""
    parts = hashlib.sha256(code.encode())
    for seed in sorted(first.keys() & second.keys()):
        for run in (first[seed], second[seed]):
            primary = run.primary
            items = (primary.items.levels, primary.items.which) if primary.items else ()
            parts.update(repr((seed, primary.value, items)).encode())
    return parts.hexdigest()[:32]
