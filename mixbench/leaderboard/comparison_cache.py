"""Cache of method comparisons on disk: each takes milliseconds, and there can be thousands."""

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
    """Yield a function like `ranks.compared` that reads known comparisons from a file.

    New comparisons are appended to the file when the context ends.

    Parameters
    ----------
    path
        JSON Lines file with one comparison per line. It can be deleted at any time. Comparisons
        made by other versions of the code are ignored.
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
        with suppress(OSError), path.open("a", encoding="utf-8") as file:  # caching is optional
            file.writelines(json.dumps(line) + "\n" for line in new)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the keys and comparisons of a cache file; skip truncated lines."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                yield json.loads(line)


def _key(first: Runs, second: Runs, code: str) -> str:
    """Return a digest of everything that a comparison depends on."""
    parts = hashlib.sha256(code.encode())
    for seed in sorted(first.keys() & second.keys()):
        for run in (first[seed], second[seed]):
            primary = run.primary
            items = (primary.items.levels, primary.items.which) if primary.items else ()
            parts.update(repr((seed, primary.value, items)).encode())
    return parts.hexdigest()[:32]
