"""``mixbench doctor``: check whether the machine has everything that a run needs."""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

import mixbench
from mixbench.cli.options import as_json, store_option
from mixbench.errors import MixbenchError

LOW_GIB = 1.0


@click.command()
@as_json
@store_option
def doctor(*, as_json: bool, store_path: Path) -> int:
    """Check the installation, the devices, the store and the installed data."""
    checks: dict[str, Callable[[], str]] = {
        "mixbench": lambda: f"{mixbench.__version__} in {Path(mixbench.__file__).parent}",
        "python": lambda: f"{platform.python_version()} ({sys.executable})",
        "CPU": lambda: f"{len(os.sched_getaffinity(0))} cores usable",
        "torch": _torch,
        "methods": _units,
        "data": _data,
        "store": lambda: _store(store_path),
    }
    rows = []
    for name, check in checks.items():
        try:
            rows.append({"check": name, "ok": True, "text": check()})
        except (MixbenchError, ImportError, OSError) as error:
            rows.append({"check": name, "ok": False, "text": str(error)})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            click.echo(f"{'ok  ' if row['ok'] else 'FAIL'} {row['check']:10} {row['text']}")
    return 0 if all(row["ok"] for row in rows) else 1


def _torch() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"{torch.__version__}, no GPU: runs use the CPU"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.__version__}, {', '.join(gpus)}"


def _units() -> str:
    from mixbench.registry.units import find, paths

    counts = {kind: len([find(kind, name) for name in paths(kind)]) for kind in ("method", "task")}
    return ", ".join(f"{number} {kind}s" for kind, number in counts.items())


def _data() -> str:
    """Check the data of tasks whose data is part of an installed package."""
    from mixbench.datasets.locate import locate
    from mixbench.registry.units import find, paths

    cards = [find("task", name) for name in paths("task")]
    found = {card.name: locate(card, None).origin for card in cards if card.declared.data.package}
    wrong = [name for name, origin in found.items() if origin != "official"]
    if wrong:
        raise MixbenchError(
            "the installed data differs from the official files; reinstall the packages that "
            f"contain the data of: {', '.join(wrong)}"
        )
    return f"official files: {', '.join(found)}"


def _store(path: Path) -> str:
    root = path.expanduser().resolve()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    with tempfile.TemporaryFile(dir=place):
        free = shutil.disk_usage(place).free / 2**30
    if free < LOW_GIB:
        raise MixbenchError(
            f"{root}: only {free:.2f} GiB free; free some space, or choose another --store"
        )
    return f"{root}, {free:.0f} GiB free"
