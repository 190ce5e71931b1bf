"""Methods from outside: a file, a package, a beginning that `mixbench new` writes; and bad ones."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from mixbench.contract.loading import make_task
from mixbench.datasets.locate import locate
from mixbench.figures.preview import Row, drawn, preview
from mixbench.figures.terminal import in_text
from mixbench.registry.units import find, paths
from mixbench.scaffold.files import package_files, unit_file
from mixbench.testing import METHOD_CHECKS, method_checks
from tests.support import Run

GOOD = '''"""Stay: mix nothing.

Paper    none
Source   none published
Differs  nothing known
"""

{imports}
from mixbench.contract import Method, Sources


class Stay(Method):
    """Leave every image alone."""

    version = 1
    {declared}

    def mix(self, x, step):
        {body}
'''


def write(folder: Path, body: str, imports: str = "import torch", declared: str = "") -> str:
    """Write a method; return its path as a user types it."""
    (folder / "stay.py").write_text(GOOD.format(body=body, imports=imports, declared=declared))
    return "./stay.py"


def unfolded(text: str) -> str:
    """Return what ``mixbench check`` prints, with each check in one line."""
    return re.sub(r"\n {8}", " ", text)


def test_every_check_is_a_line_with_what_was_measured(mixbench: Run) -> None:
    done = mixbench("check", "mixup")

    lines = unfolded(done.stdout).splitlines()
    assert done.returncode == 0
    assert len(lines) == len(METHOD_CHECKS) + 1
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert "largest difference" in lines[1]
    assert lines[-1] == "18 of 18 checks ran: 18 ok, 0 exempt, 0 failed"


@pytest.mark.full
@pytest.mark.parametrize(
    ("body", "check", "said"),
    [
        ("x += 1; return x, Sources.unmixed(x)", "input_is_not_modified",
         "clone what you write into"),
        ("return x, Sources(*(v[:, [0, 0]] for v in Sources.unmixed(x)))", "weights_sum_to_one",
         "divide the weights by their sum"),
        ("y = x + torch.rand(()); return y, Sources.unmixed(x)", "draws_only_from_step_rng",
         "generator=step.rng"),
        ("return x[:1], Sources.unmixed(x)", "shape_and_dtype_are_kept", "a batch of one"),
        ("raise KeyError('lost')", "weights_sum_to_one", "KeyError: 'lost'"),
    ],
    ids=["input", "weights", "randomness", "shape", "raises"],
)  # fmt: skip
def test_a_fault_is_shown_with_its_line_and_its_remedy(
    mixbench: Run, tmp_path: Path, body: str, check: str, said: str
) -> None:
    done = mixbench("check", write(tmp_path, body))

    assert done.returncode == 3
    told = unfolded(done.stdout)
    line = next(line for line in told.splitlines() if check in line)
    assert line.startswith("FAILED")
    assert said in told
    assert "stay.py:1" in done.stdout  # lines 17 and 18
    assert "18 of 18 checks ran" in done.stdout


@pytest.mark.full
def test_results_for_programs_tell_all(mixbench: Run, tmp_path: Path) -> None:
    path = write(tmp_path, "return x * 2, Sources.unmixed(x)")

    done = mixbench("check", path, "--json")

    found = {result["check"]: result for result in json.loads(done.stdout)}
    assert done.returncode == 3
    assert found["identical_images_are_unchanged"]["status"] == "FAILED"
    assert found["identical_images_are_unchanged"]["line"] == 18
    assert found["loss_decreases"]["status"] == "ok"


@pytest.mark.full
def test_an_exemption_is_declared_and_seen(mixbench: Run, tmp_path: Path) -> None:
    names = ("identical_images_are_unchanged", "weights_match_pixels")
    declared = f"exempt = {dict.fromkeys(names, 'it doubles')}"
    body = "return x * (1 + torch.rand((), generator=step.rng).item()), Sources.unmixed(x)"
    path = write(tmp_path, body, declared=declared)

    done = mixbench("check", path)

    assert done.returncode == 0
    assert "exempt  identical_images_are_unchanged" in done.stdout
    assert "it doubles (equal images changed by" in done.stdout
    assert "16 ok, 2 exempt, 0 failed" in done.stdout
    marked = [p for p in method_checks(tmp_path / "stay.py") if p.marks]
    assert {p.id for p in marked} == {"identical_images_are_unchanged", "weights_match_pixels"}


@pytest.mark.parametrize(
    ("imports", "said"),
    [
        ("import torch, nowhere_to_be_found", "pip install nowhere_to_be_found"),
        ("1 / 0", "stay.py, line 8: ZeroDivisionError"),
        ("import torch as", "stay.py, line 8: "),
        ("from .mixup import Mixup", "from mixbench.methods.NAME import"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(
    mixbench: Run, tmp_path: Path, imports: str, said: str
) -> None:
    done = mixbench("check", write(tmp_path, "return x", imports=imports))

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_path_of_a_built_in_method_names_it(mixbench: Run) -> None:
    """Its file imports other built-in methods, as only a built-in one can."""
    path = paths("method")["guided_patchmix"]

    assert mixbench("info", str(path)).stdout == mixbench("info", "guided_patchmix").stdout


@pytest.mark.parametrize("check", method_checks("cutmix"))
def test_the_checks_are_parameters_for_pytest(check: Callable[[], str]) -> None:
    assert check()


@pytest.mark.full
def test_a_new_method_is_sound_and_runs(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    made = mixbench("new", "method", "my_mix")
    again = mixbench("new", "method", "my_mix")

    assert made.returncode == 0, made.stderr
    assert (again.returncode, "already exists" in again.stderr) == (2, True)
    checked = mixbench("check", "./my_mix.py")
    assert checked.returncode == 0, checked.stdout
    ran = mixbench("run", "-m", "none,./my_mix.py", "-t", "digits", *fast)
    assert ran.returncode == 0, ran.stderr
    assert "my_mix (file)" in ran.stdout
    assert mixbench("new", "method", "My-Mix").returncode == 2
    assert (tmp_path / "my_mix.py").exists()


@pytest.mark.full
def test_a_new_task_is_sound_and_runs(mixbench: Run, tmp_path: Path) -> None:
    made = mixbench("new", "task", "my_task", "--to", "mine")

    assert made.returncode == 0, made.stderr
    checked = mixbench("check", "mine/my_task.py")
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.splitlines()[-1] == "9 of 9 checks ran: 9 ok, 0 exempt, 0 failed"
    task = ("-t", "mine/my_task.py", "--set", "my_task.epochs=1")
    ran = mixbench("run", "-m", "none", *task, "--protocol", "quick")
    assert ran.returncode == 0, ran.stderr
    assert "synthetic" in ran.stdout
    (record,) = (tmp_path / "store/records/my_task/none").glob("*.json")
    assert json.loads(record.read_text())["task"]["source"] == "file"


@pytest.mark.full
@pytest.mark.parametrize(
    ("part", "by", "check", "said"),
    [
        ('self.names_of(class_folders(folder / "train"), folder / "train")', '["it"] * 5',
         "every_class_is_named_and_present", "two classes have the same name"),
        ("rng = generator(amount.seed,", "rng = generator(int(folder.stat().st_mtime_ns % 999),",
         "generation_is_deterministic", "differs the second time"),
        ('"test" if part == "test" else "train"', '"train"', "splits_are_disjoint",
         "train and test share 55 images"),
        ('{"train": 0, "test": 0}', '{"train": 0}', "generated_data_has_official_layout",
         "was written and is not declared"),
        ("metrics = TOP1", "metrics = (*TOP1, *TOP1)", "declarations_are_consistent",
         "2 metrics are primary"),
    ],
    ids=["names", "clock", "shared", "undeclared", "rank"],
)  # fmt: skip
def test_a_fault_of_a_task_is_shown(
    mixbench: Run, tmp_path: Path, part: str, by: str, check: str, said: str
) -> None:
    text = unit_file("task", "my_task")
    assert part in text
    (tmp_path / "my_task.py").write_text(text.replace(part, by))

    done = mixbench("check", "./my_task.py")

    assert done.returncode == 3, done.stdout + done.stderr
    line = next(line for line in unfolded(done.stdout).splitlines() if check in line)
    assert line.startswith("FAILED")
    assert said in line
    assert "my_task.py:" in done.stdout
    assert "9 of 9 checks ran" in done.stdout


def installed(folder: Path, name: str, *, owner: str = "", module: str = "") -> None:
    """Lay a package into a folder of the import path, with the metadata that pip would write."""
    for place, text in package_files("method", name).items():
        inside = Path(*Path(place).parts[1:])
        if inside.parts[0] == f"mixbench_{name}":
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            (folder / inside).write_text(text)
    metadata = folder / f"{owner or f'mixbench_{name}'}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {owner or f'mixbench-{name}'}\nVersion: 0.1.0\n"
    )
    value = module or f"mixbench_{name}.{name}"
    (metadata / "entry_points.txt").write_text(f"[mixbench.methods]\n{name} = {value}\n")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that programs started from here import from."""
    folder = tmp_path / "packages"
    folder.mkdir()
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), known])))
    return folder


