"""CUB: its files, wsolevaluation's metadata, how it is trained, and what is reported."""

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixbench.cli.data import published_weights
from mixbench.contract import Split, Task
from mixbench.contract.loading import load_method, load_task
from mixbench.datasets.locate import data_sets_of, home
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.train.evaluation import predict
from mixbench.train.setup import Setup, begin
from mixbench.vision.images.augment import WindowFlip, resize
from mixbench.vision.images.decode import image_size, read_image
from mixbench.vision.localization.box_accuracy import centre_baseline, resized

files = importlib.import_module("mixbench.tasks.cub_wsol.files")
CARD = find("task", "cub_wsol")
CLASSES, TRAIN, TEST = 3, 10, 4


def make_task(**values: Any) -> Task:
    options = {"classes": CLASSES, "side": 40, "holdout": 0.2, "weights": "random", **values}
    make: Any = load_task(CARD)
    task: Task = make(**options)
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = make_task()
    task.synthesize(tmp_path, replace(task.synthetic, train=TRAIN, test=TEST))
    return tmp_path


@pytest.fixture
def root(folder: Path) -> Path:
    return folder / "CUB_200_2011"


def edit(path: Path, number: int, line: str | None) -> None:
    """Replace, or remove, a line of a text file."""
    lines = path.read_text().splitlines()
    lines[number : number + 1] = [] if line is None else [line]
    path.write_text("\n".join(lines) + "\n")


def test_parts_are_the_official_ones(folder: Path, root: Path) -> None:
    official, names, labels = (
        dict(rows(root / f"{name}.txt"))
        for name in ("train_test_split", "images", "image_class_labels")
    )
    task = make_task()
    train, validation, test = (task.load(p, folder, 0) for p in ("train", "validation", "test"))

    wanted = [number for number in names if official[number] == "0"]

    assert paths(test) == [root / "images" / names[number] for number in wanted]
    assert test.targets[:, 0].tolist() == [int(labels[number]) - 1 for number in wanted]
    assert len(train) == CLASSES * TRAIN * 0.8
    assert {*paths(train), *paths(validation)} == {
        root / "images" / name for number, name in names.items() if official[number] == "1"
    }


def paths(split: Any) -> list[Path]:
    return [split.path(item) for item in range(len(split))]


def test_boxes_are_cut_at_the_edge_and_truncated_at_224(folder: Path, root: Path) -> None:
    first = next(i for i, text in enumerate(rows(root / "train_test_split.txt")) if text[1] == "0")
    name = rows(root / "images.txt")[first][1]
    width, height = image_size(root / "images" / name)
    edit(root / "bounding_boxes.txt", first, f"{first + 1} 10.6 7.0 {width}.0 20.5")

    target = make_task().load("test", folder, 0).targets[0]

    scale_x, scale_y = 224 / width, 224 / height
    assert target[1:].tolist() == [
        int(10 * scale_x), int(7 * scale_y), int((width - 1) * scale_x), int(27 * scale_y),
    ]  # fmt: skip


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_generated_boxes_hold_the_birds(folder: Path) -> None:
    """Colours are brighter inside than outside, where nothing is but greys and soft grounds."""
    task = make_task()
    split = task.load("test", folder, 0)
    saturation = torch.stack([read_image(path).float().amax(0).mean() for path in paths(split)])

    boxes = split.targets[:, 1:]

    assert bool((boxes[:, 2:] > boxes[:, :2]).all())
    assert bool((boxes >= 0).all())
    assert bool((boxes < 224).all())
    assert len(saturation.unique()) == len(split)
    assert len({image_size(path) for path in paths(split)}) == 3


def test_training_sees_windows_and_testing_the_whole(folder: Path) -> None:
    task = make_task()
    test = task.load("test", folder, 0)
    path = paths(test)[0]

    whole = test.read(torch.tensor([0]), None)
    window = test.read(torch.tensor([0]), generator(0, "augment"))

    expected = resize(read_image(path), (40, 40)).float() / 255
    of_imagenet = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    mean, deviation = of_imagenet[..., None, None]
    torch.testing.assert_close(whole[0], (expected - mean) / deviation)
    assert window.shape == whole.shape
    assert not torch.equal(window, whole)


