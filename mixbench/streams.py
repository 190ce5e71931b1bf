"""Random streams that depend on a seed and a purpose only.

Every draw of a run is a function of (seed, purpose, counter). So all methods of a seed see the
same initial weights, batches and augmentations, a new draw in one place never shifts another, and
a run that continues at step n draws what an uninterrupted run draws there.
"""

import hashlib
from typing import Literal

import torch

Purpose = Literal[
    "split",
    "init",
    "head",
    "order",
    "augment",
    "mix",
    "layer",
    "search",
    "synthetic",
    "evaluate",
]


def stream_seed(seed: int, purpose: Purpose, counter: int = 0) -> int:
    """Return the seed of a stream, in [0, 2**63).

    Parameters
    ----------
    seed
        The run's.
    purpose
        What is drawn. Method and task names are no part of it.
    counter
        The step or epoch at which the draw is made; 0 for a draw made once.
    """
    text = f"{seed}/{purpose}/{counter}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: Purpose, counter: int = 0) -> torch.Generator:
    """Return a CPU generator at the start of a stream."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, counter))
