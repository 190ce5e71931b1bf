"""Show whether two versions of mixbench give the same results, bit by bit.

::

    python -m benchmarks.same_results run before.json    # with one version installed
    python -m benchmarks.same_results run after.json     # with the other
    python -m benchmarks.same_results compare before.json after.json

The runs are every method on `digits` and every task under its protocol ``quick``, each for one
epoch. Weights, buffers and predictions must be equal bit by bit, metrics within 1e-12.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

TOLERANCE = 1e-12


def main() -> None:
    """Run, or compare two runs."""
    verb, *paths = sys.argv[1:]
    if verb == "run":
        with tempfile.TemporaryDirectory() as store:
            Path(paths[0]).write_text(json.dumps(results(Path(store)), indent=1, sort_keys=True))
        return
    first, second = (json.loads(Path(path).read_text()) for path in paths)
    wrong = [*differences(first, second)]
    print(f"{len(first)} stages in {paths[0]}, {len(second)} in {paths[1]}")
    print("\n".join(wrong) or "no difference")
    sys.exit(bool(wrong))


def results(store: Path) -> dict[str, Any]:
    """Run everything; return the digests of tensors and the metrics of every stage, by label."""
    methods = ",".join(listed("methods"))
    mixbench("run", "-m", methods, "-t", "digits", "--set", "digits.epochs=1", store=store)
    for task in listed("tasks"):
        info = json.loads(mixbench("info", task, "--json"))
        trained = info["declared"].get("evaluates", task)
        needs = json.loads(mixbench("info", trained, "--json"))["declared"].get("needs", {})
        names = [trained, *("imagenet" for _ in [0] if needs)]
        epochs = [word for name in names for word in ("--set", f"{name}.epochs=1")]
        mixbench("run", "-m", "none", "-t", task, "--protocol", "quick", *epochs, store=store)
        print(task, flush=True)
    return dict(stages(store))


def listed(what: str) -> list[str]:
    """Return the names of all methods or tasks."""
    return list(json.loads(mixbench("list", what, "--json")))


def mixbench(*words: str, store: Path | None = None) -> str:
    """Run a command of the version that is installed; return what it prints."""
    place = ["--store", str(store)] if store else []
    done = subprocess.run(
        [sys.executable, "-m", "mixbench", *words, *place],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"mixbench {' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}"
                 f"{done.stderr[-2000:]}")  # fmt: skip
    return done.stdout


def stages(store: Path) -> Iterator[tuple[str, Any]]:
    """Yield what every stage left: a digest of each tensor, and its metrics."""
    for folder in sorted((store / "stages").iterdir()):
        spec = json.loads((folder / "manifest.json").read_text())["spec"]
        stage = spec.get("stage", spec)  # the layout of older versions
        found = dict(_tensors(folder))
        if (folder / "metrics.json").exists():
            metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
            found |= {
                f"{at}.{name}": score["value"]
                for at, scores in metrics.items()
                for name, score in scores.items()
            }
        if (folder / "curve.json").exists():
            for row in _rows(json.loads((folder / "curve.json").read_text())):
                shown = {name: f"{value:.7g}" for name, value in row.items() if value is not None}
                found |= {f"epoch {row['epoch']} {name}": text for name, text in shown.items()}
        yield f"{stage['identity']['kind']} {stage['label']}", found


def _rows(curve: Any) -> list[dict[str, Any]]:
    """Return the epochs of a curve, which older versions stored by rows instead of columns."""
    if isinstance(curve, list):
        return curve
    return [dict(zip(curve, row, strict=True)) for row in zip(*curve.values(), strict=True)]


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.rglob("*.safetensors")):
        for name, tensor in load_file(path).items():
            content = f"{tensor.dtype}{tensor.shape}".encode() + tensor.tobytes()
            yield f"{path.relative_to(folder)}:{name}", hashlib.sha256(content).hexdigest()


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """Yield where two runs differ."""
    for stage in sorted(first.keys() | second.keys()):
        one, other = first.get(stage), second.get(stage)
        if one is None or other is None:
            yield f"{stage}: only in the {'second' if one is None else 'first'}"
            continue
        for name in sorted(one.keys() | other.keys()):
            a, b = one.get(name), other.get(name)
            close = isinstance(a, float) and isinstance(b, float) and abs(a - b) <= TOLERANCE
            if a != b and not close:
                yield f"{stage}: {name}: {a} and {b}"


if __name__ == "__main__":
    main()
