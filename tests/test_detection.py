"""Detection: boxes that are hard to read, average precisions, torchvision's detector, the task."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.datasets import VOCDetection as TheirVoc
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from mixbench.contract import Task
from mixbench.contract.loading import load_task
from mixbench.errors import DataError, UsageError
from mixbench.registry.units import find
from mixbench.vision.average_precision import average_precision
from mixbench.vision.detection.annotations import (
    Annotated,
    ObjectAnnotation,
    read_annotation,
    write_annotation,
)
from mixbench.vision.detection.boxes import (
    fitted,
    letterbox,
    mirrored,
    stacked,
    targets_of,
    to_torchvision_targets,
)
from mixbench.vision.detection.coco_ap import coco_ap, coco_truth
from mixbench.vision.detection.detector import Detector
from mixbench.vision.detection.voc_ap import detection_curves
from mixbench.vision.models.build import build

SMALL: dict[str, Any] = {
    "classes": 5, "side": 48, "width": 8, "proposals": 20, "regions": 8, "weights": "random",
}  # fmt: skip
CLASSES = 3


def make_task(**values: Any) -> Task:
    make: Any = load_task(find("task", "voc_detection"))
    task: Task = make(**{**SMALL, **values})
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task, path = make_task(), tmp_path / "data"
    path.mkdir()
    task.synthesize(path, replace(task.synthetic, train=8, test=4))
    return path


def image(*boxes: tuple[float, ...], size: tuple[int, int] = (40, 30)) -> Annotated:
    return Annotated(size, [ObjectAnnotation(1, box, difficult=False) for box in boxes])


# Targets.


def test_boxes_are_cut_off_at_the_image_and_left_out_without_a_pixel() -> None:
    boxes = [
        (-5.0, 3, 10, 99), (7, 7, 7, 7), (0, 0, 0, 9), (41, 1, 60, 9), (9, 9, 8, 12), (3, 31, 9, 40)
    ]  # fmt: skip

    (target,) = targets_of([image(*boxes)])

    assert target[:, :4].tolist() == [[1, 1, 40, 30], [1, 3, 10, 30], [7, 7, 7, 7]]
    assert target[:, 4].tolist() == [-1, 1, 1]


def test_images_without_objects_have_a_frame_alone() -> None:
    targets = targets_of([image(), image((1, 1, 4, 5))])

    assert targets[0, :, 4].tolist() == [-1, -1]
    assert to_torchvision_targets(targets[0], 20)["boxes"].shape == (0, 4)
    assert fitted(targets[0], 20).size == (15, 20)


def test_mirrored_boxes_show_the_same_pixels_of_the_mirrored_image() -> None:
    pixels = torch.zeros(3, 30, 40, dtype=torch.uint8)
    pixels[:, 4:11, 2:9] = 200  # rows 5 to 11 and columns 3 to 9, from 1
    targets = targets_of([image((3, 5, 9, 11)), image()])

    (_, box), (_, nothing) = mirrored(targets)

    left, top, right, bottom = (int(value) for value in box[:4])
    seen = pixels.flip(2)[0] == 200
    assert seen[top - 1 : bottom, left - 1 : right].all()
    assert seen.sum() == (right - left + 1) * (bottom - top + 1)
    assert torch.equal(mirrored(mirrored(targets)), targets)
    assert nothing[4] == -1


def test_an_object_lies_in_the_square_where_it_is_taught() -> None:
    pixels = torch.zeros(3, 30, 60, dtype=torch.uint8)
    pixels[:, 10:20, 20:40] = 255
    (target,) = targets_of([image((21, 11, 40, 20), size=(60, 30))])

    square, taught = letterbox(pixels, 120), to_torchvision_targets(target, 120)

    (box,) = taught["boxes"].tolist()
    assert box == [40, 20, 80, 40]
    assert square[0, 22:38, 42:78].min() == 255
    assert square[0, :18].max() == 0
    assert square[:, 60:].float().mean((1, 2)).tolist() == [124, 116, 104]
    assert taught["labels"].tolist() == [2]


def test_difficult_objects_are_not_taught() -> None:
    easy, hard = (ObjectAnnotation(2, (1, 1, 9, 9), difficult=value) for value in (False, True))

    (target,) = targets_of([Annotated((40, 30), [hard, easy, hard])])

    assert len(to_torchvision_targets(target, 40)["boxes"]) == 1


# Annotations.


def test_annotations_come_back_as_written(tmp_path: Path) -> None:
    things = [
        ObjectAnnotation(3, (1, 2.5, 30, 41), difficult=True),
        ObjectAnnotation(0, (5, 5, 5, 5), difficult=False),
    ]

    write_annotation(tmp_path / "a.xml", (60, 50), things)

    assert read_annotation(tmp_path / "a.xml") == Annotated((60, 50), things)


WRONG = {
    "no number": (
        ("<xmin>1</xmin>", "<xmin>one</xmin>"),
        r"must have a number as bndbox/xmin \(got 'one'\)",
    ),
    "nothing": (
        ("<xmax>9</xmax>", "<xmax>nan</xmax>"),
        r"must have a number as bndbox/xmax \(got 'nan'\)",
    ),
    "edges exchanged": (
        ("<xmax>9</xmax>", "<xmax>0</xmax>"),
        r"must have boxes with xmin <= xmax and ymin <= ymax",
    ),
    "not difficult in words": (
        ("<difficult>0</difficult>", "<difficult>no</difficult>"),
        r"must have 0 or 1 as difficult \(got 'no'\)",
    ),
    "no size": (
        ("<height>50</height>", ""),
        r"must have a number as size/height \(got ''\)",
    ),
    "no image": (
        ("<height>50</height>", "<height>0</height>"),
        r"must give a positive image size \(got 60 x 0 pixels\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_annotations_are_named(what: str, tmp_path: Path) -> None:
    (old, new), said = WRONG[what]
    path = tmp_path / "a.xml"
    write_annotation(path, (60, 50), [ObjectAnnotation(3, (1, 2, 9, 9), difficult=False)])
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(DataError, match=said):
        read_annotation(path)


# Average precisions.


def corpus(seed: int, images: int = 12) -> tuple[Tensor, Tensor]:
    """Return boxes that were found and true ones, of few pixels, so that many overlap."""
    rng = np.random.default_rng(seed)

    def rows(number: int, last: Any) -> Tensor:
        first = rng.integers(1, 5, (number, 2))
        corner = first + rng.integers(3, 9, (number, 2))
        names = rng.integers(0, CLASSES, (number, 1))
        return torch.tensor(np.concatenate([first, corner, names, last], 1), dtype=torch.float32)

    found, targets = [], []
    for _ in range(images):
        number = int(rng.integers(0, 9))
        found.append(rows(number, rng.integers(1, 30, (number, 1)) / 32))
        number = int(rng.integers(0, 5))
        frame = torch.tensor([[1, 1, 16, 16, -1, 0]])
        targets.append(torch.cat([frame, rows(number, rng.random((number, 1)) < 0.2)]))
    return stacked(found), stacked(targets)


def devkit(found: Tensor, targets: Tensor, name: int) -> tuple[list[float], list[float]] | None:
    """Return precision and recall after every box, box by box, as the devkit's rules say."""
    ranked = [
        (float(row[5]), number, row[:4].tolist())
        for number, rows in enumerate(found)
        for row in rows
        if row[4] == name
    ]
    ranked.sort(key=lambda one: -one[0])
    true = [[row.tolist() for row in rows if row[4] == name] for rows in targets]
    positives = sum(row[5] == 0 for rows in true for row in rows)
    if not positives:
        return None
    taken: set[tuple[int, int]] = set()
    right = wrong = 0
    precision, recall = [], []
    for _, number, box in ranked:
        best, place = -1.0, -1
        for other, row in enumerate(true[number]):
            wide = min(box[2], row[2]) - max(box[0], row[0]) + 1
            high = min(box[3], row[3]) - max(box[1], row[1]) + 1
            common = max(wide, 0) * max(high, 0)
            areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, row)]
            share = common / (sum(areas) - common)
            if share > best:
                best, place = share, other
        if best > 0.5:
            if true[number][place][5] == 0:
                right += (number, place) not in taken
                wrong += (number, place) in taken
                taken.add((number, place))
        else:
            wrong += 1
        precision.append(right / max(right + wrong, 1e-9))
        recall.append(right / positives)
    return precision, recall


