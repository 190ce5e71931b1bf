"""mixbench: a benchmark of mixing augmentations, their gains and their costs."""

__version__ = "0.1.0"
