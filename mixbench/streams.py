"""Random streams that depend only on a seed and a purpose.

Every draw of a run is a function of (seed, purpose, counter). All methods of a seed therefore see
the same initial weights, batches and augmentations. A new draw in one place never shifts another
one. A run that resumes at step n draws the same numbers as an uninterrupted run.
"""

import hashlib
from typing import Literal

import torch

Purpose = Literal[
    "per_class",
    "limit",
    "split",
    "init",
    "head",
    "order",
    "augment",
    "mix",
    "mixed",
    "draw",
    "layer",
    "search",
    "synthetic",
    "evaluate",
    "corruption",
]


def stream_seed(seed: int, purpose: Purpose, counter: int = 0) -> int:
    """Return the seed of a stream, in [0, 2**63).

    Parameters
    ----------
    seed
        Seed of the run.
    purpose
        What the numbers are drawn for. It contains no method or task names.
    counter
        Step or epoch of the draw; 0 for a single draw.
    """
    text = f"{seed}/{purpose}/{counter}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: Purpose, counter: int = 0) -> torch.Generator:
    """Return a CPU generator at the start of a stream."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, counter))
