"""Migrate the records of suites to the current schema: ``python -m mixbench.records FOLDER``."""

import json
import sys
from pathlib import Path

from mixbench.records.migration import digest_of, migrated_path
from mixbench.records.schema import parse
from mixbench.storage.files import write_bytes, write_json


def main() -> None:
    """Rewrite the records of the suites whose folders are given on the command line."""
    for folder in map(Path, sys.argv[1:]):
        digests = {}
        for path in sorted((folder / "records").rglob("*.json")):
            text = path.read_text(encoding="utf-8")
            record = parse(text, str(path))
            target = migrated_path(path)
            write_bytes(target, record.written.encode())
            digests[digest_of(text)] = record.digest
            if target != path:
                path.unlink()
        verified = folder / "verified.json"
        if verified.exists():
            tiers = json.loads(verified.read_text(encoding="utf-8"))
            new = {digests.get(digest, digest): tier for digest, tier in tiers.items()}
            write_json(verified, dict(sorted(new.items())))


if __name__ == "__main__":
    main()
