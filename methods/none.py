"""No mixing: the baseline is a method like any other.

Paper    -
Source   -
Differs  nothing to differ from
"""

from torch import Tensor

from mixbench.contract import Method, Sources, Step


class NoMixing(Method):
    """Return every image as it is."""

    version = 1

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:  # noqa: ARG002  # the contract
        """Return the batch itself."""
        return x, Sources.alone(x)
