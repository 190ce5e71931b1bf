"""Weights that a model starts from, read from a file and fitted in."""

from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  # torch's word for what is no file of weights

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mixbench.errors import DataError, UsageError

State = Mapping[str, Tensor]


def start_from(model: nn.Module, path: Path) -> None:
    """Start a model from a file of weights, of all that it shares with the model of the file.

    Raises
    ------
    DataError
        If the file cannot be read, or its weights are another model's.
    UsageError
        If the model can only start at random.
    """
    taking = getattr(model, "adopt", None)
    if taking is None:
        raise UsageError(f"There are no weights for {type(model).__name__} to start from.")
    try:
        taking(read_weights(path))
    except _Unfit as error:
        raise DataError(
            f"The weights {path} are not this model's: {error}. Give a file of this model's."
        ) from error


def read_weights(path: Path) -> State:
    """Return the tensors of a file of safetensors or of torch's own format; no code of it is run.

    Raises
    ------
    DataError
        If it is neither, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"The weights {path} cannot be read: {first}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {n: t for n, t in state.items() if isinstance(n, str) and isinstance(t, Tensor)}
    if not tensors:
        raise DataError(f"The weights {path} must be tensors by their names (got none).")
    return tensors


class _Unfit(Exception):
    """What does not fit."""


def adopt(module: nn.Module, state: State, but: Collection[str] = ()) -> None:
    """Load the tensors that a module has, but some; what the state has beyond them is left out."""
    own = {name: tensor for name, tensor in module.state_dict().items() if name not in but}
    found = {name: state[name] for name in own if name in state}
    for name, tensor in own.items():
        if name in found and found[name].shape == tensor.shape:
            continue
        # Files older than torch 0.4.1 do not count the batches that a norm has seen.
        if not name.endswith("num_batches_tracked"):
            got = f"{tuple(found[name].shape)}" if name in found else "nothing of that name"
            raise _Unfit(f"{name} must have the shape {tuple(tensor.shape)} (got {got})")
    module.load_state_dict(found, strict=False)