@pytest.mark.slow
def test_an_installed_method_is_found_by_its_name(
    mixbench_process: Run, path: Path, fast: tuple[str, ...], tmp_path: Path
) -> None:
    installed(path, "band_mix")

    listed = re.sub(r"\n +", " ", mixbench_process("list", "methods").stdout)
    checked = mixbench_process("check", "band_mix")
    ran = mixbench_process("run", "-m", "none,band_mix", "-t", "digits", *fast)

    assert "(mixbench-band_mix 0.1.0)" in next(
        line for line in listed.splitlines() if line.startswith("band_mix")
    )
    assert checked.returncode == 0, checked.stdout
    assert ran.returncode == 0, ran.stderr
    assert "band_mix (mixbench-band_mix 0.1.0)" in ran.stdout
    (record,) = (tmp_path / "store/records/digits/band_mix").glob("*.json")
    method = json.loads(record.read_text())["method"]
    assert (method["source"], method["distribution"]) == ("package", "mixbench-band_mix 0.1.0")


@pytest.mark.full
def test_a_broken_package_is_one_line_of_the_list(mixbench_process: Run, path: Path) -> None:
    installed(path, "band_mix", module="mixbench_band_mix.elsewhere")
    installed(path, "row_mix")
    (path / "mixbench_row_mix/row_mix.py").write_text("class")

    done = mixbench_process("list", "methods")

    assert done.returncode == 0
    whole = re.sub(r"\n +", " ", done.stdout)  # long lines are broken
    lines = {line.split()[0]: line for line in whole.splitlines()}
    assert "broken: " in lines["band_mix"]
    assert "must name a module band_mix" in lines["band_mix"]
    assert "row_mix.py, line 1: invalid syntax" in lines["row_mix"]
    assert "Mixup: blend two images" in lines["mixup"]


