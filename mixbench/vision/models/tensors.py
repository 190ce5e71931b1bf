"""Named tensors of a module, and loading them into it."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

State = Mapping[str, Tensor]
NAMED = 3  # maximum number of mismatched tensors that an error lists


class TensorMismatch(Exception):
    """An error whose message lists tensors that do not fit a module."""


def adopt_but(module: nn.Module, layer: nn.Module, state: State) -> None:
    """Load a module's tensors from a state as `adopt` does, except those of one of its layers."""
    own = {id(tensor) for tensor in layer.parameters()}
    adopt(module, state, [name for name, one in module.named_parameters() if id(one) in own])


def adopt(module: nn.Module, state: State, but: Collection[str] = ()) -> None:
    """Load a module's tensors from a state; ignore tensors that the module does not have.

    Parameters
    ----------
    module
        Module to load the tensors into.
    state
        Tensors by name.
    but
        Names of the module's tensors that are not loaded.

    Raises
    ------
    TensorMismatch
        If tensors are missing or have other shapes.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if name not in but}
    found = {name: state[name] for name in own if name in state}
    # Files written before torch 0.4.1 lack num_batches_tracked.
    wanted = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [n for n in wanted if n not in found or found[n].shape != own[n].shape]
    if not found:
        theirs, ours = (", ".join([*one][:NAMED]) for one in (state, own))
        raise TensorMismatch(
            f"none of its names is the model's; it begins with {theirs}, and the model with {ours}"
        )
    if wrong:
        raise TensorMismatch(
            "; ".join(
                f"{name} must have the shape {tuple(own[name].shape)} "
                f"(got {tuple(found[name].shape) if name in found else 'no tensor of that name'})"
                for name in wrong[:NAMED]
            )
            + (f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
        )
    module.load_state_dict(found, strict=False)
