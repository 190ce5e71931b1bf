"""The contract as checks, for whoever writes a method."""

from mixbench.testing.checks import METHOD_CHECKS, Result, run_checks
from mixbench.testing.plugin import method_checks
from mixbench.testing.toy import Subject, ToyTask, subject_of

__all__ = [
    "METHOD_CHECKS",
    "Result",
    "Subject",
    "ToyTask",
    "method_checks",
    "run_checks",
    "subject_of",
]
