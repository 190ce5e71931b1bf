"""Reading of initial weights from files or timm, and loading them into models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mixbench.contract import Normalization
from mixbench.errors import DataError, UsageError
from mixbench.registry.model_names import HUB
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION
from mixbench.vision.models.tensors import State, TensorMismatch, adopt

RGB = 3  # channels for which timm publishes weights
MARK = "normalization"  # name of the buffer of `TimmNet`; states of runs always have it
OWN = "model."  # prefix of the model's tensors in the checkpoints that training writes


def start_from(
    model: nn.Module,
    weights: str,
    trained: Mapping[str, nn.Module],
    given: Normalization = IMAGENET_NORMALIZATION,
    renamed: Callable[[State, nn.Module], State] = lambda state, _model: state,
) -> None:
    """Load initial weights into a model, except its classifier's.

    Parameters
    ----------
    model
        Freshly initialised model.
    weights
        Value of a parameter of type `Weights`; for ``published`` weights, the path of their file.
    trained
        Model of the finished pre-training cell, under any name; empty if there is none. If given,
        its weights are loaded unless `weights` is ``random``.
    given
        Normalisation of the images that the model gets. A timm model converts them to that with
        which its weights were trained.
    renamed
        Function that gives the tensors of a file the names of the model.

    Raises
    ------
    DataError
        If the weights cannot be read or do not fit the model.
    UsageError
        If the model does not support initial weights, or timm cannot provide them.
    """
    if weights == "random":
        return
    if trained:
        state = of_a_run(next(iter(trained.values())).state_dict())
        _take(model, state, "of the finished pre-training")
    else:
        state, where = _named(model, weights)
        state = renamed(state, getattr(model, "net", model))  # a TimmNet wraps the timm model
        _take(model, state, where)
    _normalize(model, weights, state, given)


def start_whole(
    model: nn.Module,
    weights: str,
    classes: str,
    given: Normalization = IMAGENET_NORMALIZATION,
) -> None:
    """Load all weights of a model, including the classifier's.

    Parameters
    ----------
    model
        Model to load the weights into.
    weights
        ``timm``, ``timm:TAG`` or the path of a file.
    classes
        Description of the model's classes, for the error message.
    given
        Normalisation of the images that the model gets, as for `start_from`.

    Raises
    ------
    DataError
        If the weights cannot be read, do not fit the model or have other classes.
    UsageError
        If the model does not support initial weights, or timm cannot provide them.
    """
    state, where = _named(model, weights)
    _take(model, state, where)
    try:
        adopt(getattr(model, "net", model), state)  # a TimmNet wraps the timm model
    except TensorMismatch as error:
        raise DataError(
            f"The weights {where} have other classes: {error}. Use the weights of a model of the "
            f"{classes}."
        ) from error
    _normalize(model, weights, state, given)


def _named(model: nn.Module, weights: str) -> tuple[State, str]:
    """Return the tensors that `weights` names, and a description of them for error messages."""
    if weights.startswith(HUB):
        return hub_weights(weights), f"of {weights}"
    if weights.startswith("timm"):
        return timm_weights(model, weights.removeprefix("timm").lstrip(":")), f"of {weights}"
    return read_weights(Path(weights)), weights


def _take(model: nn.Module, state: State, where: str) -> None:
    """Load all weights of a model except the classifier's."""
    taking = getattr(model, "adopt", None)
    if taking is None:
        raise UsageError(
            f"The model {type(model).__name__} does not support initial weights: choose another."
        )
    try:
        taking(state)
    except TensorMismatch as error:
        raise DataError(
            f"The weights {where} do not fit this model: {error}. Use the weights of a model of "
            "the same architecture."
        ) from error


def timm_weights(model: nn.Module, tag: str) -> State:
    """Return the weights that timm publishes for a model, downloading them if necessary.

    Parameters
    ----------
    model
        Model whose attribute ``name`` is its name in timm.
    tag
        timm's tag of the weights; "" for timm's default.

    Raises
    ------
    UsageError
        If timm has no weights for this model and tag, or they cannot be downloaded.
    """
    if not hasattr(model, "name"):
        raise UsageError(f"timm has no weights of {type(model).__name__}: give a file with --init.")
    name = str(model.name)
    called = f"{name}.{tag}" if tag else name
    state: State = _created(called, "timm's weights").state_dict()
    return state