@pytest.mark.parametrize("seed", range(40))
def test_voc_ap_is_that_of_the_devkits_rules(seed: int) -> None:
    found, targets = corpus(seed)

    curves = detection_curves(found, targets, CLASSES)

    for name, curve in enumerate(curves):
        expected = devkit(found, targets, name)
        assert (curve is None) == (expected is None)
        if curve is None or expected is None:
            continue
        precision, recall = (np.array(values) for values in expected)
        tops = [max(precision[recall >= t - 1e-9], default=0) for t in np.linspace(0, 1, 11)]
        assert average_precision(curve, "voc07") == pytest.approx(np.mean(tops), abs=1e-12)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        area = float((np.diff(recall, prepend=0) * highest).sum())
        assert average_precision(curve, "voc10") == pytest.approx(area, abs=1e-12)


def rows_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor([rows], dtype=torch.float32)


def test_half_an_overlap_is_not_enough() -> None:
    targets = rows_of((1, 1, 10, 10, 0, 0))
    half, more = rows_of((1, 1, 10, 5, 0, 0.9)), rows_of((1, 1, 10, 6, 0, 0.9))

    (missed,), (hit,) = (detection_curves(found, targets, 1) for found in (half, more))

    assert missed is not None
    assert hit is not None
    assert (missed.recall.tolist(), hit.recall.tolist()) == ([0], [1])


