"""Say what made a stage's key change."""

from collections.abc import Iterator, Mapping
from typing import Any

from mixbench.plan.graph import Stage


def differences(stored: Mapping[str, Any], stage: Stage, renewed: set[str]) -> Iterator[str]:
    """Yield one sentence for everything that differs between a stored stage and a planned one.

    Parameters
    ----------
    stored
        The spec in the stored stage's manifest.
    renewed
        The roles of inputs that are to be computed as well.
    """
    before, after = stored["code"], stage.code
    for module in sorted(before.keys() | after.keys()):
        if before.get(module) != after.get(module):
            change = "changed" if module in before and module in after else (
                "is no longer used" if module in before else "is used now"
            )  # fmt: skip
            yield f"code: {module} {change}"
    for role in sorted(renewed):
        yield f"input: {role} is to be computed again"
    skip = {"code", "inputs"}
    old, new = _flat(stored["identity"]), _flat(stage.identity)
    for name in sorted(old.keys() | new.keys()):
        if name.partition(".")[0] not in skip and old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)} -> {new.get(name)}"


def _flat(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping's leaves by their dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