def hub_weights(name: str) -> State:
    """Return the weights of a model of the Hub, downloading them if necessary."""
    net = _created(name, "The weights")
    own = [[float(value) for value in net.pretrained_cfg[key]] for key in ("mean", "std")]
    # As in a checkpoint: the normalisation that the model was trained with is the second one. In
    # float64, because it is compared with that of the task.
    values = torch.tensor([*IMAGENET_NORMALIZATION, *own], dtype=torch.float64)
    return {MARK: values, **net.state_dict()}


def _created(name: str, what: str) -> Any:
    """Return a model of timm with its published weights, downloading them if necessary."""
    import timm

    try:
        return timm.create_model(name, pretrained=True)
    except (RuntimeError, ValueError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        raise UsageError(f"{what} of {name} cannot be loaded: {first}") from error


def _normalize(model: nn.Module, weights: str, state: State, given: Normalization) -> None:
    """Let a timm model see images with the normalisation of its initial weights.

    The weights are timm's, or those of a file or another model. Those of a file are taken for
    timm's unless a run of mixbench has written it. Other models are left as they are.

    Parameters
    ----------
    model
        Model that has loaded the weights; modified in place.
    weights
        Value of a parameter of type `Weights`, or the name of a finished training.
    state
        Tensors of the weights.
    given
        Normalisation of the images that the model gets.
    """
    convert: Callable[[Normalization, Normalization], None] | None = getattr(model, "convert", None)
    if convert is None or len(given.mean) != RGB:
        return
    if MARK in state:  # a checkpoint, whose normalisation is known; empty if it is the usual one
        values = state[MARK].tolist()
        own = Normalization(tuple(values[2]), tuple(values[3])) if values else None
    else:
        from mixbench.vision.models.timm_models import normalization_of

        tag = weights.partition(":")[2] if weights.startswith("timm:") else ""
        own = normalization_of(str(model.name), tag)
    if own is not None and own != given:
        convert(given, own)


def read_weights(path: Path) -> State:
    """Return the tensors of a safetensors or PyTorch file, without executing code from it.

    Raises
    ------
    DataError
        If the file has neither format or is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return of_the_model(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged or foreign file may raise anything
        first = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"The weights {path} cannot be read: {first}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        n.removeprefix("module."): t  # DataParallel adds this prefix
        for n, t in (state.items() if isinstance(state, dict) else ())
        if isinstance(n, str) and isinstance(t, Tensor)
    }
    if not tensors:
        raise DataError(f"The weights {path} must be a dict of named tensors (got none).")
    if strange := [name for name, tensor in tensors.items() if not _plain(tensor)]:
        raise DataError(
            f"The weights {path} must be dense real tensors: {strange[0]} is sparse, complex, "
            "quantized or without data. Save the weights of a plain float model."
        )
    return tensors


def _plain(tensor: Tensor) -> bool:
    usual = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return usual and not (tensor.is_quantized or tensor.is_complex())


def in_order(state: State, module: nn.Module) -> State:
    """Return tensors with a module's names, if they are its tensors in order, under other names.

    They are returned as they are if a name is the module's, if their number differs, or the shape
    of one that is not the classifier's, the last two.
    """
    own = module.state_dict()
    if state.keys() & own.keys():
        return state
    shapes, wanted = ([t.shape for t in one.values()][:-2] for one in (state, own))
    fits = len(state) == len(own) and shapes == wanted
    return dict(zip(own, state.values(), strict=True)) if fits else state


def of_the_model(state: State) -> State:
    """Return the model's own tensors from the checkpoint of a run; other states are unchanged."""
    own = {n.removeprefix(OWN): tensor for n, tensor in state.items() if n.startswith(OWN)}
    return of_a_run(own) if own else state


def of_a_run(state: State) -> State:
    """Return the tensors of a model that a run has trained, with its normalisation as `MARK`."""
    inside = {n.removeprefix("encoder."): tensor for n, tensor in state.items()}
    return {MARK: torch.empty(0), **{n.removeprefix("net."): t for n, t in inside.items()}}
