"""On what a stage ran: the machine and the software, for its manifest."""

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
from mixbench.storage.manifest import Hardware, Software

PACKAGES = ("numpy", "pandas", "safetensors", "scikit-learn", "torch", "torchvision", "timm")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def device() -> torch.device:
    """Return where to compute: the first visible GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configure_torch(recipe: Recipe | None) -> None:
    """Set torch for this process so that it gives the same result every time.

    Parameters
    ----------
    recipe
        The recipe that the stage trains or trained by; None for a stage without a model.
    """
    keep_freed_memory()
    torch.set_num_threads(recipe.threads if recipe else 1)
    exact = recipe is not None and recipe.precision == "float32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def hardware(device: torch.device, gpus: int) -> Hardware:
    """Return the machine's CPU, memory and GPU, and how many of those took part."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return Hardware(
        cpu=_cpu(),
        cpu_cores=os.cpu_count() or 1,
        ram_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=gpu.name if gpu else None,
        gpus=gpus,
        gpu_gib=round(gpu.total_memory / 2**30, 1) if gpu else None,
    )


def software() -> Software:
    """Return versions, and the commit of the checkout that mixbench runs from."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    status = _git("status", "--porcelain")
    return Software(
        python=platform.python_version(),
        os=platform.platform(),
        mixbench=mixbench.__version__,
        commit=_git("rev-parse", "HEAD"),
        dirty=None if status is None else bool(status),
        packages=versions,
    )


def peak_memory_gib(device: torch.device) -> tuple[float, float | None]:
    """Return the process's largest resident memory and its largest share of the GPU's."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    gpu = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return host, gpu


def keep_freed_memory() -> None:
    """Let glibc keep memory that is freed, for this process; elsewhere nothing happens.

    A batch is otherwise given back and asked for again in every step, and each of its pages is
    cleared anew: that costs several times what mixing it does.
    """
    with suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.mallopt(M_MMAP_MAX, 0)
        c.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def gpu_energy_mj(uuids: Sequence[str]) -> int | None:
    """Return what the counters of GPUs have counted since the driver was loaded, in millijoules.

    The counter is of the device: others' work on it counts, too. None where one has no counter, or
    there is no GPU.
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
    """Return the identities of the GPUs that this process and its ranks on this machine see."""
    if device.type != "cuda":
        return []
    number = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(number)]


def energy_kwh(before_mj: int | None, after_mj: int | None) -> float | None:
    """Return the energy between two readings; None where one is missing."""
    return None if before_mj is None or after_mj is None else (after_mj - before_mj) / 3.6e9


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _git(*arguments: str) -> str | None:
    """Return what git says of the checkout that holds mixbench; None outside one."""
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
