"""The GPUs of this machine, as counted by NVIDIA's NVML, and the slots that stages run in."""

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from mixbench.errors import UsageError

GPU = re.compile(r"\d+|(GPU|MIG)-.+")  # in CUDA_VISIBLE_DEVICES


class Slot(NamedTuple):
    """The resources that one stage can use.

    Attributes
    ----------
    gpus
        Indices of the slot's GPUs; empty for a slot on the CPU.
    share
        Fraction of each of these GPUs that the slot gets.
    """

    gpus: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that restrict a process to its slot."""
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.gpus:
            return visible | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return visible | {"OMP_NUM_THREADS": "1"}

    @property
    def name(self) -> str:
        """Name of the slot in messages."""
        return f"GPU {','.join(self.gpus)}" if self.gpus else "CPU"


def installed_gpus() -> list[str]:
    """Return the indices of the visible GPUs; empty if no driver is installed."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = [gpu.strip() for gpu in visible.split(",")]
        # CUDA ignores what follows the first entry that is no GPU, as in -1, none or NoDevFiles.
        return [*takewhile(GPU.fullmatch, listed)]
    import pynvml

    try:
        pynvml.nvmlInit()
        number: int = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
    return [str(index) for index in range(number)]


def slots_of(
    size: int = 1, threads: int = 1, *, gpus: Sequence[str] | None = None, per_gpu: int = 1
) -> list[Slot]:
    """Return the slots of this machine, ordered so that stages fill every GPU before sharing.

    Parameters
    ----------
    size
        Number of GPUs per slot; on a machine without GPUs, number of processes per slot.
    threads
        Number of threads of each process, on a machine without GPUs. Slots are limited so that
        there are no more threads than CPU cores.
    gpus
        Indices of the GPUs to use; all visible ones by default.
    per_gpu
        Number of stages that share one GPU.

    Raises
    ------
    UsageError
        If the machine has too few GPUs or CPU cores, or has no GPU with a given index.
    """
    there, cores = installed_gpus(), len(os.sched_getaffinity(0))
    if missing := [gpu for gpu in gpus or () if gpu not in there]:
        known = ", ".join(there) or "none"
        raise UsageError(f"--gpus: no GPU {', '.join(missing)} on this machine (it has: {known}).")
    chosen = list(gpus) if gpus else there
    number, unit = (len(chosen), "GPUs") if chosen else (cores, "CPU cores")
    if size > number:
        raise UsageError(
            f"--gpus-per-cell must be at most the {number} {unit} of this machine (got {size})."
        )
    if per_gpu > 1 and (size > 1 or not chosen):
        why = f"a cell uses {size} whole GPUs" if chosen else "this machine has no GPU"
        raise UsageError(f"--jobs-per-gpu must be 1 because {why} (got {per_gpu}).")
    if not chosen:
        return [Slot()] * max(cores // (size * threads), 1)
    whole = [tuple(chosen[i : i + size]) for i in range(0, number - size + 1, size)]
    return [Slot(part, 1 / per_gpu) for _ in range(per_gpu) for part in whole]


def readers(slots: Sequence[Slot]) -> int:
    """Return the default number of DataLoader workers per slot.

    With GPUs, it is the slot's share of the CPU cores minus one for the training process, and at
    least 1. Without GPUs, it is 0, because all cores train.
    """
    if not slots[0].gpus:
        return 0
    return max(len(os.sched_getaffinity(0)) // len(slots) - 1, 1)
