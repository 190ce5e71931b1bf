"""Comparison of the files of a data set with the published or generated ones."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mixbench.datasets.archives import Finding
from mixbench.datasets.digests import content_digest
from mixbench.datasets.locate import CONVERSIONS, CONVERTED, MARK, MARKS, digest_cache
from mixbench.datasets.survey import contents_digest, tree
from mixbench.declare import Data
from mixbench.errors import DataError


def compare(data: Data, folder: Path) -> Iterator[Finding]:
    """Yield the result of the comparison of each file and folder of the layout.

    Parameters
    ----------
    data
        Declaration of the data set.
    folder
        Folder of the data. Official files are compared with the published digests and counts,
        generated and converted files with those that were recorded when the files were written.
    """
    files: Mapping[str, str] = data.files
    file_counts: Mapping[str, tuple[int, str]] = {
        n: (number, "") for n, number in data.file_counts.items()
    }
    if (folder / MARK).exists():
        mark = MARKS.read(folder / MARK)
        files, file_counts = mark.files, mark.file_counts
    elif (folder / CONVERTED).exists():
        files = CONVERSIONS.read(folder / CONVERTED).files
    for name, digest in files.items():
        yield _file(name, folder / name, digest)
    for name, (number, digest) in file_counts.items():
        yield _tree(name, folder / name, number, digest, data)
    for name, digest in data.content_digests.items() if files is data.files else ():
        if (folder / name).is_dir():
            found = contents_digest(folder / name)
            text = "contents as published" if found == digest else "contents differ"
            yield Finding(name, ok=found == digest, text=text)


def _file(name: str, path: Path, digest: str) -> Finding:
    if not path.is_file():
        return Finding(name, ok=False, text="missing")
    found = content_digest(path, digest_cache(), digest)
    if digest in {"", found}:
        return Finding(name, ok=True, text=found)
    return Finding(name, ok=False, text=f"checksum must be {digest} (got {found})")


def _tree(name: str, path: Path, number: int, digest: str, data: Data) -> Finding:
    if not path.is_dir():
        return Finding(name, ok=False, text="missing")
    try:
        count, content = tree(path, data)
    except DataError as error:
        return Finding(name, ok=False, text=str(error))
    same = digest in {"", content}
    known = f"{count} of {number} files" if number else f"{count} files (no published number)"
    text = known + ("" if same else ", which differ from the generated ones")
    return Finding(name, ok=count == (number or count) > 0 and same, text=text)