def test_second_boxes_are_wrong_and_difficult_objects_do_not_count() -> None:
    targets = rows_of((1, 1, 10, 10, 0, 0), (20, 20, 30, 30, 0, 1))
    found = rows_of(
        (20, 20, 30, 30, 0, 0.9), (1, 1, 10, 10, 0, 0.8), (1, 1, 10, 10, 0, 0.7),
        (20, 20, 30, 30, 0, 0.6),
    )  # fmt: skip

    (curve,) = detection_curves(found, targets, 1)

    assert curve is not None
    assert curve.precision.tolist() == [1, 0.5]
    assert curve.recall.tolist() == [1, 1]


def test_nothing_found_is_0() -> None:
    found, targets = torch.full((2, 3, 6), -1.0), rows_of((1, 1, 9, 9, 0, 0)).repeat(2, 1, 1)

    (curve,) = detection_curves(found, targets, 1)

    assert curve is not None
    assert average_precision(curve, "voc07") == average_precision(curve, "voc10") == 0
    assert coco_ap(found, targets, 1) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(10))
def test_coco_ap_is_that_of_pycocotools_run_directly(seed: int) -> None:
    found, targets = corpus(seed)
    results = [
        {
            "image_id": number,
            "category_id": int(row[4]),
            "bbox": [row[0] - 1, row[1] - 1, row[2] - row[0] + 1, row[3] - row[1] + 1],
            "score": row[5],
        }
        for number, rows in enumerate(found.double().tolist())
        for row in rows
        if row[4] >= 0
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_truth(targets, CLASSES)
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(results), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()

    assert coco_ap(found, targets, CLASSES) == pytest.approx(tuple(scorer.stats[:3]), abs=1e-12)
    assert scorer.stats[1] > 0


# The detector.


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """Ours and torchvision's, with the same weights."""
    task = make_task(side=160, classes=20, width=256, proposals=2000, regions=512, weights="timm")
    ours: Any = task.build("resnet50")
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=21, min_size=160, max_size=160,
        image_mean=[0, 0, 0], image_std=[1, 1, 1], _skip_resize=True,
    )  # fmt: skip
    names = {"encoder.net.": "backbone.body.", "pyramid.": "backbone.fpn."}
    state = {}
    for name, tensor in ours.state_dict().items():
        for own, other in names.items():
            name = other + name.removeprefix(own) if name.startswith(own) else name  # noqa: PLW2901
        state[name] = tensor
    missing, extra = theirs.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert set(extra) == {"backbone.body.fc.weight", "backbone.body.fc.bias"}
    return ours, theirs