def test_windows_are_everywhere_in_the_square_and_half_are_flipped() -> None:
    augment = WindowFlip(9, 5)
    image = torch.arange(81, dtype=torch.uint8).view(1, 9, 9).expand(3, -1, -1)
    draws = augment.draw(400, generator(0, "augment"))

    windows = torch.stack([augment.crop(image, row)[0] for row in draws])

    corners = torch.where(windows[:, 0, 0] < windows[:, 0, -1], windows[:, 0, 0], windows[:, 0, -1])
    assert set(corners.tolist()) == {9 * row + column for row in range(5) for column in range(5)}
    assert 160 < int((windows[:, 0, 0] > windows[:, 0, -1]).sum()) < 240


def test_metadata_has_the_published_form(root: Path) -> None:
    birds = files.read_birds(root)
    found = files.located(birds.only(~birds.train), root / "images")

    texts = files.metadata(found)

    name = found.names[1]
    width, height = image_size(root / "images" / name)
    assert texts["image_ids"].split("\n") == found.names
    assert texts["class_labels"].split("\n")[1] == f"{name},0"
    assert texts["image_sizes"].split("\n")[1] == f"{name},{width},{height}"
    box = ",".join(map(str, found.boxes[1, 0].tolist()))
    assert texts["localization"].split("\n")[1] == f"{name},{box}"
    assert not any(text.endswith("\n") for text in texts.values())


@pytest.fixture
def cubv2(root: Path) -> Path:
    """Return a localization.txt with its company, of images that lie beside it."""
    birds = files.read_birds(root)
    found = files.located(birds.only(~birds.train), root / "images")
    for name, text in files.metadata(found).items():
        (root / "images" / f"{name}.txt").write_text(text)
    return root / "images" / "localization.txt"


def test_metadata_read_again_is_the_same(root: Path, cubv2: Path) -> None:
    birds = files.read_birds(root)
    written = files.located(birds.only(~birds.train), root / "images")

    read = files.read_metadata(cubv2.parent, cubv2.parent)

    assert read.names == written.names
    assert read.classes.tolist() == written.classes.tolist()
    assert (read.sizes == written.sizes).all()
    assert (read.boxes == written.boxes).all()


def test_cubv2_validates_and_leaves_all_to_training(folder: Path, cubv2: Path) -> None:
    task = make_task(cubv2=str(cubv2.parent))

    train, validation = (task.load(part, folder, 0) for part in ("train", "validation"))

    assert len(train) == CLASSES * TRAIN
    assert len(validation) == CLASSES * TEST
    assert torch.equal(validation.targets, task.load("test", folder, 0).targets)