@pytest.mark.slow
def test_a_name_that_two_define_is_an_error_that_names_both(
    mixbench_process: Run, path: Path
) -> None:
    installed(path, "mixup")
    installed(path, "band_mix")
    installed(path, "band_mix", owner="other")

    clash = mixbench_process("check", "mixup")
    twice = mixbench_process("check", "band_mix")

    assert clash.returncode == 2
    assert "defined by mixbench and by mixbench-mixup 0.1.0" in clash.stderr
    assert "mixbench-band_mix 0.1.0" in twice.stderr
    assert "other 0.1.0" in twice.stderr
    assert mixbench_process("check", "cutmix").returncode == 0


@pytest.mark.full
def test_listing_runs_nothing_of_a_package(
    mixbench_process: Run, path: Path, tmp_path: Path
) -> None:
    installed(path, "band_mix")
    mark = tmp_path / "imported"
    for place in path.glob("*/*.py"):
        place.write_text(place.read_text() + f"\nopen({str(mark)!r}, 'w')\n")

    mixbench_process("list", "methods")

    assert not mark.exists()


def test_a_preview_shows_every_method_on_the_same_images(mixbench: Run, tmp_path: Path) -> None:
    own = "preview", "mixup,guided_patchmix", "none", "-t", "digits", "--out", "a.png"
    done = mixbench(*own, "--set", "mixup.alpha=0.3")

    assert done.returncode == 0, done.stderr
    assert "may change the weights of labels: guided_patchmix\n" in done.stdout
    shown = matplotlib.image.imread(tmp_path / "a.png")
    assert shown.shape[0] > shown.shape[1] * 0.7  # four rows of six images
    assert mixbench("preview", "mixup", "-t", "cifar10_c").returncode == 2
    assert "Did you mean 'mixup'" in mixbench("preview", "mixap", "-t", "digits").stderr
    assert "must name a method of this picture" in mixbench(*own, "--set", "cutmix.alpha=1").stderr
    assert "alpha" in mixbench(*own, "--set", "mixup.alpha=-1").stderr


