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
NAMED = 3  # tensors that do not fit
OWN = "model."  # begins the names of the model's tensors in the files that training leaves


def start_from(model: nn.Module, weights: str, trained: Mapping[str, nn.Module]) -> None:
    """Start a model from weights, in all that it shares with the model that they are of.

    Parameters
    ----------
    weights
        A value of a parameter of type `Weights`; ``published`` ones by their path.
    trained
        The model of the finished cell, if there is one, under any name.

    Raises
    ------
    DataError
        If the weights cannot be read, or are another model's.
    UsageError
        If the model can only start at random.
    """
    if weights == "random":
        return
    if trained:
        state = next(iter(trained.values())).state_dict()
        state = {name.removeprefix("net."): tensor for name, tensor in state.items()}
        _take(model, state, "of the finished pre-training")
    else:
        _take(model, *_named(model, weights))


def start_whole(model: nn.Module, weights: str, classes: str) -> None:
    """Give a model all its weights, the classifier's too.

    Parameters
    ----------
    weights
        ``timm``, ``timm:TAG`` or a file.
    classes
        What its classes are, for an error.

    Raises
    ------
    DataError
        If the weights cannot be read, are another model's or of other classes.
    UsageError
        If no weights are known for such a model.
    """
    state, where = _named(model, weights)
    _take(model, state, where)
    try:
        adopt(getattr(model, "net", model), state)  # timm's own tensors lie one level down
    except _Unfit as error:
        raise DataError(
            f"The weights {where} tell other classes: {error}. Give those of a model of the "
            f"{classes}."
        ) from error


def _named(model: nn.Module, weights: str) -> tuple[State, str]:
    """Return the tensors that a text names, and how to call them."""
    if weights.startswith("timm"):
        return timm_weights(model, weights.removeprefix("timm").lstrip(":")), f"of {weights}"
    return read_weights(Path(weights)), weights


def _take(model: nn.Module, state: State, where: str) -> None:
    """Give a model all but its classifier's weights."""
    taking = getattr(model, "adopt", None)
    if taking is None:
        raise UsageError(f"There are no weights for {type(model).__name__} to start from.")
    try:
        taking(state)
    except _Unfit as error:
        raise DataError(
            f"The weights {where} are not this model's: {error}. Give those of its own kind."
        ) from error


def timm_weights(model: nn.Module, tag: str) -> State:
    """Return the weights that timm publishes of one of its models, fetched if they are not here.

    Raises
    ------
    UsageError
        If timm has none of this model or tag, or they cannot be fetched.
    """
    import timm

    name = str(getattr(model, "name", type(model).__name__))
    called = f"{name}.{tag}" if tag else name
    try:
        net = timm.create_model(called, pretrained=True)
    except (RuntimeError, ValueError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        raise UsageError(f"timm's weights of {called} cannot be had: {first}") from error
    state: State = net.state_dict()
    return state


def read_weights(path: Path) -> State:
    """Return the tensors of a file of safetensors or of torch's own format; no code of it is run.

    Raises
    ------
    DataError
        If it is neither, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return of_the_model(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"The weights {path} cannot be read: {first}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        n.removeprefix("module."): t  # as data-parallel training names them
        for n, t in state.items()
        if isinstance(n, str) and isinstance(t, Tensor)
    }
    if not tensors:
        raise DataError(f"The weights {path} must be tensors by their names (got none).")
    return tensors


def of_the_model(state: State) -> State:
    """Return the tensors of the model itself, where those of a whole run are kept together."""
    own = {n.removeprefix(OWN): tensor for n, tensor in state.items() if n.startswith(OWN)}
    return {n.removeprefix("net."): tensor for n, tensor in own.items()} or state


class _Unfit(Exception):
    """What does not fit."""


def adopt(module: nn.Module, state: State, but: Collection[str] = ()) -> None:
    """Load the tensors that a module has, but some; what the state has beyond them is left out."""
    own = {name: tensor for name, tensor in module.state_dict().items() if name not in but}
    found = {name: state[name] for name in own if name in state}
    # Files older than torch 0.4.1 do not count the batches that a norm has seen.
    wanted = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [n for n in wanted if n not in found or found[n].shape != own[n].shape]
    if wrong:
        raise _Unfit(
            "; ".join(
                f"{name} must have the shape {tuple(own[name].shape)} "
                f"(got {tuple(found[name].shape) if name in found else 'nothing of that name'})"
                for name in wrong[:NAMED]
            )
            + (f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
        )
    module.load_state_dict(found, strict=False)
