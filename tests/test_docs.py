"""The pages keep their word: what is generated is fresh, links lead somewhere, commands work."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from mixbench.cli import main
from mixbench.cli.options import names
from mixbench.registry.modules import Kind
from mixbench.registry.units import find
from tests.support import Run

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "examples/mixbench-ricap/README.md")
    ),
]
GUIDES = [
    f"docs/{name}.md"
    for name in (
        *("captions", "data", "detection", "engines", "getting-started", "guided-patchmix"),
        *("leaderboards", "localization", "own-work", "robustness", "transfer"),
    )
]
# What a command needs that a test must not have; these are read by the program, but not run.
NEEDS = {
    "data get": "the network",
    "--engine slurm": "a cluster",
    "--engine ray": "a cluster",
    "--gpus": "GPUs",
    "--max-gpu-hours": "GPUs",
    "--model vgg16": "hours",
    "--init resnet50": "a file of weights",
    "--init timm": "the network",
    "convnext_tiny.pth": "a file of weights",
    "data verify": "the data",
    "data convert": "the data",
    "data import": "the data",
    "-t cifar10 --limit": "the data",
    "--config mine.toml": "a file, which the command before writes",
    "./photos": "the data",
    "data pack": "the data",
    "-t imagenet --accumulate": "the data",
    "-t cifar10 --seeds": "the data",
    "-t cifar10 --set cifar10.per_class": "the data",
    "cub_wsol.variant=masks": "the data",
    "--data /data": "the data",
    "run --suite": "a quarter of an hour",
    "ricap": "the package, which a test of its own installs",
    "logs -f": "a run that goes on",
    "run -m none,mixup -t my_task": "the task",
    "new method NAME": "a name",
    "new task NAME": "a name",
    "submit": "runs of a suite",
}


class Command(NamedTuple):
    """A command in a page."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """What the shell hands to the program."""
        return shlex.split(self.text)[1:]

    @property
    def lacks(self) -> str:
        """What the command needs that is not here; empty if it can be run."""
        return next((why for part, why in NEEDS.items() if part in self.text), "")


def commands_in(page: Path) -> Iterator[Command]:
    """Find the lines of code that call the program, without their comments."""
    text = page.read_text()
    for match in re.finditer(r"^ {4}(mixbench .*?)(?<!\\)$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        whole = re.sub(r"\\\n\s*", " ", match[1])
        said = re.sub(r"\s+# .*", "", whole).replace(" ... ", " -m none -t digits ")
        yield Command(page.relative_to(ROOT).as_posix(), line, said.strip())


COMMANDS = [command for page in PAGES for command in commands_in(page)]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.page}:{c.line}")
def test_the_program_knows_the_command(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("Downloads", "copy", "cifar10_jpeg", "photos/cat", "photos/dog"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name / "0.jpg").touch()
    (tmp_path / "mine.toml").touch()
    group: click.Command = main
    context = click.Context(main)
    words = command.words
    while isinstance(group, click.Group):
        found = group.get_command(context, words[0])
        assert found is not None, command.text
        group, words = found, words[1:]
    parsed = group.make_context("mixbench", words, resilient_parsing=False).params

    kinds: tuple[tuple[Kind, str], ...] = ("method", "methods"), ("task", "tasks")
    for kind, key in kinds:
        for name in names(parsed.get(key) or ()):
            if not (name.endswith(".py") or Path(name).is_dir()) and name not in {
                "ricap",
                "my_task",
            }:
                find(kind, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_sentences_have_the_options_that_they_name(page: Path) -> None:
    for said in re.findall(r"`mixbench ([a-z][^`]*)`", page.read_text()):
        command: click.Command = main
        words = said.split()
        while isinstance(command, click.Group) and words:
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, said
            command, words = found, words[1:]
        known = {option for param in command.params for option in param.opts}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, said


def test_pages_are_as_the_program_says() -> None:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/build.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018  # it is one thing
    build: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)

    stale = [p.name for p in build.pages() if build.built(p.read_text()) != p.read_text()]

    assert stale == [], "run `make docs`"
    used = {
        name for p in build.pages() for name in re.findall(r"<!-- begin ([a-z-]+)", p.read_text())
    }
    assert used == set(build.BLOCKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_site_of_the_pages_has_them_all() -> None:
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def blocks_of(page: Path) -> dict[str, str]:
    """Return the files that a page tells to write, by their names."""
    return dict(re.findall(r"```python (\w+\.py)\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.slow
def test_the_tutorial_works_as_it_stands(mixbench_process: Run, tmp_path: Path) -> None:
    """Every command in its order; the written file takes the place of the template at once."""
    page = ROOT / "docs/tutorial.md"
    (name, text), = blocks_of(page).items()  # fmt: skip
    done = []
    for command in commands_in(page):
        if command.lacks:
            continue
        result = mixbench_process(*command.words)
        assert result.returncode == 0, f"{command.text}\n{result.stdout}{result.stderr}"
        if command.text == "mixbench new method disc_mix":
            (tmp_path / name).write_text(text)
        done.append(command.text.split()[1])

    assert " ".join(done) == (
        "new check preview preview run run compare report new check run new list plan"
    )
    assert (tmp_path / "digits.png").is_file()
    shutil.copy(tmp_path / name, tmp_path / "mixbench-disc_mix/mixbench_disc_mix")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/paper.md", *GUIDES])
def test_a_page_works_as_it_stands(mixbench_process: Run, tmp_path: Path, page: str) -> None:
    """Every command in its order, in one store; trainings are cut to an epoch."""
    shutil.copytree(ROOT / "leaderboards", tmp_path / "leaderboards")
    for command in commands_in(ROOT / page):
        if command.lacks:
            continue
        words = command.words
        if words[0] == "run":
            tasks = names([words[words.index(o) + 1] for o in ("-t", "--task") if o in words])
            trained = [find("task", name).declared.evaluates or name for name in tasks]
            if any(find("task", task).declared.needs for task in trained):
                trained.append("imagenet")
            for task in dict.fromkeys(trained):
                words += ["--set", f"{task}.epochs=1"]
        result = mixbench_process(*words)
        assert result.returncode == 0, f"{command.text}\n{result.stdout}{result.stderr}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel
def test_the_notebook_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    path = ROOT / "examples/first_steps.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    said = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "image/png" in said
    assert "3 seeds" in said or "undecided" in said
    assert "step 4: loss" in said
    assert "error" not in re.sub("stderr|standard error|calibration_error", "", said)
