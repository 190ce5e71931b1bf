"""Measure what a mixing augmentation gains, on what, and at what cost."""

__version__ = "0.1.0"