@pytest.mark.full
def test_a_preview_is_on_photographs_or_on_a_folder_of_pictures(
    mixbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal with colours shows it, too; of two pictures, each line has both."""
    folder = tmp_path / "mine"
    folder.mkdir()
    bare = mixbench("preview", "puzzlemix", "saliencymix", "--out", "a.png")
    empty = mixbench("preview", "cutmix", "--images", "mine")
    for name, level in (("dark", 40), ("light", 200)):
        Image.new("RGB", (200, 150), (level, level, level)).save(folder / f"{name}.png")
    monkeypatch.setenv("FORCE_COLOR", "1")
    mine = mixbench("preview", "mixup", "--images", "mine")
    both = mixbench("preview", "mixup", "--images", "mine", "-t", "digits")

    assert bare.returncode == 0, bare.stderr
    assert bare.stdout == "a.png\n"
    assert (empty.returncode, "mine must hold at least two pictures" in empty.stderr) == (2, True)
    assert (mine.returncode, (tmp_path / "preview.png").is_file()) == (0, True), mine.stderr
    assert "▀" in mine.stdout
    assert "dark: " in mine.stdout
    assert "leave out --task" in both.stderr


def test_a_terminal_shows_two_pixels_in_every_character() -> None:
    image = torch.zeros(3, 64, 64)
    image[0, :32] = 1  # red above black
    console = Console(force_terminal=True, color_system="truecolor", width=40, record=True)

    console.print(in_text([Row("it", image[None], ["all"])], 34))

    lines = [line for line in console.export_text(styles=True).splitlines() if "▀" in line]
    assert len(lines) == 16  # 32 rows of pixels
    assert all(line.count("▀") == 32 for line in lines)
    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]
    assert "38;2;0;0;0;48;2;0;0;0" in lines[-1]


def test_a_preview_is_drawn_from_what_the_method_made() -> None:
    card, task = find("method", "mixup"), make_task(find("task", "digits"), {})
    place = locate(find("task", "digits"), None)
    assert place.folder is not None

    figure = drawn(preview([card], task, place.folder, "resnet8"))

    rows = [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes]
    assert len(rows) == 12
    own, mixed = np.stack(rows[:6]).astype(float), np.stack(rows[6:]).astype(float)
    assert not np.allclose(own, mixed)
    labels = [axes.get_xlabel() for axes in figure.axes[6:]]
    for image, label in zip(mixed, labels, strict=True):  # each is the blend that its label says
        first = float(label.split("\n")[0].split(": ")[1])
        pairs = (first * a + (1 - first) * b for a in own for b in own)
        assert min(np.abs(image - pair).max() for pair in pairs) < 0.02
