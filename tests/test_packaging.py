import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parent.parent
PAGES = {"templates", "static"}  # folders of files that are not Python
FOLDERS = {"mixbench": "mixbench", "methods": "mixbench/methods", "tasks": "mixbench/tasks"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, because setuptools leaves its scratch files in the source."""
    copy = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_exactly_the_folders(wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix == ".py"
        or path.name == "py.typed"
        or {"templates", "static"} & {*path.parts}
        if path.is_file()
    }
    suites = (ROOT / "leaderboards").glob("*/suite.toml")
    expected |= {f"mixbench/suites/{path.parent.name}/suite.toml" for path in suites}

    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}

    assert names == expected


@pytest.mark.parametrize("name", ["methods", "tasks"])
def test_the_folders_are_no_packages_of_their_own(name: str, tmp_path: Path) -> None:
    """Outside the checkout, `import methods` must not find ours."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=tmp_path, capture_output=True, check=False
    )

    assert b"ModuleNotFoundError" in done.stderr
