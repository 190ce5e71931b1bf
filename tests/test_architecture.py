"""What import-linter's contracts in pyproject.toml cannot say about the structure of the code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from mixbench.declare import Recipe

ROOT = Path(__file__).parent.parent


def imported(path: Path) -> Iterator[str]:
    """Yield the first-party modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            yield from (
                (f"{module}.{alias.name}" for alias in node.names)
                if module == "mixbench"
                else (module,)
            )


def test_methods_use_the_contract_the_kernels_and_the_search() -> None:
    allowed = {"contract", "declare", "errors", "kernels", "search"}

    used = {
        (path.name, name.split(".")[1])
        for path in (ROOT / "methods").glob("[!_]*.py")
        for name in imported(path)
        if name.startswith("mixbench.")
    }

    assert {(file, package) for file, package in used if package not in allowed} == set()


def test_the_core_knows_no_unit_by_name() -> None:
    """Exceptions: "none" and "folder" are also common words, two methods have the names of
    recipe fields, `declare.shared` has data sets with the name of a task, and the migration of
    records a renamed method."""
    exempt = {ROOT / "mixbench" / name for name in ("declare/shared.py", "records/migration.py")}
    names = {p.stem for d in ("methods", "tasks") for p in (ROOT / d).glob("[!_]*.py")} - {
        "none",
        "folder",
        *(field.name for field in fields(Recipe)),
    }

    found = {
        (str(path.relative_to(ROOT)), node.value)
        for path in (ROOT / "mixbench").rglob("*.py")
        if path not in exempt
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }

    assert found == set()


@pytest.mark.full
@pytest.mark.parametrize(
    "command",
    ["--help", "list methods", "list tasks", "info random_patchmix", "info digits",
     "plan -m none,mixup -t digits", "plan -m none -t digits --data synthetic",
     "plan -m none -t imagenet --protocol quick --model convnext_tiny", "data ls"],
)  # fmt: skip
def test_listing_and_planning_need_no_torch(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; from mixbench.__main__ import run_command; sys.argv[1:] = sys.argv[1].split();"
        "code = run_command(); sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, command], cwd=tmp_path, check=False)

    assert done.returncode == 0


@pytest.mark.full
def test_reporting_needs_no_torch() -> None:
    modules = "sys, mixbench.leaderboard.store_report, mixbench.cli"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