@pytest.fixture
def scenes(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    targets = targets_of([
        image((10, 20, 100, 120), (50, 60, 110, 160), size=(160, 160)),
        image(size=(160, 160)),
    ])
    return torch.randn(2, 3, 160, 160, generator=rng), targets


def test_the_detector_finds_what_torchvisions_finds(
    pair: tuple[Any, Any], scenes: tuple[Tensor, Tensor]
) -> None:
    ours, theirs = (model.eval() for model in pair)
    images, targets = scenes

    with torch.no_grad():
        found, expected = ours.detect(ours(images).out, targets), theirs(list(images))

    for rows, other in zip(found, expected, strict=True):
        number = len(other["scores"])
        assert number > 0
        assert torch.equal(rows[:number, 4].long() + 1, other["labels"])
        torch.testing.assert_close(rows[:number, 5], other["scores"])
        edges = rows[:number, :4] - torch.tensor([1.0, 1, 0, 0])
        torch.testing.assert_close(edges, other["boxes"], atol=1e-4, rtol=0)
        assert (rows[number:] == -1).all()


def test_the_detector_loses_what_torchvisions_loses(
    pair: tuple[Any, Any], scenes: tuple[Tensor, Tensor]
) -> None:
    ours, theirs = (model.train() for model in pair)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images, targets = scenes
    truth = [to_torchvision_targets(target, 160) for target in targets]

    torch.manual_seed(0)
    losses = ours.loss(ours(images).out, targets)
    torch.manual_seed(0)
    expected = sum(theirs(list(images), truth).values())

    assert len(losses) == 2
    torch.testing.assert_close(losses.mean(), expected)


def test_a_trained_encoder_keeps_its_norms_and_its_beginning(pair: tuple[Any, Any]) -> None:
    learning = {name for name, p in pair[0].encoder.named_parameters() if p.requires_grad}

    assert {name.split(".")[1] for name in learning} == {"layer2", "layer3", "layer4"}
    assert not any("bn" in name for name in learning)
    fresh: Any = make_task().build("resnet8")
    every = {name for name, p in fresh.encoder.named_parameters() if p.requires_grad}
    assert any("norm" in name for name in every)
    assert "stem.0.weight" in every


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_a_model_without_a_pyramid_is_refused(name: str) -> None:
    encoder = build(name, classes=1, size=(224, 224))

    with pytest.raises(UsageError, match=f"{name} has no feature maps of several sizes"):
        Detector(
            encoder, classes=2, side=224, width=8, proposals=8, regions=8, trained=False
        )  # fmt: skip


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet56", "mobilenet_v2", "resnet50"])
def test_weights_of_a_classifier_fit(name: str, folder: Path) -> None:
    task = make_task(weights="synthetic")
    model: Any = task.build(name)
    classifier = build(name, classes=10, size=(48, 48))

    task.start(model, {"synthetic": classifier})

    images = task.load("test", folder, 0).read(torch.arange(2), None)
    own, other = model.encoder.eval(), classifier.eval()
    torch.testing.assert_close(own.maps(images)[-1], other.maps(images)[-1])


# The task.


def test_objects_are_those_that_torchvision_reads(folder: Path) -> None:
    theirs = TheirVoc(str(folder), year="2007", image_set="test")
    test = make_task().load("test", folder, 0)

    for row, (picture, content) in zip(test.targets, theirs, strict=True):
        things = content["annotation"].get("object", [])
        boxes = [[float(t["bndbox"][c]) for c in ("xmin", "ymin", "xmax", "ymax")] for t in things]
        own = row[row[:, 4] >= 0]
        assert own[:, :4].tolist() == boxes
        assert own[:, 5].tolist() == [float(t["difficult"]) for t in things]
        assert row[0].tolist() == [1, 1, *picture.size, -1, 0]


def test_training_images_are_there_twice_and_share_nothing_with_others(folder: Path) -> None:
    train, validation = (make_task().load(p, folder, 0) for p in ("train", "validation"))
    assert len(train) == 2 * (40 - len(validation))
    half = len(train) // 2

    one, other = (train.read(torch.tensor([item]), None)[0] for item in (3, half + 3))

    torch.testing.assert_close(one[:, :36].flip(2), other[:, :36])
    names = [
        {split.path(i).name for i in range(len(split))}  # type: ignore[attr-defined]
        for split in (train, validation)
    ]
    assert not names[0] & names[1]
    years = {train.path(i).parts[-3] for i in range(len(train))}  # type: ignore[attr-defined]
    assert years == {"VOC2007", "VOC2012"}


def test_the_variant_of_one_year_reads_no_other(tmp_path: Path) -> None:
    task = make_task(variant="voc07")
    task.synthesize(tmp_path, replace(task.synthetic, train=8, test=4))

    assert not (tmp_path / "VOCdevkit/VOC2012").exists()
    assert len(task.load("train", tmp_path, 0)) == 72


def test_an_image_of_another_size_than_annotated_is_named(folder: Path) -> None:
    task = make_task()
    path = next((folder / "VOCdevkit/VOC2007/Annotations").glob("2*.xml"))
    path.write_text(path.read_text().replace("<width>96", "<width>100"))
    test = task.load("test", folder, 0)

    with pytest.raises(DataError, match=r"100 x 72 pixels according to its annotation \(got"):
        test.read(torch.arange(len(test)), None)


def test_a_part_without_objects_is_refused(folder: Path) -> None:
    for path in (folder / "VOCdevkit/VOC2007/Annotations").glob("2*.xml"):
        write_annotation(path, (96, 72), [])

    with pytest.raises(DataError, match="must have at least one object in its test split"):
        make_task().load("test", folder, 0)


def test_mixing_where_boxes_are_trained_is_refused_with_the_reason(
    mixbench: Callable[..., Any],
) -> None:
    options = ["-m", "cutmix", "-t", "voc_detection", "--protocol", "quick"]

    refused = mixbench("run", *options, "--set", "voc_detection.mix_in=finetune")
    nowhere = mixbench("run", *options, "--init", "random")
    planned = mixbench("plan", *options)

    assert refused.returncode == 2
    assert "voc_detection.mix_in must be 'pretrain' (got 'finetune')" in refused.stderr
    assert nowhere.returncode == 2
    assert "would have no effect" in nowhere.stderr
    assert "mix_in=finetune" not in nowhere.stderr
    assert planned.returncode == 0, planned.stderr  # pre-training carries the method


@pytest.mark.full
def test_a_run_writes_a_record(folder: Path, mixbench: Callable[..., Any], tmp_path: Path) -> None:
    options = ["-m", "none", "-t", "voc_detection", "--protocol", "quick", "--init", "random"]
    few = {**SMALL, "epochs": 1, "batch_size": 20}
    del few["weights"]
    options += [part for n, v in few.items() for part in ("--set", f"voc_detection.{n}={v}")]

    done = mixbench("run", *options, "--data", str(folder))
    drawn = mixbench("report", "--figures")

    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("records/voc_detection/none/*.json")
    metrics = {m["name"]: m for m in json.loads(path.read_text())["metrics"] if m["at"] == "last"}
    assert set(metrics) == {"map_voc07", "map_voc10", "coco_ap", "coco_ap50", "coco_ap75"}
    assert metrics["map_voc07"]["n"] == 20
    assert "detections.png" in drawn.stdout, drawn.stderr


def test_what_another_data_set_unpacked_is_not_fetched_again(
    mixbench: Callable[..., Any], tmp_path: Path
) -> None:
    there, source = tmp_path / "there", tmp_path / "archives"
    there.mkdir()
    source.mkdir()
    for name in ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"):
        (there / f".unpacked-{name}").touch()
    (source / "VOCtrainval_11-May-2012.tar").write_text("no archive")

    done = mixbench("data", "get", "voc0712", "--from", str(source), "--to", str(there))

    assert done.returncode == 1
    assert "VOCtrainval_11-May-2012.tar: its checksum must be 6cd6e1" in done.stderr
