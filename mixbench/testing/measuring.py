"""Helpers of the checks: a numerical tolerance, and detection of global random state use."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

TOLERANCE = 1e-5


@contextmanager
def unchanged_global_randomness() -> Iterator[None]:
    """Fail if the block changes the global random state of torch, numpy or Python."""
    before = _global_randomness()
    yield
    moved = [name for name, state in _global_randomness().items() if state != before[name]]
    assert not moved, f"the global random state of {', '.join(moved)} was used"


def _global_randomness() -> dict[str, str]:
    with np.printoptions(threshold=10_000):
        legacy = repr(np.random.get_state())  # noqa: NPY002  # this state must not change
    return {
        "torch": repr(torch.get_rng_state().numpy().tobytes()),
        "numpy": legacy,
        "Python": repr(random.getstate()),
    }


def within(gap: float) -> str:
    """Return a text with a measured difference and its limit."""
    return f"largest difference {gap:.1e} (limit {TOLERANCE:.0e})"