def test_an_image_may_have_several_boxes(folder: Path, cubv2: Path) -> None:
    first = cubv2.read_text().split("\n")[0].split(",")[0]
    cubv2.write_text(f"{cubv2.read_text()}\n{first},1,2,30,40")

    targets = make_task(cubv2=str(cubv2.parent)).load("validation", folder, 0).targets

    assert targets.shape == (CLASSES * TEST, 9)
    assert not torch.equal(targets[0, 1:5], targets[0, 5:])
    assert torch.equal(targets[1, 1:5], targets[1, 5:])


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no box": (
        lambda root: edit(root / "bounding_boxes.txt", 12, None),
        r"bounding_boxes.txt must have a line for image 13, 001",
    ),
    "box not a number": (
        lambda root: edit(root / "bounding_boxes.txt", 13, "14 nan 2.0 8.0 9.0"),
        r"must lie inside the image",
    ),
    "class of another folder": (
        lambda root: edit(root / "image_class_labels.txt", 3, "4 2"),
        r"must have the class of its folder \(got 002",
    ),
    "box outside": (
        lambda root: edit(root / "bounding_boxes.txt", 13, "14 500.0 2.0 8.0 9.0"),
        r"The box of 001.*_14.jpg must lie inside the image, which has .* \(got left, top",
    ),
    "empty box": (
        lambda root: edit(root / "bounding_boxes.txt", 13, "14 5.0 2.0 0.0 9.0"),
        r"The box of 001.*_14.jpg must lie inside the image",
    ),
    "half a box": (
        lambda root: edit(root / "bounding_boxes.txt", 13, "14 5.0 2.0"),
        r"bounding_boxes.txt: image 14 must have 4 numbers \(got '5.0 2.0'\)",
    ),
    "no number": (
        lambda root: edit(root / "image_class_labels.txt", 3, "one"),
        r"image_class_labels.txt, line 4: must hold an id and at least one value \(got 'one'\)",
    ),
    "class out of range": (
        lambda root: edit(root / "image_class_labels.txt", 3, "4 9"),
        r"image_class_labels.txt: image 3 has class 8, which must be in 0..2",
    ),
    "empty": (
        lambda root: (root / "images.txt").write_text(""),
        r"images.txt must have lines",
    ),
    "no image": (
        lambda root: next((root / "images").glob("*/*_0014_*.jpg")).unlink(),
        r"The image .* is missing",
    ),
    "image of text": (
        lambda root: next((root / "images").glob("*/*_0014_*.jpg")).write_text("no"),
        r"is not an image file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_data_is_named(folder: Path, root: Path, what: str) -> None:
    harm, said = WRONG[what]
    harm(root)

    with pytest.raises(DataError, match=said):
        make_task().load("test", folder, 0)


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [("image_sizes", "{},7,9", r"must have the size that .*image_sizes.txt, 7 x 9 pixels"),
     ("localization", "{},1,2,3", r"line 1: must hold an image name and 4 integers"),
     ("localization", "other.jpg,1,2,3,4", r"localization.txt must have a line for the image 001"),
     ("class_labels", "{},x", r"line 1: must hold an image name and 1 integers")],
)  # fmt: skip
def test_wrong_metadata_is_named(
    folder: Path, cubv2: Path, name: str, line: str, said: str
) -> None:
    first = cubv2.read_text().split("\n")[0].split(",")[0]
    edit(cubv2.with_name(f"{name}.txt"), 0, line.format(first))

    with pytest.raises(DataError, match=said):
        make_task(cubv2=str(cubv2.parent)).load("validation", folder, 0)


def test_the_last_stage_and_the_heads_learn_ten_times_as_fast(folder: Path) -> None:
    task = make_task(side=64)
    method = load_method(find("method", "random_patchmix"))(grid=2)
    recipe = replace(task.protocols["paper"], batch_size=6)
    setup = Setup(method, task, "resnet50", recipe, 0, folder, torch.device("cpu"))

    run = begin(setup)

    slow, fast = run.optimizer.param_groups
    assert (slow["speed"], fast["speed"]) == (1.0, 10)
    named = {id(p): name for name, p in run.model.named_parameters()}
    names = {named[id(p)] for p in fast["params"] if id(p) in named}
    assert {name.split(".")[1] for name in names if name.startswith("trunk")} == {"layer4"}
    assert {"classifier.weight", "classifier.bias"} < names
    assert len(fast["params"]) == len(names) + len(list(method.parameters()))
    assert len(slow["params"]) + len(names) == len(named)


def test_maps_are_of_the_true_class_whatever_is_predicted(folder: Path) -> None:
    task = make_task()
    split = task.load("test", folder, 0)
    model = task.build("resnet8")
    other = replace_targets(split, (split.targets[:, 0] + 1) % CLASSES)
    none = load_method(find("method", "none"))()

    ours, theirs = (predict(task, model, none, s) for s in (split, other))

    assert torch.equal(ours["outputs"], theirs["outputs"])
    assert not torch.equal(ours["maps"], theirs["maps"])


def replace_targets(split: Split, classes: torch.Tensor) -> Any:
    class Other:
        targets = torch.cat([classes[:, None], split.targets[:, 1:]], 1)
        read, to, by_class = split.read, split.to, split.by_class
        __len__ = lambda _: len(split.targets)  # noqa: E731

    return Other()


