"""The contract as checks, for whoever writes a method."""

from mixbench.testing.checks import METHOD_CHECKS
from mixbench.testing.toy import Subject, ToyTask, subject_of

__all__ = ["METHOD_CHECKS", "Subject", "ToyTask", "subject_of"]
