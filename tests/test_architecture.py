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

# Rooms and files of the core, from the ground up: each may import only what stands before it.
# The first floors know no torch.
LIGHT = (
    *("errors", "toml", "declare.facts", "declare.attacks", "declare.alike", "declare", "archives"),
    *("registry.cards", "registry.units"),
    *("registry.parameters", "models.names", "registry.fingerprint", "lease", "store"),
    *("plan.data", "plan.verify", "plan.tuning", "plan.cells", "plan.request", "plan.graph"),
    "plan.why",
    *(
        "records.items",
        "records.parts",
        "records.schema",
        "stage",
        "engines.engine",
        "engines.gpus",
        "engines.settings",
    ),
    *(
        "engines.local",
        "engines.slurm_queue",
        "engines.slurm",
        "engines.ray_join",
        "engines.ray_cluster",
        "engines.board",
        "engines.scheduler",
    ),
    *("engines.preflight", "engines.progress", "engines.estimate"),
    *("records.evidence", "records.rescoring"),
    *("leaderboard.statistics", "leaderboard.comparisons", "leaderboard.questions"),
    *("leaderboard.references", "leaderboard.rows", "leaderboard.board", "leaderboard.tables"),
    "leaderboard.remembered",
    *("leaderboard.reports", "leaderboard.pairs", "leaderboard.overall", "leaderboard.suite_parts"),
    *("leaderboard.suites", "leaderboard.layout", "leaderboard.costs"),
    *("leaderboard.build", "leaderboard.verification", "leaderboard.submission"),
)
HEAVY = (
    *("streams", "models.weights", "contract.task", "contract.evaluation", "contract.step"),
    *("contract.method", "contract", "kernels", "metrics", "ranks"),
    *("models.residual", "models.timm_net", "models.large_map", "models.build"),
    *("images.augment", "images.decode", "images.pickled", "images.folders", "images.lists"),
    *(
        "images.shapes",
        "images.scenes",
        "images.splits",
        "images.loading",
        "images.features",
        "classification",
    ),
    *("localization.components", "localization.box_accuracy", "localization.cam"),
    "localization.scoring",
    *("transfer", "average_precision", "multilabel"),
    *("robustness.changed", "robustness.attacks", "robustness.attacked"),
    *("robustness.corruptions", "robustness.generated", "robustness.corrupted"),
    *("detection.annotations", "detection.boxes", "detection.generated", "detection.voc_ap"),
    *("detection.coco_ap", "detection.detector"),
    *("captions.words", "captions.scores", "captions.captioner"),
    *(
        "stages.evaluation",
        "stages.mixing",
        "stages.recordings",
        "stages.gradients",
        "stages.turns",
        "stages.runs",
        "stages.training",
        "stages.journal",
    ),
    "stages.untrained",
    *("stages.environment", "stages.job", "stages.tuning", "stages.work"),
    "stages.check",
    *("search.space", "search.fitness", "search.found", "search.genetic", "search.direct"),
    *("search.evolve", "search.strategies"),
    *("figures.search", "figures.mixes", "figures.predictions", "figures.localization"),
    *("figures.detections", "figures.captions", "figures.robustness", "figures.cells"),
    *("figures.preview", "figures.terminal", "figures.pictures"),
    *("figures.boundaries", "figures.cycle", "figures.named"),
    "scaffold.files",
    *("site.charts", "site.pages"),
    *("testing.toy", "testing.measuring", "testing.checks", "testing.mixing", "testing.training"),
    *("testing.methods", "testing.tasks"),
    *("testing.plugin", "testing"),
)
CLI = (
    *("options", "listing", "reports", "control", "cache", "waiting", "data_sets", "making"),
    *("data", "doctor", "engine_options", "run", "comparing", "leaderboards", "site", "writing"),
    "drawing",
)
FLOORS = [*LIGHT, *HEAVY, *(f"cli.{name}" for name in CLI), "cli", "__main__"]
# Imported inside functions, by the process that needs them.
LATE = {
    "registry.units": {"contract"},
    "stage": {
        "ranks",
        "stages.environment",
        "stages.runs",
        "stages.turns",
        "stages.job",
        "stages.journal",
        "stages.work",
    },
}
VERSION = ROOT / "mixbench" / "__init__.py"
ROOMS = {path.parent.name for path in (ROOT / "mixbench").glob("*/__init__.py")}


# Packages without names of their own: what is imported from them is a module.
PARENTS = {
    *("mixbench", "mixbench.stages", "mixbench.engines", "mixbench.leaderboard"),
    "mixbench.site",
}


def place(module: str) -> str:
    """Return the floor of a dotted name below mixbench: a file, or a room's face."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] in ROOMS else parts[0]


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
        elif isinstance(node, ast.ImportFrom) and node.module in PARENTS:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return frozenset(name for name in names if name.startswith("mixbench."))


def core() -> list[Path]:
    """Return the files of the core, without docstring-only ones."""
    files = (ROOT / "mixbench").rglob("*.py")
    return sorted(p for p in files if len(ast.parse(p.read_text()).body) > 1 and p != VERSION)


def home(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "mixbench").with_suffix("").parts).removesuffix(
        ".__init__"
    )


def test_every_core_module_has_its_place() -> None:
    assert {home(path) for path in core()} == set(FLOORS)


@pytest.mark.parametrize("path", core(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    own = home(path)
    below = set(FLOORS[: FLOORS.index(own)])

    used = {place(name) for name in imported(path)} - {own, "__version__"}

    assert used - LATE.get(own, set()) <= below


@pytest.mark.parametrize("path", [*(ROOT / "methods").glob("[!_]*.py")], ids=lambda p: p.stem)
def test_methods_use_the_contract_and_the_kernels(path: Path) -> None:
    used = {place(name).partition(".")[0] for name in imported(path)}

    assert used <= {"contract", "declare", "errors", "kernels", "search"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()

    assert text.count("\n") <= MAX_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            assert (node.end_lineno or 0) - start.lineno < MAX_FUNCTION, node.name


@pytest.mark.parametrize("path", core(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_knows_no_unit_by_name(path: Path) -> None:
    """The exceptions are the baseline, for "none" is also the word for many other things, and data
    that several tasks read, which may be called as one of them."""
    if path.name == "alike.py":
        return
    names = {p.stem for d in ("methods", "tasks") for p in (ROOT / d).glob("[!_]*.py")}

    literals = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert not literals & (names - {"none"})


@pytest.mark.parametrize(
    "command",
    ["--help", "list methods", "list tasks", "info random_patchmix", "info digits",
     "plan -m none,mixup -t digits", "plan -m none -t digits --data synthetic",
     "plan -m none -t imagenet --protocol quick --model convnext_tiny", "data ls"],
)  # fmt: skip
def test_listing_and_planning_need_no_torch(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; from mixbench.__main__ import _run; sys.argv[1:] = sys.argv[1].split();"
        "code = _run(); sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, command], cwd=tmp_path, check=False)

    assert done.returncode == 0


def test_reporting_needs_no_torch() -> None:
    code = (
        "import sys, mixbench.leaderboard.reports, mixbench.cli; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
