"""The GPUs of this machine, as NVIDIA's own library counts them, and their slots."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from mixbench.errors import UsageError


class Slot(NamedTuple):
    """Room for one stage.

    Attributes
    ----------
    gpus
        By their indices; none for a slot of the processor's.
    share
        Of each of them.
    """

    gpus: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be told so that it keeps to its slot."""
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.gpus:
            return visible | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return visible | {"OMP_NUM_THREADS": "1"}

    @property
    def name(self) -> str:
        """What it is called by people."""
        return f"GPU {','.join(self.gpus)}" if self.gpus else "processor"


def installed_gpus() -> list[str]:
    """Return the indices of the GPUs that may be used; none without a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
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
    """Return the slots of this machine, so ordered that stages spread before they share.

    Parameters
    ----------
    size
        GPUs of a slot; on a machine without them, processes.
    threads
        Of each of those processes: more of them than there are cores would wait for each other.
    gpus
        The ones to use; by default, all that may be used.
    per_gpu
        How many stages share one GPU.

    Raises
    ------
    UsageError
        If there are not that many, or a GPU is asked for that is not there.
    """
    there, cores = installed_gpus(), len(os.sched_getaffinity(0))
    if missing := [gpu for gpu in gpus or () if gpu not in there]:
        known = ", ".join(there) or "none"
        raise UsageError(f"--gpus: there is no GPU {', '.join(missing)} here (there are: {known}).")
    chosen = list(gpus) if gpus else there
    number, unit = (len(chosen), "GPUs") if chosen else (cores, "processor cores")
    if size > number:
        raise UsageError(
            f"--gpus-per-cell must be at most the {number} {unit} of this machine (got {size})."
        )
    if per_gpu > 1 and (size > 1 or not chosen):
        why = f"a cell has {size} of them whole" if chosen else "there is none here"
        raise UsageError(f"--jobs-per-gpu shares GPUs, but {why} (got {per_gpu}).")
    if not chosen:
        return [Slot()] * max(cores // (size * threads), 1)
    whole = [tuple(chosen[i : i + size]) for i in range(0, number - size + 1, size)]
    return [Slot(part, 1 / per_gpu) for _ in range(per_gpu) for part in whole]


def readers(slots: Sequence[Slot]) -> int:
    """Return how many processes of a slot can read images ahead beside its training.

    On GPUs that is the slot's share of the processor cores; without, they are busy training.
    """
    if not slots[0].gpus:
        return 0
    return max(len(os.sched_getaffinity(0)) // len(slots) - 1, 1)
