"""Find the packages, so that adding one edits no list; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["mixbench", "mixbench.*"]),
        # The folders at the top level are installed as mixbench.methods and mixbench.tasks.
        *(f"mixbench.{name}" for name in find_packages(include=["methods", "tasks", "tasks.*"])),
        "mixbench.suites",  # of leaderboards/, the declarations only
    ]
)