def test_scores_of_perfect_maps_are_perfect(folder: Path) -> None:
    task = make_task()
    targets = task.load("test", folder, 0).targets
    maps = torch.zeros(len(targets), 224, 224)
    for item, (left, top, right, bottom) in zip(maps, targets[:, 1:].tolist(), strict=True):
        item[top:bottom, left:right] = 1.0
    logits = torch.nn.functional.one_hot((targets[:, 0] + (torch.arange(12) < 3)) % CLASSES).float()

    scores = task.score({"outputs": logits, "maps": maps}, targets)

    assert scores["max_box_acc_v2"].value == 100
    assert scores["max_box_acc_70"].value == 100
    assert scores["top1"].value == scores["top1_loc"].value == 75
    assert 0 < scores["centre_baseline"].value < 100


@pytest.mark.full
def test_a_run_reports_boxes_beside_the_centre_and_draws_them(
    folder: Path, mixbench: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["-t", "cub_wsol", "--protocol", "quick", "--data", str(folder)]
    options += ["--set", "cub_wsol.classes=3", "--set", "cub_wsol.epochs=2"]
    options += ["--set", "cub_wsol.batch_size=8", "--set", "cub_wsol.side=32"]

    done = mixbench("run", "-m", "none", *options)
    drawn = mixbench("report", "--figures")

    assert done.returncode == 0, done.stderr
    assert "centre_baseline" in done.stdout
    assert "trivial baseline" in done.stdout
    (path,) = (tmp_path / "store").glob("records/cub_wsol/none/*.json")
    metrics = {m["name"]: m for m in json.loads(path.read_text())["metrics"] if m["at"] == "last"}
    assert metrics["max_box_acc_v2"]["primary"]
    assert metrics["centre_baseline"]["trivial_baseline"]
    v2 = np.mean([metrics[f"max_box_acc_{at}"]["value"] for at in (30, 50, 70)])
    assert metrics["max_box_acc_v2"]["value"] == pytest.approx(v2)
    assert metrics["top1_loc"]["value"] <= metrics["top1"]["value"]
    names = [
        Path(line).relative_to(tmp_path / "store/figures").parts for line in drawn.stdout.split()
    ]
    (question,) = {parts[0] for parts in names}
    assert question.startswith("cub_wsol.resnet8.custom.modified.classes=3")
    assert {(question, "overlays.png"), (question, "box_accuracy.png")} <= {*names}


def test_without_data_it_says_the_ways_to_go_on(mixbench: Callable[..., Any]) -> None:
    done = mixbench("run", "-m", "guided_patchmix", "-t", "cub_wsol")

    assert done.returncode == 1
    assert "`mixbench data get cub`" in done.stderr
    assert "--protocol quick" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["cub", "cub_wsol"])
def test_fetching_cub_fetches_the_weights_that_localisation_starts_from(name: str) -> None:
    names = [archive.name for archive in published_weights(data_sets_of(find("task", name))[0])]

    assert names == [archive.name for archive in CARD.declared.published.values()]


