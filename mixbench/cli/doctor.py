"""``mixbench doctor``: check whether the machine has everything that a run needs."""

import codecs
import getpass
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
from mixbench.cli.widths import wrapped
from mixbench.errors import MixbenchError, one_line

LOW_GIB = 1.0
SMALL_SHARED_MEMORY = 1 << 30  # less than what the DataLoader workers of an ImageNet run fill
LONGEST_SOCKET = 107 - len("/pymp-12345678/listener-12345678")  # bytes of a socket's path


class Note(Exception):
    """Something that mixbench works without, but worse."""


@click.command()
@as_json
@store_option
def doctor(*, as_json: bool, store_path: Path) -> int:
    """Check the installation, the environment, the devices, the store and the installed data."""
    checks: dict[str, Callable[[], str]] = {
        "mixbench": lambda: f"{mixbench.__version__} in {Path(mixbench.__file__).parent}",
        "python": lambda: f"{platform.python_version()} ({sys.executable})",
        "CPU": lambda: f"{len(os.sched_getaffinity(0))} cores usable",
        "torch": _torch,
        "GPUs": _gpus,
        "memory": _shared_memory,
        "user": _user,
        "streams": _streams,
        "folder": _working_folder,
        "sockets": _sockets,
        "methods": _units,
        "data": _data,
        "store": lambda: _store(store_path),
        "links": lambda: _links(store_path),
    }
    rows = []
    for name, check in checks.items():
        status = "ok"
        try:
            text = check()
        except Note as note:
            status, text = "note", str(note)
        except (MixbenchError, ImportError, OSError) as error:
            status, text = "FAIL", one_line(str(error))
        rows.append({"check": name, "ok": status != "FAIL", "status": status, "text": text})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            click.echo(wrapped(str(row["text"]), 16, f"{row['status']:4} {row['check']:10} "))
    return 0 if all(row["ok"] for row in rows) else 1


def _gpus() -> str:
    from mixbench.engines.gpus import installed_gpus

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    told = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
    return f"{', '.join(installed_gpus()) or 'none'}{told}"


def _shared_memory() -> str:
    free = shutil.disk_usage("/dev/shm").free
    if free < SMALL_SHARED_MEMORY:
        raise Note(
            f"/dev/shm has {free / 2**20:.0f} MiB free: fewer DataLoader workers may be used; "
            "enlarge it in a container (docker run --shm-size=8g)"
        )
    return f"/dev/shm has {free / 2**30:.0f} GiB free"


def _user() -> str:
    from mixbench.datasets.locate import weights_home

    place = weights_home().parent
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}, who has no name"
    mask = os.umask(0o077)
    os.umask(mask)
    return f"{name}, umask {mask:03o}; data in {place}"


def _streams() -> str:
    closed = [n for n in ("stdin", "stdout", "stderr") if getattr(sys, n) is None]
    if closed:
        raise Note(f"{', '.join(closed)} closed: nothing can be read from there or shown there")
    encoding = sys.stdout.encoding
    if codecs.lookup(encoding).name != "utf-8":
        raise Note(
            f"the terminal's encoding is {encoding}: characters that it lacks are shown as ?"
        )
    return encoding


def _working_folder() -> str:
    names = [p.stem for p in Path().glob("*.py") if p.stem in sys.stdlib_module_names]
    if names:
        raise Note(
            f"{', '.join(names)} in {Path.cwd()} has the name of a module of Python: mixbench does "
            "not import it, other programs may"
        )
    return str(Path.cwd())


def _sockets() -> str:
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > LONGEST_SOCKET:
        raise Note(
            f"the path {place} is too long for sockets: stages start more slowly; set TMPDIR to a "
            "shorter one"
        )
    return place


def _links(path: Path) -> str:
    _root, place = _nearest(path)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        one = Path(folder) / "one"
        one.touch()
        try:
            os.link(one, Path(folder) / "other")
        except OSError:
            raise Note(f"{place} has no hard links: weights are copied instead") from None
    return "hard links in the store"


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
    root, place = _nearest(path)
    with tempfile.TemporaryFile(dir=place):
        free = shutil.disk_usage(place).free / 2**30
    if free < LOW_GIB:
        raise MixbenchError(
            f"{root}: only {free:.2f} GiB free; free some space, or choose another --store"
        )
    return f"{root}, {free:.0f} GiB free"


def _nearest(path: Path) -> tuple[Path, Path]:
    """Return the folder of a store, and the nearest folder above it that exists."""
    from mixbench.storage.store import Store

    root = Store(path).root
    return root, next(folder for folder in (root, *root.parents) if folder.exists())
