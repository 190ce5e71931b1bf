"""The hardware and software that a stage runs on, for its manifest; and torch's settings."""

import ctypes
import importlib.metadata
import os
import platform
import resource
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

import mixbench
from mixbench.declare import Recipe
from mixbench.errors import one_line
from mixbench.storage.manifest import Hardware, Software

PACKAGES = ("numpy", "pandas", "safetensors", "scikit-learn", "torch", "torchvision", "timm")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def device() -> torch.device:
    """Return the first visible GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configure_torch(recipe: Recipe | None) -> None:
    """Configure torch in this process for deterministic results.

    Parameters
    ----------
    recipe
        Recipe of the stage's training or of its trained model; None for a stage without a model.
    """
    keep_freed_memory()
    torch.set_num_threads(recipe.threads if recipe else 1)
    exact = recipe is not None and recipe.precision == "float32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def hardware(device: torch.device, gpus: int) -> Hardware:
    """Return the machine's CPU, memory and GPU model, with the number of GPUs used."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return Hardware(
        cpu=one_line(_cpu()),
        cpu_cores=os.cpu_count() or 1,
        ram_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=one_line(gpu.name) if gpu else None,
        gpus=gpus,
        gpu_gib=round(gpu.total_memory / 2**30, 1) if gpu else None,
    )


def software() -> Software:
    """Return the software versions, and the commit of the checkout that mixbench runs from."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    status = _git("status", "--porcelain")
    return Software(
        python=one_line(platform.python_version()),
        os=one_line(platform.platform()),
        mixbench=mixbench.__version__,
        commit=_git("rev-parse", "HEAD"),
        dirty=None if status is None else bool(status),
        packages=versions,
    )


def peak_memory_gib(device: torch.device) -> tuple[float, float | None]:
    """Return the process's peak resident memory and peak GPU memory, in GiB."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    gpu = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return host, gpu


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for reuse by this process; do nothing without glibc.

    Otherwise, every step returns the memory of its batch to the kernel, and the kernel clears each
    page of the next batch again. That takes several times as long as mixing the batch.
    """
    with suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.mallopt(M_MMAP_MAX, 0)
        c.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def gpu_energy_mj(uuids: Sequence[str]) -> int | None:
    """Return the energy that GPUs have used since their driver was loaded, in millijoules.

    The counters include the work of other processes on the same GPUs. Return None if a GPU has no
    counter, or if `uuids` is empty.
    """
    import pynvml

    if not uuids:
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for uuid in uuids]
        total = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return int(total)


def gpu_uuids(device: torch.device) -> list[str]:
    """Return the UUIDs of the GPUs that are visible to this process."""
    if device.type != "cuda":
        return []
    number = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(number)]


def energy_kwh(before_mj: int | None, after_mj: int | None) -> float | None:
    """Return the energy in kWh between two counter values in mJ; None if one is missing."""
    return None if before_mj is None or after_mj is None else (after_mj - before_mj) / 3.6e9


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _git(*arguments: str) -> str | None:
    """Return the output of a git command in mixbench's checkout; None outside a checkout."""
    root = Path(mixbench.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