@pytest.mark.full
def test_without_weights_it_says_the_ways_to_go_on(
    folder: Path, mixbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_DATA", str(folder / "nowhere"))
    options = ["-m", "none", "-t", "cub_wsol", "--data", str(folder)]

    missing = mixbench("run", *options, "--model", "vgg16")
    unknown = mixbench("run", *options, "--model", "convnext_atto")
    random = mixbench("plan", *options, "--model", "vgg16", "--set", "cub_wsol.weights=random")

    assert "vgg16-397923af.pth, which are not in" in missing.stderr
    assert "`mixbench data get cub`" in missing.stderr
    assert "only for resnet50, vgg16, inception_v3 (got convnext_atto): give" in unknown.stderr
    assert random.returncode == 0


@pytest.mark.full
def test_weights_are_known_by_their_content_and_rates_by_the_backbone(
    folder: Path, mixbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXBENCH_DATA", str(folder / "home"))
    weights = folder / "home" / "weights" / "vgg16-397923af.pth"
    weights.parent.mkdir(parents=True)
    options = ["-m", "none", "-t", "cub_wsol", "--data", str(folder), "--model", "vgg16", "--json"]
    keys = []
    for content in ("one", "other", "one"):
        weights.write_text(content)
        keys.append(json.loads(mixbench("plan", *options).stdout)[0]["key"])
    named = mixbench("plan", *options, "--set", f"cub_wsol.weights={weights}").stdout
    info = mixbench("info", "cub_wsol").stdout

    assert keys[0] == keys[2] != keys[1]
    assert json.loads(named)[0]["key"] == keys[0]
    assert "with vgg16: lr=1.268269e-05, weight_decay=0.0005" in info


@pytest.mark.full
def test_weights_that_do_not_fit_are_named_before_anything_runs(
    folder: Path, mixbench: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    options = ["--data", str(folder), "--set", f"cub_wsol.weights={path}"]
    options += ["--set", "cub_wsol.classes=3", "--set", "cub_wsol.batch_size=8"]

    done = mixbench("run", "-m", "none", "-t", "cub_wsol", *options, "--set", "cub_wsol.side=64")

    assert done.returncode != 0
    assert "weights.pth do not fit this model: none of its names is the model's" in done.stderr
    assert "it begins with conv.weight, and the model with conv1.weight" in done.stderr
    assert not list((tmp_path / "store").glob("records/**/*.json"))


HERE = home(CARD.declared.data)
METADATA = Path(os.environ.get("WSOL_METADATA", HERE / "metadata"))


@pytest.mark.skipif(not (HERE / "CUB_200_2011").is_dir(), reason=f"CUB is not in {HERE}")
def test_metadata_of_the_real_data_is_the_published() -> None:
    task: Any = load_task(CARD)()

    found = list(task.verify(HERE))

    assert len(found) == 8
    assert all(finding.ok for finding in found)


@pytest.mark.skipif(not (METADATA / "test").is_dir(), reason=f"no metadata in {METADATA}")
def test_centred_squares_get_the_golden_values() -> None:
    """Of wsolevaluation's metadata/CUB, which may be put there or named by WSOL_METADATA."""
    folder = METADATA / "test"
    names = (folder / "image_ids.txt").read_text().split("\n")
    sizes, boxes = (
        dict(line.split(",", 1) for line in (folder / f"{name}.txt").read_text().split("\n"))
        for name in ("image_sizes", "localization")
    )
    numbers = {name: [int(v) for v in boxes[name].split(",")] for name in names}
    pixels = np.array([[int(v) for v in sizes[name].split(",")] for name in names])

    found = centre_baseline(resized(np.array([[numbers[name]] for name in names]), pixels))

    digest = hashlib.sha256((folder / "localization.txt").read_bytes()).hexdigest()
    assert digest.startswith("85d2bd87")
    assert tuple(found.best.values()) == (93.85571280635139, 59.716948567483605, 17.32827062478426)
    assert found.v2 == pytest.approx(56.967, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet50", "vgg16", "inception_v3", "resnet18"])
def test_guided_patchmix_trains_every_backbone(
    folder: Path, mixbench: Callable[..., Any], tmp_path: Path, model: str
) -> None:
    options = ["-t", "cub_wsol", "--protocol", "quick", "--model", model, "--data", str(folder)]
    few = {"classes": 3, "side": 64 if model != "resnet18" else 128, "epochs": 1, "batch_size": 8}
    options += [part for n, v in few.items() for part in ("--set", f"cub_wsol.{n}={v}")]
    small = {"population": 6, "generations": 1, "image_pairs": 2}
    options += [part for n, v in small.items() for part in ("--set", f"guided_patchmix.{n}={v}")]

    done = mixbench("run", "-m", "guided_patchmix", *options)

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "store").glob("records/cub_wsol/guided_patchmix/*.json"))) == 1
