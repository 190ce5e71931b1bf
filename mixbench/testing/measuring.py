"""What checks measure with: a tolerance, and whether global randomness moved."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

TOLERANCE = 1e-5


@contextmanager
def unchanged_global_randomness() -> Iterator[None]:
    """Fail if the global generators of torch, numpy or Python moved."""
    before = _global_randomness()
    yield
    moved = [name for name, state in _global_randomness().items() if state != before[name]]
    assert not moved, f"the global generator of {', '.join(moved)} was used"


def _global_randomness() -> dict[str, str]:
    with np.printoptions(threshold=10_000):
        legacy = repr(np.random.get_state())  # noqa: NPY002  # it is what must not move
    return {
        "torch": repr(torch.get_rng_state().numpy().tobytes()),
        "numpy": legacy,
        "Python": repr(random.getstate()),
    }


def within(gap: float) -> str:
    """Return a gap beside what it may be."""
    return f"largest gap {gap:.1e} (limit {TOLERANCE:.0e})"
