"""The words of captions by Stanford's tokenizer itself, which runs in Java, as coco-caption has it.

salaniz/pycocoevalcap@ad63453, tokenizer/ptbtokenizer.py: the tokenizer reads all captions as lines
of one text, lower-cased, and some punctuation marks are removed from its output.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mixbench.errors import DataError, UsageError

JAR = "tokenizer/stanford-corenlp-3.4.1.jar"  # of the package pycocoevalcap
MAIN = "edu.stanford.nlp.process.PTBTokenizer"
MARKS = frozenset({
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--",
    "...", ";",
})  # fmt: skip


def command() -> list[str]:
    """Return the command that runs the tokenizer, without the file that it reads.

    Raises
    ------
    UsageError
        If Java or the package with the tokenizer is not installed.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    java = shutil.which("java")
    places = (spec.submodule_search_locations if spec else None) or ()
    jar = next((path for place in places if (path := Path(place) / JAR).exists()), None)
    if jar is None or java is None:
        missing = "Java" if java is None else "the package pycocoevalcap"
        raise UsageError(
            f"tokenizer=ptb runs Stanford's tokenizer, which needs {missing}: install a Java "
            "runtime and `pip install 'mixbench[java]'`, or use tokenizer=rule."
        )
    return [java, "-cp", str(jar), MAIN, "-preserveLines", "-lowerCase"]


def ptb_words(captions: Sequence[str]) -> list[list[str]]:
    """Return the words of each caption.

    Raises
    ------
    DataError
        If the tokenizer does not return one line for each caption.
    UsageError
        If it cannot run.
    """
    start = command()
    lines = [" ".join(caption.splitlines()) for caption in captions]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
        done = subprocess.run(
            [*start, "-encoding", "utf-8", path.name], cwd=folder, capture_output=True, check=False
        )
    if done.returncode:
        raise UsageError(f"Stanford's tokenizer failed: {done.stderr.decode(errors='replace')}")
    found = done.stdout.decode(errors="replace").split("\n")
    found += [""] * (len(lines) - len(found))  # it drops empty lines at the end
    if any(found[len(lines) :]):
        raise DataError(
            f"Stanford's tokenizer returned {len(found)} lines for {len(lines)} captions."
        )
    return [[word for word in line.split() if word not in MARKS] for line in found[: len(lines)]]
