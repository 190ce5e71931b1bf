"""The shape of the code, kept by a test: one way to import, sizes, and what stays light."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_MODULE, MAX_FUNCTION = 300, 40  # lines; a function's docstring is not counted
SOURCES = sorted(p for d in ("mixbench", "methods", "tasks") for p in (ROOT / d).rglob("*.py"))

# Each may import only what stands before it; the first floor knows no torch.
LIGHT = (
    *("errors", "declare", "cards", "registry", "parameters", "fingerprint", "data", "plan"),
    *("why", "store", "records", "stage", "engine", "scheduler", "progress", "evidence"),
    *("leaderboard", "tables", "reporting"),
)
HEAVY = (
    *("streams", "contract", "kernels", "models", "metrics", "splits", "evaluation", "mixing"),
    *("training", "journal", "environment", "stages", "testing"),
)
FLOORS = [*LIGHT, *HEAVY, "cli", "__main__"]
# Inside functions, where the process that needs torch loads it.
LATE = {
    ("stage", "stages"),
    ("stage", "journal"),
    ("stage", "environment"),
    ("registry", "contract"),
}


def floor(module: str) -> str:
    """Return the core module or folder that a dotted name lies in."""
    return module.split(".")[1]


def is_typing_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def imported(path: Path) -> frozenset[str]:
    """Return every dotted first-party name that a file imports when it runs."""
    tree = ast.parse(path.read_text())
    kept = ast.Module([node for node in tree.body if not is_typing_only(node)], [])
    names = set()
    for node in ast.walk(kept):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "mixbench":
            names |= {f"mixbench.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return frozenset(name for name in names if name.startswith("mixbench."))


def core() -> list[Path]:
    return [p for p in (ROOT / "mixbench").rglob("*.py") if p != ROOT / "mixbench/__init__.py"]


def home(path: Path) -> str:
    return path.relative_to(ROOT / "mixbench").parts[0].removesuffix(".py")


def test_every_core_module_has_its_place() -> None:
    assert {home(path) for path in core()} == set(FLOORS)


@pytest.mark.parametrize("path", core(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    own = home(path)
    below = set(FLOORS[: FLOORS.index(own)])

    used = {floor(name) for name in imported(path)} - {own, "__version__"}

    late = {other for module, other in LATE if module == own}
    assert used - late <= below


@pytest.mark.parametrize("path", [*(ROOT / "methods").glob("[!_]*.py")], ids=lambda p: p.stem)
def test_methods_use_the_contract_and_the_kernels(path: Path) -> None:
    assert {floor(name) for name in imported(path)} <= {"contract", "declare", "errors", "kernels"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()

    assert text.count("\n") <= MAX_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            assert (node.end_lineno or 0) - start.lineno < MAX_FUNCTION, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_knows_a_unit_by_name(path: Path) -> None:
    """Only a unit's own file says its name. "none" is also the word for many other things."""
    names = {p.stem for d in ("methods", "tasks") for p in (ROOT / d).glob("[!_]*.py")}
    allowed = {path.stem, "none"}

    literals = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert not literals & (names - allowed)


@pytest.mark.parametrize(
    "command",
    ["--help", "list methods", "list tasks", "info random_patchmix", "info digits",
     "plan -m none,mixup -t digits", "plan -m none -t digits --data synthetic"],
)  # fmt: skip
def test_listing_and_planning_need_no_torch(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; from mixbench.__main__ import _run; sys.argv[1:] = sys.argv[1].split();"
        "code = _run(); sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, command], cwd=tmp_path, check=False)

    assert done.returncode == 0


def test_reporting_needs_no_torch() -> None:
    code = "import sys, mixbench.reporting, mixbench.cli; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
