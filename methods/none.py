"""No mixing: the baseline, which returns the batch unchanged.

Paper    -
Source   -
Differs  -
"""

from torch import Tensor

from mixbench.contract import Method, Sources, Step


class NoMixing(Method):
    """Return every image unchanged."""

    version = 1
    per_element = True

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:  # noqa: ARG002  # the contract
        """Return the batch unchanged."""
        return x, Sources.unmixed(x)
