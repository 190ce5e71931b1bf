"""Migrate the records of suites to the current schema: ``python -m mixbench.records FOLDER``."""

import json
import sys
from pathlib import Path

from mixbench.errors import MixbenchError
from mixbench.records.migration import digest_of, migrated_path
from mixbench.records.schema import parse
from mixbench.storage.files import write_bytes, write_json


def main() -> None:
    """Rewrite the records of the suites whose folders are given on the command line."""
    for folder in map(Path, sys.argv[1:]):
        paths = sorted((folder / "records").rglob("*.json"))
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
        records = {path: parse(text, str(path)) for path, text in texts.items()}
        digests = {digest_of(texts[path]): record.digest for path, record in records.items()}
        for path, record in records.items():
            target = migrated_path(path)
            write_bytes(target, record.written.encode())
            if target != path:
                path.unlink()
        verified = folder / "verified.json"
        if verified.exists():
            tiers = json.loads(verified.read_text(encoding="utf-8"))
            new = {digests.get(digest, digest): tier for digest, tier in tiers.items()}
            write_json(verified, dict(sorted(new.items())))


if __name__ == "__main__":
    try:
        main()
    except MixbenchError as error:
        sys.exit(f"error: {error}")
