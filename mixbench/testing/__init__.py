"""Checks of the method and task interfaces, for authors of methods and tasks."""

from mixbench.testing.checks import Result, run_checks
from mixbench.testing.methods import METHOD_CHECKS
from mixbench.testing.plugin import method_checks, task_checks
from mixbench.testing.tasks import TASK_CHECKS, TaskSubject
from mixbench.testing.toy import Subject, ToyTask, subject_of

__all__ = [
    "METHOD_CHECKS",
    "TASK_CHECKS",
    "Result",
    "Subject",
    "TaskSubject",
    "ToyTask",
    "method_checks",
    "run_checks",
    "subject_of",
    "task_checks",
]
