"""Explanations of why a stage's key changed."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from mixbench.storage.spec import Identity, Stage

EXPLAINED_APART = frozenset({"code", "inputs"})


def differences(stored: Stage, stage: Stage, renewed: set[str]) -> Iterator[str]:
    """Yield one text for each difference between a stored stage and a planned one.

    Parameters
    ----------
    stored
        Stage that is in the store.
    stage
        Stage that is planned.
    renewed
        Roles of the inputs that will be computed again.
    """
    before, after = stored.code, stage.code
    for module in sorted(before.keys() | after.keys()):
        if before.get(module) != after.get(module):
            yield f"code: {module} {_change(module in before, module in after)}"
    for role in sorted(renewed):
        yield f"input: {role} will be computed again"
    old, new = _leaves(stored.identity), _leaves(stage.identity)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)} -> {new.get(name)}"


def _change(before: bool, after: bool) -> str:  # noqa: FBT001  # not mode switches
    if before and after:
        return "changed"
    return "is no longer used" if before else "is used now"


def _leaves(identity: Identity) -> dict[str, object]:
    """Return an identity's values by dotted name, without those that are explained separately."""
    content = {n: v for n, v in asdict(identity).items() if n not in EXPLAINED_APART}
    return dict(_flat(content, ""))


def _flat(content: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
