"""Distributed training: several processes train one model, each on its share of every batch.

The search of a method is shared in the same way: every process runs it and scores its share.

All processes draw the same random numbers and load the same batch, so that mixing can use every
item as a partner. Each process runs the forward and backward pass on its own rows of the mixed
batch. The result equals that of one process with the whole batch, up to the order of summation.

The process of distributed rank 0 is the stage's process. It starts the others with the environment
variables that torchrun sets. ``torchrun --nproc-per-node N -m mixbench.worker STORE KEY`` therefore
runs a planned training in the same way. Random draws inside the model (dropout) differ between
processes.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mixbench.errors import UsageError


@dataclass(frozen=True)
class Distributed:
    """One process of a distributed run.

    Attributes
    ----------
    rank
        The distributed rank of the process; rank 0 writes the files.
    world_size
        The number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """The rows of a batch that this process computes."""
        return slice(self.rank, None, self.world_size)

    def share_of(self, number: int) -> Tensor:
        """Return the positions of the items that this process computes, out of a number of items.

        Every process gets as many, so the last item may be computed twice: take the first `number`
        rows of what `gather` returns.
        """
        even = -(-number // self.world_size) * self.world_size
        return torch.arange(even).clamp_max(number - 1)[self.rows]

    def gather(self, x: Tensor) -> Tensor:
        """Return the whole batch from the rows of all processes; gradients flow back to each."""
        if self.world_size == 1:
            return x
        whole: Tensor = _Gather.apply(x, self)
        return whole

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.world_size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor in host memory over the processes."""
        if self.world_size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total, group=_control())
        return total

    def broadcast_flag(self, flag: bool) -> bool:  # noqa: FBT001  # the value is sent, not an option
        """Return the flag of the first process, in every process."""
        if self.world_size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.broadcast(said, 0, group=_control())
        return bool(said)

    def wrap_ddp(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return a module whose gradients are averaged over the processes.

        Batch normalization uses the statistics of the whole batch.
        """
        if self.world_size == 1:
            return module
        if device.type == "cuda":
            from timm import layers

            # timm's version keeps the activations that timm fuses with norms.
            module = layers.convert_sync_batchnorm(module)  # type: ignore[attr-defined, no-untyped-call]
        else:
            self._gather_at_norms(module)
        # Batch norms see the whole batch on every process, and a method may keep rows of its own
        # in a buffer, which those of the first process must not replace.
        return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)

    def _gather_at_norms(self, module: nn.Module) -> None:
        """Give batch norms the whole batch: `torch.nn.SyncBatchNorm` does not support CPUs."""

        def gather(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(self.gather(x) for x in inputs) if norm.training else inputs

        def own(norm: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out[self.rows] if norm.training else out

        for norm in module.modules():
            if isinstance(norm, _BatchNorm):
                norm.register_forward_pre_hook(gather)
                norm.register_forward_hook(own)


SINGLE_PROCESS = Distributed()


class _GatherContext(torch.autograd.function.FunctionCtx):
    distributed: Distributed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _GatherContext, x: Tensor, distributed: Distributed) -> Tensor:
        ctx.distributed = distributed
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(distributed.world_size)]
        dist.all_gather(parts, x)
        return torch.stack(parts, 1).flatten(0, 1)  # row r of process p is row r * world_size + p

    @staticmethod
    def backward(ctx: _GatherContext, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        gradient = gradient.contiguous().clone()  # autograd owns the original
        dist.all_reduce(gradient)
        return gradient[ctx.distributed.rows], None


_groups: list[dist.ProcessGroup] = []


def _control() -> dist.ProcessGroup:
    """Return the process group for control messages, which are CPU tensors."""
    if not _groups:
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup)
        _groups.append(group)
    return _groups[0]


@contextmanager
def process_group(
    number: int, arguments: Sequence[str], ok_exit_codes: Container[int]
) -> Iterator[Distributed]:
    """Start the other processes if this is the first, and join the process group until the exit.

    Parameters
    ----------
    number
        The planned number of processes.
    arguments
        Command-line arguments of ``python -m mixbench.worker`` in the other processes.
    ok_exit_codes
        Exit codes of the other processes after which this process continues.

    Raises
    ------
    UsageError
        If torchrun started another number of processes than planned.
    """
    if number == 1 and "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    if "RANK" in os.environ and os.environ.get("WORLD_SIZE") != str(number):
        raise UsageError(
            f"The stage was planned for {number} processes (got WORLD_SIZE="
            f"{os.environ.get('WORLD_SIZE')}): run torchrun with --nproc-per-node {number}."
        )
    if "RANK" not in os.environ:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(number)}
        for rank in range(1, number):
            _start(rank, arguments, ok_exit_codes)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Distributed(dist.get_rank(), dist.get_world_size())
    finally:
        _groups.clear()
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _start(rank: int, arguments: Sequence[str], ok_exit_codes: Container[int]) -> None:
    """Start another process; exit with its code if the code is not in `ok_exit_codes`."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mixbench.worker", *arguments],
        env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
    )

    def watch() -> None:
        code = process.wait()
        if code < 0:
            os.kill(os.getpid(), -code)
        if code not in ok_exit_codes:
            os._exit(code)  # a collective would wait for it forever

    threading.Thread(target=watch, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
